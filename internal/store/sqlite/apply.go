package sqlite

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/journal"
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

// Together implements store.RowTx: rows of own tables that one plan can write,
// each of another key.
func (t *tx) Together(entries []sluice.Entry) (int, error) {
	if !t.l.own || len(entries) < 2 || !alone(&entries[0]) {
		return 0, nil
	}
	p, neutral, err := t.planTogether(entries)
	if err != nil || p == nil || p.several == "" || len(entries) < p.rows {
		return 0, err
	}
	t.args = t.args[:0]
	for i := range p.rows {
		e := &entries[i]
		if !t.l.group.Events && i > 0 && bytes.Equal(e.Key, entries[i-1].Key) || !alone(e) || !neutral && !sameColumns(e.Cells, entries[0].Cells) {
			return 0, nil
		}
		if ok, err := t.appendRow(e, p, neutral); !ok || err != nil {
			return 0, err
		}
	}
	if n := p.rows; n < len(entries) && !t.l.group.Events && bytes.Equal(entries[n].Key, entries[n-1].Key) {
		return 0, nil // the last key goes on: its entries stand or fall together
	}
	if _, err := t.w.exec(p.several, t.args...); err != nil {
		return p.rows, t.refused(err)
	}
	return p.rows, nil
}

// alone tells whether an entry is a plain change.
func alone(e *sluice.Entry) bool { return !e.Reset && e.Replay == 0 }

func (t *tx) planTogether(entries []sluice.Entry) (p *plan, neutral bool, err error) {
	l := t.l
	if l.cols != nil {
		return l.planFor("", l.cols), true, nil
	}
	if len(l.neutral) > 0 && t.takes(l.neutral, entries[0].Cells) {
		return l.planFor("", l.neutral), true, nil
	}
	p, err = t.planOf(entries[0].Cells)
	return p, false, err
}

// takes tells whether all cells are of these columns.
func (t *tx) takes(cols []*schema.Column, cells []sluice.Cell) bool {
	for i := range cells {
		if !slices.ContainsFunc(cols, func(c *schema.Column) bool { return c.ID == cells[i].Column }) {
			return false
		}
	}
	return true
}

func sameColumns(a, b []sluice.Cell) bool {
	return slices.EqualFunc(a, b, func(x, y sluice.Cell) bool { return x.Column == y.Column })
}

// appendRow appends a row's arguments; false when a cell has no place in the plan.
func (t *tx) appendRow(e *sluice.Entry, p *plan, neutral bool) (bool, error) {
	if err := t.decodeKey(e); err != nil {
		return false, err
	}
	if t.l.group.Events {
		t.args = append(t.args, int64(e.Commit), int64(e.Ordinal))
	}
	t.args = append(append(t.args, t.key...), int64(e.Slot))
	if !neutral {
		for i := range e.Cells {
			t.args = append(t.args, encode(e.Cells[i].Value))
		}
		return true, nil
	}
	found := 0
	for _, col := range p.cols {
		var v driver.Value
		if col.Merge == schema.Sum && t.l.cols == nil {
			v = int64(0)
		}
		for i := range e.Cells {
			if e.Cells[i].Column == col.ID {
				v = encode(e.Cells[i].Value)
				found++
			}
		}
		t.args = append(t.args, v)
	}
	return found == len(e.Cells), nil
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

// Park implements store.RowTx.
func (t *tx) Park(e *sluice.Entry) error {
	g := t.l.group.ID
	_, err := t.w.exec("INSERT INTO sluice_parked (group_id, commit_id, ordinal, partition, key_hash, key, writes, since, entry) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		int64(g), int64(e.Commit), int64(e.Ordinal), int64(e.Partition()), int64(sluice.KeyHash(g, e.Key)), e.Key, int64(e.Writes),
		t.now.UTC().Format(timestampForm), journal.AppendEntry(nil, e))
	return err
}

// Unpark implements store.RowTx.
func (t *tx) Unpark(e *sluice.Entry) error {
	_, err := t.w.exec("DELETE FROM sluice_parked WHERE group_id = ? AND commit_id = ? AND ordinal = ?", int64(t.l.group.ID), int64(e.Commit), int64(e.Ordinal))
	return err
}

// Reject implements store.RowTx.
func (t *tx) Reject(e *sluice.Entry, r *sluice.Reject) error {
	r.Store, r.Shard, r.At = t.s.o.Store.Name, t.s.o.Shard.Name, t.now
	r.Entry = journal.AppendEntry(nil, e)
	_, err := t.w.exec(`INSERT INTO sluice_rejects (group_id, commit_id, ordinal, partition, key_hash, table_name, group_name, key, change, sqlstate, reason, state, at, writes, entry)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (group_id, commit_id, ordinal) DO UPDATE SET sqlstate = excluded.sqlstate, reason = excluded.reason, state = excluded.state, at = excluded.at`,
		int64(r.GroupID), int64(r.Commit), int64(r.Ordinal), int64(r.Partition), int64(r.KeyHash), r.Table, r.Group, string(r.Key), string(r.Change),
		r.SQLState, r.Reason, r.State, r.At.UTC().Format(timestampForm), int64(r.Writes), r.Entry)
	return err
}

// Replayed implements store.RowTx.
func (t *tx) Replayed(commit uint64, ordinal uint32) error {
	_, err := t.w.exec("UPDATE sluice_rejects SET state = 'replayed' WHERE group_id = ? AND commit_id = ? AND ordinal = ?", int64(t.l.group.ID), int64(commit), int64(ordinal))
	return err
}

// Waiting implements store.RowTx.
func (t *tx) Waiting(partition uint8) (rejects, parked int, err error) {
	g, p := int64(t.l.group.ID), int64(partition)
	row, err := t.w.row(`SELECT (SELECT count(*) FROM sluice_rejects WHERE group_id = ? AND partition = ? AND state = 'open'),
		(SELECT count(*) FROM sluice_parked WHERE group_id = ? AND partition = ?)`, g, p, g, p)
	if err != nil {
		return 0, 0, err
	}
	return int(integer(row[0])), int(integer(row[1])), nil
}

// parkedKeys gives the keys of the group that have parked entries.
func (t *tx) parkedKeys() (map[string]bool, error) {
	keys, err := t.w.texts("SELECT DISTINCT key FROM sluice_parked WHERE group_id = ?", int64(t.l.group.ID))
	if len(keys) == 0 {
		return nil, err
	}
	out := map[string]bool{}
	for _, k := range keys {
		out[k] = true
	}
	return out, err
}

// parkedByKey gives the entries of the max keys that wait longest, in order.
func (t *tx) parkedByKey(max int) (out [][]store.ParkedEntry, err error) {
	g := int64(t.l.group.ID)
	keys, err := t.w.texts("SELECT key FROM sluice_parked WHERE group_id = ? GROUP BY key ORDER BY min(commit_id * 16777216 + ordinal) LIMIT ?", g, int64(max))
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		var entries []store.ParkedEntry
		err := t.w.each("SELECT entry, +since FROM sluice_parked WHERE group_id = ? AND key = ? ORDER BY commit_id, ordinal", []driver.Value{g, []byte(k)}, func(row []driver.Value) error {
			data, _ := row[0].([]byte)
			e, err := journal.DecodeEntry(data)
			if err != nil {
				return err
			}
			since, err := time.Parse(timestampForm, text(row[1]))
			entries = append(entries, store.ParkedEntry{Entry: e, Since: since})
			return err
		})
		if err != nil {
			return nil, err
		}
		out = append(out, entries)
	}
	return out, nil
}
