package schema

import (
	"strings"

	"sluice.dev/sluice"
)

// hllSuffix names the column that holds the sketch beside a unique column's estimate.
const hllSuffix = "_hll"

// checkName faults what is no identifier, too long, or Sluice's own.
func checkName(f *faults, at position, what, name string) {
	switch {
	case !isIdentifier(name):
		f.add(at, "begin with a letter or _, go on with letters, digits and _", "%q is not a name for a %s", name, what)
	case len(name) > nameBytesMax:
		f.add(at, "shorten it", "the name of %s %s has %d characters, the limit is %d", what, name, len(name), nameBytesMax)
	case isOwn(name):
		f.add(at, "use another name", "%s %s begins with sluice_, as Sluice's own tables and columns do", what, name)
	}
}

// isOwn tells whether a name is kept for Sluice. Databases fold case, so case does not count.
func isOwn(name string) bool { return strings.HasPrefix(strings.ToLower(name), "sluice_") }

func isIdentifier(name string) bool {
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// nameBytesMax is the longest identifier of PostgreSQL, which would cut a longer one silently.
const nameBytesMax = 63

// isTableName tells whether a table that was there before is named so that it can be quoted.
func isTableName(name string) bool {
	parts := strings.Split(name, ".")
	if len(parts) > 2 {
		return false
	}
	for _, p := range parts {
		if !isIdentifier(strings.ReplaceAll(p, "$", "_")) || p[0] == '$' || len(p) > nameBytesMax {
			return false
		}
	}
	return true
}

// systemColumns are those that PostgreSQL adds to each table itself.
var systemColumns = map[string]bool{"tableoid": true, "xmin": true, "cmin": true, "xmax": true, "cmax": true, "ctid": true}

// check finds what is wrong between parts that are right by themselves.
func (c *Config) check(r *reader) {
	f := &r.faults
	for _, t := range c.Tables {
		checkKey(f, t)
		checkColumnNames(f, t)
		for _, g := range t.Groups {
			c.checkGroup(f, g)
			for _, col := range g.Columns {
				checkMerge(f, col)
			}
		}
	}
	c.checkPhysical(f)
	c.fillDDL()
}

func checkKey(f *faults, t *Table) {
	physical := map[string]bool{}
	for _, k := range t.Key {
		if k.Type.Kind != sluice.Null && !k.Type.isKey() {
			f.add(k.at, "use int64, text, decimal, bool, timestamp, date, uuid or bytes", "key column %s.%s is %s, which has no one form to compare", t.Name, k.Name, k.Type)
		}
		checkPhysicalColumn(f, k.at, k.Name, k.Physical)
		if lower := strings.ToLower(k.Physical); physical[lower] {
			f.add(k.at, "name another with `column:`", "two key columns of %s are the physical column %s", t.Name, k.Physical)
		} else {
			physical[lower] = true
		}
	}
}

// checkColumnNames faults a name that two groups of a table share, since a
// client names only the column. Groups of events are named by the client.
func checkColumnNames(f *faults, t *Table) {
	first := map[string]*Column{}
	for _, g := range t.Groups {
		for _, c := range g.Columns {
			if t.keyIndex([]byte(c.Name)) >= 0 {
				f.add(c.at, "remove it: every row has its key", "column %s is part of the key already", c.fullName())
			}
			if g.Events {
				continue
			}
			if other := first[c.Name]; other != nil {
				f.add(c.at, "rename one of them", "column %s stands in two groups, first in line %d", c.fullName(), other.at.line)
				continue
			}
			first[c.Name] = c
		}
	}
}

func (c *Config) checkGroup(f *faults, g *Group) {
	if g.Existing != nil && g.Store != "" {
		switch driver := c.Stores[g.Store].Driver; driver {
		case "postgres":
		case "sqlite":
			if strings.Contains(g.Physical, ".") {
				f.add(g.at, "name the table alone: sqlite has no schemas", "%s is mapped to %s", g.FullName(), g.Physical)
			}
		case "":
		default:
			f.add(g.at, "use a store that is postgres or sqlite", "%s is mapped to a table that was there before, but store %s is %s", g.FullName(), g.Store, driver)
		}
	}
	if g.Existing == nil && g.Name != "" && len(g.Physical) > nameBytesMax {
		f.add(g.at, "shorten the name of the table or of the group", "the physical table %s has %d characters, the limit is %d", g.Physical, len(g.Physical), nameBytesMax)
	}
	if g.Existing != nil && isOwn(g.Physical[strings.LastIndexByte(g.Physical, '.')+1:]) {
		f.add(g.at, "map another table", "%s is one of Sluice's own tables", g.Physical)
	}
	if g.LatestBy == nil {
		return
	}
	if g.Events {
		f.add(g.at, "remove latest_by or `kind: events`", "%s has events, which are all kept, and latest_by, which keeps one", g.FullName())
	}
	if t := g.LatestBy.Type; t.Kind != sluice.Null && !t.isOrdered() {
		f.add(g.LatestBy.at, "use timestamp, int64, date, float64 or decimal", "%s orders the rows of %s, but %s has no order that all databases share", g.LatestBy.Name, g.FullName(), t)
	}
}

// checkMerge faults a merge that its type or its group does not allow.
func checkMerge(f *faults, c *Column) {
	g, name := c.group, c.fullName()
	switch {
	case g.Events && c.Merge != Set:
		f.add(c.at, "remove the merge: each event is a row of its own", "%s is a %s, but a column of events", name, c.Merge)
		return
	case g.LatestBy != nil && c.Merge != Set:
		f.add(c.at, "remove the merge, or move the column to another group", "%s is a %s, but latest_by replaces the whole row", name, c.Merge)
		return
	case c.Inexact && (c.Merge != Sum || c.Type.Kind != sluice.Float64):
		f.add(c.at, "remove it", "%s is inexact, which only a float64 sum can be", name)
	}
	if c.Type.Kind == sluice.Null {
		return
	}
	switch c.Merge {
	case Sum:
		checkSum(f, c)
	case Max, Min:
		if !c.Type.isOrdered() {
			f.add(c.at, "use int64, decimal, float64, timestamp or date", "%s is a %s of %s, which has no order that all databases share", name, c.Merge, c.Type)
		}
	case Unique:
		if !c.Type.isHashable() {
			f.add(c.at, "count text, int64, uuid or the like", "%s counts unique %s, whose equal values can differ in bytes", name, c.Type)
		}
	}
}

func checkSum(f *faults, c *Column) {
	switch {
	case c.Type.Kind == sluice.Int64 || c.Type.Kind == sluice.Decimal:
	case c.Type.Kind == sluice.Float64 && !c.Inexact:
		f.add(c.at, "use decimal, or write {type: float64, merge: sum, inexact: true}", "%s is a sum of float64, whose result depends on the order of adding", c.fullName())
	case c.Type.Kind != sluice.Float64:
		f.add(c.at, "use int64 or decimal", "%s is a sum of %s", c.fullName(), c.Type)
	}
}

// checkPhysicalColumn judges what the database calls a column; one that is
// called as clients call it was judged as a name before.
func checkPhysicalColumn(f *faults, at position, name, physical string) {
	renamed := name != physical
	switch {
	case renamed && (!isIdentifier(strings.ReplaceAll(physical, "$", "_")) || physical[0] == '$'):
		f.add(at, "write letters, digits, _ and $", "%q is not the name of a column", physical)
	case renamed && len(physical) > nameBytesMax:
		f.add(at, "shorten it", "the physical column %s has %d characters, the limit is %d", physical, len(physical), nameBytesMax)
	case renamed && isOwn(physical):
		f.add(at, "use another column", "%s is one of Sluice's own columns", physical)
	case systemColumns[strings.ToLower(physical)]:
		f.add(at, "name another with `column:`", "%s is a column that PostgreSQL keeps for itself", physical)
	}
}

// checkPhysical faults groups that would write to the same physical table or
// column without knowing of each other. Case does not count: SQLite folds it.
func (c *Config) checkPhysical(f *faults) {
	owners := map[string]*Group{}  // store and table
	columns := map[string]*Group{} // store, table and column
	for _, t := range c.Tables {
		for _, g := range t.Groups {
			checkPhysicalColumns(f, g)
			if g.Store == "" {
				continue
			}
			table := g.Store + "\x00" + strings.ToLower(strings.TrimPrefix(g.Physical, "public."))
			other := owners[table]
			if other == nil {
				owners[table] = g
			} else if g.Existing == nil || other.Existing == nil {
				f.add(g.at, "rename one of them, or use another store", "%s and %s are both the physical table %s of store %s", other.FullName(), g.FullName(), g.Physical, g.Store)
				continue
			}
			c.checkShared(f, g, table, columns)
		}
	}
}

// checkShared faults a column of a table that was there before when two groups write it.
func (c *Config) checkShared(f *faults, g *Group, table string, columns map[string]*Group) {
	if g.Existing == nil || g.Events {
		return
	}
	for _, col := range g.Columns {
		key := table + "\x00" + strings.ToLower(col.Physical)
		if other := columns[key]; other != nil && other != g {
			f.add(col.at, "write it from one group", "%s and %s both write the column %s of %s", other.FullName(), g.FullName(), col.Physical, g.Physical)
		}
		columns[key] = g
	}
}

// checkPhysicalColumns faults physical columns of one group that collide, the
// sketches of unique columns and the key among them.
func checkPhysicalColumns(f *faults, g *Group) {
	taken := map[string]string{}
	for _, k := range g.Table.Key {
		taken[strings.ToLower(k.Physical)] = "key column " + k.Name
	}
	for _, c := range g.Columns {
		checkPhysicalColumn(f, c.at, c.Name, c.Physical)
		names := []string{c.Physical}
		if c.Merge == Unique {
			names = append(names, c.Physical+hllSuffix)
			if len(c.Physical) <= nameBytesMax && len(c.Physical+hllSuffix) > nameBytesMax {
				f.add(c.at, "shorten it", "%s needs a physical column %s, which has more than %d characters", c.fullName(), c.Physical+hllSuffix, nameBytesMax)
			}
		}
		for _, name := range names {
			lower := strings.ToLower(name)
			if other, ok := taken[lower]; ok && other != "key column "+c.Name {
				f.add(c.at, "rename it, or name another with `column:`", "%s needs the physical column %s, which is %s's", c.fullName(), name, other)
			}
			taken[lower] = c.fullName()
		}
	}
}

// fillDDL sets what the config leaves open: statements are run at once, but in a
// PostgreSQL with tables of somebody else they are only printed.
func (c *Config) fillDDL() {
	for _, s := range c.Stores {
		if s.DDL != "" {
			continue
		}
		s.DDL = "auto"
		for _, t := range c.Tables {
			for _, g := range t.Groups {
				if g.Store == s.Name && g.Existing != nil && s.Driver == "postgres" {
					s.DDL = "print"
				}
			}
		}
	}
}
