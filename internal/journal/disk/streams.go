package disk

import (
	"cmp"
	"maps"
	"slices"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
)

// streamTable holds a state for each stream. An array per group, not a map per
// stream: a commit of uniform keys touches every partition of every group.
type streamTable struct {
	groups map[sluice.GroupID]*[sluice.Partitions]journal.StreamState
}

func newStreamTable() *streamTable {
	return &streamTable{groups: map[sluice.GroupID]*[sluice.Partitions]journal.StreamState{}}
}

func (t *streamTable) at(s journal.Stream) *journal.StreamState {
	g := t.groups[s.Group]
	if g == nil {
		g = new([sluice.Partitions]journal.StreamState)
		t.groups[s.Group] = g
	}
	return &g[s.Partition]
}

func (t *streamTable) get(s journal.Stream) journal.StreamState {
	if g := t.groups[s.Group]; g != nil {
		return g[s.Partition]
	}
	return journal.StreamState{}
}

// touch says that commit n holds entries of s, and how many writes that makes.
func (t *streamTable) touch(s journal.Stream, n, writes uint64) {
	st := t.at(s)
	st.Last, st.Writes = n, writes
}

// merge takes over what is newer in o.
func (t *streamTable) merge(o *streamTable) {
	for s, from := range o.all() {
		to := t.at(s)
		if from.Last > to.Last {
			to.Last, to.Writes = from.Last, from.Writes
		}
		to.Removed = max(to.Removed, from.Removed)
	}
}

// all gives the streams that ever had an entry.
func (t *streamTable) all() map[journal.Stream]journal.StreamState {
	out := map[journal.Stream]journal.StreamState{}
	for id, g := range t.groups {
		for p, st := range g {
			if st != (journal.StreamState{}) {
				out[journal.Stream{Group: id, Partition: uint8(p)}] = st
			}
		}
	}
	return out
}

// lasts gives the last commit of each stream.
func (t *streamTable) lasts() map[journal.Stream]uint64 {
	out := map[journal.Stream]uint64{}
	for s, st := range t.all() {
		out[s] = st.Last
	}
	return out
}

const streamBytes = 4 + 1 + 8 + 8 + 8

func (t *streamTable) append(b []byte) []byte {
	all := t.all()
	b = appendU32(b, uint32(len(all)))
	for _, s := range sortedStreams(all) {
		st := all[s]
		b = appendStream(b, s)
		b = appendU64(b, st.Last)
		b = appendU64(b, st.Writes)
		b = appendU64(b, st.Removed)
	}
	return b
}

func (d *decoder) streams() *streamTable {
	t := newStreamTable()
	for range d.count(streamBytes) {
		s := d.stream()
		*t.at(s) = journal.StreamState{Last: d.u64(), Writes: d.u64(), Removed: d.u64()}
	}
	return t
}

func sortedStreams[V any](m map[journal.Stream]V) []journal.Stream {
	return slices.SortedFunc(maps.Keys(m), func(a, b journal.Stream) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Partition, b.Partition))
	})
}
