package schema

import (
	"encoding/binary"
	"slices"
	"time"

	"sluice.dev/sluice"
)

// Verb says how a client changes a column. Verb and merge must agree.
type Verb uint8

// The verbs.
const (
	VerbSet Verb = iota
	VerbAdd
	VerbMax
	VerbMin
	VerbUnique
	VerbAppend
	verbCount
)

// VerbNames are the verbs in the words of one door.
type VerbNames [verbCount]string

// JSONVerbs are the members of a write in JSON.
var JSONVerbs = VerbNames{"set", "add", "max", "min", "unique", "append"}

func (v Verb) String() string { return JSONVerbs[v] }

// Verb is the one that changes this column.
func (c *Column) Verb() Verb {
	if c.group.Events {
		return VerbAppend
	}
	return Verb(c.Merge) // the first five stand in the order of the merges
}

// arenaKeepMax is what a Builder keeps of its arena when it is reset, so that
// one large request does not hold its memory for ever.
const arenaKeepMax = 4 << 20

// Builder turns writes into entries: one for each write and group, in the order
// said, with its cells sorted by column. It checks everything that can be checked
// without the database, so that own tables can refuse nothing (S10). It keeps
// its memory between uses and is not for concurrent use. Entries point into it
// and live until Reset.
type Builder struct {
	Names VerbNames // the words for faults; JSONVerbs unless the door sets others

	schema  *Schema
	now     func() time.Time
	entries []sluice.Entry
	cells   []sluice.Cell // of entries
	arena   []byte        // bytes of keys and values

	// The write that is open. table is nil when none is.
	table   *Table
	event   *Group // not nil: Put appends to it
	key     []byte
	slot    uint16
	mark    int // where its bytes begin in the arena
	deleted bool
	open    []openEntry
	fault   error // the first of the open write: End gives it again
}

// openEntry is the part of the open write that goes to one group.
type openEntry struct {
	group *Group
	cells []sluice.Cell
}

// NewBuilder makes a Builder; now is the clock that judges skew_max.
func NewBuilder(s *Schema, now func() time.Time) *Builder {
	return &Builder{Names: JSONVerbs, schema: s, now: now}
}

// Reset forgets all writes. The entries given before are no longer valid.
func (b *Builder) Reset(s *Schema) {
	b.Cancel()
	b.schema = s
	b.entries, b.cells, b.arena = b.entries[:0], b.cells[:0], b.arena[:0]
	if cap(b.arena) > arenaKeepMax {
		b.arena = nil
	}
	if cap(b.cells)*cellBytes > arenaKeepMax {
		b.cells, b.entries = nil, nil
	}
}

const cellBytes = 48

// Entries is what the finished writes became.
func (b *Builder) Entries() []sluice.Entry { return b.entries }

// Len counts the entries.
func (b *Builder) Len() int { return len(b.entries) }

// Begin opens a write to a key in text. Put or Delete, then End or Cancel follow.
func (b *Builder) Begin(t *Table, keyText []byte) error {
	b.begin(t)
	arena, err := t.KeyFromText(b.arena, keyText)
	return b.setKey(arena, err)
}

// BeginEvent opens an event of a group.
func (b *Builder) BeginEvent(t *Table, group, keyText []byte) error {
	b.begin(t)
	g := t.Group(group)
	if g == nil || !g.Events {
		return b.fail(b.noEvents(t, group))
	}
	b.event = g
	arena, err := t.KeyFromText(b.arena, keyText)
	return b.setKey(arena, err)
}

func (b *Builder) begin(t *Table) {
	b.Cancel()
	b.table, b.mark = t, len(b.arena)
}

func (b *Builder) setKey(arena []byte, err error) error {
	if err != nil {
		return b.fail(err)
	}
	b.arena, b.key = arena, arena[b.mark:len(arena):len(arena)]
	if b.slot, err = b.table.SlotOfKey(b.key); err != nil {
		return b.fail(err)
	}
	return nil
}

func (b *Builder) fail(err error) error {
	if b.fault == nil {
		b.fault = err
	}
	return err
}

// Put adds one column in text to the open write. A unique column may be put
// several times, once for each element; any other only once.
func (b *Builder) Put(v Verb, column, text []byte) error {
	if b.table == nil || b.fault != nil {
		return b.notOpen()
	}
	g, c, err := b.target(b.event, v, column)
	if err != nil {
		return b.fail(err)
	}
	from := len(b.arena)
	value, arena, err := ParseText(b.arena, c.Type, text)
	if err != nil {
		return b.fail(valueFault(c, err))
	}
	b.arena = arena
	return b.put(g, c, value, from)
}

// notOpen is the answer to a step of a write that is not open or has failed.
func (b *Builder) notOpen() error {
	if b.fault != nil {
		return b.fault
	}
	return sluice.Errorf(sluice.Internal, "no_write", "no write is open; Begin comes first")
}

// put adds a parsed value, whose bytes are what the arena holds since from.
func (b *Builder) put(g *Group, c *Column, v sluice.Value, from int) error {
	if max := b.schema.Limits.ValueBytesMax; len(v.Bytes) > max {
		return b.fail(badValue("%s takes %d bytes, the limit limits.value_bytes is %d; send less, or raise it", c.fullName(), len(v.Bytes), max))
	}
	if v.Kind == sluice.Null && c.Merge != Set {
		return b.fail(badValue("%s is null, which only a column that is set can be; leave it out", c.fullName()))
	}
	if c.Merge == Unique {
		hash := HashElement(c.Type, v)
		b.arena = binary.LittleEndian.AppendUint64(b.arena[:from], hash)
		v = sluice.Value{Kind: sluice.Hashes, Bytes: b.arena[from:]}
	}
	e := b.openEntry(g)
	at, found := slices.BinarySearchFunc(e.cells, c.ID, func(cell sluice.Cell, id sluice.ColumnID) int {
		return int(cell.Column) - int(id)
	})
	switch {
	case !found:
		e.cells = slices.Insert(e.cells, at, sluice.Cell{Column: c.ID, Value: v})
	case c.Merge == Unique:
		return b.addElement(c, &e.cells[at].Value, from)
	default:
		return b.fail(sluice.Errorf(sluice.Invalid, "duplicate_column", "%s is named twice in one write; name it once", c.fullName()))
	}
	return nil
}

// addElement appends the hash that stands in the arena at from to the hashes of
// a cell. They lie side by side unless another column came between: then the
// older ones move, and the next element finds them side by side again.
func (b *Builder) addElement(c *Column, v *sluice.Value, from int) error {
	if len(v.Bytes)+8 > b.schema.Limits.ValueBytesMax {
		return b.fail(badValue("%s has more than %d elements in one write; send several writes", c.fullName(), len(v.Bytes)/8))
	}
	n := len(v.Bytes)
	if from < n || &b.arena[from-n] != &v.Bytes[0] {
		hash := binary.LittleEndian.Uint64(b.arena[from:])
		b.arena = append(b.arena[:from], v.Bytes...)
		b.arena = binary.LittleEndian.AppendUint64(b.arena, hash)
		v.Bytes = b.arena[from:]
		return nil
	}
	v.Bytes = b.arena[from-n:]
	return nil
}

func (b *Builder) openEntry(g *Group) *openEntry {
	for i := range b.open {
		if b.open[i].group == g {
			return &b.open[i]
		}
	}
	if n := len(b.open); n < cap(b.open) {
		b.open = b.open[:n+1] // with the cells of an earlier write, for their memory
		b.open[n].group, b.open[n].cells = g, b.open[n].cells[:0]
	} else {
		b.open = append(b.open, openEntry{group: g})
	}
	return &b.open[len(b.open)-1]
}

// Delete makes the open write a delete: of the key, in all groups that are not events.
func (b *Builder) Delete() error {
	if b.table == nil || b.fault != nil {
		return b.notOpen()
	}
	b.deleted = true
	for _, g := range b.table.Groups {
		if !g.Events {
			return nil
		}
	}
	return b.fail(sluice.Errorf(sluice.Invalid, "nothing_to_delete", "%s has only events, and events are not deleted", b.table.Name))
}

// End finishes the open write, or gives its first fault and drops it whole.
func (b *Builder) End() error {
	if b.table == nil || b.fault != nil {
		err := b.notOpen()
		b.Cancel()
		return err
	}
	if err := b.check(); err != nil {
		b.Cancel()
		return err
	}
	if b.deleted {
		for _, g := range b.table.Groups {
			if !g.Events {
				b.add(sluice.Entry{Group: g.ID, Reset: true})
			}
		}
	}
	for i := range b.open {
		from := len(b.cells)
		b.cells = append(b.cells, b.open[i].cells...)
		b.add(sluice.Entry{Group: b.open[i].group.ID, Cells: b.cells[from:len(b.cells):len(b.cells)]})
	}
	b.close()
	return nil
}

func (b *Builder) add(e sluice.Entry) {
	e.Key, e.Slot, e.Writes = b.key, b.slot, 1
	b.entries = append(b.entries, e)
}

// check judges the open write as a whole.
func (b *Builder) check() error {
	if b.deleted && len(b.open) > 0 {
		return sluice.Errorf(sluice.Invalid, "delete_not_alone", "a delete of %s stands alone in its write; send the rest as the next write", b.table.Name)
	}
	if !b.deleted && len(b.open) == 0 {
		return sluice.Errorf(sluice.Invalid, "empty_write", "the write to %s changes nothing; name a column", b.table.Name)
	}
	for i := range b.open {
		e := &b.open[i]
		if e.group.LatestBy != nil {
			if err := b.fillLatest(e); err != nil {
				return err
			}
		}
		for j := range e.cells {
			if e.cells[j].Value.Kind == sluice.Hashes {
				e.cells[j].Value.Bytes = sortHashes(e.cells[j].Value.Bytes)
			}
		}
	}
	return nil
}

// fillLatest makes a write to a latest_by group a whole row (S12): what it does
// not name is null, so that the row with the highest order value replaces all.
func (b *Builder) fillLatest(e *openEntry) error {
	order := e.group.LatestBy
	named := e.cells
	for _, c := range e.group.Live() {
		at, found := slices.BinarySearchFunc(e.cells, c.ID, func(cell sluice.Cell, id sluice.ColumnID) int {
			return int(cell.Column) - int(id)
		})
		if !found {
			e.cells = slices.Insert(e.cells, at, sluice.Cell{Column: c.ID})
		} else if c == order && e.cells[at].Value.Kind != sluice.Null {
			if err := b.checkSkew(order, e.cells[at].Value); err != nil {
				return err
			}
			named = nil
		}
	}
	if named != nil {
		return sluice.Errorf(sluice.Invalid, "no_order_value", "%s keeps the row with the highest %s, but the write has none; set %s", e.group.FullName(), order.Name, order.fullName())
	}
	return nil
}

// checkSkew refuses an order value from the future: it would keep every later
// row out until that time came (S12). Numbers have no clock to compare with.
func (b *Builder) checkSkew(c *Column, v sluice.Value) error {
	skew := b.schema.Limits.SkewMax
	latest := b.now().Add(skew).UnixMicro()
	at := v.Num
	switch v.Kind {
	case sluice.Timestamp:
	case sluice.Date:
		at *= secondsPerDay * 1e6
	default:
		return nil
	}
	if at > latest {
		return badValue("%s is %s, more than limits.skew_max (%s) ahead of this server's clock; check the sender's clock", c.fullName(), AppendJSON(nil, c.Type, v), formatDuration(skew))
	}
	return nil
}

// sortHashes sorts hashes in place and drops doubles. Capacity is cut, so that
// who merges into the value does not write into its neighbour.
func sortHashes(b []byte) []byte {
	if len(b) <= 8 {
		return b[:len(b):len(b)]
	}
	var buf [64]uint64
	hashes := buf[:0]
	for i := 0; i < len(b); i += 8 {
		hashes = append(hashes, binary.LittleEndian.Uint64(b[i:]))
	}
	slices.Sort(hashes)
	b = b[:0]
	for i, h := range hashes {
		if i == 0 || h != hashes[i-1] {
			b = binary.LittleEndian.AppendUint64(b, h)
		}
	}
	return b[:len(b):len(b)]
}

// Cancel drops the open write. The finished ones stay.
func (b *Builder) Cancel() {
	if b.table != nil {
		b.arena = b.arena[:b.mark]
	}
	b.close()
}

func (b *Builder) close() {
	b.table, b.event, b.key, b.fault, b.deleted = nil, nil, nil, nil, false
	b.open = b.open[:0]
}
