package pipeline_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
)

// Many at once: they submit (with and without identities, and send again what
// they are not sure of), read, wait for receipts, look at the ledger, and the
// schema is reloaded under them, until all are stopped. Every sum is exact.
func TestR2_ExactWhileEverythingHappensAtOnce(t *testing.T) {
	r := newRig(t)
	r.drain() // the shards are taken, one after the other
	for _, db := range r.dbs {
		db.SetHooks(mem.Hooks{AfterCommit: loseSome()})
	}
	loops := startLoops(t, r)
	stop := make(chan struct{})
	time.AfterFunc(500*time.Millisecond, func() { close(stop) })
	var clients sync.WaitGroup
	var sums [10]atomic.Int64
	for worker := range 6 {
		clients.Go(func() { writer(t, r, worker, &sums, stop) })
	}
	clients.Go(func() { watcher(t, r, stop) })
	clients.Go(func() { reloader(t, r, stop) })
	clients.Wait()
	for _, db := range r.dbs {
		db.SetHooks(mem.Hooks{})
	}
	head := r.journal.Head().Number
	for _, d := range r.drains.All() {
		for pos := d.Position(); !d.Through(head, r.journal.Streams()); pos = d.Position() {
			d.Flush(head)
			<-pos.Changed
		}
	}
	loops()
	for id := range sums {
		if got, want := string(r.row("posts", int64(id)).Columns["likes"]), fmt.Sprint(sums[id].Load()); got != want {
			t.Errorf("likes of %d: %s, acknowledged were %s", id, got, want)
		}
	}
	if !r.acceptor.Idle() {
		t.Error("the acceptor still holds something")
	}
	r.balance()
}

// loseSome makes some answers to COMMIT get lost.
func loseSome() func(*store.Batch) error {
	var n atomic.Int64
	return func(*store.Batch) error {
		if n.Add(1)%7 == 0 {
			return store.ErrUnknown
		}
		return nil
	}
}

// startLoops runs the steps as node does, and gives what stops them and waits.
func startLoops(t *testing.T, r *rig) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() {
		for ctx.Err() == nil {
			if err := r.acceptor.Step(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	for _, d := range r.drains.All() {
		loops.Go(func() {
			for ctx.Err() == nil {
				wait, err := d.Step(ctx)
				if err != nil || wait <= 0 {
					continue
				}
				select {
				case <-d.Wake():
				case <-ctx.Done():
				}
			}
		})
	}
	stop := sync.OnceFunc(func() { cancel(); loops.Wait() })
	t.Cleanup(stop)
	return stop
}

// writer submits until it is stopped. What it gave up on, it sends again with
// the same identity until it knows.
func writer(t *testing.T, r *rig, worker int, sums *[10]atomic.Int64, stop <-chan struct{}) {
	rnd := rand.New(rand.NewPCG(uint64(worker), 5))
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		id, amount := rnd.IntN(len(sums)), 1+rnd.IntN(9)
		lines := []string{like(int64(id), amount), fmt.Sprintf(`{"table":"posts","key":%d,"set":{"content":"w%d"}}`, id, worker)}
		ack, err := persist(r, rnd, fmt.Sprintf("%d/%d", worker, n), lines)
		if err != nil {
			t.Errorf("worker %d: %v", worker, err)
			return
		}
		sums[id].Add(int64(amount))
		if rnd.IntN(5) > 0 {
			continue
		}
		rec, err := sluice.ParseReceipt(ack.Receipt)
		if err != nil {
			t.Error(err)
			return
		}
		st, err := r.reader.Receipt(context.Background(), rec, time.Minute)
		if err != nil || st.State != sluice.StateApplied {
			t.Errorf("worker %d: receipt of commit %d: %s %v", worker, rec.Commit, st.State, err)
			return
		}
	}
}

// persist submits until the answer is known; some tries are given up at once.
func persist(r *rig, rnd *rand.Rand, name string, lines []string) (sluice.Ack, error) {
	for {
		ctx, cancel := context.WithCancel(context.Background())
		if rnd.IntN(4) == 0 {
			cancel()
		}
		ack, err := r.acceptor.Submit(ctx, r.chunk(key(name), lines...))
		cancel()
		if err == nil || sluice.CodeOf(err) != sluice.Unavailable {
			return ack, err
		}
	}
}

// watcher reads what everybody may read at any time.
func watcher(t *testing.T, r *rig, stop <-chan struct{}) {
	table := r.schema.Tables["posts"]
	var keys [][]byte
	for id := range 10 {
		k, err := table.KeyFromText(nil, fmt.Append(nil, id))
		if err != nil {
			t.Error(err)
			return
		}
		keys = append(keys, k)
	}
	var last [10]int64
	for {
		select {
		case <-stop:
			return
		default:
		}
		rows, err := r.reader.Read(context.Background(), sluice.ReadQuery{Table: "posts", Keys: keys})
		if err != nil {
			t.Errorf("read: %v", err)
			return
		}
		for i, row := range rows {
			var likes int64
			if text := row.Columns["likes"]; text != nil {
				fmt.Sscan(string(text), &likes)
			}
			if likes < last[i] {
				t.Errorf("likes of %d went from %d to %d", i, last[i], likes)
			}
			last[i] = likes
		}
		for _, row := range r.ledger.Rows(r.schema, r.journal, r.drains) {
			if row.Acked < row.Applied {
				t.Errorf("the ledger shows more applied than acknowledged: %+v", row)
			}
		}
		if err := r.trimmer.Step(context.Background()); err != nil {
			t.Error(err)
			return
		}
	}
}

// reloader puts schemas of the same config in force, again and again.
func reloader(t *testing.T, r *rig, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		config, faults := schema.Parse("sluice.yaml", []byte(rigConfig), func(string) (string, bool) { return "", false })
		if len(faults) > 0 {
			t.Error(faults)
			return
		}
		s, _, faults := config.Resolve(nil)
		if len(faults) > 0 {
			t.Error(faults)
			return
		}
		r.acceptor.SetSchema(s)
		for _, d := range r.drains.All() {
			d.SetGroup(s.Group(d.Group().ID))
		}
	}
}

// Stopping the steps while writers wait for room leaves nobody behind.
func TestStop_ManyAtOnce(t *testing.T) {
	r := newRig(t)
	r.schema.Limits.CommitEntriesMax = 2
	ctx, cancel := context.WithCancel(t.Context())
	steps := make(chan struct{})
	go func() {
		defer close(steps)
		for r.acceptor.Step(ctx) == nil {
		}
	}()
	defer cancel()
	clients, stopClients := context.WithCancel(t.Context())
	defer stopClients()
	var acked atomic.Int64
	var all sync.WaitGroup
	for worker := range 16 {
		all.Go(func() {
			for clients.Err() == nil {
				if _, err := r.acceptor.Submit(clients, r.chunk(nil, like(int64(worker), 1))); err == nil && acked.Add(1) == 200 {
					cancel() // no commit is made any more, and everybody waits
					stopClients()
				}
			}
		})
	}
	all.Wait()
	<-steps
	if acked.Load() < 200 {
		t.Errorf("%d acknowledged", acked.Load())
	}
}
