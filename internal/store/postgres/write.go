package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

const (
	// paramBytesMax bounds the parameters of one statement; more rows go into
	// more statements. The server holds a statement's parameters several times over.
	paramBytesMax = 4 << 20
)

// writer turns entries into statements of one transaction.
type writer struct {
	x        *tx
	t        *target
	careful  bool // no COPY: the rows are few, and an error must not cost the savepoint
	keys     []sluice.Value
	cells    []int32    // by Column.Index: 1 + position in the entry's cells, of the entry at hand
	sketches [][][]byte // by entry, then by column: what the database holds; nil: nothing
	entries  []sluice.Entry
}

// rowset is the rows that one statement takes.
type rowset struct {
	shape shape
	rows  []int32 // indexes of entries
	union columnSet
}

// columnSet holds indexes of columns.
type columnSet []uint64

func (c columnSet) add(i int)      { c[i/64] |= 1 << (i % 64) }
func (c columnSet) has(i int) bool { return c[i/64]&(1<<(i%64)) != 0 }

// write queues the statements for entries; some it sends, when it has to read
// first. Entries of one key that did not fold go one after the other (S9).
func (w *writer) write(ctx context.Context, entries []sluice.Entry) error {
	w.entries, w.sketches = entries, nil
	if w.cells == nil {
		w.cells = make([]int32, len(w.t.columns))
	}
	if w.t.group.Events {
		return w.writeWave(ctx, all(len(entries)))
	}
	for _, wave := range waves(entries) {
		if err := w.writeWave(ctx, wave); err != nil {
			return err
		}
	}
	return nil
}

func all(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

// waves splits entries so that no wave has a key twice: the n-th entry of each
// key is in the n-th wave.
func waves(entries []sluice.Entry) [][]int32 {
	var out [][]int32
	depth := 0
	for i := range entries {
		if depth++; i == 0 || !bytes.Equal(entries[i].Key, entries[i-1].Key) {
			depth = 0
		}
		if depth == len(out) {
			out = append(out, make([]int32, 0, (len(entries)-i)>>(4*depth)))
		}
		out[depth] = append(out[depth], int32(i))
	}
	return out
}

func (w *writer) writeWave(ctx context.Context, wave []int32) error {
	var resets []int32
	for _, i := range wave {
		if w.entries[i].Reset && !w.t.group.Events {
			resets = append(resets, i)
		}
	}
	sets, err := w.split(wave)
	if err != nil {
		return err
	}
	if err := w.readSketches(ctx, wave); err != nil {
		return err
	}
	if len(resets) > 0 {
		verb := remove
		if !w.t.own && !w.t.group.Existing.DeleteRow {
			verb = defaults
		}
		if err := w.emit(ctx, &rowset{shape: shape{verb: verb}, rows: resets}); err != nil {
			return err
		}
	}
	for _, set := range sets {
		if err := w.emit(ctx, set); err != nil {
			return err
		}
	}
	return nil
}

// split sorts a wave's entries by the statement they need. In own tables only
// the `set` columns tell statements apart, see upsertText; in mapped ones all
// do, since a column that is not said must keep its default.
func (w *writer) split(wave []int32) ([]*rowset, error) {
	words := (len(w.t.columns) + 63) / 64
	sets := map[string]*rowset{}
	var order []*rowset
	whole := w.t.group.LatestBy != nil
	tells, present := make(columnSet, words), make(columnSet, words)
	signature := make([]byte, 0, 8*words)
	for _, i := range wave {
		e := &w.entries[i]
		if e.Reset && len(e.Cells) == 0 {
			continue
		}
		clear(tells)
		clear(present)
		for c := range e.Cells {
			at := w.t.index(e.Cells[c].Column)
			if at < 0 {
				return nil, w.unknownColumn(e, e.Cells[c].Column)
			}
			if w.t.columns[at].absent {
				continue
			}
			present.add(at)
			if !whole && (!w.t.own || w.t.columns[at].merge == schema.Set && !w.t.group.Events) {
				tells.add(at)
			}
		}
		signature = signature[:0]
		for _, word := range tells {
			signature = binary.LittleEndian.AppendUint64(signature, word)
		}
		set := sets[string(signature)]
		if set == nil {
			set = &rowset{union: make(columnSet, words)}
			sets[string(signature)] = set
			order = append(order, set)
		}
		set.rows = append(set.rows, i)
		for k, word := range present {
			set.union[k] |= word
		}
	}
	for _, set := range order {
		set.shape = w.shapeOf(set.union, whole)
	}
	return order, nil
}

func (w *writer) unknownColumn(e *sluice.Entry, id sluice.ColumnID) error {
	return &store.StopError{Reason: "corrupt", Detail: fmt.Sprintf("%s: commit %d names column %d of group %s, which the catalog does not know; `sluice journal verify` tells whether the journal or the catalog is at fault",
		w.x.s.where(), e.Commit, id, w.t.group.FullName())}
}

// shapeOf chooses the statement for a set of columns. whole: latest_by
// replaces the row, so a column that is not said becomes NULL.
func (w *writer) shapeOf(union columnSet, whole bool) shape {
	sh := shape{}
	for i, c := range w.t.group.Columns {
		if union.has(i) || whole && !c.Dropped && !w.t.columns[i].absent {
			sh.cols = append(sh.cols, i)
		}
	}
	switch g := w.t.group; {
	case g.Events:
		sh.verb = insert
	case w.t.own:
		sh.verb = upsert
	case g.Existing.MissingRow == schema.MissingReject:
		sh.verb = update
	default:
		sh.verb = mergeIn
	}
	return sh
}

// readSketches reads, for entries that add to unique columns, what the
// database holds. Nobody else writes it: the guard makes this transaction the
// only one of Sluice, and sketches are Sluice's own.
func (w *writer) readSketches(ctx context.Context, wave []int32) error {
	var exprs []string
	var columns []int
	for i := range w.t.columns {
		if f := &w.t.columns[i]; f.hll != nil && !f.absent {
			exprs, columns = append(exprs, "t."+f.hll.name), append(columns, i)
		}
	}
	if len(columns) == 0 {
		return nil
	}
	if w.sketches == nil {
		w.sketches = make([][][]byte, len(w.entries))
	}
	var rows []int32
	for _, i := range wave {
		e := &w.entries[i]
		for c := range e.Cells {
			if k := e.Cells[c].Value.Kind; !e.Reset && (k == sluice.Hashes || k == sluice.Sketch) {
				rows = append(rows, i)
				break
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	params, err := w.keyArrays(rows)
	if err != nil {
		return err
	}
	st := w.x.s.lookupStatement(w.t, "sketches", func() string { return w.t.lookup(exprs, "") })
	if err := w.x.prepare(ctx, st); err != nil {
		return err
	}
	w.x.add("sketches", st, params...)
	results, err := w.x.send(ctx)
	if err != nil {
		return err
	}
	for _, r := range results[len(results)-1].Rows {
		i := rows[binary.BigEndian.Uint64(r[0])-1]
		w.sketches[i] = make([][]byte, len(w.t.columns))
		for k, c := range columns {
			w.sketches[i][c] = r[1+k]
		}
	}
	return nil
}

// lookupStatement caches a text of the target under a name that no shape has.
func (s *Shard) lookupStatement(t *target, name string, text func() string) *statement {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.statements[name]
	if st == nil {
		st = &statement{sql: text(), name: s.newName()}
		t.statements[name] = st
	}
	return s.unnamedBehindPooler(st)
}

// keyArrays encodes the keys of some entries, one array a key column.
func (w *writer) keyArrays(rows []int32) ([][]byte, error) {
	a := newArrays(w.t.keyFields(), len(rows))
	for _, i := range rows {
		if err := w.appendKey(a, w.entries[i].Key); err != nil {
			return nil, err
		}
		a.n++
	}
	return a.params(), nil
}

func (w *writer) appendKey(a rowSink, key []byte) (err error) {
	if w.keys, err = w.t.group.Table.DecodeKey(key, w.keys[:0]); err != nil {
		return err
	}
	for k := range w.keys {
		if err := a.value(&w.t.keys[k], w.keys[k]); err != nil {
			return err
		}
	}
	return nil
}

// rowSink takes the values of rows field by field.
type rowSink interface {
	value(f *field, v sluice.Value) error
}

// appendRow gives one entry's fields to the sink, in the order of fields.
func (w *writer) appendRow(sink rowSink, sh *shape, i int32) error {
	e := &w.entries[i]
	if w.t.own && sh.verb == insert {
		if err := errors.Join(sink.value(&commitField, sluice.IntValue(int64(e.Commit))), sink.value(&ordinalField, sluice.IntValue(int64(e.Ordinal)))); err != nil {
			return err
		}
	}
	if w.t.own && (sh.verb == insert || sh.verb == upsert) {
		if err := sink.value(&slotField, sluice.IntValue(int64(e.Slot))); err != nil {
			return err
		}
	}
	if err := w.appendKey(sink, e.Key); err != nil {
		return err
	}
	if len(sh.cols) == 0 {
		return nil
	}
	for c := range e.Cells {
		w.cells[w.t.index(e.Cells[c].Column)] = int32(c + 1)
	}
	defer func() {
		for c := range e.Cells {
			w.cells[w.t.index(e.Cells[c].Column)] = 0
		}
	}()
	for _, c := range sh.cols {
		var v sluice.Value
		if at := w.cells[c]; at > 0 {
			v = e.Cells[at-1].Value
		}
		f := &w.t.columns[c]
		if f.hll != nil {
			if err := w.appendUnique(sink, f, i, c, v); err != nil {
				return err
			}
			continue
		}
		if err := sink.value(f, v); err != nil {
			return fmt.Errorf("column %s: %w", f.name, err)
		}
	}
	return nil
}

// appendUnique gives the estimate and the merged sketch.
func (w *writer) appendUnique(sink rowSink, f *field, i int32, c int, delta sluice.Value) error {
	estimate, sketch := sluice.Value{}, sluice.Value{}
	if delta.Kind != sluice.Null {
		var held []byte
		if w.sketches[i] != nil {
			held = w.sketches[i][c]
		}
		next, n, err := fold.MergeSketch(held, delta)
		if err != nil {
			return fmt.Errorf("column %s: %w", f.name, err)
		}
		estimate, sketch = sluice.IntValue(n), sluice.Value{Kind: sluice.Bytes, Bytes: next}
	}
	return errors.Join(sink.value(f, estimate), sink.value(f.hll, sketch))
}
