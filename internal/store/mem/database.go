// Package mem is a shard in memory, with the same answers as a real one. Tests
// of the pipeline and the simulation use it: what is committed lives in a
// Database apart from the Shard handles on it, so that a process, or the database
// itself, can crash; and each step fails on request. It never outlives its
// process and keeps nothing on disk.
package mem

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Hooks make faults. A nil hook does nothing. They are called with the
// database locked, but for Slow, and must not call it.
type Hooks struct {
	// Slow is called before Apply and Unpark begin their transaction.
	Slow func(ctx context.Context, b *store.Batch) error
	// BeforeCommit fails a transaction: nothing of it happens.
	BeforeCommit func(b *store.Batch) error
	// AfterCommit loses the answer to a commit that happened; store.ErrUnknown says it as a real shard does.
	AfterCommit func(b *store.Batch) error
	// Refuse says no to a row as it would become; nil takes it.
	Refuse func(g *schema.Group, key []byte, row []sluice.Value) *store.Refusal
	// Locked tells that another transaction holds the row.
	Locked func(g *schema.Group, key []byte) bool
}

// Database is what a crash of the process leaves. The zero value is empty and
// ready. Transactions since the last synchronous commit are kept with their
// undo, so that Lose can take them back as a killed server would.
type Database struct {
	Now func() time.Time // nil: time.Now; set before use

	mu       sync.Mutex
	hooks    Hooks
	identity *store.Identity
	cursors  map[cursorKey]store.Cursor
	tables   map[sluice.GroupID]*table
	rejects  map[entryKey]sluice.Reject
	parked   map[entryKey]parked
	pending  []undo // committed, not yet durable; oldest first
}

type cursorKey struct {
	group sluice.GroupID
	owner string
}

// entryKey is the order of the journal within a group.
type entryKey struct {
	group   sluice.GroupID
	commit  uint64
	ordinal uint32
}

type table struct {
	rows   map[string]row
	events map[entryKey]Event
}

// row is replaced, never changed, so that an undo holds the old one. Values are
// by column id: a reload changes the places of columns in their group.
type row struct {
	values   []sluice.Value
	sketches map[sluice.ColumnID][]byte // of unique columns
}

// Event is one appended row.
type Event struct {
	Key     []byte
	Commit  uint64
	Ordinal uint32
	Values  []sluice.Value
}

type parked struct {
	entry []byte
	key   string
	name  store.ParkedKey
	since time.Time
}

// undo takes one transaction back, step by step from the last.
type undo []func()

func (u undo) run() {
	for _, f := range slices.Backward(u) {
		f()
	}
}

// SetHooks replaces the hooks.
func (d *Database) SetHooks(h Hooks) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hooks = h
}

// Crash takes back what was committed but not durable, as the death of a
// server with asynchronous commit does, and says how many transactions that were.
func (d *Database) Crash() int { return d.Lose(-1) }

// Lose takes back the last n transactions that are not durable; n < 0 means all.
func (d *Database) Lose(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n < 0 || n > len(d.pending) {
		n = len(d.pending)
	}
	for range n {
		last := len(d.pending) - 1
		d.pending[last].run()
		d.pending = d.pending[:last]
	}
	return n
}

// Open gives a handle. Any number may be open, as processes that hold on to a
// shard after another took it.
func (d *Database) Open(o store.Options) *Shard {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tables == nil {
		d.cursors, d.tables = map[cursorKey]store.Cursor{}, map[sluice.GroupID]*table{}
		d.rejects, d.parked = map[entryKey]sluice.Reject{}, map[entryKey]parked{}
	}
	return &Shard{db: d, o: o}
}

// Put writes a row as another program would; only columns named change.
func (d *Database) Put(g *schema.Group, key []byte, cells []sluice.Cell) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.table(g)
	r := t.rows[string(key)].clone(g)
	for _, c := range cells {
		r.values[c.Column] = cloneValue(c.Value)
	}
	t.rows[string(key)] = r
}

// Rows counts the rows, or events, of a group.
func (d *Database) Rows(g *schema.Group) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.table(g)
	return len(t.rows) + len(t.events)
}

// Keys lists the keys of a group's rows in order.
func (d *Database) Keys(g *schema.Group) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.table(g).rows))
}

// Events lists a group's events in journal order.
func (d *Database) Events(g *schema.Group) []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.table(g)
	var out []Event
	for _, k := range slices.SortedFunc(maps.Keys(t.events), entryKey.compare) {
		e := t.events[k]
		e.Values = row{values: e.Values}.byIndex(g)
		out = append(out, e)
	}
	return out
}

func (d *Database) table(g *schema.Group) *table {
	t := d.tables[g.ID]
	if t == nil {
		t = &table{rows: map[string]row{}, events: map[entryKey]Event{}}
		d.tables[g.ID] = t
	}
	return t
}

func (d *Database) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// clone gives a copy that may be changed, as wide as the group is now.
func (r row) clone(g *schema.Group) row {
	width := len(r.values)
	for _, c := range g.Columns {
		width = max(width, int(c.ID)+1)
	}
	c := row{values: make([]sluice.Value, width), sketches: maps.Clone(r.sketches)}
	copy(c.values, r.values)
	for _, col := range g.Columns {
		if int(col.ID) >= len(r.values) {
			c.values[col.ID] = zero(g, col)
		}
	}
	return c
}

// byIndex gives the values in the order of the group's columns.
func (r row) byIndex(g *schema.Group) []sluice.Value {
	wide := r.clone(g)
	out := make([]sluice.Value, len(g.Columns))
	for i, c := range g.Columns {
		out[i] = wide.values[c.ID]
	}
	return out
}

// zero is what an untouched column of a new row holds. Tables of others are taken to have no defaults.
func zero(g *schema.Group, c *schema.Column) sluice.Value {
	switch {
	case g.Existing != nil:
		return sluice.Value{}
	case c.Merge == schema.Unique:
		return sluice.Value{Kind: sluice.Int64}
	case c.Merge == schema.Sum && c.Type.Kind == sluice.Decimal:
		return sluice.Value{Kind: sluice.Decimal, Bytes: []byte("0")}
	case c.Merge == schema.Sum:
		return sluice.Value{Kind: c.Type.Kind}
	}
	return sluice.Value{}
}

func cloneValue(v sluice.Value) sluice.Value {
	v.Bytes = slices.Clone(v.Bytes)
	return v
}
