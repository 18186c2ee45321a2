package hotkey

import (
	"math"
	"math/bits"
)

// window counts the writes of one span of time by key, with Space-Saving whose
// evictions are put off: a counter that is needed takes the place of a whole
// quarter of the smallest at once, which costs a few nanoseconds a write whatever
// the weights are. Taking the place of the one smallest needs a heap.
//
// Invariant: a key that has a counter was written at most count and at least
// count - err times; one that has none at most floor times.
//
// Bound: floor <= writes * errorMax. Call count - floor the excess of a counter. Each
// write adds its weight to the excess of one counter. An eviction that raises the
// floor by d takes min(excess, d) from each of the 1,024 counters. Less than a quarter
// of them lie below the bin of d; each of the others gives at least the bin's lower
// edge, which is at least 8/9 d. So each eviction takes at least 3/4 * 8/9 * 1024 * d of
// what the writes brought. (TestErrorBound)
//
// Seeds are keys that were heavy in the window before, or are hot. They have a
// counter from the start, which is never evicted: they are counted exactly.
type window struct {
	counters []counter // the seeds first
	index    []uint16  // open addressing over counters: 1 and the position, 0 free; a power of two
	seeds    int
	writes   uint64   // of all keys
	floor    uint32   // what a key without a counter was written at most
	heavy    []uint64 // once closed: the keys that may have a share of shareHot in it
}

type counter struct {
	hash  uint64 // of the key; 64 bits of a seed of this process, so that two keys are never one in practice
	count uint32
	err   uint32
}

const (
	countersMax = 1024 // of keys that are no seeds
	evictPart   = 4    // an eviction frees at least one in so many
	indexMin    = 128
	bins        = 240
)

// errorMax is the most that a count may be too high, as a share of the window's writes.
const errorMax = 1 / (float64(countersMax) * (1 - 1.0/evictPart) * 8 / 9)

// reset empties the window and keeps its memory.
func (w *window) reset() {
	if w.index == nil {
		w.index = make([]uint16, indexMin)
	}
	clear(w.index)
	w.counters, w.heavy = w.counters[:0], w.heavy[:0]
	w.seeds, w.writes, w.floor = 0, 0, 0
}

// find gives the place in the index of a key, or the free one where it would go.
func (w *window) find(hash uint64) *uint16 {
	mask := uint64(len(w.index) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if at := w.index[i]; at == 0 || w.counters[at-1].hash == hash {
			return &w.index[i]
		}
	}
}

// add counts n writes of a key and gives the position of its counter.
func (w *window) add(hash uint64, n uint32) int {
	w.writes += uint64(n)
	at := w.find(hash)
	if *at != 0 {
		c := &w.counters[*at-1]
		c.count = plus(c.count, n)
		return int(*at - 1)
	}
	if len(w.counters)-w.seeds == countersMax {
		w.raise()
		at = w.find(hash)
	}
	return w.insert(at, counter{hash: hash, count: plus(w.floor, n), err: w.floor})
}

// seed gives a key a counter that is exact and stays. The window is empty but
// for other seeds.
func (w *window) seed(hash uint64) {
	if at := w.find(hash); *at == 0 && w.seeds < seedsMax {
		w.seeds++
		w.insert(at, counter{hash: hash})
	}
}

func (w *window) insert(at *uint16, c counter) int {
	w.counters = append(w.counters, c)
	*at = uint16(len(w.counters))
	if len(w.counters)*4 > len(w.index)*3 {
		w.index = make([]uint16, 2*len(w.index))
		w.point()
	}
	return len(w.counters) - 1
}

// point fills an empty index.
func (w *window) point() {
	for i := range w.counters {
		*w.find(w.counters[i].hash) = uint16(i + 1)
	}
}

// bounds of how often a key was written.
func (w *window) bounds(hash uint64) (low, high uint64) {
	at := *w.find(hash)
	if at == 0 {
		return 0, uint64(w.floor)
	}
	c := &w.counters[at-1]
	return uint64(c.count - c.err), uint64(c.count)
}

// isHeavy tells whether a counter has the share of a hot key.
func (w *window) isHeavy(c *counter) bool {
	return c.count > 0 && uint64(c.count)*shareHot >= w.writes
}

// raise lifts the floor over at least a quarter of the counters and drops them.
func (w *window) raise() {
	var counts [bins]int
	others := w.counters[w.seeds:]
	for i := range others {
		counts[binOf(others[i].count-w.floor)]++
	}
	bin, below := 0, counts[0]
	for below < countersMax/evictPart {
		bin++
		below += counts[bin]
	}
	w.floor = plus(w.floor, topOf(bin))
	kept := w.counters[:w.seeds]
	for _, c := range others {
		if c.count > w.floor {
			kept = append(kept, c)
		}
	}
	w.counters = kept
	clear(w.index)
	w.point()
}

// binOf puts 1 to 15 into bins of their own and all above into eight bins for
// each power of two, so that a bin's upper edge is at most 9/8 of its lower one.
func binOf(excess uint32) int {
	if excess < 8 {
		return int(excess)
	}
	k := bits.Len32(excess) - 4
	return 8*(k+1) + int(excess>>k&7)
}

// topOf is the upper edge of a bin.
func topOf(bin int) uint32 {
	if bin < 8 {
		return uint32(bin)
	}
	return uint32(uint64(8+bin%8+1)<<(bin/8-1) - 1)
}

func plus(a, b uint32) uint32 { return a + min(b, math.MaxUint32-a) }
