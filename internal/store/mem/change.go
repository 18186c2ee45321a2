package mem

import (
	"fmt"
	"math"
	"slices"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// tx is one transaction: it changes the maps in place and keeps the way back.
// It implements store.RowTx.
type tx struct {
	s    *Shard
	d    *Database
	g    *schema.Group
	now  time.Time
	undo undo
}

func put[K comparable, V any](t *tx, m map[K]V, k K, v V) {
	old, had := m[k]
	t.undo = append(t.undo, func() {
		if had {
			m[k] = old
		} else {
			delete(m, k)
		}
	})
	m[k] = v
}

func remove[K comparable, V any](t *tx, m map[K]V, k K) {
	if old, had := m[k]; had {
		t.undo = append(t.undo, func() { m[k] = old })
		delete(m, k)
	}
}

// Try implements store.RowTx.
func (t *tx) Try(f func() error) error {
	mark := len(t.undo)
	err := f()
	if err != nil {
		t.undo[mark:].run()
		t.undo = t.undo[:mark]
	}
	return err
}

// Together implements store.RowTx.
func (t *tx) Together(e []sluice.Entry) (int, bool, error) { return len(e), false, nil }

// Change implements store.RowTx. It computes the row aside and puts it at the end.
func (t *tx) Change(e *sluice.Entry) error {
	if t.d.hooks.Locked != nil && t.d.hooks.Locked(t.g, e.Key) {
		return store.ErrRowLocked
	}
	rows := t.d.table(t.g).rows
	old, found := rows[string(e.Key)]
	switch {
	case t.g.Events:
		return t.event(e)
	case !found && t.g.Existing != nil && t.g.Existing.MissingRow == schema.MissingReject && len(e.Cells) > 0:
		return &store.Refusal{SQLState: "02000", Reason: "the row is missing, and missing_row is reject"}
	case e.Reset && len(e.Cells) == 0 && (!found || t.deletes()):
		remove(t, rows, string(e.Key))
		return nil
	case !found || e.Reset:
		old = row{}
	}
	next, err := t.merge(old, e)
	if err != nil || next.values == nil {
		return err
	}
	if err := t.refuse(e, next); err != nil {
		return err
	}
	put(t, rows, string(e.Key), next)
	return nil
}

// deletes tells whether a delete removes the row.
func (t *tx) deletes() bool { return t.g.Existing == nil || t.g.Existing.DeleteRow }

func (t *tx) refuse(e *sluice.Entry, r row) error {
	if t.d.hooks.Refuse == nil {
		return nil
	}
	if no := t.d.hooks.Refuse(t.g, e.Key, r.byIndex(t.g)); no != nil {
		return no
	}
	return nil
}

func (t *tx) event(e *sluice.Entry) error {
	if e.Reset && len(e.Cells) == 0 {
		return nil // events are not deleted
	}
	r, err := t.merge(row{}, e)
	if err != nil {
		return err
	}
	if err := t.refuse(e, r); err != nil {
		return err
	}
	put(t, t.d.table(t.g).events, entryKey{t.g.ID, e.Commit, e.Ordinal}, Event{slices.Clone(e.Key), e.Commit, e.Ordinal, r.values})
	return nil
}

// merge gives the row after the entry; none when an older one of a latest_by group lost.
func (t *tx) merge(old row, e *sluice.Entry) (row, error) {
	if by := t.g.LatestBy; by != nil && len(e.Cells) > 0 {
		for _, c := range e.Cells {
			if c.Column == by.ID && len(old.values) > int(by.ID) && fold.CompareValues(c.Value, old.values[by.ID]) < 0 {
				return row{}, nil
			}
		}
		old = row{}
	}
	next := old.clone(t.g)
	for _, c := range e.Cells {
		col := t.g.ByID(c.Column)
		if col == nil {
			return row{}, fmt.Errorf("mem: group %s has no column with id %d", t.g.FullName(), c.Column)
		}
		if err := next.mergeCell(col, c.Value); err != nil {
			return row{}, err
		}
	}
	return next, nil
}

func (r *row) mergeCell(col *schema.Column, v sluice.Value) error {
	have := &r.values[col.ID]
	order := fold.CompareValues(v, *have)
	switch {
	case col.Merge == schema.Unique:
		sketch, estimate, err := fold.MergeSketch(r.sketches[col.ID], v)
		if err != nil {
			return err
		}
		if r.sketches == nil {
			r.sketches = map[sluice.ColumnID][]byte{}
		}
		r.sketches[col.ID] = sketch
		*have = sluice.IntValue(estimate)
	case v.Kind == sluice.Null && col.Merge != schema.Set:
	case col.Merge == schema.Set || have.Kind == sluice.Null,
		col.Merge == schema.Max && order > 0, col.Merge == schema.Min && order < 0:
		*have = cloneValue(v)
	case col.Merge == schema.Sum:
		sum, err := add(*have, v)
		if err != nil {
			return err
		}
		*have = sum
	}
	return nil
}

func add(a, b sluice.Value) (sluice.Value, error) {
	switch a.Kind {
	case sluice.Int64:
		sum := a.Num + b.Num
		if (b.Num >= 0) != (sum >= a.Num) {
			return a, &store.Refusal{SQLState: "22003", Reason: "the sum leaves the range of int64"}
		}
		return sluice.IntValue(sum), nil
	case sluice.Float64:
		sum := math.Float64frombits(uint64(a.Num)) + math.Float64frombits(uint64(b.Num))
		sum = max(-math.MaxFloat64, min(math.MaxFloat64, sum)) // as fold does
		return sluice.Value{Kind: sluice.Float64, Num: int64(math.Float64bits(sum))}, nil
	}
	sum, err := fold.AddDecimal(a.Bytes, b.Bytes)
	return sluice.Value{Kind: sluice.Decimal, Bytes: sum}, err
}

// Park implements store.RowTx.
func (t *tx) Park(e *sluice.Entry) error {
	put(t, t.d.parked, entryKey{t.g.ID, e.Commit, e.Ordinal}, parked{
		entry: journal.AppendEntry(nil, e), key: string(e.Key), since: t.now,
		name: store.ParkedKey{KeyHash: sluice.KeyHash(t.g.ID, e.Key), Partition: e.Partition(), Commit: e.Commit, Ordinal: e.Ordinal, Writes: e.Writes},
	})
	return nil
}

// Unpark implements store.RowTx.
func (t *tx) Unpark(e *sluice.Entry) error {
	remove(t, t.d.parked, entryKey{t.g.ID, e.Commit, e.Ordinal})
	return nil
}

// Reject implements store.RowTx.
func (t *tx) Reject(e *sluice.Entry, r *sluice.Reject) error {
	r.Store, r.Shard, r.At, r.Entry = t.s.o.Store.Name, t.s.o.Shard.Name, t.now, journal.AppendEntry(nil, e)
	put(t, t.d.rejects, entryKey{t.g.ID, r.Commit, r.Ordinal}, *r)
	return nil
}

// Replayed implements store.RowTx.
func (t *tx) Replayed(commit uint64, ordinal uint32) error {
	k := entryKey{t.g.ID, commit, ordinal}
	if r, ok := t.d.rejects[k]; ok {
		r.State = "replayed"
		put(t, t.d.rejects, k, r)
	}
	return nil
}

// Waiting implements store.RowTx.
func (t *tx) Waiting(partition uint8) (rejects, parked int, err error) {
	for k, r := range t.d.rejects {
		if k.group == t.g.ID && r.Partition == partition && r.State == "open" {
			rejects++
		}
	}
	for k, p := range t.d.parked {
		if k.group == t.g.ID && p.name.Partition == partition {
			parked++
		}
	}
	return rejects, parked, nil
}
