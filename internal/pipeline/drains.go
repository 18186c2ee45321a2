package pipeline

import (
	"sync"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
)

// Drains knows which drainer has which streams. Safe for concurrent use.
type Drains struct {
	mu      sync.RWMutex
	byGroup map[sluice.GroupID][]*Drainer
	all     []*Drainer
	changed chan struct{} // closed and replaced when a drainer is added
}

// Add makes a drainer known.
func (ds *Drains) Add(d *Drainer) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.byGroup == nil {
		ds.byGroup = map[sluice.GroupID][]*Drainer{}
	}
	if ds.changed != nil {
		close(ds.changed)
		ds.changed = nil
	}
	id := d.Group().ID
	ds.byGroup[id] = append(ds.byGroup[id], d)
	ds.all = append(ds.all, d)
}

// Changed is closed when the next drainer is added.
func (ds *Drains) Changed() <-chan struct{} {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.changed == nil {
		ds.changed = make(chan struct{})
	}
	return ds.changed
}

// Of lists the drainers of a group.
func (ds *Drains) Of(g sluice.GroupID) []*Drainer {
	ds.mu.RLock()
	defer ds.mu.RUnlock()
	return ds.byGroup[g]
}

// All lists every drainer.
func (ds *Drains) All() []*Drainer {
	ds.mu.RLock()
	defer ds.mu.RUnlock()
	return ds.all
}

// Find gives the drainer of a stream; nil when there is none.
func (ds *Drains) Find(s journal.Stream) *Drainer {
	for _, d := range ds.Of(s.Group) {
		if d.o.Partitions.Has(s.Partition) {
			return d
		}
	}
	return nil
}

// Committed tells the drainers of the groups that commit n touches them.
func (ds *Drains) Committed(n uint64, groups []sluice.GroupID) {
	for _, g := range groups {
		for _, d := range ds.Of(g) {
			d.Notify(n)
		}
	}
}

// FlushAll asks every drainer for everything up to commit n.
func (ds *Drains) FlushAll(n uint64) {
	for _, d := range ds.All() {
		d.Flush(n)
	}
}

// Queued counts the acknowledged writes that are not durably applied, rejected
// or otherwise decided, parked ones included.
func (ds *Drains) Queued(j journal.Journal) uint64 {
	queued := uint64(0)
	streams := j.Streams()
	for _, d := range ds.All() {
		queued += d.Queued(streams)
	}
	return queued
}

// Queued counts the writes that wait for this drainer, by what the journal
// counted and what the drainer passed; parked ones are queued too.
func (d *Drainer) Queued(streams map[journal.Stream]journal.StreamState) uint64 {
	pos := d.Position()
	return d.queuedAt(&pos, streams)
}

func (d *Drainer) queuedAt(pos *Position, streams map[journal.Stream]journal.StreamState) uint64 {
	queued := uint64(0)
	group := d.Group().ID
	for _, p := range d.o.Partitions.List() {
		if acked := streams[journal.Stream{Group: group, Partition: p}].Writes; acked > pos.Passed[p] {
			queued += acked - pos.Passed[p]
		}
	}
	for _, k := range pos.Parked {
		queued += uint64(k.Writes)
	}
	return queued
}

// Through tells whether everything up to the commit is durably applied or
// decided on this drainer.
func (d *Drainer) Through(commit uint64, streams map[journal.Stream]journal.StreamState) bool {
	pos := d.Position()
	if len(pos.Parked) > 0 {
		return false
	}
	group := d.Group().ID
	for _, p := range d.o.Partitions.List() {
		if last := streams[journal.Stream{Group: group, Partition: p}].Last; min(last, commit) > pos.DurableTo(p) {
			return false
		}
	}
	return true
}
