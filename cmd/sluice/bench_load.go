package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
)

// benchRun is one line of the table.
type benchRun struct {
	Workload string
	How      string
	load     benchLoad
	writers  func(*bench, context.Context) (benchWriter, func(), error) // makes one client's, and what ends it
	direct   bool
	idle     bool // compared by its latency
}

// benchLoad says what clients send.
type benchLoad struct {
	one    bool // client
	hot    bool // all likes go to one post
	events bool
	mixed  bool          // likes and events in turn
	pause  time.Duration // after each request
	batch  int           // writes in a request; 0: one
}

const (
	benchIdlePause = 20 * time.Millisecond
	benchBatch     = 100
	benchHotKey    = 0
	benchText      = "a comment of about forty bytes, no more"
)

// benchRuns are the rows, Sluice's after the direct one that they are compared with.
var benchRuns = func() (runs []benchRun) {
	for _, w := range []struct {
		name string
		load benchLoad
	}{
		{"one idle like", benchLoad{one: true, hot: true, pause: benchIdlePause}},
		{"hot key", benchLoad{hot: true}},
		{"uniform keys", benchLoad{}},
		{"events", benchLoad{events: true}},
	} {
		idle, many := w.load.one, w.load
		many.batch = benchBatch
		runs = append(runs, benchRun{w.name, "direct", w.load, (*bench).directWriter, true, idle}, benchRun{w.name, "sluice", w.load, (*bench).sluiceWriter, false, idle})
		if idle {
			runs = append(runs, benchRun{w.name, "sluice, until SQL sees it", w.load, (*bench).sluiceWaiter, false, idle})
		} else {
			runs = append(runs, benchRun{w.name, fmt.Sprintf("sluice, %d a request", benchBatch), many, (*bench).sluiceWriter, false, idle})
		}
	}
	return runs
}()

// benchTally is what the clients of a side were told is done.
type benchTally struct {
	likes  []atomic.Int64 // by post
	events atomic.Int64   // are numbered 1 to this
}

func newBenchTally(keys int) *benchTally { return &benchTally{likes: make([]atomic.Int64, keys)} }

func (t *benchTally) acknowledged() int64 {
	n := t.events.Load()
	for i := range t.likes {
		n += t.likes[i].Load()
	}
	return n
}

// benchRequest is what a client sends at once.
type benchRequest struct {
	events bool
	keys   []int64 // a write each
	first  int64   // number of the first event
}

// benchWriter makes a request and returns when it is acknowledged.
type benchWriter func(ctx context.Context, r *benchRequest) error

// sending is a load under way.
type sending struct {
	load    benchLoad
	tally   *benchTally
	stop    chan struct{} // closed: each client ends with the request under way
	writes  atomic.Int64
	keys    int
	times   [][]time.Duration // by client
	began   time.Time
	writers []benchWriter
}

// send lets the clients send until during returns, and what they sent is
// answered. A client that fails ends the context of during.
func (s *sending) send(ctx context.Context, during func(context.Context) error) error {
	s.stop, s.times, s.began = make(chan struct{}), make([][]time.Duration, len(s.writers)), time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work, workCtx := errgroup.WithContext(ctx)
	for i, write := range s.writers {
		work.Go(func() error { return s.client(workCtx, i, write) })
	}
	err := during(workCtx)
	close(s.stop)
	if err != nil {
		cancel() // who waits for a server that will not come waits no longer
	}
	failed := work.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return failed
}

func (s *sending) client(ctx context.Context, index int, write benchWriter) error {
	rnd := rand.New(rand.NewPCG(uint64(index), 1))
	r := benchRequest{events: s.load.events}
	for {
		select {
		case <-s.stop:
			return nil
		default:
		}
		s.fill(&r, rnd)
		from := time.Now()
		if err := write(ctx, &r); err != nil {
			return err
		}
		s.times[index] = append(s.times[index], time.Since(from))
		s.writes.Add(int64(len(r.keys)))
		if !r.events {
			for _, k := range r.keys {
				s.tally.likes[k].Add(1)
			}
		}
		if s.load.pause > 0 {
			if err := pause(ctx, s.load.pause); err != nil {
				return err
			}
		}
	}
}

func (s *sending) fill(r *benchRequest, rnd *rand.Rand) {
	if s.load.mixed {
		r.events = !r.events
	}
	n := max(s.load.batch, 1)
	r.keys = r.keys[:0]
	for range n {
		key := int64(benchHotKey)
		if !s.load.hot {
			key = rnd.Int64N(int64(s.keys))
		}
		r.keys = append(r.keys, key)
	}
	if r.events {
		r.first = s.tally.events.Add(int64(n)) - int64(n) + 1
	}
}

// latencies gives all clients' times together.
func (s *sending) latencies() (all []time.Duration) {
	for _, t := range s.times {
		all = append(all, t...)
	}
	return all
}

// directWriter writes as most applications do: a prepared statement a write,
// each its own transaction.
func (b *bench) directWriter(ctx context.Context) (benchWriter, func(), error) {
	conn, err := b.db.writer(ctx)
	if err != nil {
		return nil, nil, err
	}
	statements := directStatements(b.f.schema)
	end := func() { _ = conn.Close(context.WithoutCancel(ctx)) } // every statement was answered
	return func(ctx context.Context, r *benchRequest) error {
		for i, key := range r.keys {
			if err := statements.write(ctx, conn, directWrite{r.events, key, r.first + int64(i)}); err != nil {
				return err
			}
		}
		return nil
	}, end, nil
}

// sluiceWriter sends numbered requests of one or more lines, so that a retry
// counts once.
func (b *bench) sluiceWriter(ctx context.Context) (benchWriter, func(), error) {
	producer, err := b.server.c.NewProducer(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("get a producer id: %w", err)
	}
	id := sluice.Identity{Producer: producer, Chunk: 1, Lowest: 1}
	var body []byte
	return func(ctx context.Context, r *benchRequest) error {
		body = r.appendLines(body[:0])
		a, err := b.server.c.WriteChunk(ctx, id, body)
		if err == nil && (a.Accepted != len(r.keys) || a.Refused > 0) {
			err = fmt.Errorf("of %d writes %d were accepted: %+v", len(r.keys), a.Accepted, a.Outcomes)
		}
		id.Chunk++
		id.Lowest++
		return err
	}, func() {}, nil
}

// sluiceWaiter sends one write a request and waits until the database has it.
func (b *bench) sluiceWaiter(context.Context) (benchWriter, func(), error) {
	var body []byte
	return func(ctx context.Context, r *benchRequest) error {
		body = r.appendLines(body[:0])
		a, err := b.server.c.WriteJSON(ctx, body, client.WriteOptions{Wait: benchStopMax})
		if err == nil && a.State != sluice.StateApplied {
			err = fmt.Errorf("after %s the database has not got the write: it is %s", benchStopMax, a.State)
		}
		return err
	}, func() {}, nil
}

func (r *benchRequest) appendLines(b []byte) []byte {
	for i, key := range r.keys {
		if r.events {
			b = fmt.Appendf(b, `{"table":"log","key":%d,"append":{"events":{"n":%d,"what":%q}}}`+"\n", key, r.first+int64(i), benchText)
		} else {
			b = fmt.Appendf(b, `{"table":"posts","key":%d,"add":{"likes":1}}`+"\n", key)
		}
	}
	return b
}
