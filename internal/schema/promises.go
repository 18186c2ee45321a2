package schema

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed example.yaml
var example []byte

// Example is the commented config that `sluice init` writes: SQLite beside the
// file, no environment needed, no fault.
func Example() []byte { return append([]byte(nil), example...) }

// TablePromise says what Sluice promises for one table, in sentences.
type TablePromise struct {
	Table       string
	Key         string // the columns with their types
	PartitionBy string
	Groups      []GroupPromise
}

// GroupPromise says what Sluice promises for one group.
type GroupPromise struct {
	Group    string // "table" or "table.group"
	Store    string
	Driver   string
	Physical string
	Columns  []ColumnPromise
	Says     []string
	Movable  bool     // M7, as far as the config tells
	WhyNot   []string // why it is not movable, or what a move still looks at first
}

// ColumnPromise says what the merge of a column means.
type ColumnPromise struct {
	Name, Type, Merge, Says string
}

// Promises is what each table promises, in the order of the config.
func (c *Config) Promises() []TablePromise {
	var out []TablePromise
	for _, t := range c.Tables {
		p := TablePromise{Table: t.Name}
		var key, by []string
		for _, k := range t.Key {
			key = append(key, k.Name+" "+k.Type.String())
		}
		for _, i := range t.PartitionBy {
			by = append(by, t.Key[i].Name)
		}
		p.Key, p.PartitionBy = strings.Join(key, ", "), strings.Join(by, ", ")
		for _, g := range t.Groups {
			p.Groups = append(p.Groups, c.promise(g))
		}
		out = append(out, p)
	}
	return out
}

// String is the promise as `sluice check` prints it.
func (p TablePromise) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s, key (%s)\n", p.Table, p.Key)
	fmt.Fprintf(&b, "  writes to one %s keep their order\n", p.PartitionBy)
	for _, g := range p.Groups {
		fmt.Fprintf(&b, "  %s -> %s in store %s (%s)\n", g.Group, g.Physical, g.Store, g.Driver)
		for _, c := range g.Columns {
			fmt.Fprintf(&b, "    %s %s: %s\n", c.Name, c.Type, c.Says)
		}
		for _, s := range g.Says {
			fmt.Fprintf(&b, "    - %s\n", s)
		}
		verdict := "can be moved between shards"
		if !g.Movable {
			verdict = "cannot be moved between shards"
		}
		if len(g.WhyNot) > 0 {
			verdict += ": " + strings.Join(g.WhyNot, "; ")
		}
		fmt.Fprintf(&b, "    - %s\n", verdict)
	}
	return b.String()
}

func (c *Config) promise(g *Group) GroupPromise {
	s := c.Stores[g.Store]
	p := GroupPromise{Group: g.FullName(), Store: g.Store, Driver: s.Driver, Physical: g.Physical, Movable: true}
	for _, col := range g.Columns {
		p.Columns = append(p.Columns, ColumnPromise{Name: col.Name, Type: col.Type.String(), Merge: col.Merge.String(), Says: col.says()})
	}
	p.says("%s", exactnessOf(s))
	p.says("SQL sees a write about %s after it was acknowledged, and the queue before it; a receipt can be waited for", formatDuration(g.Flush))
	switch {
	case g.Events:
		p.says("each event becomes a row of its own: batched, never folded, never deleted")
	case g.LatestBy != nil:
		p.says("the row with the highest %s wins as a whole, at a tie the later one; older rows may never reach the database", g.LatestBy.Name)
		p.says("a %s more than %s ahead of the server's clock is refused", g.LatestBy.Name, formatDuration(c.Limits.SkewMax))
	}
	c.sayExisting(&p, g)
	if len(g.OnOverload) > 0 {
		p.says("on_overload is checked, and not acted on by this version: overload is refused")
	}
	return p
}

func (p *GroupPromise) says(format string, args ...any) {
	p.Says = append(p.Says, fmt.Sprintf(format, args...))
}

func exactnessOf(s *Store) string {
	switch {
	case s.Driver == "mem":
		return "nothing survives the process: store mem is for tests"
	case !s.SynchronousCommit:
		return "applied exactly once; commits are asynchronous, and what a crash of the database takes back is applied again"
	}
	return "applied exactly once, through crashes and retries of the database"
}

// sayExisting says what differs between Sluice's own tables and one that was there before.
func (c *Config) sayExisting(p *GroupPromise, g *Group) {
	e := g.Existing
	if e == nil {
		p.says("the database can refuse nothing that was acknowledged")
		if !g.Events {
			p.says("a delete removes the row")
		}
		return
	}
	p.says("the database may refuse a row: it is kept in sluice_rejects, harms no other, and `sluice rejects` shows it")
	if g.Events {
		p.Movable = false
		p.WhyNot = append(p.WhyNot, "its rows have no unique key that Sluice knows")
		return
	}
	p.says("sets are kept one for each write until the database took them")
	if e.MissingRow == MissingReject {
		p.says("a change to a row that is not there is rejected")
	} else {
		p.says("a change to a row that is not there inserts it: columns that Sluice does not know need defaults")
	}
	if e.DeleteRow {
		p.says("a delete removes the row, with the columns that Sluice does not know")
	} else {
		p.says("a delete sets these columns to their defaults and never removes the row")
	}
	for _, col := range g.Columns {
		if col.Merge == Unique {
			p.says("%s also needs a column %s for the sketch", col.Physical, col.Physical+hllSuffix)
		}
	}
	if e.OtherWriters {
		p.Movable = false
		p.WhyNot = append(p.WhyNot, "other programs write to it")
		return
	}
	p.WhyNot = append(p.WhyNot, "when it has no generated columns, no triggers, and no foreign keys but to tables that move with it")
}

// says is what the merge of a column means for its writers and readers.
func (c *Column) says() string {
	switch {
	case c.group.Events:
		return "kept as written"
	case c.group.LatestBy == c:
		return "decides which row wins"
	case c.group.LatestBy != nil:
		return "replaced with its row; null when a write leaves it out"
	}
	switch c.Merge {
	case Sum:
		if c.Inexact {
			return "sum; writes fold; float64 rounds, so it is neither exact nor split when hot"
		}
		return "sum, exact; writes fold, and a hot key may be split"
	case Max, Min:
		return c.Merge.String() + ", exact; writes fold, and a hot key may be split"
	case Unique:
		return "distinct elements, an estimate within about 2 %; writes fold, and a hot key may be split"
	}
	return "set: the last write wins; writes fold, a hot key is not split"
}

// identityBytes is what a remembered idempotency key takes on disk, about (I4).
const identityBytes = 60

// Notes are what an operator should know beyond single tables.
func (c *Config) Notes() []string {
	var out []string
	i := c.Idempotency
	out = append(out, fmt.Sprintf("idempotency keys are remembered for %s: %s of them carry about %d new keys/s", formatDuration(i.Window),
		formatSize(i.BytesMax), int64(float64(i.BytesMax)/identityBytes/i.Window.Seconds())))
	if doors := c.Listen.beyondLoopback(); len(doors) > 0 && c.Listen.CertFile == "" {
		out = append(out, strings.Join(doors, " and ")+" is reached by other machines without TLS: tokens and data can be read on the way; set listen.tls, or put a proxy with TLS before it")
	}
	for _, s := range c.sortedStores() {
		if s.Driver == "mem" {
			out = append(out, fmt.Sprintf("store %s keeps nothing: after a restart its rows are gone, and the shard stops until the gap is accepted", s.Name))
		}
		if s.AllowDups {
			out = append(out, fmt.Sprintf("store %s has allow_duplicates: a write may be applied twice where the database cannot do better", s.Name))
		}
	}
	return out
}
