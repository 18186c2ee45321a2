package sqlite

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// layout is how the entries of one group become statements. It is made once a
// schema and never changes but for its plans, which the writer alone touches.
type layout struct {
	group *schema.Group
	table string   // quoted
	keys  []string // quoted
	where string   // "k1" = ? AND "k2" = ?
	own   bool
	// cols of events and latest_by groups: their rows are written whole.
	cols []*schema.Column
	// neutral are the columns for which there is a value that changes nothing (0
	// for a sum, NULL for max and min), when they are few: entries that name some
	// of them share one plan.
	neutral []*schema.Column
	query   string   // reads one row
	reset   []string // statements of a delete: key columns are the arguments
	facts   *facts   // nil for own tables
	plans   map[string]*plan
}

// plan is the statements for one set of columns.
type plan struct {
	cols []*schema.Column
	// One of upsert, or update and then insert of what was missing, or insert alone.
	upsert, update, insert string
	// current reads the columns whose merge is done here and not in SQL; "" when
	// there are none. Nobody can come between: the transaction holds the write lock.
	current string
	// begins reads the same columns of a row that is missing; "" when all would be NULL.
	begins string
	merged []int // indexes into cols of these columns
	// several writes so many rows in one statement; "" where rows go one by one.
	several string
	rows    int
}

// Rows of one statement. A statement costs about as much as a row, so several
// rows in one are a third faster; the driver binds in time quadratic in the number
// of arguments, so many are slower again.
const (
	severalArgs = 80
	severalRows = 16
)

func newLayout(g *schema.Group, f *facts) *layout {
	l := &layout{group: g, table: quote(g.Physical), own: g.Existing == nil, facts: f, plans: map[string]*plan{}}
	var where []string
	for _, k := range g.Table.Key {
		l.keys = append(l.keys, quote(k.Physical))
		w := quote(k.Physical) + " = ?"
		if !l.own && k.Type.Kind == sluice.Text {
			w += " COLLATE BINARY" // the column's own collation may be another than its index's
		}
		where = append(where, w)
	}
	if !l.own {
		l.table = quote(tableOf(g))
	}
	l.where = strings.Join(where, " AND ")
	l.query = "SELECT 1"
	for _, c := range g.Live() {
		l.query += ", +" + quote(c.Physical)
	}
	l.query += " FROM " + l.table + " WHERE " + l.where
	if g.Events || g.LatestBy != nil {
		l.cols = distinct(g.Columns)
	}
	if l.own && !g.Events && g.LatestBy == nil {
		l.neutral = l.neutralColumns()
	}
	switch {
	case l.own || g.Existing.DeleteRow:
		l.reset = []string{"DELETE FROM " + l.table + " WHERE " + l.where}
	default:
		var sets []string
		for _, c := range distinct(g.Columns) {
			for _, name := range physical(c) {
				if d, ok := f.defaults[name]; ok {
					sets = append(sets, quote(name)+" = ("+d+")")
				}
			}
		}
		l.reset = []string{"UPDATE " + l.table + " SET " + strings.Join(sets, ", ") + " WHERE " + l.where}
	}
	return l
}

// neutralMax is how many columns an entry may be widened to.
const neutralMax = 8

func (l *layout) neutralColumns() (out []*schema.Column) {
	for _, c := range distinct(l.group.Columns) {
		if c.Merge != schema.Set && !l.mergedHere(c) {
			out = append(out, c)
		}
	}
	if len(out) > neutralMax {
		return nil
	}
	return out
}

// distinct drops columns whose physical name an earlier one has.
func distinct(cols []*schema.Column) (out []*schema.Column) {
	taken := map[string]bool{}
	for _, c := range cols {
		if !taken[c.Physical] {
			out = append(out, c)
		}
		taken[c.Physical] = true
	}
	return out
}

// physical names a column's columns in the database.
func physical(c *schema.Column) []string {
	if c.Merge == schema.Unique {
		return []string{c.Physical, c.Physical + "_hll"}
	}
	return []string{c.Physical}
}

// mergedHere tells whether SQL cannot merge the column: decimals are text to
// SQLite, sketches are ours, and other programs write timestamps in forms whose
// text order is not time order.
func (l *layout) mergedHere(c *schema.Column) bool {
	if l.group.LatestBy != nil {
		return c == l.group.LatestBy && (c.Type.Kind == sluice.Decimal || !l.own)
	}
	switch c.Merge {
	case schema.Unique:
		return true
	case schema.Sum:
		return c.Type.Kind == sluice.Decimal
	case schema.Max, schema.Min:
		return c.Type.Kind == sluice.Decimal || !l.own && (c.Type.Kind == sluice.Timestamp || c.Type.Kind == sluice.Date)
	}
	return false
}

// planFor gives the statements that write cols. key names them in the cache.
func (l *layout) planFor(key string, cols []*schema.Column) *plan {
	if p := l.plans[key]; p != nil {
		return p
	}
	p := &plan{cols: cols}
	var names, sets, current, begins []string
	names = append(names, l.keys...)
	if l.own {
		names = append(names, `"sluice_slot"`)
	}
	for i, c := range cols {
		if l.mergedHere(c) {
			p.merged = append(p.merged, i)
			for _, n := range physical(c) {
				current = append(current, "+"+quote(n)) // +: the driver turns a declared timestamp into its own
				begins = append(begins, cmp.Or(l.begins(c), "NULL"))
			}
		}
		for _, n := range physical(c) {
			names = append(names, quote(n))
		}
		sets = append(sets, l.sets(c)...)
	}
	if len(current) > 0 {
		p.current = "SELECT " + strings.Join(current, ", ") + " FROM " + l.table + " WHERE " + l.where
	}
	if slices.ContainsFunc(begins, func(expr string) bool { return expr != "NULL" }) {
		p.begins = "SELECT " + strings.Join(begins, ", ")
	}
	l.write(p, names, sets)
	if len(l.plans) >= statementsMax {
		clear(l.plans)
	}
	l.plans[key] = p
	return p
}

func (l *layout) write(p *plan, names, sets []string) {
	g := l.group
	if g.Events && l.own {
		names = append([]string{`"sluice_commit"`, `"sluice_ordinal"`}, names...)
	}
	values := "(?" + strings.Repeat(", ?", len(names)-1) + ")"
	insert := "INSERT INTO " + l.table + " (" + strings.Join(names, ", ") + ") VALUES "
	conflict := ""
	switch {
	case g.Events:
		p.insert = insert + values
	case !l.own:
		p.update = "UPDATE " + l.table + " SET " + strings.Join(sets, ", ") + " WHERE " + l.where
		p.insert = insert + l.firstValues(p.cols)
	default:
		conflict = " ON CONFLICT (" + strings.Join(l.keys, ", ") + ") DO UPDATE SET " + strings.Join(sets, ", ")
		if by := g.LatestBy; by != nil && !l.mergedHere(by) {
			n := quote(by.Physical)
			conflict += " WHERE excluded." + n + " >= " + l.table + "." + n + " OR " + l.table + "." + n + " IS NULL"
		}
		p.upsert = insert + values + conflict
	}
	if p.rows = min(severalArgs/len(names), severalRows); l.own && p.current == "" && p.rows > 1 {
		p.several = insert + values + strings.Repeat(", "+values, p.rows-1) + conflict
	}
}

// sets gives the assignments of a column. In an upsert the new value is
// excluded.NAME; in an UPDATE of a mapped table it is a parameter of its own.
func (l *layout) sets(c *schema.Column) (out []string) {
	n := quote(c.Physical)
	old, delta := n, "?"
	if l.own {
		old, delta = l.table+"."+n, "excluded."+n
	}
	switch {
	case l.group.LatestBy != nil, l.mergedHere(c), c.Merge == schema.Set:
		for _, p := range physical(c) {
			if l.own {
				delta = "excluded." + quote(p)
			}
			out = append(out, quote(p)+" = "+delta)
		}
		return out
	}
	return []string{n + " = " + l.mergedSQL(c, old, delta)}
}

// mergedSQL is what a column that SQL merges becomes. In a mapped table delta is
// a parameter and stands there once.
func (l *layout) mergedSQL(c *schema.Column, old, delta string) string {
	if c.Merge == schema.Sum {
		sum := fmt.Sprintf("coalesce(%s, 0) + %s", old, delta)
		if c.Type.Kind == sluice.Float64 {
			// A float that leaves its range stays at its end, as in a fold.
			sum = fmt.Sprintf("max(-1.7976931348623157e308, min(1.7976931348623157e308, %s))", sum)
		} else if !l.own {
			// Only STRICT tables refuse the float that an overflowing sum becomes;
			// here abs() of the lowest integer raises. The delta is used once, so
			// it is handed on by a subquery.
			sum = fmt.Sprintf("(SELECT iif(typeof(x) = 'integer', x, abs(-9223372036854775807 - 1)) FROM (SELECT %s AS x))", sum)
		}
		return sum
	}
	// max and min of SQLite are NULL when one side is.
	f := c.Merge.String()
	if l.own {
		return fmt.Sprintf("coalesce(%s(%s, %s), %s, %s)", f, old, delta, delta, old)
	}
	return fmt.Sprintf("(SELECT coalesce(%s(%s, x), x, %s) FROM (SELECT %s AS x))", f, old, old, delta)
}

// firstValues are the values of a new row of a mapped table. A merged column
// begins with its default, as it would had a write to another column made the row
// before: else the answer would depend on folding (S11).
func (l *layout) firstValues(cols []*schema.Column) string {
	values := slices.Repeat([]string{"?"}, len(l.keys))
	for _, c := range cols {
		if begins := l.begins(c); begins != "" && !l.mergedHere(c) {
			values = append(values, l.mergedSQL(c, begins, "?"))
			continue
		}
		values = append(values, slices.Repeat([]string{"?"}, len(physical(c)))...)
	}
	return "(" + strings.Join(values, ", ") + ")"
}

// begins is the default of a merged column of a mapped table; "" when it is NULL
// or never met. An expression has no affinity, so numbers are cast to what the
// column would have made of them: '50' is less than 9 until it is a number.
func (l *layout) begins(c *schema.Column) string {
	if l.own || !beginsRows(l.group) || c.Merge == schema.Set || c.Merge == schema.Unique {
		return ""
	}
	d := l.facts.defaults[c.Physical]
	switch {
	case d == "" || strings.EqualFold(d, "NULL"):
		return ""
	case c.Type.Kind == sluice.Int64:
		return "CAST(CAST((" + d + ") AS TEXT) AS NUMERIC)" // by way of text 7.0 becomes 7
	case c.Type.Kind == sluice.Float64:
		return "CAST((" + d + ") AS REAL)"
	}
	return "(" + d + ")"
}

// beginsRows tells whether Sluice inserts the missing rows of a mapped table.
func beginsRows(g *schema.Group) bool {
	return g.Existing != nil && !g.Events && g.Existing.MissingRow == schema.MissingInsert
}
