package schema

import (
	"slices"
	"strings"

	"sluice.dev/sluice"
)

// target finds the column that a verb changes: of the group of events when there
// is one, else of the open table.
func (b *Builder) target(event *Group, v Verb, name []byte) (*Group, *Column, error) {
	g, c := event, (*Column)(nil)
	if event != nil {
		c = event.Column(name)
	} else {
		g, c = b.table.Column(name)
	}
	if c == nil {
		return nil, nil, b.noColumn(event, name)
	}
	if want := c.Verb(); want != v {
		return nil, nil, sluice.Errorf(sluice.Invalid, "wrong_verb", "%s: use %s", c.what(), b.Names[want])
	}
	return g, c, nil
}

func (b *Builder) noColumn(event *Group, name []byte) error {
	t, where, known := b.table, b.table.Name, []string(nil)
	if event != nil {
		where = event.FullName()
		for _, c := range event.Live() {
			known = append(known, c.Name)
		}
	} else {
		for _, g := range t.Groups {
			if g.Events && g.Column(name) != nil {
				return sluice.Errorf(sluice.Invalid, "wrong_verb", "%s.%s is a column of events: use %s", g.FullName(), name, b.Names[VerbAppend])
			}
		}
		for c := range t.columns {
			known = append(known, c)
		}
		if t.keyIndex(name) >= 0 {
			return sluice.Errorf(sluice.Invalid, "no_column", "%s.%s is part of the key and never changes; name it in the key only", t.Name, name)
		}
	}
	return sluice.Errorf(sluice.Invalid, "no_column", "%s has no column %.60q; %s", where, name, oneOf(string(name), known))
}

func (b *Builder) noTable(name []byte) error {
	var known []string
	for t := range b.schema.Tables {
		known = append(known, t)
	}
	return sluice.Errorf(sluice.Invalid, "no_table", "there is no table %.60q; %s", name, oneOf(string(name), known))
}

// noEvents is the fault of an event for a group that takes none.
func (b *Builder) noEvents(t *Table, group []byte) error {
	var known []string
	for _, g := range t.Groups {
		if g.Events {
			known = append(known, g.Name)
		}
	}
	if len(known) == 0 {
		return sluice.Errorf(sluice.Invalid, "wrong_verb", "%s has no group of events; use %s and the like, as its columns say", t.Name, b.Names[VerbSet])
	}
	if t.Group(group) != nil {
		return sluice.Errorf(sluice.Invalid, "wrong_verb", "%s is not a group of events; events go to %s", t.Group(group).FullName(), strings.Join(known, ", "))
	}
	return sluice.Errorf(sluice.Invalid, "no_group", "%s has no group of events %.60q; %s", t.Name, group, oneOf(string(group), known))
}

func valueFault(c *Column, err error) error {
	return sluice.Errorf(sluice.Invalid, "bad_value", "%s: %w", c.fullName(), err)
}

// fullName is the column as clients say it: posts.likes, or
// posts.analytics.at for a column of events.
func (c *Column) fullName() string {
	if c.group.Events {
		return c.group.FullName() + "." + c.Name
	}
	return c.group.Table.Name + "." + c.Name
}

func (c *Column) what() string {
	switch {
	case c.group.Events:
		return c.fullName() + " is a column of events"
	case c.Merge == Set:
		return c.fullName() + " is set as a whole"
	case c.Merge == Unique:
		return c.fullName() + " counts unique elements"
	}
	return c.fullName() + " is a " + c.Merge.String()
}

// oneOf is the cure for a name that is not known: the nearest one, or all when
// they are few.
func oneOf(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	if len(known) == 0 {
		return "there are none"
	}
	if len(known) > 20 {
		return "see the config"
	}
	return "there are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
}

// nearest is the known name that is at most two slips away; "" when there is none.
func nearest(name string, known []string) string {
	best, bestDistance := "", 3
	for _, k := range known {
		d := distance(strings.ToLower(name), strings.ToLower(k))
		if d < bestDistance && d < len(k) || d == bestDistance && best != "" && k < best {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is how many letters must be put in, left out or changed.
func distance(a, b string) int {
	if len(a) > nameBytesMax || len(b) > nameBytesMax {
		return nameBytesMax
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
