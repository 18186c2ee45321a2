package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice/bench/measure"
)

// tally is what a number of callers did.
type tally struct {
	ops  uint64
	took time.Duration
	measure.Latencies
}

func (t *tally) perSecond() float64 { return float64(t.ops) / t.took.Seconds() }

// millis gives the percentiles 50, 99 and 99.9 as a Row wants them.
func (t *tally) millis() []float64 {
	return []float64{t.Millis(0.5), t.Millis(0.99), t.Millis(0.999)}
}

func (t *tally) merge(o *tally) {
	t.ops += o.ops
	t.took += o.took
	t.Latencies.Merge(&o.Latencies)
}

// errEnough ends a caller without being an error.
var errEnough = errors.New("enough")

// closedLoop lets callers call op again and again for a time: each waits for
// its answer before it calls again. A call under way when the time is over is
// waited for and counted, and so is its time.
func closedLoop(ctx context.Context, callers int, d time.Duration, op func(caller int) error) (*tally, error) {
	var over atomic.Bool
	each := make([]tally, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	from := time.Now()
	for i := range callers {
		wg.Go(func() {
			t := &each[i]
			for !over.Load() && ctx.Err() == nil {
				at := time.Now()
				if err := op(i); err != nil {
					if err != errEnough {
						errs[i] = err
						over.Store(true)
					}
					return
				}
				t.Add(time.Since(at))
				t.ops++
			}
		})
	}
	timer := time.AfterFunc(d, func() { over.Store(true) })
	defer timer.Stop()
	wg.Wait()
	sum := &tally{}
	for i := range each {
		sum.merge(&each[i])
	}
	sum.took = time.Since(from)
	for _, err := range errs {
		if err != nil {
			return sum, err // the others say the same
		}
	}
	return sum, ctx.Err()
}
