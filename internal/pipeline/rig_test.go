package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/dedup"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/disk"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
	"sluice.dev/sluice/internal/vfs"
)

const rigConfig = `
stores:
  main: {shards: {a: "sqlite:a.db", b: "sqlite:b.db"}, parked_max: 2}
  lazy: {shards: {z: "sqlite:z.db"}, synchronous_commit: off}
tables:
  posts:
    key: {id: int64}
    groups:
      text:    {store: lazy, flush: 300ms, columns: {content: text}}
      metrics: {store: main, flush: 1s, columns: {likes: int64 sum, high: int64 max}}
      clicks:  {store: lazy, kind: events, flush: 300ms, columns: {what: text}}
  mapped:
    existing: {table: old_posts, missing_row: insert}
    key: {id: int64}
    store: main
    flush: 1s
    columns: {title: text, n: int64 sum}
`

// rig is the pipeline over a simulated disk and databases in memory, with
// every step taken by the test: nothing runs by itself, and time stands still
// until the test moves it.
type rig struct {
	t      testing.TB
	schema *schema.Schema
	disk   *vfs.Mem
	dbs    map[string]*mem.Database
	now    time.Time
	known  map[string]bool
	gap    uint64
	kills  uint64

	journal  *disk.Journal
	dedup    *dedup.Table
	gate     *admit.Gate
	acceptor *pipeline.Acceptor
	drains   *pipeline.Drains
	reader   *pipeline.Reader
	ledger   *pipeline.Ledger
	trimmer  *pipeline.Trimmer
}

func newRig(t testing.TB) *rig {
	t.Helper()
	c, faults := schema.Parse("sluice.yaml", []byte(rigConfig), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s, _, faults := c.Resolve(nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	r := &rig{t: t, schema: s, disk: vfs.NewMem(1), dbs: map[string]*mem.Database{}, now: time.Unix(1_700_000_000, 0).UTC(), known: map[string]bool{}}
	for _, name := range []string{"a", "b", "z"} {
		r.dbs[name] = &mem.Database{Now: func() time.Time { return r.now }}
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// start opens everything as a new process does, over what disk and databases hold.
func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.journal, err = disk.Open(disk.Options{Dir: "journal", FS: r.disk, SegmentBytes: 1 << 20}); err != nil {
		r.t.Fatal(err)
	}
	if r.dedup, err = dedup.Open(dedup.Options{Dir: "identities", FS: r.disk, Journal: pipeline.JournalNumber(r.journal.ID())}); err != nil {
		r.t.Fatal(err)
	}
	r.ledger, r.gate, r.drains = &pipeline.Ledger{}, &admit.Gate{}, &pipeline.Drains{}
	for n := uint64(1); n <= r.journal.Head().Number; n++ {
		c, err := r.journal.Read(n)
		var hole *journal.HoleError
		if errors.As(err, &hole) {
			continue
		}
		body, err := journal.DecodeBody(c.Body)
		if err != nil {
			r.t.Fatal(err)
		}
		r.ledger.Add(n, body.Notes())
		body.Identities(func(b []byte) {
			rec, _, err := dedup.DecodeRecord(b)
			if err != nil {
				r.t.Fatal(err)
			}
			r.dedup.Replay(&rec)
		})
	}
	now := func() time.Time { return r.now }
	r.acceptor = pipeline.NewAcceptor(r.schema, pipeline.AcceptorOptions{Journal: r.journal, Dedup: r.dedup, Gate: r.gate, Ledger: r.ledger,
		Clock: func() int64 { return r.now.UnixMicro() }, Wall: now, Committed: r.drains.Committed})
	r.reader = pipeline.NewReader(pipeline.ReaderOptions{Schema: r.acceptor.Schema, Journal: r.journal, Drains: r.drains, Now: now,
		Lost: func(string, string, sluice.GroupID, uint64) bool { return false }})
	r.trimmer = &pipeline.Trimmer{Journal: r.journal, Dedup: r.dedup, Drains: r.drains, Gate: r.gate, Config: r.acceptor.Schema, Now: now, Before: func() error { return nil }}
	for _, st := range []string{"main", "lazy"} {
		for i, conf := range r.schema.Stores[st].Shards {
			r.addShard(r.schema.Stores[st], conf, i)
		}
	}
}

func (r *rig) addShard(st *schema.Store, conf schema.Shard, i int) {
	db := r.dbs[conf.Name].Open(store.Options{Store: st, Shard: conf, Warn: func(string) {}})
	var groups []*schema.Group
	for _, g := range r.schema.Groups() {
		if g.Store == st.Name {
			groups = append(groups, g)
		}
	}
	if err := db.Ensure(r.t.Context(), store.Identity{Journal: r.journal.ID(), Store: st.Name, Shard: conf.Name}, groups); err != nil {
		r.t.Fatal(err)
	}
	var set sluice.PartitionSet
	for p := range sluice.Partitions {
		if p*len(st.Shards)/sluice.Partitions == i {
			set.Add(uint8(p))
		}
	}
	for _, g := range groups {
		key := g.FullName() + "@" + conf.Name
		r.drains.Add(pipeline.NewDrainer(g, pipeline.DrainerOptions{Journal: r.journal, Shard: db, Store: st, ShardName: conf.Name, Partitions: set,
			Lookup: r.schema.Group, Known: r.known[key], Remember: func() error { r.known[key] = true; return nil },
			AcceptedGap: func() uint64 { return r.gap }, Now: func() time.Time { return r.now }}))
	}
}

func (r *rig) stop() {
	if err := errors.Join(r.dedup.Close(), r.journal.Close()); err != nil {
		r.t.Log(err)
	}
}

// restart is kill -9 and a new start: nothing is closed properly.
func (r *rig) restart() {
	r.t.Helper()
	_ = r.dedup.Close()
	r.kills++
	r.disk = r.disk.Kill(r.kills)
	r.start()
}

// submit hands chunks over at the same time and commits them in one commit.
func (r *rig) submit(chunks ...*sluice.Chunk) ([]sluice.Ack, []error) {
	r.t.Helper()
	acks, errs := make([]sluice.Ack, len(chunks)), make([]error, len(chunks))
	var wg sync.WaitGroup
	for i, c := range chunks {
		wg.Go(func() { acks[i], errs[i] = r.acceptor.Submit(r.t.Context(), c) })
	}
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	go func() { <-all; cancel() }()
	for ctx.Err() == nil {
		if err := r.acceptor.Step(ctx); err != nil && ctx.Err() == nil {
			break
		}
	}
	<-all
	return acks, errs
}

// write submits lines of JSON as one chunk.
func (r *rig) write(id *sluice.Identity, lines ...string) (sluice.Ack, error) {
	r.t.Helper()
	acks, errs := r.submit(r.chunk(id, lines...))
	return acks[0], errs[0]
}

func (r *rig) chunk(id *sluice.Identity, lines ...string) *sluice.Chunk {
	c := &sluice.Chunk{Identity: id, Hash: sluice.HashChunk(fmt.Append(nil, lines)), WantReceipt: true}
	c.Fill = func(c *sluice.Chunk) error {
		b := schema.NewBuilder(r.schema, func() time.Time { return r.now })
		b.Reset(r.schema)
		c.EntryLine = nil
		for i, line := range lines {
			from := b.Len()
			if err := b.AddJSON([]byte(line)); err != nil {
				return err
			}
			for range b.Len() - from {
				c.EntryLine = append(c.EntryLine, int32(i))
			}
		}
		c.Entries = b.Entries()
		return nil
	}
	return c
}

func (r *rig) mustWrite(lines ...string) sluice.Ack {
	r.t.Helper()
	ack, err := r.write(nil, lines...)
	if err != nil {
		r.t.Fatal(err)
	}
	return ack
}

// drain steps every drainer until nothing is due, moving time over the flush
// windows. It gives the errors of the last round.
func (r *rig) drain() []error {
	var errs []error
	for range 6 {
		r.now = r.now.Add(1500 * time.Millisecond)
		errs = nil
		for _, d := range r.drains.All() {
			for range 20 {
				wait, err := d.Step(r.t.Context())
				if err != nil {
					errs = append(errs, err)
				}
				if err != nil || wait > 0 {
					break
				}
			}
		}
	}
	return errs
}

func (r *rig) row(table string, id int64) sluice.Row {
	r.t.Helper()
	t := r.schema.Tables[table]
	key, err := t.KeyFromText(nil, fmt.Append(nil, id))
	if err != nil {
		r.t.Fatal(err)
	}
	rows, err := r.reader.Read(r.t.Context(), sluice.ReadQuery{Table: table, Keys: [][]byte{key}})
	if err != nil {
		r.t.Fatal(err)
	}
	return rows[0]
}

func (r *rig) state(receipt string) string {
	r.t.Helper()
	rec, err := sluice.ParseReceipt(receipt)
	if err != nil {
		r.t.Fatal(err)
	}
	st, err := r.reader.Receipt(r.t.Context(), rec, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return st.State
}

// balance checks R2 for every group.
func (r *rig) balance() {
	r.t.Helper()
	for _, row := range r.ledger.Rows(r.schema, r.journal, r.drains) {
		if row.Acked != row.Applied+row.Rejected+row.Expired+row.Lost+row.Queued {
			r.t.Errorf("R2: ledger of %s.%s does not balance: %+v", row.Table, row.Group, row)
		}
	}
}

// replayAll journals every open reject of a group again, as an operator would.
func (r *rig) replayAll(g *schema.Group) {
	r.t.Helper()
	for _, d := range r.drains.Of(g.ID) {
		list, err := d.Shard().Rejects(r.t.Context(), store.RejectQuery{Group: &g.ID, State: "open", Max: 100})
		if err != nil {
			r.t.Fatal(err)
		}
		for _, reject := range list {
			e, err := journal.DecodeEntry(reject.Entry)
			if err != nil {
				r.t.Fatal(err)
			}
			e.Replay = store.ReplayNumber(reject.Commit, reject.Ordinal)
			if _, errs := r.submit(&sluice.Chunk{Entries: []sluice.Entry{e}}); errs[0] != nil {
				r.t.Fatal(errs[0])
			}
		}
	}
}
