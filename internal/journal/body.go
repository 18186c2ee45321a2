package journal

import (
	"encoding/binary"
	"fmt"
	"math"

	"sluice.dev/sluice"
)

// The body of a commit (docs/journal-format.md has the picture):
//
//	format 1 | journal time | wall time | identities | notes | groups
//
// Varints are unsigned LEB128, fixed integers little-endian. Sections are by
// group, entries in them by partition and, within one, in the order in which
// their keys were first written: sorting by key is the drainer's, which merges
// many commits and has to sort anyway (docs/decisions/001).

// BodyFormat is the newest format of a body that this build writes and reads.
const BodyFormat = 1

const (
	flagReset  = 1 << 0
	flagReplay = 1 << 1
	flagWrites = 1 << 2 // more than one write folded in
	flagsKnown = flagReset | flagReplay | flagWrites
)

// Header is what stands before the entries of a commit.
type Header struct {
	Time       int64    // journal's own time, microseconds: only grows, only while running (I4)
	Wall       int64    // microseconds since 1970 UTC, for people
	Identities [][]byte // records of dedup, opaque here
	Notes      []Note
}

// Note carries counts that belong to no entry: what was shed, refused or a
// duplicate since the last commit (R2).
type Note struct {
	Group  sluice.GroupID
	Reason sluice.Reason
	Count  uint64
}

// NoteDuplicate is the Reason of a Note that counts duplicates.
const NoteDuplicate sluice.Reason = 255

// Encoder builds bodies, reusing its memory. Not for concurrent use.
type Encoder struct {
	// Cumulate adds writes to a stream's count and gives the new sum; the
	// section's header carries it, so that the ledger is exact after any crash.
	Cumulate func(s Stream, writes uint64) uint64

	buf       []byte
	scratch   []byte // entries of the open partition
	ordinal   uint32
	groups    int
	groupsAt  int // where the number of groups stands
	lengthAt  int // where the open group's length stands
	stream    Stream
	entries   uint64
	writes    uint64
	inSection bool
}

// Begin starts a body.
func (e *Encoder) Begin(h Header) {
	b := append(e.buf[:0], BodyFormat)
	b = binary.AppendUvarint(b, uint64(h.Time))
	b = binary.AppendUvarint(b, uint64(h.Wall))
	b = binary.AppendUvarint(b, uint64(len(h.Identities)))
	for _, id := range h.Identities {
		b = binary.AppendUvarint(b, uint64(len(id)))
		b = append(b, id...)
	}
	b = binary.AppendUvarint(b, uint64(len(h.Notes)))
	for _, n := range h.Notes {
		b = binary.AppendUvarint(b, uint64(n.Group))
		b = append(b, byte(n.Reason))
		b = binary.AppendUvarint(b, n.Count)
	}
	e.groupsAt = len(b)
	e.buf = append(b, 0, 0, 0, 0)
	e.scratch, e.ordinal, e.groups, e.inSection = e.scratch[:0], 0, 0, false
}

// Entry adds an entry. Entries come sorted by group, then partition.
func (e *Encoder) Entry(en *sluice.Entry) {
	s := Stream{en.Group, en.Partition()}
	if !e.inSection || s != e.stream {
		e.openSection(s)
	}
	e.scratch = appendEntry(e.scratch, en)
	e.entries++
	if en.Replay == 0 { // a replay was counted when it was first accepted
		e.writes += uint64(en.Writes)
	}
	e.ordinal++
}

// Finish gives the body, valid until the next Begin.
func (e *Encoder) Finish() []byte {
	if e.inSection {
		e.closeSection()
		e.closeGroup()
	}
	binary.LittleEndian.PutUint32(e.buf[e.groupsAt:], uint32(e.groups))
	return e.buf
}

func (e *Encoder) openSection(s Stream) {
	newGroup := !e.inSection || s.Group != e.stream.Group
	if e.inSection {
		e.closeSection()
		if newGroup {
			e.closeGroup()
		}
	}
	if newGroup {
		e.groups++
		e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(s.Group))
		e.buf = binary.LittleEndian.AppendUint32(e.buf, e.ordinal)
		e.lengthAt = len(e.buf)
		e.buf = append(e.buf, 0, 0, 0, 0)
	}
	e.stream, e.inSection = s, true
}

func (e *Encoder) closeSection() {
	cumulative := e.Cumulate(e.stream, e.writes)
	e.buf = append(e.buf, e.stream.Partition)
	e.buf = binary.AppendUvarint(e.buf, e.entries)
	e.buf = binary.AppendUvarint(e.buf, cumulative)
	e.buf = binary.AppendUvarint(e.buf, uint64(len(e.scratch)))
	e.buf = append(e.buf, e.scratch...)
	e.scratch, e.entries, e.writes = e.scratch[:0], 0, 0
}

func (e *Encoder) closeGroup() {
	binary.LittleEndian.PutUint32(e.buf[e.lengthAt:], uint32(len(e.buf)-e.lengthAt-4))
}

// Body is a view of an encoded body. It copies nothing.
type Body struct {
	Time, Wall int64
	identities []byte
	identityN  int
	notes      []byte
	noteN      int
	groups     []byte
	groupN     int
}

// DecodeBody reads the head of a body. Sections are read when asked for.
func DecodeBody(data []byte) (Body, error) {
	var b Body
	if len(data) == 0 {
		return b, errBody("empty")
	}
	if data[0] == 0 {
		return b, errBody("format 0")
	}
	if data[0] > BodyFormat {
		return b, fmt.Errorf("journal: commit body has format %d, this build reads up to %d: written by a newer Sluice", data[0], BodyFormat)
	}
	r := reader{data: data[1:]}
	b.Time, b.Wall = int64(r.uvarint()), int64(r.uvarint())
	b.identityN = r.count()
	b.identities = r.data
	for range b.identityN {
		r.bytes(r.count())
	}
	b.noteN = r.count()
	b.notes = r.data
	for range b.noteN {
		r.uvarint()
		r.byte()
		r.uvarint()
	}
	b.groupN = int(r.uint32())
	b.groups = r.data
	if r.bad {
		return b, errBody("head is cut short")
	}
	return b, nil
}

// Identities calls fn with each record of dedup.
func (b *Body) Identities(fn func(record []byte)) {
	r := reader{data: b.identities}
	for range b.identityN {
		fn(r.bytes(r.count()))
	}
}

// Notes gives the counts that ride in this commit.
func (b *Body) Notes() []Note {
	r := reader{data: b.notes}
	out := make([]Note, 0, b.noteN)
	for range b.noteN {
		out = append(out, Note{sluice.GroupID(r.uvarint()), sluice.Reason(r.byte()), r.uvarint()})
	}
	return out
}

// Streams calls fn for each stream that the commit touches, with its
// cumulative count of writes. It reads section headers only.
func (b *Body) Streams(fn func(s Stream, cumulative uint64)) error {
	return b.sections(func(sec section) error {
		fn(sec.stream, sec.cumulative)
		return nil
	})
}

// Entries calls fn for each entry of the group in the partitions of set, in
// journal order, with Ordinal filled in. The entry and its cells are valid
// during the call only; their bytes point into the body.
func (b *Body) Entries(group sluice.GroupID, set *sluice.PartitionSet, fn func(*sluice.Entry) error) error {
	var e sluice.Entry
	return b.sections(func(sec section) error {
		if sec.stream.Group != group || !set.Has(sec.stream.Partition) {
			return nil
		}
		r := reader{data: sec.data}
		for i := range sec.entries {
			if err := r.entry(&e, sec.stream); err != nil {
				return err
			}
			e.Ordinal = sec.ordinal + uint32(i)
			if err := fn(&e); err != nil {
				return err
			}
		}
		return nil
	})
}

// Each calls fn for every entry of the body.
func (b *Body) Each(fn func(*sluice.Entry) error) error {
	last := sluice.GroupID(0)
	first := true
	return b.sections(func(sec section) error {
		if !first && sec.stream.Group == last {
			return nil
		}
		first, last = false, sec.stream.Group
		return b.Entries(last, &sluice.AllPartitions, fn)
	})
}

type section struct {
	stream     Stream
	ordinal    uint32 // of its first entry
	entries    int
	cumulative uint64
	data       []byte
}

func (b *Body) sections(fn func(section) error) error {
	r := reader{data: b.groups}
	for range b.groupN {
		sec := section{stream: Stream{Group: sluice.GroupID(r.uint32())}, ordinal: r.uint32()}
		g := reader{data: r.bytes(int(r.uint32()))}
		for len(g.data) > 0 && !g.bad {
			sec.stream.Partition = g.byte()
			sec.entries = g.count()
			sec.cumulative = g.uvarint()
			sec.data = g.bytes(g.count())
			if g.bad {
				break
			}
			if err := fn(sec); err != nil {
				return err
			}
			sec.ordinal += uint32(sec.entries)
		}
		if r.bad || g.bad {
			return errBody("section is cut short")
		}
	}
	if len(r.data) > 0 {
		return errBody("bytes after the last section")
	}
	return nil
}

func errBody(what string) error { return fmt.Errorf("journal: commit body is damaged: %s", what) }

func appendEntry(b []byte, e *sluice.Entry) []byte {
	flags := byte(0)
	if e.Reset {
		flags |= flagReset
	}
	if e.Replay != 0 {
		flags |= flagReplay
	}
	if e.Writes > 1 {
		flags |= flagWrites
	}
	b = append(b, flags, byte(e.Slot%sluice.SlotsPerPartition))
	b = binary.AppendUvarint(b, uint64(len(e.Key)))
	b = append(b, e.Key...)
	if e.Replay != 0 {
		b = binary.AppendUvarint(b, e.Replay)
	}
	if e.Writes > 1 {
		b = binary.AppendUvarint(b, uint64(e.Writes))
	}
	b = binary.AppendUvarint(b, uint64(len(e.Cells)))
	for i := range e.Cells {
		b = appendCell(b, &e.Cells[i])
	}
	return b
}

func appendCell(b []byte, c *sluice.Cell) []byte {
	b = binary.AppendUvarint(b, uint64(c.Column))
	b = append(b, byte(c.Value.Kind))
	switch c.Value.Kind {
	case sluice.Null:
	case sluice.Int64, sluice.Timestamp, sluice.Date:
		b = binary.AppendVarint(b, c.Value.Num)
	case sluice.Bool:
		b = append(b, byte(c.Value.Num))
	case sluice.Float64:
		b = binary.LittleEndian.AppendUint64(b, uint64(c.Value.Num))
	default:
		b = binary.AppendUvarint(b, uint64(len(c.Value.Bytes)))
		b = append(b, c.Value.Bytes...)
	}
	return b
}

// AppendEntry encodes an entry so that it stands alone, with group, slot,
// commit and ordinal: what a shard keeps of a parked or rejected one.
func AppendEntry(b []byte, e *sluice.Entry) []byte {
	b = append(b, BodyFormat)
	b = binary.AppendUvarint(b, uint64(e.Group))
	b = append(b, e.Partition())
	b = binary.AppendUvarint(b, e.Commit)
	b = binary.AppendUvarint(b, uint64(e.Ordinal))
	return appendEntry(b, e)
}

// DecodeEntry reads what AppendEntry wrote. The entry's bytes point into data.
func DecodeEntry(data []byte) (sluice.Entry, error) {
	var e sluice.Entry
	r := reader{data: data}
	if format := r.byte(); format == 0 {
		return e, errBody("entry has format 0")
	} else if format > BodyFormat {
		return e, fmt.Errorf("journal: entry has format %d, this build reads up to %d: written by a newer Sluice", format, BodyFormat)
	}
	s := Stream{Group: sluice.GroupID(r.uvarint()), Partition: r.byte()}
	commit, ordinal := r.uvarint(), uint32(r.uvarint())
	if err := r.entry(&e, s); err != nil {
		return e, err
	}
	if len(r.data) > 0 {
		return e, errBody("bytes after an entry")
	}
	e.Commit, e.Ordinal = commit, ordinal
	return e, nil
}

// reader takes values off the front of data; after the first fault it is bad
// and answers zeros.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) entry(e *sluice.Entry, s Stream) error {
	flags, slot := r.byte(), r.byte()
	*e = sluice.Entry{Group: s.Group, Slot: uint16(s.Partition)*sluice.SlotsPerPartition + uint16(slot),
		Key: r.bytes(r.count()), Reset: flags&flagReset != 0, Cells: e.Cells[:0], Writes: 1}
	if flags&flagReplay != 0 {
		e.Replay, e.Writes = r.uvarint(), 0
	}
	if flags&flagWrites != 0 {
		e.Writes = uint32(r.uvarint())
	}
	if flags&^byte(flagsKnown) != 0 || slot >= sluice.SlotsPerPartition {
		return errBody("unknown flags in an entry")
	}
	for range r.count() {
		e.Cells = append(e.Cells, r.cell())
		if r.bad {
			break
		}
	}
	if r.bad {
		return errBody("entry is cut short")
	}
	return nil
}

func (r *reader) cell() sluice.Cell {
	c := sluice.Cell{Column: sluice.ColumnID(r.uvarint()), Value: sluice.Value{Kind: sluice.Kind(r.byte())}}
	switch c.Value.Kind {
	case sluice.Null:
	case sluice.Int64, sluice.Timestamp, sluice.Date:
		n, size := binary.Varint(r.data)
		if size <= 0 {
			r.bad = true
			return c
		}
		c.Value.Num, r.data = n, r.data[size:]
	case sluice.Bool:
		c.Value.Num = int64(r.byte())
	case sluice.Float64:
		if b := r.bytes(8); len(b) == 8 {
			c.Value.Num = int64(binary.LittleEndian.Uint64(b))
		}
	default:
		if c.Value.Kind > sluice.Sketch {
			r.bad = true
		}
		c.Value.Bytes = r.bytes(r.count())
	}
	return c
}

func (r *reader) byte() byte {
	if r.bad || len(r.data) == 0 {
		r.bad = true
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); len(b) == 4 {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.data)
	if r.bad || size <= 0 {
		r.bad = true
		return 0
	}
	r.data = r.data[size:]
	return n
}

// count is a length or number of things; each thing takes at least a byte, so
// more than there are bytes left is damage and must not make us allocate.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.data)) || n > math.MaxInt32 {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n < 0 || n > len(r.data) {
		r.bad = true
		return nil
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}
