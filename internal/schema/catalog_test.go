package schema

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/sluice"
)

// TestCatalog runs the scripts of testdata/catalog. Each script has one catalog,
// which is written and read between the steps:
//
//	resolve          gives a config its ids; shows the groups, or the faults, which leave the catalog as it was
//	reload           resolve, and what ReloadDiff says
//	forget GROUP...  tells the catalog that these groups are drained; without a group all are
//	maps             shows the shard maps
//	catalog          shows the catalog
func TestCatalog(t *testing.T) {
	datadriven.Walk(t, "testdata/catalog", func(t *testing.T, path string) {
		var cat *Catalog
		var in *Schema
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "resolve", "reload":
				c, faults := Parse("sluice.yaml", []byte(d.Input), noEnv)
				if len(faults) > 0 {
					t.Fatalf("%s: %v", d.Pos, faults)
				}
				before := marshal(t, cat)
				s, next, faults := c.Resolve(cat)
				if after := marshal(t, cat); after != before {
					t.Errorf("%s: Resolve changed the catalog it was given", d.Pos)
				}
				if len(faults) > 0 {
					return faults.Error()
				}
				checkSchema(t, s, next)
				old := in
				in, cat = s, again(t, next)
				if d.Cmd == "reload" {
					return strings.Join(ReloadDiff(old, s), "\n")
				}
				return groupsText(s)
			case "forget":
				changed := cat.Forget(func(id sluice.GroupID) bool {
					return len(d.CmdArgs) == 0 || d.HasArg(in.Group(id).FullName())
				})
				cat = again(t, cat)
				return fmt.Sprint(changed)
			case "maps":
				return mapsText(cat)
			case "catalog":
				return marshal(t, cat)
			}
			t.Fatalf("%s: no command %s", d.Pos, d.Cmd)
			return ""
		})
	})
}

func marshal(t *testing.T, c *Catalog) string {
	t.Helper()
	if c == nil {
		return ""
	}
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// again is the catalog as it is after a restart.
func again(t *testing.T, c *Catalog) *Catalog {
	t.Helper()
	data := marshal(t, c)
	back, err := ReadCatalog([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if marshal(t, back) != data {
		t.Fatalf("the catalog came back as\n%s\nfrom\n%s", marshal(t, back), data)
	}
	return back
}

func groupsText(s *Schema) string {
	var b strings.Builder
	for _, g := range s.Groups() {
		fmt.Fprintf(&b, "group %d %s -> %s in %s", g.ID, g.FullName(), g.Physical, g.Store)
		if g.Events {
			b.WriteString(" events")
		}
		if g.LatestBy != nil {
			b.WriteString(" latest_by " + g.LatestBy.Name)
		}
		if g.Dropped {
			b.WriteString(" DROPPED")
		}
		b.WriteString("\n")
		for _, c := range g.Columns {
			fmt.Fprintf(&b, "  %d %s %s %s", c.ID, c.Name, c.Type, c.Merge)
			if c.Physical != c.Name {
				b.WriteString(" -> " + c.Physical)
			}
			if c.Dropped {
				b.WriteString(" DROPPED")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func mapsText(c *Catalog) string {
	var b strings.Builder
	for name, m := range c.ShardMaps {
		fmt.Fprintf(&b, "%s version %d\n", name, m.Version)
		for _, shard := range m.Shards {
			set := m.Partitions(shard)
			list := set.List()
			fmt.Fprintf(&b, "  %s: %d partitions", shard, len(list))
			if len(list) > 0 {
				fmt.Fprintf(&b, ", %d to %d", list[0], list[len(list)-1])
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// checkSchema holds what the rest of Sluice expects of every Schema.
func checkSchema(t *testing.T, s *Schema, c *Catalog) {
	t.Helper()
	for _, g := range s.Groups() {
		if s.Group(g.ID) != g || g.Table == nil || s.Stores[g.Store] == nil {
			t.Errorf("group %d is not found by its id, or lacks its table or its store", g.ID)
		}
		for i, col := range g.Columns {
			if col.Index != i || g.ByID(col.ID) != col || col.group != g {
				t.Errorf("%s.%s: index %d, want %d, or not found by its id", g.FullName(), col.Name, col.Index, i)
			}
			if found := g.Column([]byte(col.Name)); !col.Dropped && found != col {
				t.Errorf("%s.%s is not found by its name", g.FullName(), col.Name)
			}
			if i > 0 && g.Columns[i-1].Dropped && !col.Dropped {
				t.Errorf("%s: a dropped column stands before %s", g.FullName(), col.Name)
			}
		}
		if g.Dropped == (g.Table.Group([]byte(g.Name)) == g) {
			t.Errorf("%s: dropped %v, but doors find it or do not", g.FullName(), g.Dropped)
		}
	}
	if s.Group(0) != nil || s.Group(c.LastGroup+1) != nil {
		t.Error("a group without an id")
	}
	for name, table := range s.Tables {
		if table.Name != name || len(table.Key) == 0 || len(table.PartitionBy) == 0 {
			t.Errorf("table %s: %+v", name, table)
		}
		for _, g := range table.Groups {
			for _, col := range g.Live() {
				if owner, found := table.Column([]byte(col.Name)); !g.Events && (owner != g || found != col) {
					t.Errorf("%s.%s is not found in its table", name, col.Name)
				}
			}
		}
	}
}

func TestJ6_NewerAndDamagedCatalogsAreRefused(t *testing.T) {
	_, good, faults := mustParse(t, social).Resolve(nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	text := marshal(t, good)
	for _, c := range []struct{ what, old, new, want string }{
		{"newer format", `"format": 1`, `"format": 2, "unheard_of": true`, "newer Sluice"},
		{"no format", `"format": 1`, `"format": 0`, "format 0"},
		{"cut short", text[len(text)/2:], "", "not valid JSON"},
		{"unknown member", `"next_producer"`, `"next_produce"`, "next_produce"},
		{"id of a table twice", `"id": 2,` + "\n   \"name\": \"timeline\"", `"id": 1,` + "\n   \"name\": \"timeline\"", "taken twice"},
		{"id above the last", `"last_group": 6`, `"last_group": 5`, "above the last one"},
		{"unknown type", `"type": "decimal"`, `"type": "money"`, "money"},
		{"unknown merge", `"merge": "unique"`, `"merge": "average"`, "average"},
		{"latest_by nothing", `"latest_by": 3`, `"latest_by": 9`, "latest_by"},
		{"no next producer", `"next_producer": 1`, `"next_producer": 0`, "producer"},
		{"partition without owner", `"to": 255`, `"to": 254`, "belongs to no shard"},
		{"partition of an unknown shard", `"shard": "main"`, `"shard": "min"`, "does not fit"},
		{"partitions beyond the last", `"to": 255`, `"to": 256`, "does not fit"},
		{"key of a type that is none", `"type": "int64"` + "\n    }\n   ],\n   \"partition_by\"", `"type": "json"` + "\n    }\n   ],\n   \"partition_by\"", "type"},
	} {
		bad := strings.Replace(text, c.old, c.new, 1)
		if bad == text {
			t.Errorf("%s: %q is not in\n%s", c.what, c.old, text)
			continue
		}
		if _, err := ReadCatalog([]byte(bad)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

func TestGapsAndProducersAreKept(t *testing.T) {
	c := mustParse(t, social)
	_, cat, _ := c.Resolve(nil)
	cat.NextProducer = 77
	cat.Gaps = append(cat.Gaps, Gap{Store: "local", Shard: "main", Group: 2, From: 5, To: 9, At: noon})
	_, next, faults := c.Resolve(cat)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if next.NextProducer != 77 || len(next.Gaps) != 1 || next.Gaps[0] != cat.Gaps[0] {
		t.Errorf("producer %d, gaps %+v", next.NextProducer, next.Gaps)
	}
}
