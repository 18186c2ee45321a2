package postgres

import (
	"encoding/binary"
	"fmt"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// verb is what a statement does with its rows.
type verb byte

const (
	upsert   verb = iota + 1 // own tables: insert or change
	mergeIn                  // mapped tables: change or insert (S9)
	update                   // mapped tables with missing_row: reject: change; the count tells of missing ones
	insert                   // events
	remove                   // delete rows
	defaults                 // mapped tables: a delete sets the columns to their defaults (S12)
)

// Fields that come before the keys.
var (
	slotField    = field{name: "sluice_slot", typ: "smallint", kind: sluice.Int64, wire: oidInt2}
	commitField  = field{name: "sluice_commit", typ: "bigint", kind: sluice.Int64, wire: oidInt8}
	ordinalField = field{name: "sluice_ordinal", typ: "integer", kind: sluice.Int64, wire: oidInt4}
)

// shape says which statement: what it does and to which columns (by index,
// rising). Statements of one shape differ in their rows only.
type shape struct {
	verb verb
	cols []int
}

// fields lists what a row of this shape holds, in order.
func (t *target) fields(sh shape) []*field {
	var out []*field
	if t.own && sh.verb == insert {
		out = append(out, &commitField, &ordinalField)
	}
	if t.own && (sh.verb == insert || sh.verb == upsert) {
		out = append(out, &slotField)
	}
	for i := range t.keys {
		out = append(out, &t.keys[i])
	}
	for _, c := range sh.cols {
		f := &t.columns[c]
		if out = append(out, f); f.hll != nil {
			out = append(out, f.hll)
		}
	}
	return out
}

// statement gives the text for a shape, made once. Few shapes have names: each
// is remembered by every connection.
func (s *Shard) statement(t *target, sh shape) *statement {
	key := make([]byte, 1, 32)
	key[0] = byte(sh.verb)
	for _, c := range sh.cols {
		key = binary.BigEndian.AppendUint16(key, uint16(c))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.statements[string(key)]
	if st == nil {
		fields := t.fields(sh)
		st = &statement{sql: t.text(sh, fields, unnest(fields))}
		st.name = s.newName()
		if len(t.statements) >= namedStatementsMax {
			clear(t.statements)
		}
		t.statements[string(key)] = st
	}
	return s.unnamedBehindPooler(st)
}

// newName names a statement, or does not, once there are too many. A name is
// never used again for another text: a connection may still know the older one.
func (s *Shard) newName() string {
	if n := s.serial.Add(1); n <= s.serialMax.Load() {
		return fmt.Sprintf("sluice_%d", n)
	}
	return ""
}

// unnamedBehindPooler: the next transaction may be on another server connection.
func (s *Shard) unnamedBehindPooler(st *statement) *statement {
	if st.name == "" || s.named.Load() {
		return st
	}
	return &statement{sql: st.sql}
}

// unnest is the source whose rows come as one array a field.
func unnest(fields []*field) string {
	var arrays, names strings.Builder
	for i, f := range fields {
		if i > 0 {
			arrays.WriteString(", ")
			names.WriteString(", ")
		}
		fmt.Fprintf(&arrays, "$%d::%s[]", i+1, typeNames[f.wire])
		fmt.Fprintf(&names, "f%d", i)
	}
	return "unnest(" + arrays.String() + ") AS s(" + names.String() + ")"
}

// columnList and values name the fields on both sides of an INSERT.
func columnList(fields []*field) string {
	return join(fields, func(_ int, f *field) string { return f.name })
}

func join(fields []*field, one func(int, *field) string) string {
	parts := make([]string, len(fields))
	for i, f := range fields {
		parts[i] = one(i, f)
	}
	return strings.Join(parts, ", ")
}

// text is the statement of a shape over a source whose columns are f0, f1 ...
func (t *target) text(sh shape, fields []*field, source string) string {
	switch sh.verb {
	case insert:
		return "INSERT INTO " + t.table + " (" + columnList(fields) + ") SELECT " + join(fields, selectField) + " FROM " + source
	case upsert:
		return t.upsertText(sh, fields, source)
	case mergeIn:
		return t.mergeText(fields, source)
	case update:
		return "UPDATE " + t.table + " AS t SET " + strings.Join(t.assignments(fields, true), ", ") + " FROM " + source + " WHERE " + t.match(fields)
	case remove:
		return "DELETE FROM " + t.table + " AS t USING " + source + " WHERE " + t.match(fields)
	default: // defaults
		var set []string
		for i := range t.columns {
			if f := &t.columns[i]; !f.absent {
				set = append(set, f.name+" = DEFAULT")
				if f.hll != nil {
					set = append(set, f.hll.name+" = DEFAULT")
				}
			}
		}
		return "UPDATE " + t.table + " AS t SET " + strings.Join(set, ", ") + " FROM " + source + " WHERE " + t.match(fields)
	}
}

func source(i int) string { return fmt.Sprintf("s.f%d", i) }

// selectField is the i-th field of the source as its column wants it.
func selectField(i int, f *field) string { return f.cast(source(i)) }

// match joins target and source by key.
func (t *target) match(fields []*field) string {
	var parts []string
	for i, f := range fields {
		for k := range t.keys {
			if f == &t.keys[k] {
				parts = append(parts, "t."+f.name+" = "+f.cast(source(i)))
			}
		}
	}
	return strings.Join(parts, " AND ")
}

func (t *target) isKey(f *field) bool {
	for k := range t.keys {
		if f == &t.keys[k] {
			return true
		}
	}
	return f == &slotField || f == &commitField || f == &ordinalField
}

// upsertText: in Sluice's own tables a sum is never NULL, and an amount that
// a row does not carry is 0, an extreme that it does not carry is NULL: rows
// that change different merged columns fit one statement.
func (t *target) upsertText(sh shape, fields []*field, from string) string {
	keys := make([]string, len(t.keys))
	for k := range t.keys {
		keys[k] = t.keys[k].name
	}
	values := join(fields, func(i int, f *field) string {
		if expr := f.cast(source(i)); f.merge == schema.Sum || f.hll != nil {
			return "coalesce(" + expr + ", 0)"
		} else {
			return expr
		}
	})
	sql := "INSERT INTO " + t.table + " AS t (" + columnList(fields) + ") SELECT " + values + " FROM " + from +
		" ON CONFLICT (" + strings.Join(keys, ", ") + ") DO "
	var set []string
	for _, c := range sh.cols {
		f := &t.columns[c]
		next := "excluded." + f.name
		switch {
		case f.hll != nil:
			set = append(set, f.hll.name+" = coalesce(excluded."+f.hll.name+", t."+f.hll.name+")")
			next = "CASE WHEN excluded." + f.hll.name + " IS NULL THEN t." + f.name + " ELSE " + next + " END"
		case f.merge == schema.Sum:
			next = "t." + f.name + " + " + next
		case f.merge == schema.Max || f.merge == schema.Min:
			next = extreme(f, "t."+f.name, next)
		}
		set = append(set, f.name+" = "+next)
	}
	if len(set) == 0 {
		return sql + "NOTHING"
	}
	sql += "UPDATE SET " + strings.Join(set, ", ")
	if latest := t.latest(); latest != nil {
		sql += " WHERE t." + latest.name + " IS NULL OR excluded." + latest.name + " >= t." + latest.name
	}
	return sql
}

// extreme is greatest or least; text compares by bytes, as everywhere in Sluice.
func extreme(f *field, a, b string) string {
	if f.kind == sluice.Text {
		a += ` COLLATE "C"`
	}
	if f.merge == schema.Max {
		return "greatest(" + a + ", " + b + ")"
	}
	return "least(" + a + ", " + b + ")"
}

// latest is the column that decides whether a whole row is replaced (S12).
func (t *target) latest() *field {
	if t.group.LatestBy == nil {
		return nil
	}
	return &t.columns[t.group.LatestBy.Index]
}

// assignments change a row of a mapped table. guarded: a latest_by row that is
// older leaves every column as it is but still counts as found.
func (t *target) assignments(fields []*field, guarded bool) []string {
	var set []string
	for i, f := range fields {
		if t.isKey(f) {
			continue
		}
		next := f.cast(source(i))
		switch f.merge {
		case schema.Sum:
			// No cast of the amount: a bigint may be right for an integer column that the sum still fits.
			next = "coalesce(t." + f.name + ", 0) + " + source(i)
		case schema.Max, schema.Min:
			next = extreme(f, "t."+f.name, next)
		}
		set = append(set, f.name+" = "+next)
	}
	latest := t.latest()
	if latest == nil || !guarded {
		if len(set) == 0 && guarded { // nothing to change, but the count must tell whether the row is there
			set = append(set, t.keys[0].name+" = t."+t.keys[0].name)
		}
		return set
	}
	newer := "t." + latest.name + " IS NULL OR " + t.latestSource(fields) + " >= t." + latest.name
	for i, one := range set {
		name, next, _ := strings.Cut(one, " = ")
		set[i] = name + " = CASE WHEN " + newer + " THEN " + next + " ELSE t." + name + " END"
	}
	return set
}

func (t *target) latestSource(fields []*field) string {
	latest := t.latest()
	for i, f := range fields {
		if f == latest {
			return f.cast(source(i))
		}
	}
	return "NULL"
}

// mergeText: INSERT ... ON CONFLICT checks constraints on the row to insert
// first, so -3 on a row of 5 fails CHECK (n >= 0) and a partial row fails NOT
// NULL; MERGE checks only the row that results (S9).
func (t *target) mergeText(fields []*field, from string) string {
	sql := "MERGE INTO " + t.table + " AS t USING " + from + " ON " + t.match(fields)
	set := t.assignments(fields, false)
	matched := "WHEN MATCHED"
	if latest := t.latest(); latest != nil {
		matched += " AND (t." + latest.name + " IS NULL OR " + t.latestSource(fields) + " >= t." + latest.name + ")"
	}
	if len(set) == 0 {
		sql += " WHEN MATCHED THEN DO NOTHING"
	} else {
		sql += " " + matched + " THEN UPDATE SET " + strings.Join(set, ", ")
	}
	return sql + " WHEN NOT MATCHED THEN INSERT (" + columnList(fields) + ") VALUES (" + join(fields, firstValue) + ")"
}

// firstValue is what the i-th field of the source makes of its column in a new
// row. A merged column begins with its default, as it would had a write to
// another column made the row before: else the answer would depend on folding (S11).
func firstValue(i int, f *field) string {
	switch {
	case f.merge == schema.Sum && f.begins == "":
		return source(i)
	case f.merge == schema.Sum:
		return "coalesce(" + f.begins + ", 0) + " + source(i)
	case f.begins != "":
		return extreme(f, f.begins, f.cast(source(i)))
	}
	return f.cast(source(i))
}

// keyFields are the fields of a statement that looks rows up.
func (t *target) keyFields() []*field {
	out := make([]*field, len(t.keys))
	for i := range t.keys {
		out[i] = &t.keys[i]
	}
	return out
}

// lookup selects expressions of the rows of given keys, each after its place
// in the list of keys.
func (t *target) lookup(exprs []string, tail string) string {
	fields := t.keyFields()
	from := unnest(fields)
	from = strings.Replace(from, ") AS s(", ") WITH ORDINALITY AS s(", 1)
	from = from[:len(from)-1] + ", ord)"
	return "SELECT " + strings.Join(append([]string{"s.ord"}, exprs...), ", ") + " FROM " + from + " JOIN " + t.table + " AS t ON " + t.match(fields) + tail
}
