package schema

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice"
)

// Resolve gives the config its ids: those of the catalog for what is there, new
// ones for what is new. What the config no longer has stays in the catalog as
// dropped, so that drainers can finish it. A change that would make old commits
// unreadable, or mean something else, is a fault. cat may be nil and is not
// changed; the Catalog given back is the one to keep.
func (c *Config) Resolve(cat *Catalog) (*Schema, *Catalog, Faults) {
	r := &resolver{faults: faults{file: c.File}, config: c}
	if cat == nil {
		cat = &Catalog{Format: catalogFormat, NextProducer: 1, ShardMaps: map[string]ShardMap{}}
	}
	next, err := cat.clone()
	if err != nil {
		r.add(position{}, "`sluice journal verify` looks into it", "%v", err)
		return nil, nil, r.list
	}
	r.next = next
	if next.ShardMaps == nil {
		next.ShardMaps = map[string]ShardMap{}
	}
	live := map[sluice.TableID]bool{}
	for _, t := range c.Tables {
		live[r.table(t)] = true
	}
	for i := range next.Tables {
		if t := &next.Tables[i]; !live[t.ID] {
			t.drop()
		}
	}
	r.shardMaps()
	if len(r.list) > 0 {
		r.list.sort()
		return nil, nil, r.list
	}
	return c.schema(next), next, nil
}

// resolver compares one config with the catalog, which it changes.
type resolver struct {
	faults
	config *Config
	next   *Catalog
}

func (t *CatalogTable) drop() {
	t.Dropped = true
	for i := range t.Groups {
		t.Groups[i].Dropped = true
	}
}

// table finds or makes the table in the catalog, and gives its id.
func (r *resolver) table(t *Table) sluice.TableID {
	i := slices.IndexFunc(r.next.Tables, func(ct CatalogTable) bool { return ct.Name == t.Name && !ct.Dropped })
	if i < 0 {
		r.next.LastTable++
		i = len(r.next.Tables)
		ct := CatalogTable{ID: r.next.LastTable, Name: t.Name}
		for _, k := range t.Key {
			ct.Key = append(ct.Key, CatalogKey{Name: k.Name, Physical: k.Physical, Type: k.Type.String()})
		}
		for _, k := range t.PartitionBy {
			ct.PartitionBy = append(ct.PartitionBy, t.Key[k].Name)
		}
		r.next.Tables = append(r.next.Tables, ct)
	}
	ct := &r.next.Tables[i]
	r.compareKey(t, ct)
	live := map[sluice.GroupID]bool{}
	for _, g := range t.Groups {
		live[r.group(g, ct)] = true
	}
	for j := range ct.Groups {
		if g := &ct.Groups[j]; !live[g.ID] {
			g.Dropped = true
		}
	}
	return ct.ID
}

const addCure = "change it back, or add a table of another name"

func (r *resolver) compareKey(t *Table, ct *CatalogTable) {
	was, is := []string(nil), []string(nil)
	for _, k := range ct.Key {
		was = append(was, k.Name+": "+k.Type+renamed(k.Name, k.Physical))
	}
	for _, k := range t.Key {
		is = append(is, k.Name+": "+k.Type.String()+renamed(k.Name, k.Physical))
	}
	if !slices.Equal(was, is) {
		r.add(t.at, addCure, "the key of %s was {%s} and is {%s}: keys in the journal could not be read", t.Name, strings.Join(was, ", "), strings.Join(is, ", "))
		return
	}
	by := []string(nil)
	for _, i := range t.PartitionBy {
		by = append(by, t.Key[i].Name)
	}
	if !slices.Equal(ct.PartitionBy, by) {
		r.add(t.at, addCure, "partition_by of %s was [%s] and is [%s]: rows would be looked for on other shards than they lie on", t.Name, strings.Join(ct.PartitionBy, ", "), strings.Join(by, ", "))
	}
}

func renamed(name, physical string) string {
	if name == physical {
		return ""
	}
	return " as " + physical
}

// group finds or makes the group in the catalog, and gives its id.
func (r *resolver) group(g *Group, ct *CatalogTable) sluice.GroupID {
	i := slices.IndexFunc(ct.Groups, func(cg CatalogGroup) bool { return cg.Name == g.Name && !cg.Dropped })
	fresh := i < 0
	if fresh {
		i = len(ct.Groups)
		r.next.LastGroup++
		ct.Groups = append(ct.Groups, CatalogGroup{ID: r.next.LastGroup, Name: g.Name, Store: g.Store, Events: g.Events, Physical: r.freeTable(g)})
		ct.Groups[i].Existing = g.Existing
	}
	cg := &ct.Groups[i]
	if !r.compareGroup(g, cg) {
		return cg.ID
	}
	cg.Existing = g.Existing
	live := map[sluice.ColumnID]bool{}
	for _, c := range g.Columns {
		live[r.column(c, cg)] = true
	}
	for j := range cg.Columns {
		if c := &cg.Columns[j]; !live[c.ID] {
			c.Dropped = true
		}
	}
	if fresh && g.LatestBy != nil {
		cg.LatestBy = cg.live(g.LatestBy.Name).ID
	}
	return cg.ID
}

// compareGroup faults what a group can never change.
func (r *resolver) compareGroup(g *Group, cg *CatalogGroup) bool {
	n := len(r.list)
	name := g.FullName()
	if cg.Store != g.Store {
		r.add(g.at, "change it back, or add a group of another name", "%s was in store %s and is in store %s: its rows would stay behind", name, cg.Store, g.Store)
	}
	if cg.Events != g.Events {
		r.add(g.at, "change it back, or add a group of another name", "%s changed between rows and events: its entries in the journal would mean something else", name)
	}
	switch was, is := cg.Existing, g.Existing; {
	case (was == nil) != (is == nil), was != nil && was.Table != is.Table:
		r.add(g.at, "change it back, or add a group of another name", "the physical table of %s was %s and is %s: its rows would stay behind", name, cg.Physical, g.Physical)
	}
	was, is := "", ""
	for _, c := range cg.Columns {
		if c.ID == cg.LatestBy {
			was = c.Name
		}
	}
	if g.LatestBy != nil {
		is = g.LatestBy.Name
	}
	if len(cg.Columns) > 0 && was != is {
		r.add(g.at, "change it back, or add a group of another name", "latest_by of %s was %q and is %q: entries in the journal would merge otherwise than they were accepted", name, was, is)
	}
	return len(r.list) == n
}

// column finds or makes the column in the catalog, and gives its id.
func (r *resolver) column(c *Column, cg *CatalogGroup) sluice.ColumnID {
	if cc := cg.live(c.Name); cc != nil {
		r.compareColumn(c, cc)
		return cc.ID
	}
	cg.LastColumn++
	cc := CatalogColumn{ID: cg.LastColumn, Name: c.Name, Physical: c.Physical, Type: c.Type.String(), Merge: c.Merge.String(), Inexact: c.Inexact}
	if cg.Existing != nil {
		r.checkReturn(c, cg)
	} else if cc.Physical = cg.freeColumn(c); cc.Physical != c.Physical {
		cc.Asked = c.Physical
	}
	cg.Columns = append(cg.Columns, cc)
	return cc.ID
}

func (r *resolver) compareColumn(c *Column, cc *CatalogColumn) {
	name, cure := c.fullName(), "change it back, or add a column of another name"
	if is := c.Type.String(); is != cc.Type {
		r.add(c.at, cure, "%s was %s and is %s: its values in the journal could not be read", name, cc.Type, is)
	}
	if is := c.Merge.String(); is != cc.Merge {
		r.add(c.at, cure, "%s was merged by %s and is by %s: its entries in the journal would mean something else", name, cc.Merge, is)
	}
	asked := cc.Physical
	if cc.Asked != "" {
		asked = cc.Asked
	}
	if c.Physical != asked && c.Physical != cc.Physical {
		r.add(c.at, cure, "the physical column of %s was %s and is %s: its values would stay behind", name, cc.Physical, c.Physical)
	}
}

// checkReturn faults a column of a table that was there before when it was
// removed from the config and is added again while the journal may still speak of
// it: its old entries and the new ones would be applied out of order.
func (r *resolver) checkReturn(c *Column, cg *CatalogGroup) {
	for _, t := range r.next.Tables {
		for _, other := range t.Groups {
			if other.Gone || other.Store != cg.Store || !strings.EqualFold(other.Physical, cg.Physical) {
				continue
			}
			for _, old := range other.Columns {
				if (old.Dropped || other.Dropped) && !old.Gone && strings.EqualFold(old.Physical, c.Physical) {
					r.add(c.at, "take it out again, reload, run `sluice drain`, then add it", "the physical column of %s was removed from the config a moment ago and the journal may still hold changes to it", c.fullName())
					return
				}
			}
		}
	}
}

// live is the column of that name that doors know; nil when there is none.
func (g *CatalogGroup) live(name string) *CatalogColumn {
	for i := range g.Columns {
		if c := &g.Columns[i]; c.Name == name && !c.Dropped {
			return c
		}
	}
	return nil
}

// freeColumn is a physical name that no column of the group ever had: an own
// column that was dropped stays in its table, with values that a new one must not take over.
func (g *CatalogGroup) freeColumn(c *Column) string {
	taken := map[string]bool{}
	for _, old := range g.Columns {
		taken[strings.ToLower(old.Physical)] = true
		if old.Merge == Unique.String() {
			taken[strings.ToLower(old.Physical+hllSuffix)] = true
		}
	}
	for _, k := range c.group.Table.Key {
		taken[strings.ToLower(k.Physical)] = true
	}
	for _, other := range c.group.Columns {
		if other != c {
			taken[strings.ToLower(other.Physical)] = true
		}
	}
	return free(c.Physical, func(name string) bool {
		name = strings.ToLower(name)
		return taken[name] || c.Merge == Unique && taken[name+hllSuffix]
	})
}

// freeTable is a physical name that no other group of the store has or had.
func (r *resolver) freeTable(g *Group) string {
	if g.Existing != nil {
		return g.Physical
	}
	taken := map[string]bool{}
	for _, t := range r.next.Tables {
		for _, old := range t.Groups {
			if old.Store == g.Store {
				taken[strings.ToLower(old.Physical)] = true
			}
		}
	}
	for _, t := range r.config.Tables {
		for _, other := range t.Groups {
			if other.Store == g.Store && other != g {
				taken[strings.ToLower(other.Physical)] = true
			}
		}
	}
	return free(g.Physical, func(name string) bool { return taken[strings.ToLower(name)] })
}

// free is the name itself, or name_2, name_3 and so on.
func free(name string, taken func(string) bool) string {
	out := name
	for n := 2; taken(out); n++ {
		suffix := "_" + strconv.Itoa(n)
		out = name[:min(len(name), nameBytesMax-len(hllSuffix)-len(suffix))] + suffix
	}
	return out
}

// shardMaps makes a map for each new store. A shard that is new in the config gets
// no partitions: a move brings them. One that owns some cannot leave.
func (r *resolver) shardMaps() {
	for _, s := range r.config.sortedStores() {
		m, ok := r.next.ShardMaps[s.Name]
		if !ok {
			r.next.ShardMaps[s.Name] = newShardMap(s.Shards)
			continue
		}
		for _, shard := range s.Shards {
			if !slices.Contains(m.Shards, shard.Name) {
				m.Shards = append(m.Shards, shard.Name)
			}
		}
		for _, name := range m.Shards {
			gone := !slices.ContainsFunc(s.Shards, func(shard Shard) bool { return shard.Name == name })
			if set := m.Partitions(name); gone && set.Len() > 0 {
				r.add(s.at, "put it back; its partitions must move to other shards first", "shard %s of store %s left the config, but owns %d partitions", name, s.Name, set.Len())
			}
		}
		r.next.ShardMaps[s.Name] = m
	}
	for _, t := range r.next.Tables {
		for _, g := range t.Groups {
			if r.config.Stores[g.Store] == nil && g.Dropped && !g.Gone {
				r.add(position{1, 1}, "put it back, run `sluice drain`, then remove it", "store %s left the config, but the journal may still hold changes for %s", g.Store, fullName(t.Name, g.Name))
			}
		}
	}
}

func fullName(table, group string) string {
	if group == "" {
		return table
	}
	return table + "." + group
}

// MarshalText writes the word of the config.
func (m MissingRow) MarshalText() ([]byte, error) {
	if m == MissingReject {
		return []byte("reject"), nil
	}
	return []byte("insert"), nil
}

// UnmarshalText reads the word of the config.
func (m *MissingRow) UnmarshalText(text []byte) error {
	switch string(text) {
	case "insert":
		*m = MissingInsert
	case "reject":
		*m = MissingReject
	default:
		return fmt.Errorf("missing_row is %q", text)
	}
	return nil
}
