// Package fold merges entries of one key into one. It serves the group commit,
// the drainer and the reader, so that there is one meaning of merging. It is
// pure: no clock, no I/O, no goroutine; and it never changes an answer (S11).
package fold

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/axiomhq/hyperloglog"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// Mode says for whom a Folder folds.
type Mode uint8

const (
	// Commit folds for the journal: writes to groups whose database may refuse
	// a row keep every `set` apart (S10), so that one refused write takes no
	// other with it.
	Commit Mode = iota
	// Drain folds for a store: all that is lawful. What the database refuses
	// is unfolded into its journal entries again.
	Drain
)

// Folder merges entries by key. It copies what it keeps. Its memory is reused
// after Reset: entries, cells and bytes lie in three slices without pointers
// between them, so that a large fold costs the garbage collector nothing.
// Not safe for concurrent use.
type Folder struct {
	mode     Mode
	lookup   func(sluice.GroupID) *schema.Group
	seed     maphash.Seed
	entries  []entry
	cells    []cell
	arena    []byte
	sketches []*hyperloglog.Sketch
	index    []int32 // open addressing over entries, -1 free; length is a power of two
	used     int
	writes   uint64

	group *schema.Group // of the last entry: most neighbours share it
	order []int32
	spare []int32 // the other half of a counting sort
	out   []sluice.Cell
}

type entry struct {
	group   sluice.GroupID
	key     span
	first   int32 // cells, a list in order of first mention; -1 none
	last    int32
	hash    uint32
	writes  uint32
	ordinal uint32
	slot    uint16
	reset   bool
	closed  bool // later entries of the key may not fold into it
	commit  uint64
	replay  uint64
}

type cell struct {
	num    int64
	bytes  span
	next   int32
	column sluice.ColumnID
	kind   sluice.Kind
}

type span struct{ off, n, cap uint32 }

// New makes a Folder. lookup finds the group of an entry.
func New(mode Mode, lookup func(sluice.GroupID) *schema.Group) *Folder {
	f := &Folder{mode: mode, lookup: lookup, seed: maphash.MakeSeed()}
	f.Reset()
	return f
}

// retainMax is what a Folder keeps of its memory over a Reset, in entries.
const retainMax = 1 << 17

// Reset forgets all entries and keeps the memory.
func (f *Folder) Reset() {
	if cap(f.entries) > retainMax {
		f.entries, f.cells, f.arena, f.index, f.order, f.out = nil, nil, nil, nil, nil, nil
	}
	f.entries, f.cells, f.arena, f.sketches = f.entries[:0], f.cells[:0], f.arena[:0], nil
	f.used, f.writes, f.group = 0, 0, nil
	if f.index == nil {
		f.index = make([]int32, 1024)
	}
	for i := range f.index {
		f.index[i] = -1
	}
}

// Len is the number of entries after folding.
func (f *Folder) Len() int { return len(f.entries) }

// Writes is the number of writes folded in.
func (f *Folder) Writes() uint64 { return f.writes }

// Bytes is about how much memory the Folder's content takes, and an upper
// bound of what its entries take in a commit.
func (f *Folder) Bytes() int {
	return len(f.entries)*48 + len(f.cells)*32 + len(f.arena) + len(f.sketches)*sketchBytes
}

// Add folds an entry in. The error is that of a value which cannot be merged;
// nothing was changed then.
func (f *Folder) Add(e *sluice.Entry) error {
	if f.group == nil || f.group.ID != e.Group {
		f.group = f.lookup(e.Group)
		if f.group == nil {
			return sluice.Errorf(sluice.Internal, "no_group", "fold: no group has id %d; the catalog is older than the journal", e.Group)
		}
	}
	g := f.group
	f.writes += uint64(e.Writes)
	if g.Events {
		f.push(e, 0)
		return nil
	}
	alone := e.Replay != 0 || f.keptApart(g, e)
	hash := f.hash(e)
	at := f.find(hash, e)
	if at >= 0 && f.index[at] >= 0 && !alone {
		old := &f.entries[f.index[at]]
		if !old.closed {
			folded, err := f.merge(g, old, e)
			if err != nil {
				f.writes -= uint64(e.Writes)
				return err
			}
			if folded {
				old.writes += e.Writes
				old.commit, old.ordinal = e.Commit, e.Ordinal
				return nil
			}
		}
	}
	// One that stands alone is no target for later ones. It does not hide an
	// earlier sum from them either, unless order matters: a reset or a replay.
	i := f.push(e, hash)
	if !alone || e.Reset || e.Replay != 0 {
		f.entries[i].closed = alone
		f.point(hash, e, i)
	}
	return nil
}

// keptApart: in a commit, a change to a database that may refuse it keeps its
// sets to itself.
func (f *Folder) keptApart(g *schema.Group, e *sluice.Entry) bool {
	if f.mode != Commit || !g.CanReject() {
		return false
	}
	if e.Reset || g.LatestBy != nil {
		return true
	}
	for i := range e.Cells {
		if c := g.ByID(e.Cells[i].Column); c == nil || c.Merge == schema.Set {
			return true
		}
	}
	return false
}

// merge folds e into old; false when that would change an answer (overflow,
// or two entries whose row images cannot be one).
func (f *Folder) merge(g *schema.Group, old *entry, e *sluice.Entry) (bool, error) {
	if old.writes > old.writes+e.Writes {
		return false, nil
	}
	if e.Reset {
		old.reset = true
		f.replaceCells(old, e)
		return true, nil
	}
	if g.LatestBy != nil {
		return f.mergeLatest(g, old, e), nil
	}
	for i := range e.Cells {
		if !f.fits(g, old, &e.Cells[i]) {
			return false, nil
		}
	}
	for i := range e.Cells {
		if err := f.mergeCell(g, old, &e.Cells[i]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// mergeLatest keeps the row with the higher order value; a tie goes to the later.
func (f *Folder) mergeLatest(g *schema.Group, old *entry, e *sluice.Entry) bool {
	have, found := f.cellOf(old, g.LatestBy.ID)
	if found {
		was := f.value(have)
		for i := range e.Cells {
			if e.Cells[i].Column == g.LatestBy.ID && CompareValues(e.Cells[i].Value, was) < 0 {
				return true
			}
		}
	}
	f.replaceCells(old, e)
	return true
}

func (f *Folder) replaceCells(old *entry, e *sluice.Entry) {
	old.first, old.last = -1, -1
	for i := range e.Cells {
		f.appendCell(old, &e.Cells[i])
	}
}

func (f *Folder) push(e *sluice.Entry, hash uint32) int32 {
	i := int32(len(f.entries))
	f.entries = append(f.entries, entry{group: e.Group, key: f.keep(e.Key), first: -1, last: -1, hash: hash, writes: e.Writes,
		ordinal: e.Ordinal, slot: e.Slot, reset: e.Reset, commit: e.Commit, replay: e.Replay})
	en := &f.entries[i]
	for j := range e.Cells {
		f.appendCell(en, &e.Cells[j])
	}
	return i
}

func (f *Folder) appendCell(en *entry, c *sluice.Cell) *cell {
	i := int32(len(f.cells))
	f.cells = append(f.cells, cell{num: c.Value.Num, bytes: f.keep(c.Value.Bytes), next: -1, column: c.Column, kind: c.Value.Kind})
	if en.last < 0 {
		en.first = i
	} else {
		f.cells[en.last].next = i
	}
	en.last = i
	return &f.cells[i]
}

func (f *Folder) cellOf(en *entry, column sluice.ColumnID) (*cell, bool) {
	for i := en.first; i >= 0; i = f.cells[i].next {
		if f.cells[i].column == column {
			return &f.cells[i], true
		}
	}
	return nil, false
}

func (f *Folder) keep(b []byte) span {
	off := uint32(len(f.arena))
	f.arena = append(f.arena, b...)
	return span{off, uint32(len(b)), uint32(len(b))}
}

func (f *Folder) bytes(s span) []byte { return f.arena[s.off : s.off+s.n : s.off+s.n] }

// store puts b where s was when it fits, else at the arena's end.
func (f *Folder) store(s *span, b []byte) {
	if uint32(len(b)) <= s.cap {
		copy(f.arena[s.off:], b)
		s.n = uint32(len(b))
		return
	}
	*s = f.keep(b)
}

func (f *Folder) value(c *cell) sluice.Value {
	return sluice.Value{Kind: c.kind, Num: c.num, Bytes: f.bytes(c.bytes)}
}

func (f *Folder) hash(e *sluice.Entry) uint32 {
	h := maphash.Bytes(f.seed, e.Key) + uint64(e.Group)*0x9e3779b97f4a7c15
	return uint32(h>>32) ^ uint32(h)
}

// find gives the place in the index of e's key, or the free one where it would go.
func (f *Folder) find(hash uint32, e *sluice.Entry) int {
	mask := uint32(len(f.index) - 1)
	for at := hash & mask; ; at = (at + 1) & mask {
		i := f.index[at]
		if i < 0 {
			return int(at)
		}
		if en := &f.entries[i]; en.hash == hash && en.group == e.Group && bytes.Equal(f.bytes(en.key), e.Key) {
			return int(at)
		}
	}
}

// point makes entry i the one that later entries of its key fold into.
func (f *Folder) point(hash uint32, e *sluice.Entry, i int32) {
	at := f.find(hash, e)
	if f.index[at] < 0 {
		f.used++
	}
	f.index[at] = i
	if f.used*2 > len(f.index) {
		f.grow()
	}
}

func (f *Folder) grow() {
	old := f.index
	f.index = make([]int32, 1<<bits.Len(uint(len(old))))
	for i := range f.index {
		f.index[i] = -1
	}
	mask := uint32(len(f.index) - 1)
	for _, i := range old {
		if i < 0 {
			continue
		}
		at := f.entries[i].hash & mask
		for f.index[at] >= 0 {
			at = (at + 1) & mask
		}
		f.index[at] = i
	}
}

// Order is how Each walks.
type Order uint8

const (
	// ByStream walks by group, partition, and arrival within one.
	ByStream Order = iota
	// ByKey walks by group and key; entries of one key in arrival order. Events
	// stay in arrival order. It is the order of locks in a database (S8).
	ByKey
)

// Each calls fn with every entry. The entry is valid until the Folder is used
// again; Entries keeps all of them together.
func (f *Folder) Each(order Order, fn func(*sluice.Entry) error) error {
	f.sort(order)
	var e sluice.Entry
	for _, i := range f.order {
		f.out = f.out[:0]
		f.emit(i, &e)
		if err := fn(&e); err != nil {
			return err
		}
	}
	return nil
}

// Entries gives all entries in order. They stay valid until the next Add or Reset.
func (f *Folder) Entries(order Order) []sluice.Entry {
	f.sort(order)
	f.out = slices.Grow(f.out[:0], len(f.cells))
	all := make([]sluice.Entry, len(f.order))
	for n, i := range f.order {
		f.emit(i, &all[n])
	}
	return all
}

func (f *Folder) emit(i int32, e *sluice.Entry) {
	en := &f.entries[i]
	from := len(f.out)
	for c := en.first; c >= 0; c = f.cells[c].next {
		f.out = append(f.out, sluice.Cell{Column: f.cells[c].column, Value: f.emitValue(&f.cells[c])})
	}
	*e = sluice.Entry{Group: en.group, Slot: en.slot, Key: f.bytes(en.key), Reset: en.reset, Replay: en.replay,
		Cells: f.out[from:len(f.out):len(f.out)], Writes: en.writes, Commit: en.commit, Ordinal: en.ordinal}
}

func (f *Folder) sort(order Order) {
	f.order = f.order[:0]
	for i := range f.entries {
		f.order = append(f.order, int32(i))
	}
	if order == ByStream {
		f.bucket(sluice.Partitions, func(e *entry) int { return int(e.slot / sluice.SlotsPerPartition) })
		f.bucketByGroup()
		return
	}
	slices.SortFunc(f.order, func(a, b int32) int {
		x, y := &f.entries[a], &f.entries[b]
		if x.group != y.group || f.isEvents(x.group) {
			return cmp.Or(cmp.Compare(x.group, y.group), cmp.Compare(a, b))
		}
		return cmp.Or(bytes.Compare(f.bytes(x.key), f.bytes(y.key)), cmp.Compare(a, b))
	})
}

// bucketByGroup finishes a stable two-key sort. Most commits touch one group.
func (f *Folder) bucketByGroup() {
	low, high := ^sluice.GroupID(0), sluice.GroupID(0)
	for i := range f.entries {
		low, high = min(low, f.entries[i].group), max(high, f.entries[i].group)
	}
	if low < high {
		f.bucket(int(high-low)+1, func(e *entry) int { return int(e.group - low) })
	}
}

// bucket is a stable counting sort of order. Sorting by comparison took a
// quarter of the group commit's time.
func (f *Folder) bucket(n int, key func(*entry) int) {
	starts := make([]int32, n+1)
	for i := range f.entries {
		starts[key(&f.entries[i])+1]++
	}
	for i := range n {
		starts[i+1] += starts[i]
	}
	f.spare = slices.Grow(f.spare[:0], len(f.order))[:len(f.order)]
	for _, i := range f.order {
		k := key(&f.entries[i])
		f.spare[starts[k]] = i
		starts[k]++
	}
	f.order, f.spare = f.spare, f.order
}

func (f *Folder) isEvents(id sluice.GroupID) bool {
	if f.group == nil || f.group.ID != id {
		f.group = f.lookup(id)
	}
	return f.group.Events
}
