package hotkey

import (
	"math/rand/v2"
	"testing"
)

// streams of weighted writes that try to make counts wrong.
var streams = map[string]func(rnd *rand.Rand, i int) (key uint64, n uint32){
	"uniform":                          func(rnd *rand.Rand, _ int) (uint64, uint32) { return rnd.Uint64N(1e6), 1 },
	"never the same":                   func(_ *rand.Rand, i int) (uint64, uint32) { return uint64(i), 1 },
	"rising weights":                   func(_ *rand.Rand, i int) (uint64, uint32) { return uint64(i), uint32(i/8 + 1) },
	"falling weights":                  func(_ *rand.Rand, i int) (uint64, uint32) { return uint64(i), uint32(100_000/(i+1)) + 1 },
	"powers of two":                    func(rnd *rand.Rand, i int) (uint64, uint32) { return uint64(i), 1 << rnd.IntN(20) },
	"a round longer than the counters": func(_ *rand.Rand, i int) (uint64, uint32) { return uint64(i % (countersMax + 1)), 1 },
	"heavy ones come last": func(_ *rand.Rand, i int) (uint64, uint32) {
		if i < 90_000 {
			return uint64(i), 1
		}
		return uint64(i % 90), 9
	},
}

func TestErrorBound(t *testing.T) {
	for name, next := range streams {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			w := new(window)
			w.reset()
			for k := range uint64(100) { // some of them are counted exactly
				w.seed(mix(k * 7))
			}
			truth := map[uint64]uint64{}
			for i := range 100_000 {
				key, n := next(rnd, i)
				w.add(mix(key), n)
				truth[key] += uint64(n)
				if most := errorMax * float64(w.writes); float64(w.floor) > most {
					t.Fatalf("after %d writes the floor is %d, more than %.1f", i+1, w.floor, most)
				}
			}
			for key, n := range truth {
				low, high := w.bounds(mix(key))
				if n < low || n > high {
					t.Fatalf("key %d was written %d times, the bounds are %d and %d", key, n, low, high)
				}
				if at := *w.find(mix(key)); at > 0 && int(at) <= w.seeds && (low != n || high != n) {
					t.Errorf("seed %d was written %d times, the bounds are %d and %d", key, n, low, high)
				}
			}
			if len(w.counters)-w.seeds > countersMax || len(w.index) > 2048 {
				t.Errorf("%d counters, an index of %d", len(w.counters)-w.seeds, len(w.index))
			}
		})
	}
}

// mix stands for the hash. It is one to one.
func mix(k uint64) uint64 {
	k *= 0x9e3779b97f4a7c15
	return k ^ k>>29
}

func TestBinsHoldWhatTheirEdgesSay(t *testing.T) {
	last := -1
	for _, e := range []uint32{0, 1, 7, 8, 9, 15, 16, 17, 18, 31, 32, 1000, 1 << 20, 1<<32 - 1} {
		bin := binOf(e)
		top := topOf(bin)
		if bin < last || bin >= bins || e > top || uint64(top)*8 > uint64(e)*9 {
			t.Errorf("%d is in bin %d up to %d", e, bin, top)
		}
		if binOf(top) != bin {
			t.Errorf("the edge %d of bin %d is in bin %d", top, bin, binOf(top))
		}
		last = bin
	}
}

func TestCountsStopAtTheirLimit(t *testing.T) {
	w := new(window)
	w.reset()
	for range 3 {
		w.add(1, 1<<31)
	}
	if low, high := w.bounds(1); low != 1<<32-1 || high != low {
		t.Errorf("bounds %d, %d", low, high)
	}
}
