package sqlite

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"slices"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Together implements store.RowTx: rows of own tables that one plan can write.
func (t *tx) Together(entries []sluice.Entry) (n int, done bool, err error) {
	if !t.l.own {
		return len(entries), false, nil
	}
	p, neutral, err := t.planTogether(entries)
	if err != nil || p == nil || p.several == "" || len(entries) < p.rows {
		return 1, false, err
	}
	t.args = t.args[:0]
	for i := range p.rows {
		e := &entries[i]
		if !alone(e) || !neutral && !sameColumns(e.Cells, entries[0].Cells) {
			return max(i, 1), false, nil
		}
		if ok, err := t.appendRow(e, p, neutral); !ok || err != nil {
			return i + 1, false, err
		}
	}
	// A key may come twice in one statement, but not go on behind it: its entries
	// stand or fall together, and half of them applied would be tried again.
	if !t.l.group.Events && p.rows < len(entries) && bytes.Equal(entries[p.rows].Key, entries[p.rows-1].Key) {
		return p.rows, false, nil
	}
	if _, err := t.w.exec(p.several, t.args...); err != nil {
		var refusal *store.Refusal
		if err = t.refused(err); errors.As(err, &refusal) {
			err = nil // one by one it will be found
		}
		return p.rows, false, err
	}
	return p.rows, true, nil
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
