package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"sluice.dev/sluice"
)

// catalogFormat is the newest format of the catalog that this program writes
// and reads. It goes up when an older program would read a newer one wrongly.
const catalogFormat = 1

// Catalog is what must outlive the config (J6): the ids that commits in the
// journal speak in, what they meant, and who owns which partition. It lies beside
// the journal's segments. Ids begin at 1 and are never used again.
type Catalog struct {
	Format       int                 `json:"format"`
	LastTable    sluice.TableID      `json:"last_table"`
	LastGroup    sluice.GroupID      `json:"last_group"`
	NextProducer uint64              `json:"next_producer"` // I3: the next id that is issued
	Tables       []CatalogTable      `json:"tables"`
	ShardMaps    map[string]ShardMap `json:"shard_maps"` // by store
	Gaps         []Gap               `json:"gaps,omitempty"`
}

// CatalogTable is what the catalog keeps of a table.
type CatalogTable struct {
	ID          sluice.TableID `json:"id"`
	Name        string         `json:"name"`
	Key         []CatalogKey   `json:"key"`
	PartitionBy []string       `json:"partition_by"`
	Groups      []CatalogGroup `json:"groups"`
	Dropped     bool           `json:"dropped,omitempty"`
}

// CatalogKey is one column of a key.
type CatalogKey struct {
	Name     string `json:"name"`
	Physical string `json:"physical"`
	Type     string `json:"type"`
}

// CatalogGroup is what the catalog keeps of a group.
type CatalogGroup struct {
	ID         sluice.GroupID  `json:"id"`
	Name       string          `json:"name"`
	Store      string          `json:"store"`
	Physical   string          `json:"physical"`
	Existing   *Existing       `json:"existing,omitempty"`
	Events     bool            `json:"events,omitempty"`
	LatestBy   sluice.ColumnID `json:"latest_by,omitempty"`
	LastColumn sluice.ColumnID `json:"last_column"`
	Columns    []CatalogColumn `json:"columns"`
	Dropped    bool            `json:"dropped,omitempty"` // doors do not know it; drainers still do
	Gone       bool            `json:"gone,omitempty"`    // no commit speaks of it any more; only its id and physical name stay taken
}

// CatalogColumn is what the catalog keeps of a column.
type CatalogColumn struct {
	ID       sluice.ColumnID `json:"id"`
	Name     string          `json:"name"`
	Physical string          `json:"physical"`
	Asked    string          `json:"asked,omitempty"` // the physical name that the config asks for, when that one was taken
	Type     string          `json:"type"`
	Merge    string          `json:"merge"`
	Inexact  bool            `json:"inexact,omitempty"`
	Dropped  bool            `json:"dropped,omitempty"`
	Gone     bool            `json:"gone,omitempty"`
}

// Gap is a range of commits that somebody accepted to be lost on a shard (S4).
type Gap struct {
	Store string         `json:"store"`
	Shard string         `json:"shard"`
	Group sluice.GroupID `json:"group"`
	From  uint64         `json:"from"` // first commit lost
	To    uint64         `json:"to"`   // last commit lost
	At    time.Time      `json:"at"`
}

// ReadCatalog reads a catalog that Marshal wrote, and checks that it can be one.
func ReadCatalog(data []byte) (*Catalog, error) {
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &format); err != nil {
		return nil, fmt.Errorf("catalog: not valid JSON: %w; restore the file from a copy of the journal's folder", err)
	}
	if format.Format > catalogFormat {
		return nil, fmt.Errorf("catalog: format %d was written by a newer Sluice, this one reads up to %d; start the newer one", format.Format, catalogFormat)
	}
	if format.Format < 1 {
		return nil, fmt.Errorf("catalog: format %d is not one; restore the file from a copy of the journal's folder", format.Format)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	c := &Catalog{}
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("catalog: %w; restore the file from a copy of the journal's folder", err)
	}
	if err := c.verify(); err != nil {
		return nil, fmt.Errorf("catalog: %w; restore the file from a copy of the journal's folder", err)
	}
	return c, nil
}

// Marshal writes the catalog as JSON that people can read.
func (c *Catalog) Marshal() ([]byte, error) {
	if err := c.verify(); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	out, err := json.MarshalIndent(c, "", " ")
	return append(out, '\n'), err
}

// clone is a deep copy, by the one way that a catalog is kept anyway.
func (c *Catalog) clone() (*Catalog, error) {
	data, err := c.Marshal()
	if err != nil {
		return nil, err
	}
	return ReadCatalog(data)
}

// verify finds what would give an id two meanings, or a partition no owner.
func (c *Catalog) verify() error {
	if c.NextProducer == 0 {
		return fmt.Errorf("the next producer id is 0")
	}
	tables, groups := map[sluice.TableID]bool{}, map[sluice.GroupID]bool{}
	for i := range c.Tables {
		t := &c.Tables[i]
		if t.ID == 0 || t.ID > c.LastTable || tables[t.ID] {
			return fmt.Errorf("table id %d of %s is taken twice or above the last one, %d", t.ID, t.Name, c.LastTable)
		}
		tables[t.ID] = true
		if _, err := t.keyColumns(); err != nil {
			return err
		}
		for j := range t.Groups {
			g := &t.Groups[j]
			if g.ID == 0 || g.ID > c.LastGroup || groups[g.ID] {
				return fmt.Errorf("group id %d of %s is taken twice or above the last one, %d", g.ID, t.Name, c.LastGroup)
			}
			groups[g.ID] = true
			if err := g.verify(); err != nil {
				return fmt.Errorf("table %s, group %d: %w", t.Name, g.ID, err)
			}
		}
	}
	for store, m := range c.ShardMaps {
		if err := m.verify(); err != nil {
			return fmt.Errorf("shard map of %s: %w", store, err)
		}
	}
	return nil
}

// keyColumns is the key in the words of a Table.
func (t *CatalogTable) keyColumns() ([]KeyColumn, error) {
	var out []KeyColumn
	for _, k := range t.Key {
		typ, ok := typeOf(k.Type)
		if !ok || !typ.isKey() {
			return nil, fmt.Errorf("key column %s of %s has type %q, which this Sluice does not know", k.Name, t.Name, k.Type)
		}
		out = append(out, KeyColumn{Name: k.Name, Physical: k.Physical, Type: typ})
	}
	if len(out) == 0 || len(out) > keyColumnsMax {
		return nil, fmt.Errorf("the key of %s has %d columns", t.Name, len(out))
	}
	return out, nil
}

// partitionBy is the indexes of the columns that choose the slot.
func (t *CatalogTable) partitionBy() []int {
	var out []int
	for _, name := range t.PartitionBy {
		for i, k := range t.Key {
			if k.Name == name {
				out = append(out, i)
			}
		}
	}
	return out
}

func (g *CatalogGroup) verify() error {
	columns := map[sluice.ColumnID]bool{}
	for _, c := range g.Columns {
		if c.ID == 0 || c.ID > g.LastColumn || columns[c.ID] {
			return fmt.Errorf("column id %d is taken twice or above the last one, %d", c.ID, g.LastColumn)
		}
		columns[c.ID] = true
		if _, ok := typeOf(c.Type); !ok {
			return fmt.Errorf("column %s has type %q, which this Sluice does not know", c.Name, c.Type)
		}
		if _, ok := mergeOf(c.Merge); !ok {
			return fmt.Errorf("column %s has merge %q, which this Sluice does not know", c.Name, c.Merge)
		}
	}
	if g.LatestBy != 0 && !columns[g.LatestBy] {
		return fmt.Errorf("latest_by names column id %d, which is not there", g.LatestBy)
	}
	return nil
}

// Forget marks what was dropped, and is applied everywhere, as gone: no commit in
// the journal speaks of it any more, so a mapped column may come back and a store
// may leave the config. drained tells whether the journal holds no entry of the
// group that is not durably applied. It says whether anything changed.
func (c *Catalog) Forget(drained func(sluice.GroupID) bool) bool {
	changed := false
	for i := range c.Tables {
		for j := range c.Tables[i].Groups {
			g := &c.Tables[i].Groups[j]
			if g.Gone || !g.hasDropped() || !drained(g.ID) {
				continue
			}
			g.Gone, changed = g.Dropped, true
			for k := range g.Columns {
				g.Columns[k].Gone = g.Columns[k].Dropped
			}
		}
	}
	return changed
}

// hasDropped tells whether the group, or a column of it, is dropped and not yet gone.
func (g *CatalogGroup) hasDropped() bool {
	if g.Dropped {
		return true
	}
	for _, c := range g.Columns {
		if c.Dropped && !c.Gone {
			return true
		}
	}
	return false
}
