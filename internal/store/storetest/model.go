package storetest

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/big"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// model is what the rows of one group must be, by the rules alone: it shares
// no code with any store.
type model struct {
	group *schema.Group
	rows  map[string]*modelRow
}

type modelRow struct {
	values []sluice.Value
	seen   map[int]map[uint64]bool // elements of unique columns, by index
}

func (m *model) clone() *model {
	c := &model{group: m.group, rows: map[string]*modelRow{}}
	for k, r := range m.rows {
		n := &modelRow{values: append([]sluice.Value(nil), r.values...), seen: map[int]map[uint64]bool{}}
		for i, set := range r.seen {
			n.seen[i] = map[uint64]bool{}
			for h := range set {
				n.seen[i][h] = true
			}
		}
		c.rows[k] = n
	}
	return c
}

func (m *model) apply(e *sluice.Entry) {
	key := string(e.Key)
	if e.Reset {
		delete(m.rows, key)
	}
	if len(e.Cells) == 0 {
		return
	}
	row := m.rows[key]
	if m.group.LatestBy != nil {
		at := m.group.LatestBy
		for _, c := range e.Cells {
			if c.Column == at.ID && row != nil && compare(c.Value, row.values[at.Index]) < 0 {
				return
			}
		}
		row = nil
	}
	if row == nil {
		row = &modelRow{values: make([]sluice.Value, len(m.group.Columns)), seen: map[int]map[uint64]bool{}}
		for i, col := range m.group.Columns {
			row.values[i] = zeroOf(col)
		}
		m.rows[key] = row
	}
	for _, c := range e.Cells {
		row.merge(m.group.ByID(c.Column), c.Value)
	}
}

// zeroOf is what an untouched column of a row holds.
func zeroOf(col *schema.Column) sluice.Value {
	switch {
	case col.Merge == schema.Unique:
		return sluice.Value{Kind: sluice.Int64}
	case col.Merge == schema.Sum && col.Type.Kind == sluice.Decimal:
		return sluice.Value{Kind: sluice.Decimal, Bytes: []byte("0")}
	case col.Merge == schema.Sum:
		return sluice.Value{Kind: col.Type.Kind}
	}
	return sluice.Value{}
}

func (r *modelRow) merge(col *schema.Column, v sluice.Value) {
	old := r.values[col.Index]
	switch col.Merge {
	case schema.Set:
		r.values[col.Index] = v
	case schema.Sum:
		r.values[col.Index] = add(old, v)
	case schema.Max:
		if old.Kind == sluice.Null || compare(v, old) > 0 {
			r.values[col.Index] = v
		}
	case schema.Min:
		if old.Kind == sluice.Null || compare(v, old) < 0 {
			r.values[col.Index] = v
		}
	case schema.Unique:
		if r.seen[col.Index] == nil {
			r.seen[col.Index] = map[uint64]bool{}
		}
		for b := v.Bytes; len(b) > 0; b = b[8:] {
			r.seen[col.Index][binary.LittleEndian.Uint64(b)] = true
		}
		r.values[col.Index] = sluice.IntValue(int64(len(r.seen[col.Index])))
	}
}

func rat(v sluice.Value) *big.Rat {
	r, _ := new(big.Rat).SetString(string(v.Bytes))
	return r
}

func add(a, b sluice.Value) sluice.Value {
	switch a.Kind {
	case sluice.Decimal:
		text := new(big.Rat).Add(rat(a), rat(b)).FloatString(40)
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
		if text == "-0" {
			text = "0"
		}
		return sluice.Value{Kind: sluice.Decimal, Bytes: []byte(text)}
	case sluice.Float64:
		sum := math.Float64frombits(uint64(a.Num)) + math.Float64frombits(uint64(b.Num))
		return sluice.Value{Kind: sluice.Float64, Num: int64(math.Float64bits(sum))}
	}
	return sluice.Value{Kind: a.Kind, Num: a.Num + b.Num}
}

func compare(a, b sluice.Value) int {
	switch {
	case a.Kind == sluice.Null || b.Kind == sluice.Null:
		return cmp.Compare(min(a.Kind, 1), min(b.Kind, 1))
	case a.Kind == sluice.Decimal:
		return rat(a).Cmp(rat(b))
	case a.Kind == sluice.Float64:
		return cmp.Compare(math.Float64frombits(uint64(a.Num)), math.Float64frombits(uint64(b.Num)))
	case a.Bytes != nil:
		return strings.Compare(string(a.Bytes), string(b.Bytes))
	}
	return cmp.Compare(a.Num, b.Num)
}
