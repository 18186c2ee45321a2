package oracle_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"sluice.dev/sluice/internal/store/pgtest"
)

// postgresDB is one or two shards: databases of one server.
type postgresDB struct {
	cluster *pgtest.Cluster
	shards  []string
	before  map[*group][]string // of the tables that were there before
}

func newPostgres(t *testing.T) *postgresDB {
	t.Helper()
	d := &postgresDB{cluster: pgtest.Shared(t)}
	d.shards = []string{d.cluster.NewDatabase(t), d.cluster.NewDatabase(t)}
	return d
}

func (d *postgresDB) config() string {
	return fmt.Sprintf("{shards: {a: %q, b: %q}, ddl: auto}", d.shards[0], d.shards[1])
}

func (d *postgresDB) prepare(t *testing.T, statements []string) {
	t.Helper()
	for _, dsn := range d.shards {
		d.cluster.Exec(t, dsn, statements...)
	}
	d.before = map[*group][]string{}
	for _, g := range specs {
		if g.mapped && d.cluster.Query(t, d.shards[0], "SELECT to_regclass('"+g.physical+"') IS NOT NULL") == "t" {
			d.before[g] = lines(t, g, d.cluster.Query(t, d.shards[0], "SELECT to_jsonb(t)::text FROM "+g.physical+" t"))
		}
	}
}

// rows gives all rows of a group, sorted.
func (d *postgresDB) rows(t *testing.T, g *group) []string {
	t.Helper()
	lists := make([][]string, len(d.shards))
	for i, dsn := range d.shards {
		lists[i] = lines(t, g, d.cluster.Query(t, dsn, "SELECT to_jsonb(t)::text FROM "+g.physical+" t"))
	}
	if len(lists) == 1 {
		return lists[0]
	}
	return d.union(g, lists[0], lists[1])
}

// lines makes one comparable text of each row.
func lines(t *testing.T, g *group, text string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(text) {
		dec := json.NewDecoder(strings.NewReader(line))
		dec.UseNumber()
		var row map[string]any
		if err := dec.Decode(&row); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, g.line(func(c *column) any { return row[c.sql()] }))
	}
	slices.Sort(out)
	return out
}

// line is a row as text, the key first.
func (g *group) line(value func(*column) any) string {
	var parts []string
	for _, list := range [][]column{g.keys, g.columns} {
		for i := range list {
			if c := &list[i]; c.merge != "unique" {
				parts = append(parts, c.sql()+"="+strconv.Quote(canonical(c.typ, value(c))))
			}
		}
	}
	return strings.Join(parts, " ")
}

// union of two shards. A key is written on one of them only, and what was there
// before stands on both: the row that differs from it is the key's row.
func (d *postgresDB) union(g *group, a, b []string) []string {
	if !g.mapped {
		out := slices.Concat(a, b)
		slices.Sort(out)
		return out
	}
	byKey := map[string]string{}
	for _, row := range slices.Concat(a, b) {
		key, _, _ := strings.Cut(row, " ")
		if was, there := byKey[key]; !there || slices.Contains(d.before[g], was) {
			byKey[key] = row
		}
	}
	return slices.Sorted(maps.Values(byKey))
}

func (d *postgresDB) estimates(t *testing.T, g *group, name string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for _, dsn := range d.shards {
		for line := range strings.Lines(d.cluster.Query(t, dsn, fmt.Sprintf("SELECT id, %s FROM %s", name, g.physical))) {
			key, n, _ := strings.Cut(strings.TrimSpace(line), "|")
			out[g.table+" "+key], _ = strconv.ParseInt(n, 10, 64)
		}
	}
	return out
}

// sqliteDB is one file.
type sqliteDB struct{ file string }

func newSQLite(t *testing.T) *sqliteDB {
	t.Helper()
	return &sqliteDB{filepath.Join(t.TempDir(), "app.db")}
}

func (d *sqliteDB) config() string { return strconv.Quote("sqlite:" + d.file) }

func (d *sqliteDB) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+d.file+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func (d *sqliteDB) prepare(t *testing.T, statements []string) {
	t.Helper()
	db := d.open(t)
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func (d *sqliteDB) rows(t *testing.T, g *group) []string {
	t.Helper()
	db := d.open(t)
	defer db.Close()
	var names []string
	at := map[string]int{}
	for _, list := range [][]column{g.keys, g.columns} {
		for i := range list {
			if c := &list[i]; c.merge != "unique" {
				at[c.sql()] = len(names)
				names = append(names, c.sql())
			}
		}
	}
	found, err := db.Query("SELECT " + strings.Join(names, ", ") + " FROM " + g.physical)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	var out []string
	for found.Next() {
		values := make([]any, len(names))
		into := make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			t.Fatal(err)
		}
		out = append(out, g.line(func(c *column) any { return values[at[c.sql()]] }))
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func (d *sqliteDB) estimates(t *testing.T, g *group, name string) map[string]int64 {
	t.Helper()
	db := d.open(t)
	defer db.Close()
	found, err := db.Query(fmt.Sprintf("SELECT id, %s FROM %s", name, g.physical))
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	out := map[string]int64{}
	for found.Next() {
		var id, n int64
		if err := found.Scan(&id, &n); err != nil {
			t.Fatal(err)
		}
		out[fmt.Sprintf("%s %d", g.table, id)] = n
	}
	return out
}
