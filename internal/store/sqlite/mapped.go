package sqlite

import (
	"database/sql/driver"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// column is a column as the database has it.
type column struct {
	declared  string
	deflt     string // the default's expression; "NULL" when there is none
	generated bool
	keyPlace  int // in the primary key, from 1; 0: not in it
}

// columnsOf reads a table's columns by lower-case name; none when there is no such table.
func columnsOf(c *conn, table string) (map[string]*column, error) {
	out := map[string]*column{}
	err := c.each("SELECT name, type, dflt_value, hidden, pk FROM pragma_table_xinfo(?)", []driver.Value{table}, func(row []driver.Value) error {
		col := &column{declared: text(row[1]), deflt: text(row[2]), generated: integer(row[3]) > 1, keyPlace: int(integer(row[4]))}
		if row[2] == nil {
			col.deflt = "NULL"
		}
		out[strings.ToLower(text(row[0]))] = col
		return nil
	})
	return out, err
}

// facts are what a layout needs to know of a mapped table.
type facts struct {
	defaults map[string]string // by physical name
	parents  []string          // tables that foreign keys point to
}

// tableOf is the table's name within the file: SQLite's one schema is main.
func tableOf(g *schema.Group) string { return strings.TrimPrefix(g.Physical, "main.") }

// inspect checks a mapped table as a whole and answers with every fault.
func (s *Shard) inspect(c *conn, g *schema.Group) (*facts, error) {
	table := tableOf(g)
	row, err := c.row("SELECT type, sql FROM sqlite_schema WHERE lower(name) = lower(?) AND type IN ('table', 'view')", table)
	if err != nil {
		return nil, err
	}
	if row == nil || text(row[0]) != "table" {
		return nil, &store.StopError{Reason: "no_table", Detail: fmt.Sprintf("%s: there is no table %s, which %s is mapped to (a view does not do); make it, or correct `existing`", s.where(), table, g.FullName())}
	}
	cols, err := columnsOf(c, table)
	if err != nil {
		return nil, err
	}
	f := &facts{defaults: map[string]string{}}
	faults := checkColumns(g, cols, text(row[1]), f)
	if !g.Events {
		fault, err := checkKey(c, g, cols)
		if err != nil {
			return nil, err
		}
		faults = append(faults, fault...)
	}
	if len(faults) > 0 {
		return nil, &store.StopError{Reason: "table_unfit", Detail: fmt.Sprintf("%s: %s cannot be mapped to table %s: %s", s.where(), g.FullName(), table, strings.Join(faults, "; "))}
	}
	if f.parents, err = c.texts(`SELECT DISTINCT "table" FROM pragma_foreign_key_list(?)`, table); err != nil {
		return nil, err
	}
	return f, nil
}

// warnOf tells people what a mapped table costs, at Ensure only.
func (s *Shard) warnOf(c *conn, g *schema.Group) error {
	triggers, err := c.texts("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?)", tableOf(g))
	if len(triggers) > 0 {
		s.o.Warn(fmt.Sprintf("%s: table %s has the triggers %s, which run for each row and slow draining down; they see a row once for many writes", s.where(), tableOf(g), strings.Join(triggers, ", ")))
	}
	return err
}

func checkColumns(g *schema.Group, cols map[string]*column, ddl string, f *facts) (faults []string) {
	check := func(name string, t schema.Type) {
		have := cols[strings.ToLower(name)]
		switch {
		case have == nil:
			faults = append(faults, fmt.Sprintf("it has no column %s; add it, or name it with `column:`", name))
		case have.generated:
			faults = append(faults, fmt.Sprintf("column %s is generated and cannot be written", name))
		case !fits(t.Kind, affinity(have.declared)):
			faults = append(faults, fmt.Sprintf("column %s is declared %q, which does not keep a %s as it is; declare it %s", name, have.declared, t, declared(t)))
		default:
			f.defaults[name] = have.deflt
		}
	}
	for _, k := range g.Table.Key {
		check(k.Physical, k.Type)
	}
	for _, col := range g.Columns {
		if col.Dropped && cols[strings.ToLower(col.Physical)] == nil {
			continue
		}
		if col.Merge == schema.Unique {
			check(col.Physical, schema.Type{Kind: sluice.Int64})
			check(col.Physical+"_hll", schema.Type{Kind: sluice.Bytes})
			continue
		}
		check(col.Physical, col.Type)
		if d := f.defaults[col.Physical]; col.Merge != schema.Set && beginsRows(g) && volatileCall.MatchString(d) {
			faults = append(faults, fmt.Sprintf("column %s is a %s and its default %s gives another value each time: what a missing row begins with would depend on how its writes were folded; give it a constant default or none, or say `missing_row: reject`", col.Physical, col.Merge, d))
		}
		if col.Merge == schema.Sum && checked(ddl, col.Physical) {
			faults = append(faults, fmt.Sprintf("column %s is a sum under a CHECK: a fold of several writes can break it where one by one they would not; drop the CHECK", col.Physical))
		}
	}
	return faults
}

// affinity is how SQLite reads a declared type.
func affinity(declared string) string {
	d := strings.ToUpper(declared)
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(d, p) })
	}
	switch {
	case d == "ANY":
		return "NONE"
	case has("INT"):
		return "INTEGER"
	case has("CHAR", "CLOB", "TEXT"):
		return "TEXT"
	case d == "" || has("BLOB"):
		return "NONE"
	case has("REAL", "FLOA", "DOUB"):
		return "REAL"
	}
	return "NUMERIC"
}

// fits tells whether a column of the affinity keeps values of the kind as they
// are written: NUMERIC, for one, turns the decimal 1.10 into the float 1.1.
func fits(k sluice.Kind, affinity string) bool {
	switch k {
	case sluice.Int64, sluice.Bool:
		return affinity == "INTEGER" || affinity == "NUMERIC" || affinity == "NONE"
	case sluice.Float64:
		return affinity != "TEXT" && affinity != "INTEGER"
	case sluice.Decimal, sluice.Text:
		return affinity == "TEXT" || affinity == "NONE"
	case sluice.Native:
		return true
	case sluice.Bytes:
		return affinity != "REAL"
	}
	return affinity == "TEXT" || affinity == "NONE" || affinity == "NUMERIC"
}

// checkKey wants a unique index on exactly the key's columns, comparing bytes: a
// collation that calls different keys equal would make two keys one row (S7).
func checkKey(c *conn, g *schema.Group, cols map[string]*column) (faults []string, err error) {
	key := map[string]bool{}
	for _, k := range g.Table.Key {
		key[strings.ToLower(k.Physical)] = true
	}
	// A single INTEGER PRIMARY KEY is the row's address and has no index.
	if name := strings.ToLower(g.Table.Key[0].Physical); len(key) == 1 && cols[name] != nil && cols[name].keyPlace == 1 && strings.EqualFold(cols[name].declared, "INTEGER") {
		n := 0
		for _, col := range cols {
			n += min(col.keyPlace, 1)
		}
		if n == 1 {
			return nil, nil
		}
	}
	indexes, err := c.texts(`SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial`, tableOf(g))
	if err != nil {
		return nil, err
	}
	other := ""
	for _, ix := range indexes {
		matches, collation := 0, ""
		err := c.each("SELECT lower(name), coll FROM pragma_index_xinfo(?) WHERE key", []driver.Value{ix}, func(row []driver.Value) error {
			if !key[text(row[0])] {
				matches = -len(key) - 1
			}
			if coll := text(row[1]); !strings.EqualFold(coll, "BINARY") {
				collation = coll
			}
			matches++
			return nil
		})
		if err != nil {
			return nil, err
		}
		if matches == len(key) && collation == "" {
			return nil, nil
		} else if matches == len(key) {
			other = collation
		}
	}
	if other != "" {
		return []string{fmt.Sprintf("its key compares text by %s, which calls different keys equal; make a unique index with COLLATE BINARY", other)}, nil
	}
	return []string{"it has no unique index on exactly the key's columns; add one"}, nil
}

// volatileCall finds what gives another value each time; the time is the
// same within a statement.
var volatileCall = regexp.MustCompile(`(?i)\b(random|randomblob|changes|total_changes|last_insert_rowid)\s*\(`)

var checkClause = regexp.MustCompile(`(?i)\bcheck\s*\(`)

// checked tells whether a CHECK of the table names the column.
func checked(ddl, name string) bool {
	word := regexp.MustCompile(`(?i)(^|[^a-z0-9_])` + regexp.QuoteMeta(name) + `([^a-z0-9_]|$)`)
	for _, at := range checkClause.FindAllStringIndex(ddl, -1) {
		end, depth := at[1], 1
		for ; end < len(ddl) && depth > 0; end++ {
			switch ddl[end] {
			case '(':
				depth++
			case ')':
				depth--
			}
		}
		if word.MatchString(ddl[at[1]:end]) {
			return true
		}
	}
	return false
}
