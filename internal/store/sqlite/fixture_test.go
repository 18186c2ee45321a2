package sqlite

import (
	"bytes"
	"database/sql"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/storetest"
)

// fixture is a shard with one group "t", and another program on its file.
type fixture struct {
	*testing.T
	path   string
	other  *sql.DB
	shard  *Shard
	group  *schema.Group
	cur    store.Cursor
	warned []string
}

// newFixture opens a shard for the table t of the config lines, after the other
// program ran its statements. The shard is not ensured.
func newFixture(t *testing.T, table string, statements ...string) *fixture {
	f := &fixture{T: t, path: filepath.Join(t.TempDir(), "app.db")}
	f.other = openOther(t, f.path)
	f.exec(statements...)
	sch := storetest.Parse(t, "stores:\n  main: {shards: {a: \"sqlite:"+f.path+"\"}, ddl: auto}\ntables:\n  t:\n    store: main\n"+table)
	st := *sch.Stores["main"]
	st.LockTimeout, st.SynchronousCommit = 20*time.Millisecond, true
	shard, err := Open(store.Options{Store: &st, Shard: st.Shards[0], Warn: func(s string) { f.warned = append(f.warned, s) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shard.Close() })
	f.shard, f.group = shard, sch.Table([]byte("t")).Groups[0]
	return f
}

func (f *fixture) exec(statements ...string) {
	f.Helper()
	for _, q := range statements {
		if _, err := f.other.Exec(q); err != nil {
			f.Fatalf("%s: %v", q, err)
		}
	}
}

func (f *fixture) ensure() error {
	return f.shard.Ensure(f.Context(), store.Identity{Store: "main", Shard: "a"}, []*schema.Group{f.group})
}

func (f *fixture) start() *fixture {
	f.Helper()
	if err := f.ensure(); err != nil {
		f.Fatal(err)
	}
	f.take()
	return f
}

func (f *fixture) take() {
	f.Helper()
	cur, err := f.shard.Take(f.Context(), f.group.ID, store.OwnerName, f.cur.Epoch+1)
	if err != nil {
		f.Fatal(err)
	}
	f.cur = cur
}

// entry makes an entry of {"id": n, column: text as in the config's types}.
func (f *fixture) entry(id int64, cells map[string]string) sluice.Entry {
	f.Helper()
	key, err := f.group.Table.AppendKey(nil, []sluice.Value{sluice.IntValue(id)})
	if err != nil {
		f.Fatal(err)
	}
	e := sluice.Entry{Group: f.group.ID, Key: key, Writes: 1}
	for _, c := range f.group.Columns {
		if s, ok := cells[c.Name]; ok {
			v, _, err := schema.ParseText(nil, c.Type, []byte(s))
			if err != nil {
				f.Fatal(err)
			}
			e.Cells = append(e.Cells, sluice.Cell{Column: c.ID, Value: v})
		}
	}
	return e
}

func (f *fixture) apply(entries ...sluice.Entry) (store.Result, error) {
	next := f.cur
	next.Commit++
	for i := range entries {
		entries[i].Commit, entries[i].Ordinal = next.Commit, uint32(i)
	}
	slices.SortStableFunc(entries, func(a, b sluice.Entry) int { return bytes.Compare(a.Key, b.Key) })
	res, err := f.shard.Apply(f.Context(), &store.Batch{Group: f.group, Prev: f.cur, Next: next, Entries: entries})
	if err == nil {
		f.cur = next
	}
	return res, err
}

func (f *fixture) must(r store.Result, err error) store.Result {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
	return r
}

// want compares a query's rows, columns joined by |.
func (f *fixture) want(query string, want ...string) {
	f.Helper()
	rows, err := f.other.Query(query)
	if err != nil {
		f.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	cols, _ := rows.Columns()
	var got []string
	for rows.Next() {
		vals := make([]sql.NullString, len(cols))
		ptrs := make([]any, len(cols))
		for i := range vals {
			ptrs[i] = &vals[i]
		}
		if err := rows.Scan(ptrs...); err != nil {
			f.Fatal(err)
		}
		var parts []string
		for _, v := range vals {
			parts = append(parts, v.String)
		}
		got = append(got, strings.Join(parts, "|"))
	}
	if !slices.Equal(got, want) {
		f.Errorf("%s: got %q, want %q", query, got, want)
	}
}
