package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Reader answers reads and receipts. Reads never overlay entries that are not
// applied yet: they show what the database has, and say how old it may be (S13).
type Reader struct {
	o       ReaderOptions
	waiters atomic.Int64
}

// ReaderOptions are what a Reader works with.
type ReaderOptions struct {
	Schema  func() *schema.Schema
	Journal journal.Journal
	Drains  *Drains
	// Lost tells whether a gap that somebody accepted holds the commit.
	Lost func(storeName, shard string, group sluice.GroupID, commit uint64) bool
	Now  func() time.Time
}

// NewReader makes a Reader.
func NewReader(o ReaderOptions) *Reader { return &Reader{o: o} }

// Read gives one row a key, in the keys' order, with the groups of the table
// merged across their stores.
func (r *Reader) Read(ctx context.Context, q sluice.ReadQuery) ([]sluice.Row, error) {
	s := r.o.Schema()
	table := s.Table([]byte(q.Table))
	if table == nil {
		return nil, sluice.Errorf(sluice.NotFound, "no_table", "no table %q; `sluice check` lists the tables", q.Table)
	}
	if len(q.Keys) > s.Limits.MultiReadKeysMax {
		return nil, sluice.Errorf(sluice.TooLarge, "read_keys", "%d keys in one read, at most %d (limits.read_keys)", len(q.Keys), s.Limits.MultiReadKeysMax)
	}
	groups, err := selectGroups(table, q.Groups)
	if err != nil {
		return nil, err
	}
	if q.After != nil {
		status, err := r.Receipt(ctx, q.After, q.Wait)
		if err != nil {
			return nil, err
		}
		if status.State == sluice.StateQueued {
			return nil, sluice.Errorf(sluice.Unavailable, "not_applied", "the write of this receipt is not applied yet; wait longer, or read without the receipt")
		}
	}
	rows := make([]sluice.Row, len(q.Keys))
	for i, key := range q.Keys {
		rows[i] = sluice.Row{Table: table.Name, Key: table.AppendKeyJSON(nil, key), Columns: map[string]json.RawMessage{}}
	}
	for _, g := range groups {
		if err := r.readGroup(ctx, g, q.Keys, rows); err != nil {
			return nil, err
		}
	}
	for i := range rows {
		if !rows[i].Found {
			rows[i].Columns = nil
		}
	}
	return rows, nil
}

func selectGroups(t *schema.Table, names []string) ([]*schema.Group, error) {
	var out []*schema.Group
	for _, name := range names {
		g := t.Group([]byte(name))
		if g == nil {
			return nil, sluice.Errorf(sluice.NotFound, "no_group", "table %s has no group %q", t.Name, name)
		}
		if g.Events {
			return nil, sluice.Errorf(sluice.Invalid, "events", "%s holds events, which are read with SQL: table %s of store %s", g.FullName(), g.Physical, g.Store)
		}
		out = append(out, g)
	}
	if names != nil {
		return out, nil
	}
	for _, g := range t.Groups {
		if !g.Events {
			out = append(out, g)
		}
	}
	return out, nil
}

// readGroup reads the keys of one group, one query a shard.
func (r *Reader) readGroup(ctx context.Context, g *schema.Group, keys [][]byte, rows []sluice.Row) error {
	byDrainer := map[*Drainer][]int{}
	for i, key := range keys {
		slot, err := g.Table.SlotOfKey(key)
		if err != nil {
			return err
		}
		d := r.o.Drains.Find(journal.Stream{Group: g.ID, Partition: sluice.PartitionOf(slot)})
		if d == nil {
			return sluice.Errorf(sluice.Unavailable, "no_shard", "no shard has partition %d of %s", sluice.PartitionOf(slot), g.FullName())
		}
		byDrainer[d] = append(byDrainer[d], i)
	}
	for d, at := range byDrainer {
		wanted := make([][]byte, len(at))
		for n, i := range at {
			wanted[n] = keys[i]
		}
		// The drainer's position is taken first, so that what it says is at most
		// what the rows show.
		pos := d.Position()
		got, cur, err := d.o.Shard.Read(ctx, g, wanted)
		if err != nil {
			return sluice.Errorf(sluice.Unavailable, "store_down", "read %s from shard %s of store %s: %w", g.FullName(), d.o.ShardName, g.Store, err)
		}
		for n, i := range at {
			fillRow(&rows[i], g, &got[n])
			rows[i].StaleBy = max(rows[i].StaleBy, r.staleness(g, wanted[n], &cur, &pos))
		}
	}
	return nil
}

func fillRow(row *sluice.Row, g *schema.Group, got *store.Row) {
	if !got.Found {
		return
	}
	row.Found = true
	for i, c := range g.Columns {
		if c.Dropped || i >= len(got.Values) {
			continue
		}
		t := c.Type
		if c.Merge == schema.Unique {
			t = schema.Type{Kind: sluice.Int64}
		}
		row.Columns[c.Name] = schema.AppendJSON(nil, t, got.Values[i])
	}
}

// staleness is the age of the oldest write to the key's stream that the row
// may not show; 0 when there is none.
func (r *Reader) staleness(g *schema.Group, key []byte, cur *store.Cursor, pos *Position) time.Duration {
	slot, err := g.Table.SlotOfKey(key)
	if err != nil {
		return 0
	}
	p := sluice.PartitionOf(slot)
	oldest := uint64(0)
	if last := r.o.Journal.Stream(journal.Stream{Group: g.ID, Partition: p}).Last; last > max(cur.Applied(p), pos.AppliedTo(p)) {
		oldest = max(cur.Applied(p), pos.AppliedTo(p)) + 1
	}
	hash := sluice.KeyHash(g.ID, key)
	for _, k := range pos.Parked {
		if k.KeyHash == hash && (oldest == 0 || k.Commit < oldest) {
			oldest = k.Commit
		}
	}
	if oldest == 0 {
		return 0
	}
	wall, err := WallOf(r.o.Journal, oldest)
	if err != nil {
		return time.Microsecond // trimmed but parked: older than what is retained; it is not fresh
	}
	return max(time.Microsecond, r.o.Now().Sub(wall))
}

// WallOf is the wall time of the first retained commit at or after n.
func WallOf(j journal.Journal, n uint64) (time.Time, error) {
	body, _, err := readBody(j, n)
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMicro(body.Wall), nil
}

// Route says where a key lives.
func (r *Reader) Route(t *schema.Table, key []byte) sluice.RouteInfo {
	slot, _ := t.SlotOfKey(key)
	info := sluice.RouteInfo{Table: t.Name, Key: string(t.AppendKeyJSON(nil, key)), Slot: slot, Partition: sluice.PartitionOf(slot)}
	for _, g := range t.Groups {
		rg := sluice.RouteGroup{Group: g.Name, Store: g.Store, Table: g.Physical}
		if d := r.o.Drains.Find(journal.Stream{Group: g.ID, Partition: info.Partition}); d != nil {
			rg.Shard = d.o.ShardName
		}
		info.Groups = append(info.Groups, rg)
	}
	return info
}

// Receipt says what became of a write, for the streams and keys that the
// receipt names and no others (R1). With wait it flushes them and returns when
// all are decided or the time is over. Only what is durable counts (S5).
func (r *Reader) Receipt(ctx context.Context, rec *sluice.Receipt, wait time.Duration) (sluice.ReceiptStatus, error) {
	if rec.Journal != JournalNumber(r.o.Journal.ID()) {
		return sluice.ReceiptStatus{}, sluice.Errorf(sluice.NotFound, "other_journal", "this receipt was given by another journal")
	}
	limits := r.o.Schema().Limits
	if wait > 0 {
		if r.waiters.Add(1) > int64(limits.ReceiptWaitersMax) {
			r.waiters.Add(-1)
			e := sluice.Errorf(sluice.Overloaded, "waiters", "%d requests wait for receipts already (limits.waiters)", limits.ReceiptWaitersMax)
			e.RetryAfter = time.Second
			return sluice.ReceiptStatus{}, e
		}
		defer r.waiters.Add(-1)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, min(wait, limits.WaitMax))
		defer cancel()
	}
	out := sluice.ReceiptStatus{Receipt: rec.String(), State: sluice.StateApplied}
	if wait > 0 {
		// All at once: one after the other, the waits for the shards would add up.
		for i := range rec.Groups {
			r.flush(&rec.Groups[i], rec.Commit)
		}
	}
	for _, rg := range rec.Groups {
		gs, err := r.groupStatus(ctx, rec, rg, wait > 0)
		if err != nil {
			return sluice.ReceiptStatus{}, err
		}
		out.Groups = append(out.Groups, gs)
		if worse(gs.State, out.State) {
			out.State = gs.State
		}
	}
	return out, nil
}

var severity = []string{sluice.StateApplied, sluice.StateExpired, sluice.StateQueued, sluice.StateRejected, sluice.StateLost}

func worse(a, b string) bool { return slices.Index(severity, a) > slices.Index(severity, b) }

func (r *Reader) groupStatus(ctx context.Context, rec *sluice.Receipt, rg sluice.ReceiptGroup, wait bool) (sluice.GroupStatus, error) {
	g := r.o.Schema().Group(rg.Group)
	if g == nil {
		return sluice.GroupStatus{}, sluice.Errorf(sluice.NotFound, "no_group", "the receipt names a group that this catalog does not know")
	}
	gs := sluice.GroupStatus{Table: g.Table.Name, Group: g.Name, State: sluice.StateApplied}
	if rec.Commit > r.o.Journal.Head().Number {
		gs.State = sluice.StateLost
		return gs, nil
	}
	if wait {
		r.awaitDrainers(ctx, rg)
		r.flush(&rg, rec.Commit)
	}
	left := rg.Partitions
	for _, d := range r.o.Drains.Of(g.ID) {
		mine := intersect(left, d.o.Partitions)
		if mine.Len() == 0 {
			continue
		}
		for _, p := range mine.List() {
			left.Remove(p)
		}
		state, rejects, err := r.settled(ctx, d, rec, &mine, wait)
		if err != nil {
			return gs, err
		}
		gs.Rejects = append(gs.Rejects, rejects...)
		if worse(state, gs.State) {
			gs.State = state
		}
	}
	if left.Len() > 0 && gs.State == sluice.StateApplied {
		gs.State = sluice.StateQueued // no drainer has these streams now
	}
	return gs, nil
}

// flush asks the drainers of these streams for the commit, without waiting.
func (r *Reader) flush(rg *sluice.ReceiptGroup, commit uint64) {
	for _, d := range r.o.Drains.Of(rg.Group) {
		if mine := intersect(rg.Partitions, d.o.Partitions); mine.Len() > 0 {
			d.Flush(commit)
		}
	}
}

// awaitDrainers waits for shards that are not reached yet, as after a start.
func (r *Reader) awaitDrainers(ctx context.Context, rg sluice.ReceiptGroup) {
	for {
		changed := r.o.Drains.Changed()
		left := rg.Partitions
		for _, d := range r.o.Drains.Of(rg.Group) {
			for i := range left {
				left[i] &^= d.o.Partitions[i]
			}
		}
		if left.Len() == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// settled gives the state of the receipt on one drainer, after waiting for it
// when asked to.
func (r *Reader) settled(ctx context.Context, d *Drainer, rec *sluice.Receipt, mine *sluice.PartitionSet, wait bool) (string, []sluice.Reject, error) {
	group := d.Group().ID
	if r.o.Lost(d.o.Store.Name, d.o.ShardName, group, rec.Commit) {
		return sluice.StateLost, nil, nil
	}
	for {
		pos := d.Position()
		if pos.covers(mine, rec.Commit) && !parkedFor(pos.Parked, rec) {
			break
		}
		if !wait {
			return sluice.StateQueued, nil, nil
		}
		select {
		case <-pos.Changed:
		case <-ctx.Done():
			return sluice.StateQueued, nil, nil
		}
	}
	if d.Position().Rejected == 0 {
		return sluice.StateApplied, nil, nil
	}
	rejects, err := d.o.Shard.Rejects(ctx, store.RejectQuery{Group: &group, Commit: rec.Commit, Max: 100})
	if err != nil {
		return "", nil, fmt.Errorf("read rejects of shard %s: %w", d.o.ShardName, err)
	}
	rejects = slices.DeleteFunc(rejects, func(j sluice.Reject) bool {
		return len(rec.Keys) > 0 && !slices.Contains(rec.Keys, j.KeyHash) || j.State == "replayed"
	})
	if len(rejects) > 0 {
		return sluice.StateRejected, rejects, nil
	}
	return sluice.StateApplied, nil, nil
}

// covers tells whether a commit is durably applied for the partitions.
func (p *Position) covers(set *sluice.PartitionSet, commit uint64) bool {
	if p.Durable < commit {
		return false
	}
	for held, n := range p.Except {
		if set.Has(held) && n < commit {
			return false
		}
	}
	return true
}

// parkedFor tells whether the receipt's write may be among the parked. A parked
// entry may be folded from several commits and names the last, so every later
// one of the key counts: a receipt may say "queued" too long, never "applied"
// too early.
func parkedFor(parked []store.ParkedKey, rec *sluice.Receipt) bool {
	return slices.ContainsFunc(parked, func(k store.ParkedKey) bool {
		return k.Commit >= rec.Commit && (len(rec.Keys) == 0 || slices.Contains(rec.Keys, k.KeyHash))
	})
}

func intersect(a, b sluice.PartitionSet) sluice.PartitionSet {
	for i := range a {
		a[i] &= b[i]
	}
	return a
}
