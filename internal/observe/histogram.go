package observe

import (
	"math"
	"sort"
	"sync/atomic"
)

// Seconds and Sizes are the bounds of histograms of time and of counts: each
// bound about 2 to 2.5 times the one before.
var (
	Seconds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	Sizes   = []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 1000000}
)

// Histogram counts observations in buckets. Observing costs a binary search and
// three atomic additions. Safe for concurrent use.
type Histogram struct {
	bounds []float64 // upper bounds, ascending
	counts []atomic.Uint64
	sum    atomic.Uint64 // float64 bits
}

// NewHistogram makes a histogram with these upper bounds and one above them.
func NewHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts v.
func (h *Histogram) Observe(v float64) {
	h.counts[sort.SearchFloat64s(h.bounds, v)].Add(1)
	for {
		was := h.sum.Load()
		if h.sum.CompareAndSwap(was, math.Float64bits(math.Float64frombits(was)+v)) {
			return
		}
	}
}

// Snapshot gives the number of observations, their sum, and for each upper
// bound how many were at or below it.
func (h *Histogram) Snapshot() (count uint64, sum float64, cumulative map[float64]uint64) {
	cumulative = make(map[float64]uint64, len(h.bounds))
	for i := range h.counts {
		count += h.counts[i].Load()
		if i < len(h.bounds) {
			cumulative[h.bounds[i]] = count
		}
	}
	return count, math.Float64frombits(h.sum.Load()), cumulative
}
