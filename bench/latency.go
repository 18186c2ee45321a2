package main

import (
	"context"
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// latencies counts durations in buckets that are 1/64 of their value wide, so a
// percentile is exact to 1.6 %, whatever the number of samples.
type latencies struct {
	counts [48 * 64]uint32
	n      uint64
}

func (l *latencies) add(d time.Duration) {
	l.counts[min(bucketOf(uint64(max(d, 0))), len(l.counts)-1)]++
	l.n++
}

func bucketOf(v uint64) int {
	if v < 64 {
		return int(v)
	}
	e := bits.Len64(v) - 7
	return e<<6 + int(v>>e)
}

// valueOf is the upper end of a bucket.
func valueOf(bucket int) time.Duration {
	if bucket < 128 {
		return time.Duration(bucket)
	}
	e := bucket>>6 - 1
	return time.Duration((uint64(bucket&63|64)+1)<<e - 1)
}

func (l *latencies) merge(o *latencies) {
	for i, c := range o.counts {
		l.counts[i] += c
	}
	l.n += o.n
}

// at gives a percentile, q in 0 to 1.
func (l *latencies) at(q float64) time.Duration {
	left := uint64(q * float64(l.n))
	for i, c := range l.counts {
		if uint64(c) > left {
			return valueOf(i)
		}
		left -= uint64(c)
	}
	return 0
}

// millis gives the percentiles 50, 99 and 99.9 as a Row wants them.
func (l *latencies) millis() []float64 {
	var out []float64
	for _, q := range []float64{0.5, 0.99, 0.999} {
		out = append(out, float64(l.at(q))/1e6)
	}
	return out
}

// tally is what a number of callers did.
type tally struct {
	ops  uint64
	took time.Duration
	latencies
}

func (t *tally) perSecond() float64 { return float64(t.ops) / t.took.Seconds() }

func (t *tally) merge(o *tally) {
	t.ops += o.ops
	t.took += o.took
	t.latencies.merge(&o.latencies)
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
				t.add(time.Since(at))
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
