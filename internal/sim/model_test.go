package sim_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// modelRow is what a row should be, by column, as JSON; sums by their number.
type modelRow struct {
	text    map[string]string
	num     map[string]int64
	cents   int64
	viewers map[string]bool
}

func newModelRow() *modelRow {
	return &modelRow{text: map[string]string{}, num: map[string]int64{}, viewers: map[string]bool{}}
}

// expected is what a group's rows on a shard should be at a cursor: every line
// through its partition's commit, in order, but for what is among the rejects.
func (w *world) expected(g *schema.Group, owned sluice.PartitionSet, cur *store.Cursor, rejected map[string]bool) map[int64]*modelRow {
	rows := map[int64]*modelRow{}
	for _, c := range w.truth {
		if c.number > cur.Highest() {
			break
		}
		for _, at := range c.lines {
			l := at.get()
			p := w.partition(l.key)
			if !l.touches(g.Name) || !owned.Has(p) || c.number > cur.Applied(p) || rejected[l.name] {
				continue
			}
			w.change(rows, g, l)
		}
	}
	return rows
}

func (w *world) change(rows map[int64]*modelRow, g *schema.Group, l *line) {
	r := rows[l.key]
	if l.del {
		delete(rows, l.key)
		if r != nil && g.Existing != nil && !g.Existing.DeleteRow {
			rows[l.key] = newModelRow() // its columns go to their defaults
		}
		return
	}
	next := r
	if r == nil {
		next = newModelRow()
	}
	if g.LatestBy != nil {
		at := l.number("at")
		if r != nil && at < r.num["at"] {
			return
		}
		next = newModelRow()
	}
	for i := range l.cols {
		if f := &l.cols[i]; f.group == g.Name {
			next.set(f)
		}
	}
	rows[l.key] = next
}

func (l *line) number(column string) int64 {
	for _, f := range l.cols {
		if f.column == column {
			return f.num
		}
	}
	return 0
}

func (r *modelRow) empty() bool { return len(r.text)+len(r.num)+len(r.viewers) == 0 && r.cents == 0 }

func (r *modelRow) set(f *field) {
	have, found := r.num[f.column]
	switch f.column {
	case "likes", "shares", "n":
		r.num[f.column] = have + f.num
	case "high":
		r.num[f.column] = max(have, f.num)
	case "low":
		if !found || f.num < have {
			r.num[f.column] = f.num
		}
	case "at":
		r.num[f.column] = f.num
	case "spent":
		v, _ := strconv.ParseFloat(f.text[1:len(f.text)-1], 64)
		r.cents += int64(v*100 + 0.5)
	case "viewers":
		r.viewers[f.text] = true
	default:
		r.text[f.column] = f.text
	}
}

// want is a column as the database should have it.
func (r *modelRow) want(g *schema.Group, c *schema.Column) string {
	switch c.Name {
	case "spent":
		text := []byte(fmt.Sprintf("%d.%02d", r.cents/100, r.cents%100))
		sum, err := fold.AddDecimal([]byte("0"), text)
		if err != nil {
			panic(err)
		}
		return string(schema.AppendJSON(nil, c.Type, sluice.Value{Kind: sluice.Decimal, Bytes: sum}))
	case "viewers":
		return strconv.Itoa(len(r.viewers))
	}
	if n, ok := r.num[c.Name]; ok {
		return strconv.FormatInt(n, 10)
	}
	if text, ok := r.text[c.Name]; ok {
		return text
	}
	if c.Merge == schema.Sum && g.Existing == nil {
		return "0"
	}
	return "null"
}

// shardState is one group on one shard, as its database has it.
type shardState struct {
	g        *schema.Group
	s        *schema.Schema
	db       *database
	cur      store.Cursor
	owned    sluice.PartitionSet
	parked   map[int64]bool
	rejected map[string]bool
}

// state reads the database with our own eyes, past the network.
func (d *drain) state() *shardState {
	w := d.p.w
	g := d.Group()
	st := &shardState{g: g, s: d.p.schemaNow(), db: d.link.db, owned: d.link.owned(), parked: map[int64]bool{}, rejected: map[string]bool{}}
	sh := st.db.open(d.link.o)
	for _, c := range must(sh.Cursors(background)) {
		if c.Group == g.ID && c.Owner == store.OwnerName {
			st.cur = c
		}
	}
	hashes := map[uint64]int64{}
	for _, key := range w.keys() {
		hashes[sluice.KeyHash(g.ID, keyBytes(st.s, key))] = key
	}
	for _, k := range must(sh.ParkedKeys(background, g.ID)) {
		st.parked[hashes[k.KeyHash]] = true
	}
	for _, r := range must(sh.Rejects(background, store.RejectQuery{Group: &g.ID, Max: 1 << 20})) {
		w.rejectedLines(st, &r)
	}
	return st
}

// rejectedLines finds the lines that a reject holds: it is one journal entry,
// and an entry that sets a title is one line.
func (w *world) rejectedLines(st *shardState, r *sluice.Reject) {
	if w.lost {
		return // truth is not known there, and what is written has no names of its own
	}
	e, err := journal.DecodeEntry(r.Entry)
	if err != nil {
		w.fail("S10", "reject %s cannot be read: %v", r.ID, err)
		return
	}
	title := st.g.Column([]byte("title"))
	for _, c := range e.Cells {
		if title == nil || c.Column != title.ID {
			continue
		}
		text := string(c.Value.Bytes)
		if len(text) < 4 || text[:4] != "bad " {
			w.fail("promise 8", "reject %s is of a row that nobody refused: %s", r.ID, text)
			return
		}
		if st.rejected[text[4:]] {
			w.fail("S10", "line %s was rejected twice", text[4:])
		}
		st.rejected[text[4:]] = true
		return
	}
	w.fail("promise 8", "%s: reject %s (%s: %s) is of a change that no row refuses", st.g.FullName(), r.ID, r.SQLState, r.Reason)
}

// compare checks a group's rows on a shard against the model at the shard's own
// cursor: promises 2 and 3, at any moment.
func (w *world) compare(st *shardState, when string) {
	if !st.cur.Found {
		return
	}
	if st.cur.Highest() > uint64(len(w.truth)) {
		w.fail("J2", "%s on shard %s has commit %d, and only %d are durable", st.g.FullName(), st.db.name, st.cur.Highest(), len(w.truth))
		return
	}
	if st.g.Events {
		w.compareEvents(st, when)
		return
	}
	want := w.expected(st.g, st.owned, &st.cur, st.rejected)
	table := st.g.Table
	got := map[int64]bool{}
	for _, text := range st.db.cur.Keys(st.g) {
		key, err := table.DecodeKey([]byte(text), nil)
		if err != nil {
			w.fail("promise 1", "%s has a key that is none: %x", st.g.FullName(), text)
			return
		}
		got[key[0].Num] = true
	}
	keys := maps.Clone(got)
	for key := range want {
		keys[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !st.parked[key] {
			w.compareRow(st, key, want[key], got[key], when)
		}
	}
}

func (w *world) compareRow(st *shardState, key int64, want *modelRow, found bool, when string) {
	at := fmt.Sprintf("%s: %s key %d on shard %s at commit %d", when, st.g.FullName(), key, st.db.name, st.cur.Applied(partitionOf(st.s, key)))
	if want != nil && !found && st.g.Existing != nil && want.empty() {
		return // an insert and a delete that meet in one batch never make the row
	}
	if (want != nil) != found {
		w.fail("promise 2", "%s: the row is there: %v, should be: %v", at, found, want != nil)
		return
	}
	if want == nil {
		return
	}
	rows, _, err := st.db.open(store.Options{}).Read(background, st.g, [][]byte{keyBytes(st.s, key)})
	if err != nil {
		panic(err)
	}
	for i, c := range st.g.Columns {
		if c.Dropped || c.Name == "viewers" && len(want.viewers) == 0 {
			continue
		}
		t := c.Type
		if c.Merge == schema.Unique {
			t = schema.Type{Kind: sluice.Int64}
		}
		if is, should := string(schema.AppendJSON(nil, t, rows[0].Values[i])), want.want(st.g, c); is != should {
			w.fail("promise 2", "%s: %s is %.60s, should be %.60s", at, c.Name, is, should)
			return
		}
	}
}

func (w *world) compareEvents(st *shardState, when string) {
	seen := map[string]uint64{}
	for _, e := range st.db.cur.Events(st.g) {
		name := string(e.Values[0].Bytes)
		if seen[name] != 0 {
			w.fail("promise 2", "%s: event %s is there twice, of commits %d and %d", when, name, seen[name], e.Commit)
			return
		}
		seen[name] = e.Commit
	}
	for _, c := range w.truth {
		for _, at := range c.lines {
			l := at.get()
			p := w.partition(l.key)
			if l.del || !st.owned.Has(p) || st.parked[l.key] {
				delete(seen, l.name)
				continue
			}
			if should := c.number <= st.cur.Applied(p); should != (seen[l.name] == c.number) {
				w.fail("promise 2", "%s: event %s of commit %d: is there: %v, should be: %v (cursor %d)", when, l.name, c.number, seen[l.name] != 0, should, st.cur.Commit)
				return
			}
			delete(seen, l.name)
		}
	}
	for name, n := range seen {
		w.fail("promise 1", "%s: event %s of commit %d was never acknowledged", when, name, n)
		return
	}
}
