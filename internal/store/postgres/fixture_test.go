package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/pgtest"
	"sluice.dev/sluice/internal/store/postgres"
)

// bench is one test's database, config and open shard. Entries are written as
// clients write them: one JSON line.
type bench struct {
	*testing.T
	ctx     context.Context
	cluster *pgtest.Cluster
	dsn     string
	url     string // what the shard is opened with; dsn unless set
	sch     *schema.Schema
	tune    func(*schema.Store)
	shard   *postgres.Shard
	cursors map[sluice.GroupID]store.Cursor
	epoch   uint64
	warned  []string
}

const testConfig = `
stores:
  main: {shards: {a: "postgres://test"}, ddl: auto}
tables:
  counters: {key: {id: int64}, store: main, columns: {n: int64 sum}}
  other: {key: {id: int64}, store: main, columns: {v: text}}
`

var testID = store.Identity{Journal: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, Store: "main", Shard: "a", MapVersion: 1}

// newBench opens a shard on a new database, after running setup there.
func newBench(t *testing.T, config string, setup ...string) *bench {
	t.Helper()
	return newBenchOn(t, pgtest.Shared(t), config, setup...)
}

func newBenchOn(t *testing.T, c *pgtest.Cluster, config string, setup ...string) *bench {
	t.Helper()
	b := &bench{T: t, ctx: t.Context(), cluster: c, dsn: c.NewDatabase(t), cursors: map[sluice.GroupID]store.Cursor{}}
	b.url = b.dsn
	b.sch = parseB(t, config)
	b.exec(setup...)
	return b
}

// open opens the shard anew, as a restart does.
func (b *bench) open() *bench {
	b.Helper()
	st := *b.sch.Stores["main"]
	st.DDL, st.SynchronousCommit, st.LockTimeout, st.FKWait = "auto", true, 50*time.Millisecond, 0
	if b.tune != nil {
		b.tune(&st)
	}
	s, err := postgres.Open(store.Options{Store: &st, Shard: schema.Shard{Name: "a", URL: b.url}, Warn: func(w string) { b.warned = append(b.warned, w) }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	b.shard = s
	clear(b.cursors)
	return b
}

func (b *bench) ensure() error { return b.shard.Ensure(b.ctx, testID, b.sch.Groups()) }

func (b *bench) start() *bench {
	b.Helper()
	if err := b.open().ensure(); err != nil {
		b.Fatal(err)
	}
	return b
}

func (b *bench) exec(statements ...string) { b.Helper(); b.cluster.Exec(b.T, b.dsn, statements...) }

func (b *bench) want(query, answer string) {
	b.Helper()
	if got := b.cluster.Query(b.T, b.dsn, query); got != answer {
		b.Errorf("%s\n got %q\nwant %q", query, got, answer)
	}
}

func (b *bench) group(name string) *schema.Group {
	b.Helper()
	for _, g := range b.sch.Groups() {
		if g.FullName() == name {
			return g
		}
	}
	b.Fatalf("no group %s", name)
	return nil
}

func (b *bench) take(g *schema.Group) store.Cursor {
	b.Helper()
	b.epoch++
	cur, err := b.shard.Take(b.ctx, g.ID, store.OwnerName, b.epoch)
	if err != nil {
		b.Fatalf("Take: %v", err)
	}
	b.cursors[g.ID] = cur
	return cur
}

// batch makes the next commit of the group out of writes; the keys must come in order.
func (b *bench) batch(name string, writes ...string) *store.Batch {
	b.Helper()
	g := b.group(name)
	cur, ok := b.cursors[g.ID]
	if !ok {
		cur = b.take(g)
	}
	next := cur
	next.Commit++
	builder := schema.NewBuilder(b.sch, time.Now)
	for _, w := range writes {
		line := fmt.Sprintf(`{"table":%q,%s}`, g.Table.Name, w)
		if !json.Valid([]byte(line)) {
			b.Fatalf("not JSON: %s", line)
		}
		if err := builder.AddJSON([]byte(line)); err != nil {
			b.Fatalf("%s: %v", line, err)
		}
	}
	var entries []sluice.Entry
	for _, e := range builder.Entries() {
		if e.Group == g.ID {
			e.Commit, e.Ordinal = next.Commit, uint32(len(entries))
			entries = append(entries, e)
		}
	}
	return &store.Batch{Group: g, Prev: cur, Next: next, Entries: entries}
}

func (b *bench) apply(name string, writes ...string) store.Result {
	b.Helper()
	r, err := b.try(b.batch(name, writes...))
	if err != nil {
		b.Fatalf("Apply: %v", err)
	}
	return r
}

func (b *bench) try(batch *store.Batch) (store.Result, error) {
	r, err := b.shard.Apply(b.ctx, batch)
	if err == nil {
		b.cursors[batch.Group.ID] = batch.Next
	}
	return r, err
}

func (b *bench) unpark(name string, max int) store.Result {
	b.Helper()
	g := b.group(name)
	cur, ok := b.cursors[g.ID]
	if !ok {
		cur = b.take(g)
	}
	r, err := b.shard.Unpark(b.ctx, &store.Batch{Group: g, Prev: cur, Next: cur}, max)
	if err != nil {
		b.Fatalf("Unpark: %v", err)
	}
	return r
}

// wantStop checks for a StopError with this reason whose sentence holds these words.
func (b *bench) wantStop(err error, reason string, words ...string) {
	b.Helper()
	var stop *store.StopError
	if !errors.As(err, &stop) || stop.Reason != reason {
		b.Fatalf("got %v, want a StopError with reason %s", err, reason)
	}
	for _, w := range words {
		if !strings.Contains(stop.Detail, w) {
			b.Errorf("the error does not say %q: %s", w, stop.Detail)
		}
	}
}

// until waits for a query to answer so; it is asked again as long as the test may run.
func (b *bench) until(query, answer string) {
	b.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		got := b.cluster.Query(b.T, b.dsn, query)
		if got == answer {
			return
		}
		time.Sleep(5 * time.Millisecond) // the other processes need the cores
		if time.Now().After(deadline) {
			b.Fatalf("%s\nanswers %q, never %q", query, got, answer)
		}
	}
}

func openURL(b *bench, url string) (*postgres.Shard, error) {
	return postgres.Open(store.Options{Store: b.sch.Stores["main"], Shard: schema.Shard{Name: "a", URL: url}, Warn: func(string) {}})
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
