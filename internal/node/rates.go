package node

import (
	"context"
	"math"
	"sync"
	"time"

	"sluice.dev/sluice/internal/pipeline"
)

const (
	rateEvery = time.Second
	rateOver  = 5 * time.Second // about the span that a rate in status tells of
)

// rates turns counters into what happens per second now, as an exponentially
// weighted mean over about rateOver. An average since the start would hide both
// the burst and its end.
type rates struct {
	mu   sync.Mutex
	last map[string]sample
}

type sample struct {
	count uint64
	at    time.Time
	rate  float64
}

func (r *rates) add(name string, count uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[string]sample{}
	}
	was, known := r.last[name]
	next := sample{count: count, at: now}
	if span := now.Sub(was.at).Seconds(); known && span > 0 {
		weight := 1 - math.Exp(-span/rateOver.Seconds())
		next.rate = was.rate + weight*(float64(count-was.count)/span-was.rate)
	}
	r.last[name] = next
}

func (r *rates) of(name string) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[name].rate
}

func rateOf(d *pipeline.Drainer) string {
	return d.StoreName() + "/" + d.ShardName() + "/" + d.Group().FullName()
}

// measure samples the counters that status shows as rates.
func (n *Node) measure(context.Context) error {
	now := time.Now()
	n.rates.add("", n.acceptor.Counts().Writes.Load(), now)
	for _, d := range n.drains.All() {
		n.rates.add(rateOf(d), d.Position().Counts.Rows, now)
	}
	return nil
}
