package pipeline

import (
	"context"
	"errors"
	"maps"
	"slices"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/store"
)

// A partition that reached parked_max is held: it stays at its commit, as an
// exception in the cursor row, while the others go on (S8). When half of what is
// parked there has left, it catches up with the rest and the exception goes.

// active is what ordinary batches apply.
func (d *Drainer) active() sluice.PartitionSet {
	set := d.o.Partitions
	for p := range d.cursor.Except {
		set.Remove(p)
	}
	return set
}

// hold takes a partition out of the ordinary batches if err says that it is
// full of parked entries. The shard learns of it with the next cursor; until
// then a crash only tries it again.
func (d *Drainer) hold(err error) bool {
	var stop *store.StopError
	if !errors.As(err, &stop) || stop.Reason != store.ReasonParkedMax {
		return false
	}
	if _, already := d.cursor.Except[stop.Partition]; already {
		return false
	}
	d.cursor.Except = withException(d.cursor.Except, stop.Partition, d.cursor.Commit)
	d.pos.hold(d.cursor.Except, stop)
	return true
}

func withException(except map[uint8]uint64, p uint8, commit uint64) map[uint8]uint64 {
	out := maps.Clone(except)
	if out == nil {
		out = map[uint8]uint64{}
	}
	out[p] = commit
	return out
}

// release leads a held partition on, a batch at a time, once there is room
// again among its parked entries. It says whether it did something.
func (d *Drainer) release(ctx context.Context) (bool, error) {
	now := d.o.Now()
	if len(d.cursor.Except) == 0 || now.Sub(d.lastRelease) < parkedEvery {
		return false, nil
	}
	parked := d.pos.parkedByPartition()
	for _, p := range slices.Sorted(maps.Keys(d.cursor.Except)) {
		// Until the others have gone beyond it there is nothing to catch up with:
		// released now, it would fill up the same batch again, for ever.
		if parked[p] > d.o.Store.ParkedMax/2 || d.cursor.Except[p] >= d.cursor.Commit {
			continue
		}
		err := d.catchUp(ctx, p)
		var stop *store.StopError
		if errors.As(err, &stop) && stop.Reason == store.ReasonParkedMax {
			d.lastRelease = now // it filled up again at once
			return false, nil
		}
		return err == nil, err
	}
	d.lastRelease = now
	return false, nil
}

// catchUp applies one batch of a single held partition.
func (d *Drainer) catchUp(ctx context.Context, p uint8) error {
	var only sluice.PartitionSet
	only.Add(p)
	from := d.cursor.Except[p]
	last, err := d.fold(only, from, d.cursor.Commit)
	if err != nil {
		return err
	}
	next := d.cursor
	next.Except = withException(next.Except, p, last.Number)
	if last.Number >= next.Commit {
		delete(next.Except, p)
	}
	started := d.o.Now()
	batch := &store.Batch{Group: d.group.Load(), Prev: d.stored(), Next: next, Entries: d.folder.Entries(fold.ByKey), ParentsPassed: d.o.ParentsPassed}
	res, err := d.transact(ctx, batch, from+1, last.Number)
	if err != nil {
		return err
	}
	d.cursor, d.passed = next, d.ahead
	d.pos.applied(next, &res, appliedBatch{writes: d.folder.Writes(), took: d.o.Now().Sub(started), durable: d.o.Shard.SyncApply(), at: started}, &d.passed)
	return nil
}

func sameCursor(a, b *store.Cursor) bool {
	return a.Commit == b.Commit && a.Epoch == b.Epoch && maps.Equal(a.Except, b.Except)
}
