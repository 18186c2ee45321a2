package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/bench/rivals/batch"
)

// op is a write with the identity that a retry of it repeats; "" is none.
type op struct {
	batch.Write
	id string
}

// writer is a client of a system, with all its connections. write returns when
// the system says that the write is durable; callers have at most one under way.
type writer interface {
	write(caller int, o op) error
	close()
}

// tally is what the callers of one run did.
type tally struct {
	measure.Latencies
	kinds [128]uint64 // writes acknowledged, by batch.Kind
	took  time.Duration
	late  uint64 // open loop: writes that could not even be sent in time
}

func (t *tally) writes() uint64 {
	return t.kinds[batch.Like] + t.kinds[batch.Event] + t.kinds[batch.Place]
}

func (t *tally) merge(o *tally) {
	t.Latencies.Merge(&o.Latencies)
	t.late += o.late
	for i, n := range o.kinds {
		t.kinds[i] += n
	}
}

// schedule gives callers what to send and when it is due. A closed loop's
// writes are due when the caller is free; an open loop's at a fixed rate,
// whether or not one is free, and their latency counts from then. So a system
// that stalls is charged for all who would have come meanwhile.
type schedule struct {
	from    time.Time
	until   time.Time
	rate    float64 // 0: closed
	planned uint64
	sent    atomic.Uint64
}

// overrun is how much longer than planned an open loop may take; what has not
// been sent by then counts as late, with the time it waited so far.
const overrun = 0.5

func newSchedule(d time.Duration, rate float64) *schedule {
	s := &schedule{from: time.Now(), rate: rate}
	s.until = s.from.Add(d)
	if rate > 0 {
		s.planned = uint64(rate * d.Seconds())
		s.until = s.until.Add(time.Duration(overrun * float64(d)))
	}
	return s
}

// next waits until the next write is due and gives that time.
func (s *schedule) next() (due time.Time, ok bool) {
	if s.rate == 0 {
		due = time.Now()
		return due, due.Before(s.until)
	}
	i := s.sent.Add(1) - 1
	due = s.from.Add(time.Duration(float64(i) / s.rate * 1e9))
	if i >= s.planned || time.Now().After(s.until) {
		return due, false
	}
	time.Sleep(time.Until(due))
	return due, true
}

// unsent charges the writes that were never sent, as far as is known.
func (s *schedule) unsent(t *tally) {
	for i := t.writes(); s.rate > 0 && i < s.planned; i++ {
		t.Add(s.until.Sub(s.from.Add(time.Duration(float64(i) / s.rate * 1e9))))
		t.late++
	}
}

// prime lets each caller write once, uncounted in time: connections, prepared
// statements and first pages are no part of the comparison.
func prime(w writer, wl *workload, callers int) (*tally, error) {
	return eachCaller(callers, func(i int, t *tally) error {
		return do(w, i, wl.source(source(i, 1))(), t, time.Now())
	})
}

// load runs the callers to the end of the schedule.
func load(ctx context.Context, w writer, wl *workload, callers int, s *schedule) (*tally, error) {
	var failed atomic.Bool
	from := time.Now()
	t, err := eachCaller(callers, func(i int, t *tally) error {
		next := wl.source(source(i, 2))
		for ctx.Err() == nil && !failed.Load() {
			due, ok := s.next()
			if !ok {
				return nil
			}
			if err := do(w, i, next(), t, due); err != nil {
				failed.Store(true)
				return err
			}
		}
		return ctx.Err()
	})
	t.took = time.Since(from)
	s.unsent(t)
	return t, err
}

func source(caller, part int) *rand.Rand { return rand.New(rand.NewPCG(uint64(caller), uint64(part))) }

func do(w writer, caller int, write batch.Write, t *tally, due time.Time) error {
	if err := w.write(caller, op{Write: write}); err != nil {
		return fmt.Errorf("%c %d: %w", write.Kind, write.Key, err)
	}
	t.Add(time.Since(due))
	t.kinds[write.Kind]++
	return nil
}

func eachCaller(callers int, fn func(int, *tally) error) (*tally, error) {
	tallies, errs := make([]tally, callers), make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { errs[i] = fn(i, &tallies[i]) })
	}
	wg.Wait()
	sum := &tally{}
	for i := range tallies {
		sum.merge(&tallies[i])
	}
	for _, err := range errs {
		if err != nil {
			return sum, err // the others say the same
		}
	}
	return sum, nil
}
