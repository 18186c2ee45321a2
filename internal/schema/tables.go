package schema

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice.dev/sluice"
)

// FlushDefault is the flush interval of a group that says none: short enough
// that a small setup feels immediate, long enough that hot keys fold.
const FlushDefault = 100 * time.Millisecond

// groupMembers are the members of a group; a flat table has them itself.
var groupMembers = []string{"store", "flush", "priority", "kind", "latest_by", "on_overload", "existing", "columns"}

func (c *Config) readTables(o *object) {
	for _, name := range o.names {
		m := o.object(name)
		t := &Table{Name: name, at: o.at(name)}
		checkName(&o.r.faults, t.at, "table", name)
		c.Tables = append(c.Tables, t)
		readKey(m, t)
		if m.get("groups") != nil {
			c.readGroups(m, t)
		} else {
			c.readGroup(m, t, "")
		}
		m.done()
		t.link()
	}
}

func (c *Config) readGroups(m *object, t *Table) {
	groups := m.object("groups")
	for _, name := range groups.names {
		g := groups.object(name)
		checkName(&m.r.faults, groups.at(name), "group", name)
		c.readGroup(g, t, name)
		g.done()
	}
	for _, name := range groupMembers {
		if m.get(name) != nil {
			m.r.add(m.at(name), "move it into the groups, or write the table without groups", "%s stands beside groups", m.member(name))
		}
	}
	if len(groups.names) == 0 && groups.isMapping() {
		m.r.add(m.at("groups"), "add a group, or write the table without groups", "%s has no groups", m.path)
	}
}

func readKey(m *object, t *Table) {
	key := m.object("key")
	for _, name := range key.names {
		k := KeyColumn{Name: name, Physical: name, at: key.at(name)}
		checkName(&m.r.faults, k.at, "key column", name)
		n := key.get(name)
		if follow(n).Kind == yaml.MappingNode {
			o := m.r.object(n, key.member(name))
			k.Type = readType(o, "type")
			o.text("column", &k.Physical)
			o.done()
		} else if text, ok := m.r.scalar(n, key.member(name)); ok {
			k.Type = typeOrFault(m.r, n, text)
		}
		t.Key = append(t.Key, k)
	}
	if !m.has("key") || len(key.names) == 0 && key.isMapping() {
		m.r.add(m.at("key"), "add `key: {id: int64}`", "%s has no key", m.path)
	}
	if len(t.Key) > keyColumnsMax {
		m.r.add(m.at("key"), "name fewer", "the key of %s has %d columns, the limit is %d", m.path, len(t.Key), keyColumnsMax)
		t.Key = t.Key[:keyColumnsMax]
	}
	readPartitionBy(m, t)
}

func readPartitionBy(m *object, t *Table) {
	n := m.get("partition_by")
	if n == nil {
		for i := range t.Key {
			t.PartitionBy = append(t.PartitionBy, i)
		}
		return
	}
	names, nodes := m.r.list(n, m.member("partition_by"))
	var known []string
	for _, k := range t.Key {
		known = append(known, k.Name)
	}
	seen := map[string]bool{}
	for i, name := range names {
		index := t.keyIndex([]byte(name))
		switch {
		case index < 0:
			m.r.add(at(nodes[i]), "name columns of the key: "+oneOf(name, known), "%s has %s, which is not in the key", m.member("partition_by"), m.r.show(nodes[i]))
		case seen[name]:
			m.r.add(at(nodes[i]), "remove one of them", "%s names %s twice", m.member("partition_by"), name)
		default:
			t.PartitionBy = append(t.PartitionBy, index)
		}
		seen[name] = true
	}
	if len(names) == 0 && follow(n).Kind == yaml.SequenceNode {
		m.r.add(m.at("partition_by"), "name a column of the key, or remove the line", "%s is empty", m.member("partition_by"))
	}
}

// readGroup reads a group; with the empty name from the members of a flat table.
func (c *Config) readGroup(m *object, t *Table, name string) {
	g := &Group{Name: name, Table: t, Flush: FlushDefault, Priority: "normal", Physical: t.Name, at: m.place}
	if name != "" {
		g.Physical = t.Name + "_" + name
	}
	t.Groups = append(t.Groups, g)
	c.readGroupStore(m, g)
	m.duration("flush", span{ms, int64(time.Hour)}, &g.Flush)
	m.choice("priority", &g.Priority, priorities...)
	kind := ""
	m.choice("kind", &kind, "events", "rows")
	g.Events = kind == "events"
	readExisting(m, g)
	readColumns(m, g)
	if n := m.get("latest_by"); n != nil {
		readLatestBy(m, g, n)
	}
	readOverload(m, g)
}

// readGroupStore reads the store's name, which may be left out when there is one store.
func (c *Config) readGroupStore(m *object, g *Group) {
	n := m.get("store")
	if n == nil {
		for name := range c.Stores {
			g.Store = name
		}
		if len(c.Stores) != 1 {
			g.Store = ""
		}
		if len(c.Stores) > 1 {
			m.r.add(m.place, "add `store: NAME`; "+oneOf("", c.storeNames()), "%s names no store", m.path)
		}
		return
	}
	text, ok := m.r.scalar(n, m.member("store"))
	if !ok {
		return
	}
	if c.Stores[text] == nil {
		m.r.add(at(n), oneOf(text, c.storeNames()), "there is no store %s", m.r.show(follow(n)))
		return
	}
	g.Store = text
}

func readLatestBy(m *object, g *Group, n *yaml.Node) {
	text, ok := m.r.scalar(n, m.member("latest_by"))
	if !ok {
		return
	}
	var known []string
	for _, c := range g.Columns {
		if c.Name == text {
			g.LatestBy = c
		}
		known = append(known, c.Name)
	}
	if g.LatestBy == nil {
		m.r.add(at(n), "name a column of the group: "+oneOf(text, known), "%s is %s", m.member("latest_by"), m.r.show(follow(n)))
	}
}

func readExisting(m *object, g *Group) {
	if !m.has("existing") {
		m.get("existing")
		return
	}
	o := m.object("existing")
	e := &Existing{}
	missing, remove := "insert", ""
	o.text("table", &e.Table)
	o.choice("missing_row", &missing, "insert", "reject")
	o.boolean("other_writers", &e.OtherWriters)
	o.choice("delete", &remove, "row", "defaults")
	o.done()
	if missing == "reject" {
		e.MissingRow = MissingReject
	}
	e.DeleteRow = remove == "row"
	g.Existing = e
	switch {
	case !o.has("table"):
		if o.isMapping() {
			o.r.add(o.place, "add `table: schema.name`", "%s names no table", o.path)
		}
	case !isTableName(e.Table):
		o.r.add(o.at("table"), "write name or schema.name, of letters, digits, _ and $, at most 63 each", "%s is not the name of a table", o.r.show(follow(o.value["table"])))
	default:
		g.Physical = e.Table
	}
	if g.Events && (o.has("missing_row") || o.has("delete")) {
		o.r.add(o.place, "remove missing_row and delete", "%s is for rows, but the group has events", o.path)
	}
}

func readColumns(m *object, g *Group) {
	o := m.object("columns")
	for _, name := range o.names {
		c := &Column{Name: name, Physical: name, at: o.at(name), group: g}
		checkName(&m.r.faults, c.at, "column", name)
		n := o.get(name)
		if follow(n).Kind == yaml.MappingNode {
			readLongColumn(m.r.object(n, o.member(name)), c)
		} else if text, ok := m.r.scalar(n, o.member(name)); ok {
			readShortColumn(m.r, n, c, text)
		}
		g.Columns = append(g.Columns, c)
	}
	if !m.has("columns") || len(o.names) == 0 && o.isMapping() {
		m.r.add(m.at("columns"), "add `columns: {likes: int64 sum}`", "%s has no columns", m.path)
	}
	if len(o.names) > columnsMax {
		m.r.add(m.at("columns"), "make it two groups", "%s has %d columns, the limit is %d", m.path, len(o.names), columnsMax)
	}
}

// columnsMax bounds the columns of a group, well under what the databases bind
// in one statement.
const columnsMax = 200

// readShortColumn reads `int64 sum`: a type, then a merge when it is not set.
func readShortColumn(r *reader, n *yaml.Node, c *Column, text string) {
	typ, merge := strings.TrimSpace(text), ""
	if i := strings.LastIndexAny(typ, " )"); i >= 0 && typ[i] == ' ' {
		typ, merge = strings.TrimSpace(typ[:i]), typ[i+1:]
	}
	c.Type = typeOrFault(r, n, typ)
	if merge == "" {
		return
	}
	ok := false
	if c.Merge, ok = mergeOf(merge); !ok {
		r.add(at(n), oneOf(merge, mergeNames[:]), "%s ends in what is not a merge", r.show(follow(n)))
	}
}

func readLongColumn(o *object, c *Column) {
	c.Type = readType(o, "type")
	merge := "set"
	o.choice("merge", &merge, mergeNames[:]...)
	c.Merge, _ = mergeOf(merge)
	o.text("column", &c.Physical)
	o.boolean("inexact", &c.Inexact)
	o.done()
}

func readType(o *object, name string) Type {
	n := o.get(name)
	if n == nil {
		if o.isMapping() {
			o.r.add(o.place, "add `type: int64`; types are "+typeList, "%s has no type", o.path)
		}
		return Type{}
	}
	text, ok := o.r.scalar(n, o.member(name))
	if !ok {
		return Type{}
	}
	return typeOrFault(o.r, n, text)
}

// typeOrFault reads a type; after a fault its kind is Null, and no check asks about it.
func typeOrFault(r *reader, n *yaml.Node, text string) Type {
	t, ok := typeOf(text)
	if ok {
		return t
	}
	var known []string
	for name := range typeNames {
		known = append(known, name)
	}
	cure := "types are " + typeList
	if near := nearest(text, known); near != "" {
		cure = "did you mean " + near + "?"
	}
	if strings.HasPrefix(text, "native(") {
		cure = "write the database's own name, like native(inet) or native(numeric(10, 2))"
	}
	r.add(at(n), cure, "%s is not a type", r.show(follow(n)))
	return Type{Kind: sluice.Null}
}

func readOverload(m *object, g *Group) {
	n := m.get("on_overload")
	if n == nil {
		return
	}
	n = follow(n)
	if n.Kind != yaml.SequenceNode {
		m.r.add(at(n), "write a list like [{flush: 5s}, refuse]", "%s is not a list", m.member("on_overload"))
		return
	}
	path := m.member("on_overload")
	for i, item := range n.Content {
		item = follow(item)
		if item.Kind == yaml.ScalarNode {
			if item.Value != "refuse" {
				m.r.add(at(item), "write refuse, {flush: 5s}, {sample: 0.1} or {thin: 5s}", "%s is not a step of %s", m.r.show(item), path)
			} else if i < len(n.Content)-1 {
				m.r.add(at(item), "put refuse last", "nothing comes after refuse in %s", path)
			}
			g.OnOverload = append(g.OnOverload, OverloadStep{Refuse: true})
			continue
		}
		readOverloadStep(m.r.object(item, path), g)
	}
}

func readOverloadStep(o *object, g *Group) {
	step := OverloadStep{}
	o.duration("flush", span{ms, int64(time.Hour)}, &step.Flush)
	o.duration("thin", span{ms, int64(time.Hour)}, &step.Thin)
	if n := o.get("sample"); n != nil {
		if text, ok := o.r.scalar(n, o.member("sample")); ok {
			step.Sample = parseShare(text)
		}
		if step.Sample == 0 {
			o.r.add(at(n), "write the share that is kept, between 0 and 1, like 0.1", "%s.sample is %s", o.path, o.r.show(follow(n)))
		}
	}
	o.done()
	if len(o.names) != 1 && o.isMapping() {
		o.r.add(o.place, "write one thing in each step", "a step of %s has %d members", o.path, len(o.names))
	}
	if o.has("sample") && !g.Events {
		o.r.add(o.at("sample"), "only events can be sampled", "%s samples, but the group has rows", o.path)
	}
	if o.has("thin") && g.LatestBy == nil {
		o.r.add(o.at("thin"), "only a latest_by group can be thinned", "%s thins, but the group has no latest_by", o.path)
	}
	g.OnOverload = append(g.OnOverload, step)
}
