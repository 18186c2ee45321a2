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
	slots  []slot   // open addressing, hash 0 is free; a power of two
	used   int      // slots in use
	seeds  int      // of them
	writes uint64   // of all keys
	floor  uint32   // what an evicted key was counted at most
	heavy  []uint64 // once closed: the keys that may have a share of shareHot in it
}

type slot struct {
	hash  uint64 // of the key; 64 bits of a seed of this process, so that two keys are never one in practice
	count uint32
	err   uint32
	seed  bool
	named bool // the group has the key's bytes
}

const (
	countersMax = 1024 // counters of keys that are no seeds
	evictPart   = 4    // an eviction frees at least one in so many
	slotsMin    = 64
	slotsMax    = 2048 // countersMax and the most seeds fill three quarters
	bins        = 240
)

// errorMax is the most that a count may be too high, as a share of the window's writes.
const errorMax = 1 / (float64(countersMax) * (1 - 1.0/evictPart) * 8 / 9)

// reset empties the window and keeps its memory.
func (w *window) reset() {
	if w.slots == nil {
		w.slots = make([]slot, slotsMin)
	}
	clear(w.slots)
	w.used, w.seeds, w.writes, w.floor, w.heavy = 0, 0, 0, 0, w.heavy[:0]
}

// find gives the slot of a key, or the free one where it would go.
func (w *window) find(hash uint64) *slot {
	mask := uint64(len(w.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if s := &w.slots[i]; s.hash == hash || s.hash == 0 {
			return s
		}
	}
}

// add counts n writes of a key. spare is memory for an eviction.
func (w *window) add(hash uint64, n uint32, spare *[]slot) *slot {
	w.writes += uint64(n)
	s := w.find(hash)
	if s.hash == hash {
		s.count = plus(s.count, n)
		return s
	}
	if w.makeRoom(spare) {
		s = w.find(hash)
	}
	w.used++
	*s = slot{hash: hash, count: plus(w.floor, n), err: w.floor}
	return s
}

// seed gives a key a counter that is exact and stays. The window is empty but
// for other seeds.
func (w *window) seed(hash uint64, spare *[]slot) {
	if w.seeds == seedsMax || w.find(hash).hash == hash {
		return
	}
	w.makeRoom(spare)
	w.used++
	w.seeds++
	*w.find(hash) = slot{hash: hash, seed: true, named: true}
}

// bounds of how often a key was written.
func (w *window) bounds(hash uint64) (low, high uint64) {
	s := w.find(hash)
	if s.hash != hash {
		return 0, uint64(w.floor)
	}
	return uint64(s.count - s.err), uint64(s.count)
}

// makeRoom tells whether slots moved to make room for one more.
func (w *window) makeRoom(spare *[]slot) bool {
	switch {
	case w.used-w.seeds == countersMax:
		w.raise()
		w.rebuild(len(w.slots), spare)
		return true
	case len(w.slots) < slotsMax && w.used >= len(w.slots)/4*3:
		w.rebuild(2*len(w.slots), spare)
		return true
	}
	return false
}

// raise lifts the floor over at least a quarter of the counters.
func (w *window) raise() {
	var counts [bins]int
	for i := range w.slots {
		if s := &w.slots[i]; s.hash != 0 && !s.seed {
			counts[binOf(s.count-w.floor)]++
		}
	}
	bin, below := 0, counts[0]
	for below < countersMax/evictPart {
		bin++
		below += counts[bin]
	}
	w.floor = plus(w.floor, topOf(bin))
}

// rebuild moves what is above the floor, and the seeds, to a table of n slots.
func (w *window) rebuild(n int, spare *[]slot) {
	old := w.slots
	if cap(*spare) < n {
		*spare = make([]slot, n)
	}
	w.slots, w.used = (*spare)[:n], 0
	clear(w.slots)
	for i := range old {
		if s := &old[i]; s.hash != 0 && (s.seed || s.count > w.floor) {
			*w.find(s.hash) = *s
			w.used++
		}
	}
	*spare = old
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
