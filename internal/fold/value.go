package fold

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/axiomhq/hyperloglog"
	"github.com/cockroachdb/apd/v3"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// Unique columns are HyperLogLog sketches of 2^12 registers (1.6 % standard
// error, about 4 KiB when dense: the row is rewritten at each flush, and 2^14
// registers would make that 16 KiB). Small deltas travel as the hashes
// themselves, which are smaller, merge faster and are exact.
const (
	sketchPrecision = 12
	sketchBytes     = 4096
	hashesMax       = 256 // more elements in one delta become a sketch
)

// fits tells whether the cell can fold into the entry without changing an
// answer: an int64 sum that overflows cannot (S11).
func (f *Folder) fits(g *schema.Group, old *entry, c *sluice.Cell) bool {
	col := g.ByID(c.Column)
	if col == nil || col.Merge != schema.Sum || c.Value.Kind != sluice.Int64 {
		return true
	}
	have, found := f.cellOf(old, c.Column)
	if !found {
		return true
	}
	sum := have.num + c.Value.Num
	return (c.Value.Num >= 0) == (sum >= have.num)
}

func (f *Folder) mergeCell(g *schema.Group, old *entry, c *sluice.Cell) error {
	have, found := f.cellOf(old, c.Column)
	if !found {
		f.appendCell(old, c)
		return nil
	}
	col := g.ByID(c.Column)
	if col == nil {
		return sluice.Errorf(sluice.Internal, "no_column", "fold: group %s has no column with id %d; the catalog is older than the journal", g.FullName(), c.Column)
	}
	switch col.Merge {
	case schema.Sum:
		return f.mergeSum(have, c)
	case schema.Max, schema.Min:
		order := CompareValues(c.Value, f.value(have))
		if (col.Merge == schema.Max) == (order > 0) && order != 0 {
			f.overwrite(have, c)
		}
	case schema.Unique:
		return f.mergeUnique(have, c)
	default:
		f.overwrite(have, c)
	}
	return nil
}

func (f *Folder) overwrite(have *cell, c *sluice.Cell) {
	have.kind, have.num = c.Value.Kind, c.Value.Num
	f.store(&have.bytes, c.Value.Bytes)
}

func (f *Folder) mergeSum(have *cell, c *sluice.Cell) error {
	switch c.Value.Kind {
	case sluice.Int64:
		have.num += c.Value.Num
	case sluice.Float64:
		sum := math.Float64frombits(uint64(have.num)) + math.Float64frombits(uint64(c.Value.Num))
		if math.IsInf(sum, 0) {
			sum = math.Copysign(math.MaxFloat64, sum)
		}
		have.num = int64(math.Float64bits(sum))
	default:
		sum, err := AddDecimal(f.bytes(have.bytes), c.Value.Bytes)
		if err != nil {
			return err
		}
		f.store(&have.bytes, sum)
	}
	return nil
}

// mergeUnique gathers hashes unsorted, doubling their room, and turns them into
// a sketch when they are many.
func (f *Folder) mergeUnique(have *cell, c *sluice.Cell) error {
	if have.kind == sluice.Hashes && c.Value.Kind == sluice.Hashes {
		s := &have.bytes
		need := s.n + uint32(len(c.Value.Bytes))
		if need > s.cap && need > 8*16 {
			// Many writes name the same few elements: forget the doubles first.
			s.n = uint32(len(sortHashes(f.bytes(*s))))
			need = s.n + uint32(len(c.Value.Bytes))
		}
		if need <= hashesMax*8 {
			if need > s.cap {
				off := uint32(len(f.arena))
				f.arena = slices.Grow(f.arena, int(need)*2)[:len(f.arena)+int(need)*2]
				copy(f.arena[off:], f.arena[s.off:s.off+s.n])
				*s = span{off, s.n, need * 2}
			}
			copy(f.arena[s.off+s.n:], c.Value.Bytes)
			s.n = need
			return nil
		}
	}
	sk, err := f.sketchOf(have)
	if err != nil {
		return err
	}
	return addToSketch(sk, c.Value)
}

// sketchOf turns a cell into one whose num is an index into sketches.
func (f *Folder) sketchOf(c *cell) (*hyperloglog.Sketch, error) {
	if c.kind == sluice.Sketch && c.bytes.n == 0 {
		return f.sketches[c.num], nil
	}
	sk := newSketch()
	if err := addToSketch(sk, f.value(c)); err != nil {
		return nil, err
	}
	c.kind, c.num, c.bytes = sluice.Sketch, int64(len(f.sketches)), span{}
	f.sketches = append(f.sketches, sk)
	return sk, nil
}

func (f *Folder) emitValue(c *cell) sluice.Value {
	v := f.value(c)
	switch {
	case c.kind == sluice.Hashes:
		c.bytes.n = uint32(len(sortHashes(v.Bytes)))
		v.Bytes = f.bytes(c.bytes)
	case c.kind == sluice.Sketch && c.bytes.n == 0:
		data, err := f.sketches[c.num].MarshalBinary()
		if err != nil {
			data = nil // never: marshalling writes to memory only
		}
		v = sluice.Value{Kind: sluice.Sketch, Bytes: data}
	}
	return v
}

// sortHashes sorts 8-byte hashes in place and drops doubles.
func sortHashes(b []byte) []byte {
	var room [2 * hashesMax]uint64
	list := room[:0]
	for i := 0; i+8 <= len(b); i += 8 {
		list = append(list, binary.LittleEndian.Uint64(b[i:]))
	}
	slices.Sort(list)
	list = slices.Compact(list)
	for i, h := range list {
		binary.LittleEndian.PutUint64(b[i*8:], h)
	}
	return b[:len(list)*8]
}

func newSketch() *hyperloglog.Sketch {
	sk, err := hyperloglog.NewSketch(sketchPrecision, true)
	if err != nil {
		panic(err) // the precision is a constant within the library's bounds
	}
	return sk
}

func addToSketch(sk *hyperloglog.Sketch, v sluice.Value) error {
	switch v.Kind {
	case sluice.Hashes:
		for i := 0; i+8 <= len(v.Bytes); i += 8 {
			sk.InsertHash(binary.LittleEndian.Uint64(v.Bytes[i:]))
		}
		return nil
	case sluice.Sketch:
		other := newSketch()
		if err := other.UnmarshalBinary(v.Bytes); err != nil {
			return fmt.Errorf("fold: sketch of a unique column is damaged: %w", err)
		}
		return sk.Merge(other)
	}
	return fmt.Errorf("fold: kind %d is no delta of a unique column", v.Kind)
}

// MergeSketch adds a unique column's delta (Hashes or Sketch) to the sketch
// that the database holds (nil: none yet) and gives the next one with its
// estimate, whose standard error is 1.6 %.
func MergeSketch(state []byte, delta sluice.Value) (next []byte, estimate int64, err error) {
	sk := newSketch()
	if len(state) > 0 {
		if err := sk.UnmarshalBinary(state); err != nil {
			return nil, 0, fmt.Errorf("fold: sketch in the database is damaged: %w", err)
		}
	}
	if delta.Kind != sluice.Null {
		if err := addToSketch(sk, delta); err != nil {
			return nil, 0, err
		}
	}
	next, err = sk.MarshalBinary()
	return next, int64(sk.Estimate()), err
}

// AddDecimal adds two decimals in canonical text, exactly.
func AddDecimal(a, b []byte) ([]byte, error) {
	var x, y, sum apd.Decimal
	for _, p := range []struct {
		d *apd.Decimal
		s []byte
	}{{&x, a}, {&y, b}} {
		if _, _, err := p.d.SetString(string(p.s)); err != nil {
			return nil, fmt.Errorf("fold: %q is no decimal: %w", p.s, err)
		}
	}
	if _, err := apd.BaseContext.Add(&sum, &x, &y); err != nil {
		return nil, fmt.Errorf("fold: %s + %s: %w", a, b, err)
	}
	return canonicalDecimal(&sum), nil
}

func canonicalDecimal(d *apd.Decimal) []byte {
	d.Reduce(d)
	if d.IsZero() {
		return []byte("0")
	}
	return []byte(d.Text('f'))
}

// CompareValues orders two values of one kind, as Max, Min and latest_by need.
// Null is below everything.
func CompareValues(a, b sluice.Value) int {
	if a.Kind == sluice.Null || b.Kind == sluice.Null {
		return cmp.Compare(min(a.Kind, 1), min(b.Kind, 1))
	}
	switch a.Kind {
	case sluice.Int64, sluice.Timestamp, sluice.Date, sluice.Bool:
		return cmp.Compare(a.Num, b.Num)
	case sluice.Float64:
		return cmp.Compare(math.Float64frombits(uint64(a.Num)), math.Float64frombits(uint64(b.Num)))
	case sluice.Decimal:
		var x, y apd.Decimal
		if _, _, err := x.SetString(string(a.Bytes)); err != nil {
			return bytes.Compare(a.Bytes, b.Bytes)
		}
		if _, _, err := y.SetString(string(b.Bytes)); err != nil {
			return bytes.Compare(a.Bytes, b.Bytes)
		}
		return x.Cmp(&y)
	}
	return bytes.Compare(a.Bytes, b.Bytes)
}
