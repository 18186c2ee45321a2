package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	sqlitedriver "modernc.org/sqlite"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/sqlite"
)

// The rivals use the same driver without database/sql, which only slows them,
// with the same settings and the same tables in a file of their own.
const (
	rawSQLiteCounter = "INSERT INTO counters (id, sluice_slot, likes) VALUES %s ON CONFLICT (id) DO UPDATE SET likes = likes + excluded.likes"
	rawSQLiteClick   = "INSERT INTO log_clicks (sluice_commit, sluice_ordinal, sluice_slot, id, what, at, n) VALUES %s"
)

func sqliteApplyScenario(ctx context.Context, s *suite) error {
	dir, err := s.newDir()
	if err != nil {
		return err
	}
	sch, err := parseSchema(fmt.Sprintf(applyConfig, "sqlite:"+filepath.Join(dir, "sluice.db")))
	if err != nil {
		return err
	}
	st := sch.Stores["main"]
	shard, err := sqlite.Open(store.Options{Store: st, Shard: st.Shards[0], Warn: func(w string) { s.Progress("  %s", w) }})
	if err != nil {
		return err
	}
	defer shard.Close()
	if err := shard.Ensure(ctx, store.Identity{Store: "main", Shard: "a"}, sch.Groups()); err != nil {
		return err
	}
	raw, err := openRawSQLite(filepath.Join(dir, "raw.db"), filepath.Join(dir, "sluice.db"))
	if err != nil {
		return err
	}
	defer raw.c.Close()
	for _, g := range sch.Groups() {
		b, err := takeShard(ctx, sch, shard, g)
		if err != nil {
			return err
		}
		if err := fillCounters(ctx, b, raw); err != nil {
			return err
		}
		for _, rows := range applySizes() {
			raw.use(g, rows)
			kind := "counters"
			if g.Events {
				kind = "events"
			}
			m := match{what: kind, rows: rows, methods: []method{
				{"sluice", func() error { return b.prepare(randomKeys(rows, applyKeys)) }, b.apply},
				{"one row a statement", func() error { return raw.prepare(1) }, raw.apply},
				{"10 rows a statement", func() error { return raw.prepare(10) }, raw.apply}}}
			if err := m.play(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// fillCounters makes every row be there on both sides.
func fillCounters(ctx context.Context, b *shardBatches, raw *rawSQLite) error {
	if b.group.Events {
		return nil
	}
	const step = 10_000
	for from := int64(0); from < applyKeys; from += step {
		keys := make([]int64, step)
		for i := range keys {
			keys[i] = from + int64(i)
		}
		if err := errors.Join(b.prepare(keys), b.apply(ctx)); err != nil {
			return err
		}
	}
	return raw.run(fmt.Sprintf("WITH RECURSIVE g(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM g WHERE i+1 < %d) INSERT INTO counters (id, sluice_slot, likes) SELECT i, 0, 1 FROM g", applyKeys))
}

// rawSQLite applies batches of rows with nothing but the rows in them.
type rawSQLite struct {
	c      driver.Conn
	query  string
	width  int
	rows   int
	events bool
	commit int64

	statements map[string]driver.StmtExecContext
	begin, end driver.StmtExecContext
	per        int // rows a statement
	args       []driver.NamedValue
}

func openRawSQLite(path, like string) (*rawSQLite, error) {
	c, err := new(sqlitedriver.Driver).Open(path + "?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(8192)&_pragma=foreign_keys(1)")
	if err != nil {
		return nil, err
	}
	r := &rawSQLite{c: c, statements: map[string]driver.StmtExecContext{}, commit: rand.Int64N(1 << 60)}
	tables, err := tablesOf(c, like)
	if err == nil {
		err = r.run(tables...)
	}
	if err == nil {
		r.begin, err = r.statement("BEGIN IMMEDIATE")
	}
	if err == nil {
		r.end, err = r.statement("COMMIT")
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return r, nil
}

// tablesOf gives the statements that make the tables and indexes of another file.
func tablesOf(c driver.Conn, file string) ([]string, error) {
	exec := c.(driver.ExecerContext)
	if _, err := exec.ExecContext(context.Background(), "ATTACH '"+file+"' AS other", nil); err != nil {
		return nil, err
	}
	rows, err := c.(driver.QueryerContext).QueryContext(context.Background(),
		"SELECT sql FROM other.sqlite_master WHERE sql IS NOT NULL AND tbl_name IN ('counters', 'log_clicks')", nil)
	if err != nil {
		return nil, err
	}
	var out []string
	row := make([]driver.Value, 1)
	for rows.Next(row) == nil {
		text, _ := row[0].(string)
		out = append(out, text)
	}
	if err := rows.Close(); err != nil {
		return nil, err
	}
	_, err = exec.ExecContext(context.Background(), "DETACH other", nil)
	return out, err
}

func (r *rawSQLite) run(statements ...string) error {
	for _, q := range statements {
		if _, err := r.c.(driver.ExecerContext).ExecContext(context.Background(), q, nil); err != nil {
			return fmt.Errorf("%w (in %q)", err, q)
		}
	}
	return nil
}

func (r *rawSQLite) statement(query string) (driver.StmtExecContext, error) {
	if st := r.statements[query]; st != nil {
		return st, nil
	}
	st, err := r.c.Prepare(query)
	if err != nil {
		return nil, err
	}
	r.statements[query] = st.(driver.StmtExecContext)
	return r.statements[query], nil
}

// use turns to a table and a batch size.
func (r *rawSQLite) use(g *schema.Group, rows int) {
	r.rows, r.events = rows, g.Events
	r.query, r.width = rawSQLiteCounter, 3
	if g.Events {
		r.query, r.width = rawSQLiteClick, 7
	}
}

func (r *rawSQLite) prepare(per int) error {
	r.per, r.args = per, r.args[:0]
	r.commit++
	put := func(values ...driver.Value) {
		for _, v := range values {
			r.args = append(r.args, driver.NamedValue{Ordinal: len(r.args)%(r.width*per) + 1, Value: v})
		}
	}
	for i, id := range randomKeys(r.rows, applyKeys) {
		if r.events {
			put(r.commit, int64(i), int64(i), id, clickText, clickAt, int64(7))
		} else {
			put(id, int64(i), int64(1))
		}
	}
	return nil
}

func (r *rawSQLite) apply(ctx context.Context) error {
	one := "(?" + strings.Repeat(", ?", r.width-1) + ")"
	st, err := r.statement(fmt.Sprintf(r.query, one+strings.Repeat(", "+one, r.per-1)))
	if err != nil {
		return err
	}
	if _, err := r.begin.ExecContext(ctx, nil); err != nil {
		return err
	}
	// Each statement gets context.Background: one that can end costs a goroutine.
	for args := r.args; len(args) > 0; args = args[r.width*r.per:] {
		if _, err := st.ExecContext(context.Background(), args[:r.width*r.per]); err != nil {
			return err
		}
	}
	_, err = r.end.ExecContext(ctx, nil)
	return err
}
