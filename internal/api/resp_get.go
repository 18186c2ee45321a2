package api

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/tidwall/redcon"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// staleField is a field that every row has for HGET and HMGET: how old the
// oldest write is that the row may not show yet, in milliseconds. No column can
// have this name.
const staleField = "sluice:stale_ms"

func hget(c *respConn, args [][]byte) {
	if row, columns, ok := c.fields(args); ok {
		c.work.out = c.appendField(c.work.out, row, columns[0])
	}
}

func hmget(c *respConn, args [][]byte) {
	row, columns, ok := c.fields(args)
	if !ok {
		return
	}
	c.work.out = redcon.AppendArray(c.work.out, len(columns))
	for _, col := range columns {
		c.work.out = c.appendField(c.work.out, row, col)
	}
}

// fields reads the columns args[2:] of one row; a nil column is staleField.
func (c *respConn) fields(args [][]byte) (row sluice.Row, columns []*schema.Column, ok bool) {
	t, key := c.target(args[1], respMayRead)
	if t == nil {
		return row, nil, false
	}
	var groups []string
	for _, name := range args[2:] {
		if string(name) == staleField {
			columns = append(columns, nil)
			continue
		}
		g, col := t.Column(name)
		if col == nil {
			c.work.fail("ERR", noColumn(t, name))
			return row, nil, false
		}
		columns = append(columns, col)
		if g.Name != "" && !slices.Contains(groups, g.Name) { // a flat table has no other group to leave out
			groups = append(groups, g.Name)
		}
	}
	row, ok = c.readRow(t, key, groups)
	return row, columns, ok
}

// readRow reads one row; nil groups are all that are not events.
func (c *respConn) readRow(t *schema.Table, keyText []byte, groups []string) (row sluice.Row, ok bool) {
	key, err := t.KeyFromText(nil, keyText)
	if err != nil {
		c.work.failWith(err)
		return row, false
	}
	rows, err := c.door.o.Reads.Read(c.door.stop, sluice.ReadQuery{Table: t.Name, Keys: [][]byte{key}, Groups: groups})
	if err != nil {
		c.work.failWith(err)
		return row, false
	}
	return rows[0], true
}

func (c *respConn) appendField(out []byte, row sluice.Row, col *schema.Column) []byte {
	if col == nil {
		return redcon.AppendBulk(out, strconv.AppendInt(nil, row.StaleBy.Milliseconds(), 10))
	}
	return c.appendValue(out, col, row.Columns[col.Name])
}

// hgetall answers the columns that have a value, in the order of the config.
func hgetall(c *respConn, args [][]byte) {
	t, key := c.target(args[1], respMayRead)
	if t == nil {
		return
	}
	row, ok := c.readRow(t, key, nil)
	if !ok {
		return
	}
	var columns []*schema.Column
	for _, g := range t.Groups {
		if g.Events {
			continue
		}
		for _, col := range g.Live() {
			if raw := row.Columns[col.Name]; len(raw) > 0 && string(raw) != "null" {
				columns = append(columns, col)
			}
		}
	}
	c.work.out = c.appendMap(c.work.out, len(columns))
	for _, col := range columns {
		c.work.out = redcon.AppendBulkString(c.work.out, col.Name)
		c.work.out = c.appendValue(c.work.out, col, row.Columns[col.Name])
	}
}

// pfcount answers the estimate that stands beside the sketch.
func pfcount(c *respConn, args [][]byte) {
	if len(args) > 2 {
		c.work.fail("ERR", "PFCOUNT takes one key here: sketches of several rows are not joined")
		return
	}
	t, name, key := c.part(args[1], respMayRead, "PFCOUNT table.column:key, as in posts.viewers:42")
	if t == nil {
		return
	}
	g, col := t.Column(name)
	switch {
	case col == nil:
		c.work.fail("ERR", noColumn(t, name))
		return
	case col.Merge != schema.Unique:
		c.work.fail("ERR", t.Name+"."+col.Name+" does not count distinct elements: use HGET")
		return
	}
	row, ok := c.readRow(t, key, []string{g.Name})
	if !ok {
		return
	}
	n, _ := strconv.ParseInt(string(row.Columns[col.Name]), 10, 64) // a row that is not there has seen nobody
	c.work.out = redcon.AppendInt(c.work.out, n)
}

// exists reads all keys of a table at once.
func exists(c *respConn, args [][]byte) {
	if most := c.schema.Limits.MultiReadKeysMax; len(args)-1 > most {
		c.work.fail("ERR", "EXISTS takes at most "+strconv.Itoa(most)+" keys (read_keys): send several")
		return
	}
	keys := map[*schema.Table][][]byte{}
	for _, arg := range args[1:] {
		t, text := c.target(arg, respMayRead)
		if t == nil {
			return
		}
		key, err := t.KeyFromText(nil, text)
		if err != nil {
			c.work.failWith(err)
			return
		}
		keys[t] = append(keys[t], key)
	}
	found := int64(0)
	for t, list := range keys {
		rows, err := c.door.o.Reads.Read(c.door.stop, sluice.ReadQuery{Table: t.Name, Keys: list})
		if err != nil {
			c.work.failWith(err)
			return
		}
		for i := range rows {
			if rows[i].Found {
				found++
			}
		}
	}
	c.work.out = redcon.AppendInt(c.work.out, found)
}

// appendValue says a column's JSON as Redis would: text without its quotes and
// bytes as they are, everything else as JSON writes it.
func (c *respConn) appendValue(out []byte, col *schema.Column, raw json.RawMessage) []byte {
	if len(raw) == 0 || string(raw) == "null" {
		return c.appendNull(out)
	}
	if raw[0] != '"' || col.Type.Kind == sluice.JSON {
		return redcon.AppendBulk(out, raw)
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return redcon.AppendBulk(out, raw)
	}
	if col.Type.Kind == sluice.Bytes {
		if b, err := base64.StdEncoding.DecodeString(text); err == nil {
			return redcon.AppendBulk(out, b)
		}
	}
	return redcon.AppendBulkString(out, text)
}

func (c *respConn) appendNull(out []byte) []byte {
	if c.resp3 {
		return append(out, "_\r\n"...)
	}
	return redcon.AppendNull(out)
}

// appendMap begins a map of n pairs: in RESP2 a flat array.
func (c *respConn) appendMap(out []byte, n int) []byte {
	if !c.resp3 {
		return redcon.AppendArray(out, 2*n)
	}
	out = append(out, '%')
	out = strconv.AppendInt(out, int64(n), 10)
	return append(out, '\r', '\n')
}

// wait answers 1 when everything that this connection wrote is in the
// databases, durably, and 0 when it is not by then or a database refused some of it.
// That is told once: the next WAIT is about what is written after it.
func wait(c *respConn, args [][]byte) {
	want, err1 := strconv.ParseInt(string(args[1]), 10, 64)
	ms, err2 := strconv.ParseInt(string(args[2]), 10, 64)
	if err1 != nil || err2 != nil || want < 0 || ms < 0 {
		c.work.fail("ERR", "WAIT takes the number 1 and a timeout in milliseconds, as in WAIT 1 5000")
		return
	}
	if c.since.commit == 0 {
		c.work.out = redcon.AppendInt(c.work.out, 1)
		return
	}
	limit := c.schema.Limits.WaitMax
	d := limit
	if ms > 0 && ms < limit.Milliseconds() { // 0 is for ever in Redis: as long as may be, here
		d = time.Duration(ms) * time.Millisecond
	}
	if want == 0 { // asks without waiting
		d = 0
	}
	receipt := sluice.Receipt{Journal: c.door.journal.Load(), Commit: c.since.commit, Groups: slices.Clone(c.since.groups)}
	status, err := c.door.o.Reads.Receipt(c.door.leaving, &receipt, d)
	if err != nil && c.door.leaving.Err() != nil { // a wait does not hold up a shutdown
		status.State, err = sluice.StateQueued, nil
	}
	if err != nil {
		c.work.failWith(err)
		return
	}
	if status.State != sluice.StateQueued {
		c.since.commit, c.since.groups = 0, c.since.groups[:0]
	}
	applied := int64(0)
	if status.State == sluice.StateApplied {
		applied = 1
	}
	c.work.out = redcon.AppendInt(c.work.out, applied)
}

// waitaof answers at once: every answer to a write already means that it is
// durable here, and no replica will ever say so.
func waitaof(c *respConn, args [][]byte) {
	for _, arg := range args[1:] {
		if n, err := strconv.ParseInt(string(arg), 10, 64); err != nil || n < 0 {
			c.work.fail("ERR", "value is not an integer or out of range")
			return
		}
	}
	if string(args[1]) != "0" && string(args[1]) != "1" {
		c.work.fail("ERR", "value is out of range, value must between 0 and 1")
		return
	}
	c.work.out = redcon.AppendArray(c.work.out, 2)
	c.work.out = redcon.AppendInt(c.work.out, 1)
	c.work.out = redcon.AppendInt(c.work.out, 0)
}
