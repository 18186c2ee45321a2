package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"sluice.dev/sluice"
)

// arrays collects rows as one binary array a field, for unnest.
type arrays struct {
	fields []*field
	bufs   [][]byte
	nulls  []bool
	at     int // field that comes next
	n      int // whole rows
	bytes  int
}

const arrayHeadBytes = 20

func newArrays(fields []*field, rows int) *arrays {
	a := &arrays{fields: fields, bufs: make([][]byte, len(fields)), nulls: make([]bool, len(fields))}
	for i := range a.bufs {
		a.bufs[i] = make([]byte, arrayHeadBytes, arrayHeadBytes+12*min(rows, paramBytesMax/12))
	}
	return a
}

func (a *arrays) value(f *field, v sluice.Value) error {
	i := a.at
	a.at = (a.at + 1) % len(a.fields)
	buf, before := a.bufs[i], len(a.bufs[i])
	switch {
	case v.Kind == sluice.Null:
		a.nulls[i] = true
		buf = appendNull(buf)
	case f.wire == oidInt2:
		buf = binary.BigEndian.AppendUint16(append(buf, 0, 0, 0, 2), uint16(v.Num))
	case f.wire == oidInt4:
		buf = binary.BigEndian.AppendUint32(append(buf, 0, 0, 0, 4), uint32(v.Num))
	default:
		var err error
		if buf, err = appendValue(buf, f.wire, v, false); err != nil {
			return err
		}
	}
	a.bufs[i] = buf
	a.bytes += len(buf) - before
	return nil
}

// params gives the finished arrays.
func (a *arrays) params() [][]byte {
	for i, buf := range a.bufs {
		head := appendArrayHead(buf[:0:arrayHeadBytes], a.fields[i].wire, a.n, a.nulls[i])
		if a.n == 0 {
			a.bufs[i] = head
		}
	}
	return a.bufs
}

// emit queues the statement of a rowset, or copies its rows when they are many.
func (w *writer) emit(ctx context.Context, set *rowset) error {
	fields := w.t.fields(set.shape)
	if !w.careful && len(set.rows) >= w.copyMin(set.shape, fields) {
		return w.copyIn(ctx, set, fields)
	}
	st := w.x.s.statement(w.t, set.shape)
	if err := w.x.prepare(ctx, st); err != nil {
		return err
	}
	for rows := set.rows; len(rows) > 0; {
		a := newArrays(fields, len(rows))
		for a.n < len(rows) && a.bytes < paramBytesMax {
			if err := w.appendRow(a, &set.shape, rows[a.n]); err != nil {
				return err
			}
			a.n++
		}
		want := -1
		if set.shape.verb == update {
			want = a.n
		}
		w.x.addCounted("rows", want, st, a.params()...)
		rows = rows[a.n:]
	}
	return nil
}

// copyMin is the border above which COPY is the quicker way.
func (w *writer) copyMin(sh shape, fields []*field) int {
	if sh.verb == insert && direct(fields) {
		return w.x.s.copyEventsMin
	}
	return w.x.s.copyStagedMin
}

// direct tells that every value travels in its column's own type.
func direct(fields []*field) bool {
	for _, f := range fields {
		if !f.exact() {
			return false
		}
	}
	return true
}

// copyIn sends rows by COPY: events straight into their table, others into a
// temporary table that the statement then reads.
func (w *writer) copyIn(ctx context.Context, set *rowset, fields []*field) error {
	into, straight := w.t.table+" ("+columnList(fields)+")", set.shape.verb == insert && direct(fields)
	if !straight {
		w.x.stages++
		into = fmt.Sprintf("pg_temp.sluice_stage%d", w.x.stages)
		columns := join(fields, func(i int, f *field) string { return fmt.Sprintf("f%d %s", i, typeNames[f.wire]) })
		w.x.add("stage", &statement{sql: "CREATE TEMP TABLE " + into[len("pg_temp."):] + " (" + columns + ") ON COMMIT DROP"})
	}
	// COPY is no part of a pipeline: the guard has answered before the first row goes.
	if _, err := w.x.send(ctx); err != nil {
		return err
	}
	rows := &copyRows{w: w, set: set, direct: straight}
	tag, err := w.x.conn.Conn().PgConn().CopyFrom(ctx, rows, "COPY "+into+" FROM STDIN (FORMAT binary)")
	w.x.bytes += rows.bytes
	if rows.err != nil {
		return rows.err
	}
	if err != nil {
		return &failure{"rows", err}
	}
	if straight {
		w.x.rows += int(tag.RowsAffected())
		return nil
	}
	want := -1
	if set.shape.verb == update {
		want = len(set.rows)
	}
	w.x.addCounted("rows", want, &statement{sql: w.t.text(set.shape, fields, into+" AS s")})
	return nil
}

// copyRows is the rows as the stream of a binary COPY.
type copyRows struct {
	w      *writer
	set    *rowset
	direct bool
	buf    []byte
	next   int // row
	begun  bool
	ended  bool
	bytes  int64
	err    error // of the encoding
}

func (c *copyRows) value(f *field, v sluice.Value) (err error) {
	switch {
	case v.Kind == sluice.Null:
		c.buf = appendNull(c.buf)
	case f.wire == oidInt2:
		c.buf = binary.BigEndian.AppendUint16(append(c.buf, 0, 0, 0, 2), uint16(v.Num))
	case f.wire == oidInt4:
		c.buf = binary.BigEndian.AppendUint32(append(c.buf, 0, 0, 0, 4), uint32(v.Num))
	default:
		c.buf, err = appendValue(c.buf, f.wire, v, c.direct)
	}
	return err
}

// Read encodes rows as they are asked for, so that memory holds a few only.
func (c *copyRows) Read(p []byte) (int, error) {
	if !c.begun {
		c.begun = true
		c.buf = append(c.buf, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	}
	fields := len(c.w.t.fields(c.set.shape))
	for len(c.buf) < len(p) && c.next < len(c.set.rows) {
		c.buf = binary.BigEndian.AppendUint16(c.buf, uint16(fields))
		if c.err = c.w.appendRow(c, &c.set.shape, c.set.rows[c.next]); c.err != nil {
			return 0, c.err
		}
		c.next++
	}
	if c.next == len(c.set.rows) && !c.ended {
		c.ended = true
		c.buf = append(c.buf, 0xff, 0xff)
	}
	if len(c.buf) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.buf)
	c.buf = c.buf[:copy(c.buf, c.buf[n:])]
	c.bytes += int64(n)
	return n, nil
}
