package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Apply implements store.Shard.
func (s *Shard) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	return s.transact(ctx, b, func(t *tx, r *store.Rowwise) (store.Result, error) { return r.Apply(ctx) })
}

// Unpark implements store.Shard.
func (s *Shard) Unpark(ctx context.Context, b *store.Batch, max int) (store.Result, error) {
	return s.transact(ctx, b, func(t *tx, r *store.Rowwise) (store.Result, error) {
		keys, err := t.parkedByKey(max)
		if err != nil {
			return store.Result{}, err
		}
		return r.Unpark(ctx, keys)
	})
}

func (s *Shard) transact(ctx context.Context, b *store.Batch, work func(*tx, *store.Rowwise) (store.Result, error)) (res store.Result, err error) {
	if err := ctx.Err(); err != nil {
		return res, err
	}
	err = s.write(ctx, false, func(w *conn) error {
		if err := guard(w, &b.Prev, &b.Next); err != nil {
			return err
		}
		l, err := s.layout(w, b.Group)
		if err != nil {
			return err
		}
		t := &tx{s: s, w: w, l: l, now: time.Now()}
		waiting, err := t.parkedKeys()
		if err != nil {
			return err
		}
		res, err = work(t, &store.Rowwise{Tx: t, Batch: b, Store: s.o.Store, Now: t.now, Parked: waiting})
		return err
	})
	if err != nil {
		return store.Result{}, err
	}
	return res, nil
}

// layout is made at a group's first use after Ensure or a reload.
func (s *Shard) layout(c *conn, g *schema.Group) (*layout, error) {
	s.mu.Lock()
	l := s.layouts[g.ID]
	s.mu.Unlock()
	if l != nil && l.group == g {
		return l, nil
	}
	var f *facts
	if g.Existing != nil {
		var err error
		if f, err = s.inspect(c, g); err != nil {
			return nil, err
		}
	}
	l = newLayout(g, f)
	s.mu.Lock()
	s.layouts[g.ID] = l
	s.mu.Unlock()
	return l, nil
}

// forgetLayouts makes the next use look at the tables again.
func (s *Shard) forgetLayouts() {
	s.mu.Lock()
	clear(s.layouts)
	s.mu.Unlock()
}

// tx is one transaction on the writer. It implements store.RowTx.
type tx struct {
	s   *Shard
	w   *conn
	l   *layout
	now time.Time

	// Reused from row to row.
	key  []driver.Value
	vals []sluice.Value
	args []driver.Value
	set  []driver.Value // the cells' arguments in the plan's order
	name []byte
	cols []*schema.Column
}

// Change implements store.RowTx.
func (t *tx) Change(e *sluice.Entry) error {
	var err error
	l := t.l
	switch {
	case l.facts != nil && len(l.facts.parents) > 0:
		err = t.Try(func() error {
			if err := t.change(e); err != nil {
				return err
			}
			// A deferred foreign key would say its no at COMMIT, to the whole batch.
			missing, err := t.w.deferredMisses()
			if err == nil && missing {
				err = &store.Refusal{SQLState: "23503", Reason: "FOREIGN KEY constraint failed (deferred)"}
			}
			return err
		})
	case e.Reset && len(e.Cells) > 0:
		err = t.Try(func() error { return t.change(e) })
	default:
		err = t.change(e)
	}
	if err == nil {
		return nil
	}
	return t.refused(err)
}

// refused tells a row's refusal from a failure of the batch.
func (t *tx) refused(err error) error {
	var refusal *store.Refusal
	if !errors.As(err, &refusal) {
		if refusal = refusalOf(err); refusal == nil {
			return err
		}
	}
	if refusal.SQLState == "23503" && t.l.facts != nil {
		refusal.Parents = t.l.facts.parents
	}
	// RAISE(ROLLBACK) and ON CONFLICT ROLLBACK end the transaction behind our
	// back; what came after would be committed statement by statement.
	if _, begun := t.w.exec("BEGIN"); begun == nil {
		return &store.StopError{Reason: "rollback_clause", Detail: fmt.Sprintf("%s: a trigger or constraint of table %s rolls the whole transaction back when it refuses a row (%s); let it say ABORT, then `sluice resume --store %s`",
			t.s.where(), t.l.group.Physical, refusal.Reason, t.s.o.Store.Name)}
	}
	return refusal
}

// Try implements store.RowTx.
func (t *tx) Try(f func() error) error {
	if _, err := t.w.exec("SAVEPOINT sluice"); err != nil {
		return err
	}
	err := f()
	if err != nil {
		// Without a transaction these fail, and refused notices.
		t.w.exec("ROLLBACK TO sluice")
		t.w.exec("RELEASE sluice")
		return err
	}
	_, err = t.w.exec("RELEASE sluice")
	return err
}

func (t *tx) change(e *sluice.Entry) error {
	g := t.l.group
	if err := t.decodeKey(e); err != nil {
		return err
	}
	if g.Events {
		if e.Reset && len(e.Cells) == 0 {
			return nil // events are not deleted
		}
		return t.event(e)
	}
	if e.Reset {
		if err := t.reset(); err != nil || len(e.Cells) == 0 {
			return err
		}
	}
	if g.LatestBy != nil {
		return t.latest(e)
	}
	return t.merge(e, e.Cells)
}

func (t *tx) decodeKey(e *sluice.Entry) (err error) {
	if t.vals, err = t.l.group.Table.DecodeKey(e.Key, t.vals[:0]); err != nil {
		return err
	}
	t.key = t.key[:0]
	for _, v := range t.vals {
		t.key = append(t.key, encode(v))
	}
	return nil
}

func (t *tx) reset() error {
	for _, q := range t.l.reset {
		if _, err := t.w.exec(q, t.key...); err != nil {
			return err
		}
	}
	return nil
}

// merge writes the cells of a group whose columns merge singly.
func (t *tx) merge(e *sluice.Entry, cells []sluice.Cell) error {
	p, err := t.planOf(cells)
	if err != nil {
		return err
	}
	if p == nil { // two columns of one name: the dropped one's change came first
		half := len(cells) / 2
		return t.Try(func() error {
			if err := t.merge(e, cells[:half]); err != nil {
				return err
			}
			return t.merge(e, cells[half:])
		})
	}
	t.set = t.set[:0]
	if p.current == "" {
		for i := range cells {
			t.set = append(t.set, encode(cells[i].Value))
		}
		return t.write(e, p)
	}
	current, err := t.w.row(p.current, t.key...)
	if err == nil && current == nil && p.begins != "" {
		current, err = t.w.row(p.begins)
	}
	if err != nil {
		return err
	}
	at := 0
	for i, col := range p.cols {
		if len(p.merged) <= at || p.merged[at] != i {
			t.set = append(t.set, encode(cells[i].Value))
			continue
		}
		at++
		var old []driver.Value
		if current != nil {
			n := len(physical(col))
			old, current = current[:n], current[n:]
		}
		if err := t.mergeCell(col, old, cells[i].Value); err != nil {
			return err
		}
	}
	return t.write(e, p)
}

// mergeCell appends the merged value of a column; old is nil when there is no row.
func (t *tx) mergeCell(col *schema.Column, old []driver.Value, v sluice.Value) error {
	if col.Merge == schema.Unique {
		var state []byte
		if old != nil {
			state, _ = old[1].([]byte)
		}
		next, estimate, err := fold.MergeSketch(state, v)
		t.set = append(t.set, estimate, next)
		return err
	}
	var have sluice.Value
	if old != nil {
		var err error
		if have, err = decode(col.Type, old[0]); err != nil {
			return &store.Refusal{SQLState: "22018", Reason: fmt.Sprintf("what column %s holds: %v", col.Physical, err)}
		}
	}
	order := fold.CompareValues(v, have)
	switch {
	case v.Kind == sluice.Null, col.Merge == schema.Max && order <= 0, col.Merge == schema.Min && order >= 0 && have.Kind != sluice.Null:
		v = have
	case col.Merge == schema.Sum && have.Kind != sluice.Null:
		sum, err := fold.AddDecimal(have.Bytes, v.Bytes)
		if err != nil {
			return err
		}
		v.Bytes = sum
	}
	t.set = append(t.set, encode(v))
	return nil
}

// planOf finds the plan for the columns of cells; nil when two columns of one
// name are among them.
func (t *tx) planOf(cells []sluice.Cell) (*plan, error) {
	t.name, t.cols = t.name[:0], t.cols[:0]
	for i := range cells {
		t.name = binary.BigEndian.AppendUint16(t.name, uint16(cells[i].Column))
	}
	if p := t.l.plans[string(t.name)]; p != nil {
		return p, nil
	}
	for i := range cells {
		col := t.l.group.ByID(cells[i].Column)
		if col == nil {
			return nil, fmt.Errorf("%s: group %s has no column with id %d; the catalog is older than the journal", t.s.where(), t.l.group.FullName(), cells[i].Column)
		}
		t.cols = append(t.cols, col)
	}
	if len(distinct(t.cols)) < len(t.cols) {
		return nil, nil
	}
	return t.l.planFor(string(t.name), append([]*schema.Column(nil), t.cols...)), nil
}

// whole fills set with a value for each of the layout's columns.
func (t *tx) whole(e *sluice.Entry) (*plan, error) {
	t.set = t.set[:0]
	found := 0
	for _, col := range t.l.cols {
		var v sluice.Value
		for i := range e.Cells {
			if e.Cells[i].Column == col.ID {
				v = e.Cells[i].Value
				found++
			}
		}
		t.set = append(t.set, encode(v))
	}
	if found < len(e.Cells) {
		return nil, fmt.Errorf("%s: an entry of group %s names a column that is not there; the catalog is older than the journal", t.s.where(), t.l.group.FullName())
	}
	return t.l.planFor("", t.l.cols), nil
}

// latest writes the whole row, unless the row that is there is newer.
func (t *tx) latest(e *sluice.Entry) error {
	p, err := t.whole(e)
	if err != nil {
		return err
	}
	if p.current != "" && !e.Reset {
		current, err := t.w.row(p.current, t.key...)
		if err != nil {
			return err
		}
		if current != nil {
			by := t.l.group.LatestBy
			have, err := decode(by.Type, current[0])
			if err != nil {
				return &store.Refusal{SQLState: "22018", Reason: fmt.Sprintf("what column %s holds: %v", by.Physical, err)}
			}
			if fold.CompareValues(cellOf(e, by.ID), have) < 0 {
				return nil
			}
		}
	}
	return t.write(e, p)
}

func cellOf(e *sluice.Entry, id sluice.ColumnID) sluice.Value {
	for i := range e.Cells {
		if e.Cells[i].Column == id {
			return e.Cells[i].Value
		}
	}
	return sluice.Value{}
}

// write runs a plan with the key and set.
func (t *tx) write(e *sluice.Entry, p *plan) error {
	if p.update != "" {
		t.args = append(append(t.args[:0], t.set...), t.key...)
		n, err := t.w.exec(p.update, t.args...)
		if err != nil || n > 0 {
			return err
		}
		if t.l.group.Existing.MissingRow == schema.MissingReject {
			return &store.Refusal{SQLState: "02000", Reason: "the row is missing, and missing_row is reject"}
		}
	}
	t.args = append(t.args[:0], t.key...)
	if t.l.own {
		t.args = append(t.args, int64(e.Slot))
	}
	t.args = append(t.args, t.set...)
	query := p.upsert
	if query == "" {
		query = p.insert
	}
	_, err := t.w.exec(query, t.args...)
	return err
}

func (t *tx) event(e *sluice.Entry) error {
	p, err := t.whole(e)
	if err != nil {
		return err
	}
	t.args = t.args[:0]
	if t.l.own {
		t.args = append(t.args, int64(e.Commit), int64(e.Ordinal))
	}
	t.args = append(t.args, t.key...)
	if t.l.own {
		t.args = append(t.args, int64(e.Slot))
	}
	_, err = t.w.exec(p.insert, append(t.args, t.set...)...)
	return err
}
