package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// fixture is one test's database, the config over it, an open shard, and the
// cursors that the drainers of its groups would hold.
type fixture struct {
	*testing.T
	o       Options
	db      Database
	ctx     context.Context
	schema  *schema.Schema
	shard   store.Shard
	id      store.Identity
	epoch   uint64
	cursors map[sluice.GroupID]store.Cursor
	tune    func(*schema.Store) // changes limits at the next open
	warned  []string
}

func newFixture(t *testing.T, o Options) *fixture {
	f := &fixture{T: t, o: o, db: o.New(t), ctx: t.Context(), cursors: map[sluice.GroupID]store.Cursor{}}
	f.id = store.Identity{Journal: [16]byte{1, 2, 3}, Store: "main", Shard: "a", MapVersion: 1}
	f.load(config, "auto")
	return f
}

// load reads a config text into the fixture's schema.
func (f *fixture) load(text, ddl string) {
	f.Helper()
	m := ""
	if f.o.Mapped {
		m = mapped
	}
	text = strings.NewReplacer("URL", f.o.URL, "DDL", ddl, "MAPPED", m).Replace(text)
	f.schema = Parse(f.T, text)
}

// Parse makes a schema of a config text, with ids from an empty catalog.
func Parse(t *testing.T, text string) *schema.Schema {
	t.Helper()
	c, faults := schema.Parse("test.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		t.Fatalf("config: %v", faults)
	}
	s, _, faults := c.Resolve(nil)
	if len(faults) > 0 {
		t.Fatalf("resolve: %v", faults)
	}
	return s
}

// start opens the shard and makes the tables.
func (f *fixture) start() *fixture {
	f.Helper()
	if f.o.Mapped && f.db.Exec != nil {
		f.db.Exec(f.T, MappedSQL...)
	}
	f.open()
	f.ensure()
	return f
}

// open gives the fixture a new Shard, as a restart does; the old one is closed at the test's end only
// when it was not closed before.
func (f *fixture) open() {
	f.Helper()
	st := *f.schema.Stores["main"]
	st.LockTimeout = 50 * time.Millisecond
	st.FKWait = 0
	if f.tune != nil {
		f.tune(&st)
	}
	f.shard = f.db.Open(f.T, store.Options{Store: &st, Shard: st.Shards[0], Warn: func(s string) { f.warned = append(f.warned, s) }})
	shard := f.shard
	f.Cleanup(func() { shard.Close() })
}

func (f *fixture) ensure() {
	f.Helper()
	if err := f.shard.Ensure(f.ctx, f.id, f.schema.Groups()); err != nil {
		f.Fatalf("Ensure: %v", err)
	}
}

// restart is a crash of the process: nothing of the old handle is used again.
func (f *fixture) restart() {
	f.Helper()
	f.shard.Close()
	f.open()
	f.ensure()
	clear(f.cursors)
}

func (f *fixture) needMapped() {
	f.Helper()
	if !f.o.Mapped {
		f.Skip("this store has no tables of others")
	}
}

func (f *fixture) needSQL() {
	f.Helper()
	f.needMapped()
	if f.db.Exec == nil || f.db.Query == nil {
		f.Skip("this store has no SQL")
	}
}

// group finds "table" or "table.group".
func (f *fixture) group(name string) *schema.Group {
	f.Helper()
	table, group, _ := strings.Cut(name, ".")
	if t := f.schema.Table([]byte(table)); t != nil {
		if g := t.Group([]byte(group)); g != nil {
			return g
		}
		if group == "" && len(t.Groups) == 1 {
			return t.Groups[0]
		}
	}
	f.Fatalf("no group %s", name)
	return nil
}

// take takes the group's owner cursor with a new epoch.
func (f *fixture) take(g *schema.Group) store.Cursor {
	f.Helper()
	f.epoch++
	cur, err := f.shard.Take(f.ctx, g.ID, store.OwnerName, f.epoch)
	if err != nil {
		f.Fatalf("Take: %v", err)
	}
	if cur.Epoch != f.epoch || cur.Group != g.ID || cur.Owner != store.OwnerName {
		f.Fatalf("Take answered %+v, want epoch %d of group %d", cur, f.epoch, g.ID)
	}
	f.cursors[g.ID] = cur
	return cur
}

// batch makes a batch of the next commit: entries get its number and their
// ordinals in the order given and, but for events, are then sorted by key.
func (f *fixture) batch(g *schema.Group, entries ...sluice.Entry) *store.Batch {
	f.Helper()
	prev, ok := f.cursors[g.ID]
	if !ok {
		prev = f.take(g)
	}
	next := prev
	next.Commit++
	next.Chain = next.Commit * 0x9E3779B97F4A7C15
	next.Except = maps.Clone(prev.Except)
	entries = slices.Clone(entries)
	for i := range entries {
		entries[i].Group = g.ID
		if entries[i].Commit == 0 {
			entries[i].Commit, entries[i].Ordinal = next.Commit, uint32(i)
		}
	}
	if !g.Events {
		slices.SortStableFunc(entries, func(a, b sluice.Entry) int { return bytes.Compare(a.Key, b.Key) })
	}
	return &store.Batch{Group: g, Prev: prev, Next: next, Entries: entries}
}

// apply applies entries as the next commit; it must go through.
func (f *fixture) apply(g *schema.Group, entries ...sluice.Entry) store.Result {
	f.Helper()
	return f.applyBatch(f.batch(g, entries...))
}

func (f *fixture) applyBatch(b *store.Batch) store.Result {
	f.Helper()
	r, err := f.shard.Apply(f.ctx, b)
	if err != nil {
		f.Fatalf("Apply to %s: %v", b.Group.FullName(), err)
	}
	f.cursors[b.Group.ID] = b.Next
	return r
}

// cells are an entry's cells by column name; keys are a key's values.
type (
	cells map[string]any
	keys  []any
)

// entry makes an entry of one write.
func (f *fixture) entry(g *schema.Group, key keys, c cells) sluice.Entry {
	f.Helper()
	e := sluice.Entry{Group: g.ID, Key: f.key(g, key), Writes: 1}
	slot, err := g.Table.SlotOfKey(e.Key)
	if err != nil {
		f.Fatalf("slot: %v", err)
	}
	e.Slot = slot
	for name, v := range c {
		col := g.Column([]byte(name))
		if col == nil {
			f.Fatalf("%s has no column %s", g.FullName(), name)
		}
		e.Cells = append(e.Cells, sluice.Cell{Column: col.ID, Value: cellValue(col, v)})
	}
	slices.SortFunc(e.Cells, func(a, b sluice.Cell) int { return int(a.Column) - int(b.Column) })
	return e
}

// reset is an entry in which a delete came first.
func (f *fixture) reset(g *schema.Group, key keys, c cells) sluice.Entry {
	f.Helper()
	e := f.entry(g, key, c)
	e.Reset = true
	return e
}

func (f *fixture) key(g *schema.Group, key keys) []byte {
	f.Helper()
	vals := make([]sluice.Value, len(key))
	for i, v := range key {
		vals[i] = value(g.Table.Key[i].Type.Kind, v)
	}
	k, err := g.Table.AppendKey(nil, vals)
	if err != nil {
		f.Fatalf("key %v: %v", key, err)
	}
	return k
}

func cellValue(col *schema.Column, v any) sluice.Value {
	if col.Merge != schema.Unique {
		return value(col.Type.Kind, v)
	}
	if already, ok := v.(sluice.Value); ok {
		return already
	}
	var hashes []uint64
	for _, x := range v.([]string) {
		hashes = append(hashes, schema.HashElement(schema.Type{Kind: sluice.Text}, sluice.TextValue(x)))
	}
	slices.Sort(hashes)
	var b []byte
	for _, h := range slices.Compact(hashes) {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	return sluice.Value{Kind: sluice.Hashes, Bytes: b}
}

// value makes a Value of a Go literal: what it means is said by kind.
func value(kind sluice.Kind, v any) sluice.Value {
	switch x := v.(type) {
	case nil:
		return sluice.Value{}
	case sluice.Value:
		return x
	case bool:
		if x {
			return sluice.Value{Kind: kind, Num: 1}
		}
		return sluice.Value{Kind: kind}
	case int:
		return sluice.Value{Kind: kind, Num: int64(x)}
	case int64:
		return sluice.Value{Kind: kind, Num: x}
	case float64:
		return sluice.Value{Kind: kind, Num: int64(math.Float64bits(x))}
	case string:
		return sluice.Value{Kind: kind, Bytes: []byte(x)}
	}
	panic(fmt.Sprintf("no literal for %T", v))
}

// row reads one row.
func (f *fixture) row(g *schema.Group, key ...any) store.Row {
	f.Helper()
	rows, _, err := f.shard.Read(f.ctx, g, [][]byte{f.key(g, key)})
	if err != nil || len(rows) != 1 {
		f.Fatalf("Read %s %v: %d rows, %v", g.FullName(), key, len(rows), err)
	}
	return rows[0]
}

// wantRow checks the named columns of a row, wantNone that there is none.
func (f *fixture) wantRow(g *schema.Group, key keys, want cells) {
	f.Helper()
	row := f.row(g, key...)
	if !row.Found {
		f.Fatalf("%s %v: no row, want %v", g.FullName(), key, want)
	}
	for name, v := range want {
		col := g.Column([]byte(name))
		kind := col.Type.Kind
		if col.Merge == schema.Unique {
			kind = sluice.Int64
		}
		if got := row.Values[col.Index]; !equal(got, value(kind, v)) {
			f.Errorf("%s %v: %s is %s, want %s", g.FullName(), key, name, show(got), show(value(kind, v)))
		}
	}
}

func (f *fixture) wantNone(g *schema.Group, key ...any) {
	f.Helper()
	if row := f.row(g, key...); row.Found {
		f.Errorf("%s %v: there is a row %v, want none", g.FullName(), key, row.Values)
	}
}

// equal compares two values. JSON may come back in another spelling.
func equal(a, b sluice.Value) bool {
	if a.Kind != b.Kind || a.Num != b.Num {
		return false
	}
	if a.Kind == sluice.JSON || a.Kind == sluice.TextArray {
		var x, y any
		return json.Unmarshal(a.Bytes, &x) == nil && json.Unmarshal(b.Bytes, &y) == nil && reflect.DeepEqual(x, y)
	}
	return bytes.Equal(a.Bytes, b.Bytes)
}

func show(v sluice.Value) string {
	switch v.Kind {
	case sluice.Null:
		return "null"
	case sluice.Float64:
		return fmt.Sprint(math.Float64frombits(uint64(v.Num)))
	}
	if v.Bytes != nil {
		return fmt.Sprintf("kind %d %q", v.Kind, v.Bytes)
	}
	return fmt.Sprintf("kind %d %d", v.Kind, v.Num)
}
