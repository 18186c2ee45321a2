package sqlite

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

const benchConfig = `
stores:
  main: "sqlite:unused.db"
tables:
  posts:
    key: {id: int64}
    groups:
      metrics: {store: main, columns: {likes: int64 sum, views: int64 sum, seen_at: timestamp max}}
      clicks: {store: main, kind: events, columns: {what: text, at: timestamp, user_id: int64}}
`

const benchKeys = 100_000

// The raw rivals write the same tables with the driver's database/sql, one
// transaction a batch: prepared single rows, and statements of several rows.
const (
	rawCounter = `INSERT INTO posts_metrics (id, sluice_slot, likes, views, seen_at) VALUES %s
		ON CONFLICT (id) DO UPDATE SET likes = likes + excluded.likes, views = views + excluded.views, seen_at = max(coalesce(seen_at, ''), excluded.seen_at)`
	rawEvent = `INSERT INTO posts_clicks (sluice_commit, sluice_ordinal, id, sluice_slot, what, at, user_id) VALUES %s`
)

func BenchmarkApply(b *testing.B) {
	for _, table := range []string{"metrics", "clicks"} {
		for _, rows := range []int{10, 100, 1000, 10000} {
			name := fmt.Sprintf("%s/rows=%d", table, rows)
			b.Run(name+"/sluice", func(b *testing.B) { benchSluice(b, table, rows) })
			b.Run(name+"/raw1", func(b *testing.B) { benchRaw(b, table, rows, 1) })
			b.Run(name+"/raw10", func(b *testing.B) { benchRaw(b, table, rows, 10) })
		}
	}
}

func openBench(b *testing.B) (*Shard, *schema.Schema, string) {
	c, faults := schema.Parse("bench.yaml", []byte(benchConfig), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		b.Fatal(faults)
	}
	sch, _, faults := c.Resolve(nil)
	if len(faults) > 0 {
		b.Fatal(faults)
	}
	st := *sch.Stores["main"]
	path := filepath.Join(b.TempDir(), "bench.db")
	st.Shards[0].URL, st.SynchronousCommit = "sqlite:"+path, true
	s, err := Open(store.Options{Store: &st, Shard: st.Shards[0], Warn: func(string) {}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if err := s.Ensure(b.Context(), store.Identity{Store: "main", Shard: st.Shards[0].Name}, sch.Groups()); err != nil {
		b.Fatal(err)
	}
	return s, sch, path
}

func benchEntries(b *testing.B, g *schema.Group, n int, commit uint64) []sluice.Entry {
	entries := make([]sluice.Entry, n)
	for i := range entries {
		key, err := g.Table.AppendKey(nil, []sluice.Value{sluice.IntValue(rand.Int64N(benchKeys))})
		if err != nil {
			b.Fatal(err)
		}
		e := sluice.Entry{Group: g.ID, Key: key, Writes: 1, Commit: commit, Ordinal: uint32(i)}
		for _, c := range g.Columns {
			v := sluice.Value{Kind: c.Type.Kind, Num: 1_767_000_000_000_000 + rand.Int64N(1e9)}
			if c.Type.Kind == sluice.Text {
				v = sluice.TextValue("comment")
			}
			e.Cells = append(e.Cells, sluice.Cell{Column: c.ID, Value: v})
		}
		if c := g.Column([]byte("likes")); c != nil {
			e.Cells[c.Index].Value.Num = 1
		}
		if c := g.Column([]byte("views")); c != nil {
			e.Cells[c.Index].Value.Num = 3
		}
		entries[i] = e
	}
	if !g.Events {
		slices.SortFunc(entries, func(x, y sluice.Entry) int { return strings.Compare(string(x.Key), string(y.Key)) })
		entries = slices.CompactFunc(entries, func(x, y sluice.Entry) bool { return string(x.Key) == string(y.Key) })
	}
	return entries
}

func benchSluice(b *testing.B, table string, rows int) {
	s, sch, _ := openBench(b)
	g := sch.Table([]byte("posts")).Group([]byte(table))
	cur, err := s.Take(b.Context(), g.ID, store.OwnerName, 1)
	if err != nil {
		b.Fatal(err)
	}
	n, clock := 0, cpuClock{}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		next := cur
		next.Commit++
		batch := &store.Batch{Group: g, Prev: cur, Next: next, Entries: benchEntries(b, g, rows, next.Commit)}
		b.StartTimer()
		clock.start()
		if _, err := s.Apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		clock.stop()
		cur = next
		n += len(batch.Entries)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(clock.total.Seconds()*1e6/float64(n), "cpu-us/row")
}

func benchRaw(b *testing.B, table string, rows, perStatement int) {
	_, sch, path := openBench(b)
	g := sch.Table([]byte("posts")).Group([]byte(table))
	db, err := sql.Open("sqlite", path+"?_pragma=synchronous(full)&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(8192)&_txlock=immediate")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	query, width := rawCounter, 5
	if g.Events {
		query, width = rawEvent, 7
	}
	one := "(?" + strings.Repeat(", ?", width-1) + ")"
	single, err := db.Prepare(fmt.Sprintf(query, one))
	if err != nil {
		b.Fatal(err)
	}
	many, err := db.Prepare(fmt.Sprintf(query, one+strings.Repeat(", "+one, perStatement-1)))
	if err != nil {
		b.Fatal(err)
	}
	n, commit, clock := 0, int64(0), cpuClock{}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		commit++
		var args []any
		for _, e := range benchEntries(b, g, rows, uint64(commit)) {
			args = rawArgs(args, g, &e)
		}
		b.StartTimer()
		clock.start()
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		// What every exactly-once way pays: a row that says how far it is.
		if _, err := tx.Exec("INSERT INTO sluice_cursor VALUES (1, 'raw', 1, ?, 0, '{}', '') ON CONFLICT DO UPDATE SET commit_id = excluded.commit_id", commit); err != nil {
			b.Fatal(err)
		}
		for len(args) > 0 {
			k, st := width, tx.Stmt(single)
			if len(args) >= width*perStatement {
				k, st = width*perStatement, tx.Stmt(many)
			}
			if _, err := st.Exec(args[:k]...); err != nil {
				b.Fatal(err)
			}
			args = args[k:]
			n += k / width
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
		clock.stop()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(clock.total.Seconds()*1e6/float64(n), "cpu-us/row")
}

func rawArgs(args []any, g *schema.Group, e *sluice.Entry) []any {
	key, _ := g.Table.DecodeKey(e.Key, nil)
	if g.Events {
		args = append(args, int64(e.Commit), int64(e.Ordinal))
	}
	args = append(args, key[0].Num, int64(e.Slot))
	for _, c := range e.Cells {
		args = append(args, encode(c.Value))
	}
	return args
}

// cpuClock counts the process's CPU time, which a busy machine disturbs less.
type cpuClock struct{ from, total time.Duration }

func (c *cpuClock) start() { c.from = cpuTime() }
func (c *cpuClock) stop()  { c.total += cpuTime() - c.from }

func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
