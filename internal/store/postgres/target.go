package postgres

import (
	"sync"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// field is one column of a physical table, as statements need it.
type field struct {
	name   string      // quoted
	typ    string      // the database's own type, without length or precision
	kind   sluice.Kind // of the values that come for it
	wire   uint32      // type in which they travel
	merge  schema.Merge
	absent bool // a dropped column whose physical one is gone: its cells are left out
	// begins is what a merged column of a mapped table holds in a new row, as an
	// expression; "": NULL, or the column is not one of these.
	begins string
	hll    *field
}

// exact tells that the value travels in the column's own type, so that COPY
// can put it there.
func (f *field) exact() bool {
	return typeNames[f.wire] == f.typ || f.kind == sluice.TextArray && f.typ == "text[]"
}

// cast is the expression that turns the travelled value into the column's
// type. The type has no length: a cast to varchar(3) cuts silently, where the
// assignment that follows refuses.
func (f *field) cast(expr string) string {
	switch {
	case typeNames[f.wire] == f.typ:
		return expr
	case f.kind == sluice.Timestamp && f.typ == "timestamp without time zone":
		return "(" + expr + " AT TIME ZONE 'UTC')"
	}
	return expr + "::" + f.typ
}

// target is the physical side of a group. It is made by Ensure and not changed
// but for the cache of statements.
type target struct {
	group   *schema.Group
	schema  string // unquoted
	name    string // unquoted
	table   string // quoted and qualified
	own     bool
	keys    []field
	columns []field           // by Column.Index
	parents map[string]string // foreign key constraint -> table it refers to, "schema.table"
	uniques map[string]bool   // constraints on exactly the key columns
	byID    []int16           // ColumnID -> Column.Index, -1: none

	mu         sync.Mutex
	statements map[string]*statement
}

// index finds the position of a column; -1 when there is none.
func (t *target) index(id sluice.ColumnID) int {
	if int(id) < len(t.byID) {
		return int(t.byID[id])
	}
	return -1
}

func newTarget(g *schema.Group) *target {
	t := &target{group: g, own: g.Existing == nil, parents: map[string]string{}, uniques: map[string]bool{}, statements: map[string]*statement{}}
	for i := range g.Table.Key {
		k := &g.Table.Key[i]
		t.keys = append(t.keys, ownField(k.Physical, k.Type))
	}
	for i, c := range g.Columns {
		f := ownField(c.Physical, c.Type)
		if f.merge = c.Merge; c.Merge == schema.Unique {
			f.kind, f.wire, f.typ = sluice.Int64, oidInt8, "bigint"
			f.hll = &field{name: quote(c.Physical + "_hll"), typ: "bytea", kind: sluice.Bytes, wire: oidBytea}
		}
		t.columns = append(t.columns, f)
		for len(t.byID) <= int(c.ID) {
			t.byID = append(t.byID, -1)
		}
		t.byID[c.ID] = int16(i)
	}
	return t
}

func ownField(name string, typ schema.Type) field {
	return field{name: quote(name), kind: typ.Kind, wire: wireOf(typ.Kind), typ: typeOf(typ.Kind, typ.Native)}
}
