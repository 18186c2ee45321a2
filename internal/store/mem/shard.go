package mem

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Shard is a handle on a Database. It implements store.Shard.
type Shard struct {
	db *Database
	o  store.Options
}

var _ store.Shard = (*Shard)(nil)

// Ensure implements store.Shard.
func (s *Shard) Ensure(ctx context.Context, id store.Identity, groups []*schema.Group) error {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if have := s.db.identity; have != nil {
		if have.Journal != id.Journal || have.Store != id.Store || have.Shard != id.Shard {
			return &store.StopError{Reason: "wrong_shard", Detail: fmt.Sprintf("this database belongs to journal %x, store %s, shard %s, not to journal %x, store %s, shard %s; give each shard a database of its own",
				have.Journal, have.Store, have.Shard, id.Journal, id.Store, id.Shard)}
		}
		if have.MapVersion > id.MapVersion {
			return &store.StopError{Reason: "newer_map", Detail: fmt.Sprintf("shard %s has shard map version %d, newer than %d of this journal's catalog; start with the newer catalog, or `sluice journal adopt`", id.Shard, have.MapVersion, id.MapVersion)}
		}
	}
	s.db.identity = &id
	for _, g := range groups {
		s.db.table(g)
	}
	return nil
}

// Take implements store.Shard.
func (s *Shard) Take(ctx context.Context, group sluice.GroupID, owner string, epoch uint64) (store.Cursor, error) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return store.Cursor{}, err
	}
	k := cursorKey{group, owner}
	cur, found := s.db.cursors[k]
	if found && cur.Epoch > epoch {
		return cur, store.ErrFenced
	}
	cur.Group, cur.Owner, cur.Epoch, cur.At = group, owner, epoch, s.db.now()
	cur.Found = true
	s.db.cursors[k] = cur
	s.db.pending = nil // a synchronous commit makes all before it durable
	cur.Except = maps.Clone(cur.Except)
	cur.Found = found
	return cur, nil
}

// guard is the first statement of every transaction (S2).
func (d *Database) guard(want *store.Cursor) error {
	have, found := d.cursors[cursorKey{want.Group, want.Owner}]
	if !found || have.Epoch != want.Epoch || have.Commit != want.Commit || have.Chain != want.Chain || !maps.Equal(have.Except, want.Except) {
		return store.ErrFenced
	}
	return nil
}

// Apply implements store.Shard.
func (s *Shard) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	return s.transact(ctx, b, func(r *store.Rowwise) (store.Result, error) { return r.Apply(ctx) })
}

// Unpark implements store.Shard.
func (s *Shard) Unpark(ctx context.Context, b *store.Batch, max int) (store.Result, error) {
	return s.transact(ctx, b, func(r *store.Rowwise) (store.Result, error) {
		keys, err := s.db.parkedByKey(b.Group.ID, max)
		if err != nil {
			return store.Result{}, err
		}
		return r.Unpark(ctx, keys)
	})
}

func (s *Shard) transact(ctx context.Context, b *store.Batch, work func(*store.Rowwise) (store.Result, error)) (store.Result, error) {
	d := s.db
	d.mu.Lock()
	hooks := d.hooks
	d.mu.Unlock()
	if hooks.Slow != nil {
		if err := hooks.Slow(ctx, b); err != nil {
			return store.Result{}, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.guard(&b.Prev); err != nil {
		return store.Result{}, err
	}
	t := &tx{s: s, d: d, g: b.Group, now: d.now()}
	waiting := map[string]bool{}
	for k, p := range d.parked {
		if k.group == b.Group.ID {
			waiting[p.key] = true
		}
	}
	res, err := work(&store.Rowwise{Tx: t, Batch: b, Store: s.o.Store, Now: t.now, Parked: waiting})
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && d.hooks.BeforeCommit != nil {
		err = d.hooks.BeforeCommit(b)
	}
	if err != nil {
		t.undo.run()
		return store.Result{}, err
	}
	next := b.Next
	next.Except, next.Found, next.At = maps.Clone(next.Except), true, t.now
	put(t, d.cursors, cursorKey{next.Group, next.Owner}, next)
	if !s.SyncApply() {
		d.pending = append(d.pending, t.undo)
	}
	if d.hooks.AfterCommit != nil {
		if err := d.hooks.AfterCommit(b); err != nil {
			return store.Result{}, err
		}
	}
	return res, nil
}

// parkedByKey gives the entries of the max keys that wait longest.
func (d *Database) parkedByKey(group sluice.GroupID, max int) ([][]store.ParkedEntry, error) {
	var out [][]store.ParkedEntry
	at := map[string]int{}
	for _, k := range slices.SortedFunc(maps.Keys(d.parked), entryKey.compare) {
		p := d.parked[k]
		i, known := at[p.key]
		if k.group != group || !known && len(out) == max {
			continue
		}
		e, err := journal.DecodeEntry(p.entry)
		if err != nil {
			return nil, err
		}
		if !known {
			i = len(out)
			at[p.key] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], store.ParkedEntry{Entry: e, Since: p.since})
	}
	return out, nil
}

func (a entryKey) compare(b entryKey) int {
	return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.commit, b.commit), cmp.Compare(a.ordinal, b.ordinal))
}

// Confirm implements store.Shard.
func (s *Shard) Confirm(ctx context.Context, cur store.Cursor) error {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if err := cmp.Or(ctx.Err(), s.db.guard(&cur)); err != nil {
		return err
	}
	k := cursorKey{cur.Group, cur.Owner}
	have := s.db.cursors[k]
	have.At = s.db.now()
	s.db.cursors[k] = have
	s.db.pending = nil
	return nil
}

// Cursors implements store.Shard.
func (s *Shard) Cursors(ctx context.Context) ([]store.Cursor, error) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	var out []store.Cursor
	for _, c := range s.db.cursors {
		c.Except = maps.Clone(c.Except)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b store.Cursor) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Owner, b.Owner))
	})
	return out, ctx.Err()
}

// Read implements store.Shard.
func (s *Shard) Read(ctx context.Context, g *schema.Group, keys [][]byte) ([]store.Row, store.Cursor, error) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	cur := s.db.cursors[cursorKey{g.ID, store.OwnerName}]
	cur.Except = maps.Clone(cur.Except)
	t := s.db.table(g)
	rows := make([]store.Row, len(keys))
	for i, k := range keys {
		if r, ok := t.rows[string(k)]; ok {
			rows[i] = store.Row{Found: true, Values: r.byIndex(g)}
		}
	}
	return rows, cur, ctx.Err()
}

// Rejects implements store.Shard.
func (s *Shard) Rejects(ctx context.Context, q store.RejectQuery) ([]sluice.Reject, error) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(s.db.rejects), func(a, b entryKey) int {
		return cmp.Or(cmp.Compare(b.commit, a.commit), cmp.Compare(b.ordinal, a.ordinal), cmp.Compare(b.group, a.group))
	})
	var out []sluice.Reject
	for _, k := range keys {
		r := s.db.rejects[k]
		if len(out) < q.Max && (q.Group == nil || *q.Group == r.GroupID) && (q.Commit == 0 || q.Commit == r.Commit) &&
			(q.KeyHash == 0 || q.KeyHash == r.KeyHash) && (q.State == "" || q.State == r.State) {
			out = append(out, r)
		}
	}
	return out, ctx.Err()
}

// SetRejectState implements store.Shard.
func (s *Shard) SetRejectState(ctx context.Context, group sluice.GroupID, commit uint64, ordinal uint32, state string) error {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	k := entryKey{group, commit, ordinal}
	r, ok := s.db.rejects[k]
	switch id := store.RejectID(commit, ordinal); {
	case !ok:
		return sluice.Errorf(sluice.NotFound, "no_reject", "there is no reject %s on shard %s; `sluice rejects ls` lists them", id, s.o.Shard.Name)
	case r.State != "open":
		return sluice.Errorf(sluice.Conflict, "not_open", "reject %s is %s already; only open ones can be decided", id, r.State)
	}
	r.State = state
	s.db.rejects[k] = r
	s.db.pending = nil
	return ctx.Err()
}

// Counts implements store.Shard.
func (s *Shard) Counts(ctx context.Context, group sluice.GroupID) (store.Counts, error) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	c := store.Counts{Rejected: map[uint8]uint64{}, Parked: map[uint8]uint64{}}
	for k, r := range s.db.rejects {
		if k.group == group && r.State != "replayed" {
			c.Rejected[r.Partition] += uint64(r.Writes)
		}
	}
	for k, p := range s.db.parked {
		if k.group == group {
			c.Parked[p.name.Partition] += uint64(p.name.Writes)
		}
	}
	return c, ctx.Err()
}

// ParkedKeys implements store.Shard.
func (s *Shard) ParkedKeys(ctx context.Context, group sluice.GroupID) ([]store.ParkedKey, error) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	var out []store.ParkedKey
	for _, k := range slices.SortedFunc(maps.Keys(s.db.parked), entryKey.compare) {
		if k.group == group {
			out = append(out, s.db.parked[k].name)
		}
	}
	return out, ctx.Err()
}

// Exactness implements store.Shard.
func (s *Shard) Exactness() store.Exactness { return store.Transaction }

// SyncApply implements store.Shard.
func (s *Shard) SyncApply() bool { return s.o.Store.SynchronousCommit }

// Close implements store.Shard. The Database stays.
func (s *Shard) Close() error { return nil }
