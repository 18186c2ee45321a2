package api

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// target splits `table:key` and checks the right. When it answers nil, the
// command has been answered.
func (c *respConn) target(arg []byte, right respRight) (*schema.Table, []byte) {
	i := bytes.IndexByte(arg, ':')
	if i < 0 {
		c.work.fail("ERR", "key "+quoted(arg)+" names no table: say table:key, as in posts:42")
		return nil, nil
	}
	t := c.tableOf(arg[:i], right)
	return t, keyText(t, arg[i+1:])
}

// keyText takes leading zeros from a whole number: redis-benchmark and programs
// that pad their keys write 000000000042, and it is the same number.
func keyText(t *schema.Table, key []byte) []byte {
	if len(key) > 1 && key[0] == '0' && t != nil && len(t.Key) == 1 && t.Key[0].Type.Kind == sluice.Int64 {
		for len(key) > 1 && key[0] == '0' && key[1] >= '0' && key[1] <= '9' {
			key = key[1:]
		}
	}
	return key
}

// part splits `table.part:key`; part is a column or a group.
func (c *respConn) part(arg []byte, right respRight, usage string) (t *schema.Table, part, key []byte) {
	i := bytes.IndexByte(arg, ':')
	dot := bytes.IndexByte(arg[:max(i, 0)], '.')
	if i < 0 || dot < 0 {
		c.work.fail("ERR", "key "+quoted(arg)+": use "+usage)
		return nil, nil, nil
	}
	t = c.tableOf(arg[:dot], right)
	return t, arg[dot+1 : i], keyText(t, arg[i+1:])
}

// tableOf finds a table and checks the right to it. Pipelines mostly stay with
// one table, so the last one is kept.
func (c *respConn) tableOf(name []byte, right respRight) *schema.Table {
	if t := c.table; t != nil && c.mayUse&right != 0 && string(name) == t.Name {
		return t
	}
	// The right comes first: who may not use a table learns nothing of it, not
	// even that it is not there.
	may := c.principal.MayRead
	if right == respMayWrite {
		may = c.principal.MayWrite
	}
	if err := may(string(name)); err != nil {
		c.work.failWith(err)
		return nil
	}
	t := c.schema.Table(name)
	if t == nil {
		c.work.fail("ERR", c.noTable(name))
		return nil
	}
	if t != c.table {
		c.table, c.mayUse = t, 0
	}
	c.mayUse |= right
	return t
}

func (c *respConn) noTable(name []byte) string {
	var known []string
	for n := range c.schema.Tables {
		if c.principal.MayRead(n) == nil || c.principal.MayWrite(n) == nil {
			known = append(known, n)
		}
	}
	return "no table " + quoted(name) + "; the tables are " + listed(known) + " (a new one is added in the config)"
}

func noColumn(t *schema.Table, name []byte) string {
	var known []string
	for _, g := range t.Groups {
		if g.Events {
			continue
		}
		for _, col := range g.Live() {
			known = append(known, col.Name)
		}
	}
	return t.Name + " has no column " + quoted(name) + "; its columns are " + listed(known)
}

// listed sorts names and keeps the line short.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	const most = 12
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and " + strconv.Itoa(len(names)-most) + " more"
	}
	return strings.Join(names, ", ")
}

func quoted(b []byte) string {
	if len(b) > 64 {
		return strconv.QuoteToASCII(string(b[:64])) + "..."
	}
	return strconv.QuoteToASCII(string(b))
}

// put adds one column's change to the write that the builder has open; when it
// answers false, the write is cancelled and the command answered.
func (c *respConn) put(t *schema.Table, verb schema.Verb, column, value []byte) bool {
	if err := c.work.builder.Put(verb, column, value); err != nil {
		c.work.builder.Cancel()
		c.columnFault(t, column, err)
		return false
	}
	return true
}

// columnFault says a column's fault in the words of this door: the command that
// is the cure, not the verb of a JSON write.
func (c *respConn) columnFault(t *schema.Table, column []byte, err error) {
	if _, col := t.Column(column); col != nil && asError(err).Reason == "wrong_verb" {
		c.work.fail("ERR", wrongCommand(t.Name+"."+col.Name, col))
		return
	}
	c.work.failWith(err)
}

// respVerbs are the commands of the builder's verbs.
var respVerbs = schema.VerbNames{schema.VerbSet: "HSET", schema.VerbAdd: "HINCRBY", schema.VerbMax: "HSET", schema.VerbMin: "HSET",
	schema.VerbUnique: "PFADD", schema.VerbAppend: "XADD"}

func wrongCommand(name string, col *schema.Column) string {
	switch {
	case col.Merge == schema.Sum && col.Type.Kind == sluice.Int64:
		return name + " is a sum: use HINCRBY"
	case col.Merge == schema.Sum:
		return name + " is a sum: use HINCRBYFLOAT"
	case col.Merge == schema.Max:
		return name + " is a max: use HSET, which offers a candidate"
	case col.Merge == schema.Min:
		return name + " is a min: use HSET, which offers a candidate"
	case col.Merge == schema.Unique:
		return name + " counts distinct elements: use PFADD " + name + ":key element"
	}
	return name + " is set as a whole: use HSET"
}

// open begins a write to a row.
func (c *respConn) open(arg []byte) *schema.Table {
	t, key := c.target(arg, respMayWrite)
	if t == nil {
		return nil
	}
	if err := c.work.builder.Begin(t, key); err != nil {
		c.work.failWith(err)
		return nil
	}
	return t
}

// close ends the write that is open; when it answers false, the command is answered.
func (c *respConn) close() bool {
	if err := c.work.builder.End(); err != nil {
		c.work.failWith(err)
		return false
	}
	return true
}

func hincrby(c *respConn, args [][]byte) {
	n, err := strconv.ParseInt(string(args[3]), 10, 64)
	if err != nil {
		c.work.fail("ERR", "value is not an integer or out of range")
		return
	}
	t := c.open(args[1])
	if t == nil || !c.put(t, schema.VerbAdd, args[2], args[3]) || !c.close() {
		return
	}
	c.work.out = redcon.AppendInt(c.work.out, n)
	c.work.line(false)
}

func hincrbyfloat(c *respConn, args [][]byte) {
	t := c.open(args[1])
	if t == nil || !c.put(t, schema.VerbAdd, args[2], args[3]) || !c.close() {
		return
	}
	c.work.out = redcon.AppendBulk(c.work.out, args[3])
	c.work.line(false)
}

func hset(c *respConn, args [][]byte) {
	if c.setColumns(args) {
		c.work.out = redcon.AppendInt(c.work.out, int64(len(args)-2)/2)
		c.work.line(false)
	}
}

func hmset(c *respConn, args [][]byte) {
	if c.setColumns(args) {
		c.work.out = redcon.AppendOK(c.work.out)
		c.work.line(false)
	}
}

func (c *respConn) setColumns(args [][]byte) bool {
	if len(args)%2 != 0 {
		c.work.fail("ERR", "wrong number of arguments for 'hset' command: every column needs a value")
		return false
	}
	t := c.open(args[1])
	if t == nil {
		return false
	}
	for i := 2; i < len(args); i += 2 {
		verb := schema.VerbSet
		if _, col := t.Column(args[i]); col != nil && (col.Merge == schema.Max || col.Merge == schema.Min) {
			verb = col.Verb()
		}
		if !c.put(t, verb, args[i], args[i+1]) {
			return false
		}
	}
	return c.close()
}

// pfadd answers 1: whether the estimate will change is known only where the
// sketch is, in the database.
func pfadd(c *respConn, args [][]byte) {
	t, column, key := c.part(args[1], respMayWrite, "PFADD table.column:key element, as in posts.viewers:42")
	if t == nil {
		return
	}
	if err := c.work.builder.Begin(t, key); err != nil {
		c.work.failWith(err)
		return
	}
	for _, element := range args[2:] {
		if !c.put(t, schema.VerbUnique, column, element) {
			return
		}
	}
	if !c.close() {
		return
	}
	c.work.out = redcon.AppendInt(c.work.out, 1)
	c.work.line(false)
}

// del takes its keys in order up to the first bad one. A write that is in the
// builder cannot be taken back, so the answer then says what went before.
func del(c *respConn, args [][]byte) {
	w := c.work
	if most := c.schema.Limits.BatchWritesMax; len(args)-1 > most {
		w.fail("ERR", "DEL takes at most "+strconv.Itoa(most)+" keys (batch_writes): send several")
		return
	}
	for i, arg := range args[1:] {
		if !c.delKey(arg) {
			if i > 0 {
				w.partial(strconv.Itoa(i))
			}
			return
		}
	}
	w.out = redcon.AppendInt(w.out, int64(len(args)-1))
	w.line(false)
}

func (c *respConn) delKey(arg []byte) bool {
	if c.open(arg) == nil {
		return false
	}
	if err := c.work.builder.Delete(); err != nil {
		c.work.builder.Cancel()
		c.work.failWith(err)
		return false
	}
	return c.close()
}

// partial turns the fault just answered into the answer of a line: some keys of
// its command are taken.
func (w *respChunk) partial(taken string) {
	if n := len(w.lines); n > 0 {
		w.lines = w.lines[:n-1]
	}
	w.out = append(w.out[:len(w.out)-2], " (deleted before it: "...)
	w.out = append(w.out, taken...)
	w.out = append(w.out, ")\r\n"...)
	w.line(false)
}

func xadd(c *respConn, args [][]byte) {
	const usage = "XADD table.group:key * column value [column value ...], as in posts.analytics:42"
	switch {
	case string(args[2]) != "*":
		c.work.fail("ERR", "the id must be *, and options are not known: the commit gives the id; use "+usage)
		return
	case len(args)%2 != 1:
		c.work.fail("ERR", "wrong number of arguments for 'xadd' command: every column needs a value")
		return
	}
	t, group, key := c.part(args[1], respMayWrite, usage)
	if t == nil {
		return
	}
	if err := c.work.builder.BeginEvent(t, group, key); err != nil {
		c.work.failWith(err)
		return
	}
	for i := 3; i < len(args); i += 2 {
		if err := c.work.builder.Put(schema.VerbAppend, args[i], args[i+1]); err != nil {
			c.work.builder.Cancel()
			c.work.failWith(err)
			return
		}
	}
	if c.close() {
		c.work.line(true)
	}
}
