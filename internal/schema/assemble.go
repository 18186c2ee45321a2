package schema

// schema puts config and catalog together: what the config says, with the ids of
// the catalog, and what only the catalog still knows.
func (c *Config) schema(cat *Catalog) *Schema {
	s := &Schema{File: c.File, Listen: c.Listen, Journal: c.Journal, Idempotency: c.Idempotency, Limits: c.Limits,
		Stores: c.Stores, Clients: c.Clients, Tables: map[string]*Table{}}
	s.groups = make([]*Group, cat.LastGroup+1)
	byName := map[string]*Table{}
	for _, t := range c.Tables {
		byName[t.Name] = t
	}
	for i := range cat.Tables {
		ct := &cat.Tables[i]
		t := ct.table()
		if !ct.Dropped {
			s.Tables[t.Name] = t
		}
		for j := range ct.Groups {
			cg := &ct.Groups[j]
			if cg.Gone {
				continue
			}
			var g *Group
			if cg.Dropped {
				g = cg.group()
			} else {
				g = cg.liveGroup(byName[t.Name].groups[cg.Name])
				t.Groups = append(t.Groups, g)
			}
			g.addDropped(cg)
			g.link(t)
			s.groups[g.ID] = g
		}
		t.link()
	}
	return s
}

// table is the table without its groups.
func (ct *CatalogTable) table() *Table {
	key, _ := ct.keyColumns() // verified when the catalog was read
	return &Table{ID: ct.ID, Name: ct.Name, Key: key, PartitionBy: ct.partitionBy()}
}

// liveGroup is a group of the config with the ids and physical names of the catalog.
func (cg *CatalogGroup) liveGroup(of *Group) *Group {
	g := *of
	g.ID, g.Physical = cg.ID, cg.Physical
	g.Columns = nil
	for _, was := range of.Columns {
		c := *was
		cc := cg.live(c.Name)
		c.ID, c.Physical = cc.ID, cc.Physical
		g.Columns = append(g.Columns, &c)
		if was == of.LatestBy {
			g.LatestBy = &c
		}
	}
	return &g
}

// group is a group that only the catalog knows. Its columns follow by addDropped.
func (cg *CatalogGroup) group() *Group {
	return &Group{ID: cg.ID, Name: cg.Name, Store: cg.Store, Events: cg.Events, Physical: cg.Physical, Existing: cg.Existing,
		Flush: FlushDefault, Priority: "normal", Dropped: true}
}

// addDropped adds the columns that only the catalog knows.
func (g *Group) addDropped(cg *CatalogGroup) {
	for _, cc := range cg.Columns {
		if cc.Gone || !cc.Dropped && !cg.Dropped {
			continue
		}
		typ, _ := typeOf(cc.Type) // verified when the catalog was read
		merge, _ := mergeOf(cc.Merge)
		c := &Column{ID: cc.ID, Name: cc.Name, Physical: cc.Physical, Type: typ, Merge: merge, Inexact: cc.Inexact, Dropped: true}
		g.Columns = append(g.Columns, c)
		if cc.ID == cg.LatestBy {
			g.LatestBy = c
		}
	}
}
