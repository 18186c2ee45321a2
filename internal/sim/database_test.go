package sim_test

import (
	"context"
	"errors"
	"slices"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
)

var background = context.Background()

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// database is a server: the primary, a replica that is behind, and what others do
// to it.
type database struct {
	w       *world
	name    string
	cur     *mem.Database
	replica *mem.Database
	era     int // grows with each fail-over
	down    bool
	locked  map[string]bool
	durable map[sluice.GroupID]store.Cursor // cursors that a crash cannot take back
	epochs  map[epochOf]bool                // every epoch that ever took a group here
}

type epochOf struct {
	group sluice.GroupID
	epoch uint64
}

func newDatabase(w *world, name string) *database {
	d := &database{w: w, name: name, cur: &mem.Database{}, locked: map[string]bool{}, durable: map[sluice.GroupID]store.Cursor{}, epochs: map[epochOf]bool{}}
	d.hook()
	return d
}

func (d *database) hook() {
	d.cur.SetHooks(mem.Hooks{
		Refuse: func(g *schema.Group, _ []byte, row []sluice.Value) *store.Refusal {
			if g.Name != "old" {
				return nil
			}
			if title := row[g.Column([]byte("title")).Index]; len(title.Bytes) > 3 && string(title.Bytes[:4]) == "bad " {
				return &store.Refusal{SQLState: "23514", Reason: "the title is bad"}
			}
			return nil
		},
		Locked: func(g *schema.Group, key []byte) bool { return !g.Events && d.locked[g.Name+string(key)] },
	})
}

func (d *database) open(o store.Options) *mem.Shard { return d.cur.Open(o) }

// synced notes that all so far is durable.
func (d *database) synced() {
	for _, c := range must(d.open(store.Options{}).Cursors(background)) {
		if c.Owner == store.OwnerName {
			d.durable[c.Group] = c
		}
	}
}

// failOver makes the replica the primary. What it has not got is lost.
func (d *database) failOver() {
	d.cur, d.replica = d.replica, nil
	d.era++
	d.w.eras++
	d.hook()
	clear(d.durable)
	d.synced()
}

// link is a process's connection to a database, over a network that loses
// requests, answers and the patience of those who wait. It is a store.Shard.
type link struct {
	db  *database
	p   *process
	o   store.Options
	era map[sluice.GroupID]int // of the database, as of the last Take of the group
}

var errNetwork = errors.New("connection reset by peer")

func (l *link) inner() store.Shard {
	sh := l.db.open(l.o)
	if d := l.db.w.defect; d != nil && d.server != nil {
		return d.server(sh)
	}
	return sh
}

func (l *link) owned() sluice.PartitionSet {
	m := l.p.catalog.ShardMaps[l.o.Store.Name]
	return m.Partitions(l.o.Shard.Name)
}

// request is the way there: an error means that nothing arrived.
func (l *link) request(what string) error {
	w := l.db.w
	if l.db.down {
		return errNetwork
	}
	if w.healing {
		return nil
	}
	if w.chance(w.profile.network) {
		w.say("%s to %s is lost", what, l.db.name)
		return errNetwork
	}
	if what != "Ensure" && !l.p.gone && w.chance(w.profile.stall) { // Ensure is the scheduler's own call
		w.wait(l.p, "%s to %s", what, l.db.name)
		if l.db.down {
			return errNetwork
		}
	}
	return nil
}

// answer is the way back: an error means that it is not known what happened.
func (l *link) answer(what string) error {
	w := l.db.w
	if w.healing {
		return nil
	}
	if w.chance(w.profile.network) {
		w.say("the answer of %s to %s is lost", l.db.name, what)
		return errors.Join(store.ErrUnknown, errNetwork)
	}
	if !l.p.gone && w.chance(w.profile.stall/2) {
		w.wait(l.p, "the answer of %s to %s", l.db.name, what)
	}
	return nil
}

func (l *link) Ensure(ctx context.Context, id store.Identity, groups []*schema.Group) error {
	if err := l.request("Ensure"); err != nil {
		return err
	}
	return l.inner().Ensure(ctx, id, groups)
}

func (l *link) Take(ctx context.Context, g sluice.GroupID, owner string, epoch uint64) (store.Cursor, error) {
	if err := l.request("Take"); err != nil {
		return store.Cursor{}, err
	}
	w := l.db.w
	cur, err := l.inner().Take(ctx, g, owner, epoch)
	w.say("Take of group %d on %s with epoch %d: commit %d, %v", g, l.db.name, epoch, cur.Commit, err)
	if err != nil {
		return cur, err
	}
	// An older copy of the journal hands out numbers again; who is fenced then
	// stops, and going on takes an adopted journal.
	if at := (epochOf{g, epoch}); l.db.epochs[at] && !w.lost {
		w.fail("J7", "epoch %d was given twice for group %d of shard %s", epoch, g, l.db.name)
	} else {
		l.db.epochs[at] = true
	}
	l.era[g] = l.db.era
	l.db.synced()
	return cur, l.answer("Take")
}

func (l *link) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	return l.transact(ctx, "Apply", b, func(b *store.Batch) (store.Result, error) { return l.inner().Apply(ctx, b) })
}

func (l *link) Unpark(ctx context.Context, b *store.Batch, max int) (store.Result, error) {
	return l.transact(ctx, "Unpark", b, func(b *store.Batch) (store.Result, error) { return l.inner().Unpark(ctx, b, max) })
}

func (l *link) transact(ctx context.Context, what string, b *store.Batch, do func(*store.Batch) (store.Result, error)) (store.Result, error) {
	w := l.db.w
	if err := l.request(what); err != nil {
		return store.Result{}, err
	}
	run := func(b *store.Batch) (store.Result, error) {
		res, err := do(b)
		w.say("%s of %s on %s: epoch %d, commits %d to %d, %d entries: %d rows, %d rejects, %d parked, %d unparked, %v", what, b.Group.Name, l.db.name,
			b.Prev.Epoch, b.Prev.Commit, b.Next.Commit, len(b.Entries), res.Rows, len(res.Rejected), len(res.Parked), len(res.Unparked), err)
		if err == nil && l.o.Store.SynchronousCommit {
			l.db.synced()
		}
		return res, err
	}
	if !w.healing && w.chance(w.profile.late) {
		kept := keep(b)
		w.say("COMMIT of %s of %s on %s is late", what, b.Group.Name, l.db.name)
		w.late = append(w.late, func() { _, _ = run(kept) })
		return store.Result{}, store.ErrUnknown
	}
	if !w.healing && w.chance(w.profile.network/4) {
		return store.Result{}, store.ErrShrink
	}
	res, err := run(b)
	if err == nil {
		err = l.answer(what)
	}
	return res, err
}

// keep copies a batch whose transaction is complete but for its COMMIT: what it
// would have unfolded is known to the server already.
func keep(b *store.Batch) *store.Batch {
	kept := *b
	kept.Entries = keepEntries(b.Entries)
	unfolded := map[string][]sluice.Entry{}
	if b.Unfold != nil {
		for _, e := range b.Entries {
			unfolded[string(e.Key)] = keepEntries(b.Unfold(e.Key))
		}
		kept.Unfold = func(key []byte) []sluice.Entry { return unfolded[string(key)] }
	}
	return &kept
}

func keepEntries(list []sluice.Entry) []sluice.Entry {
	out := slices.Clone(list)
	for i := range out {
		out[i].Key = slices.Clone(out[i].Key)
		out[i].Cells = slices.Clone(out[i].Cells)
		for j := range out[i].Cells {
			out[i].Cells[j].Value.Bytes = slices.Clone(out[i].Cells[j].Value.Bytes)
		}
	}
	return out
}

func (l *link) Confirm(ctx context.Context, cur store.Cursor) error {
	if err := l.request("Confirm"); err != nil {
		return err
	}
	err := l.inner().Confirm(ctx, cur)
	l.db.w.say("Confirm of group %d on %s at commit %d: %v", cur.Group, l.db.name, cur.Commit, err)
	if err != nil {
		return err
	}
	l.db.synced()
	return l.answer("Confirm")
}

func (l *link) Cursors(ctx context.Context) ([]store.Cursor, error) {
	if err := l.request("Cursors"); err != nil {
		return nil, err
	}
	return l.inner().Cursors(ctx)
}

func (l *link) Read(ctx context.Context, g *schema.Group, keys [][]byte) ([]store.Row, store.Cursor, error) {
	if l.db.down {
		return nil, store.Cursor{}, errNetwork
	}
	return l.inner().Read(ctx, g, keys)
}

func (l *link) Rejects(ctx context.Context, q store.RejectQuery) ([]sluice.Reject, error) {
	if l.db.down {
		return nil, errNetwork
	}
	return l.inner().Rejects(ctx, q)
}

func (l *link) SetRejectState(ctx context.Context, g sluice.GroupID, commit uint64, ordinal uint32, state string) error {
	return l.inner().SetRejectState(ctx, g, commit, ordinal, state)
}

func (l *link) Counts(ctx context.Context, g sluice.GroupID) (store.Counts, error) {
	if err := l.request("Counts"); err != nil {
		return store.Counts{}, err
	}
	return l.inner().Counts(ctx, g)
}

func (l *link) ParkedKeys(ctx context.Context, g sluice.GroupID) ([]store.ParkedKey, error) {
	if err := l.request("ParkedKeys"); err != nil {
		return nil, err
	}
	return l.inner().ParkedKeys(ctx, g)
}

func (l *link) Exactness() store.Exactness { return store.Transaction }
func (l *link) SyncApply() bool            { return l.o.Store.SynchronousCommit }
func (l *link) Close() error               { return nil }

// fault lets something happen to the database.
func (d *database) fault(p *profile) {
	w := d.w
	switch pick(w.rng, p.lose, p.failover, p.down, p.lock) {
	case 0:
		n := 1 + w.rng.IntN(3)
		if w.chance(40) {
			n = -1
		}
		w.say("shard %s loses %d transactions that were not durable", d.name, d.cur.Lose(n))
	case 1:
		if d.replica == nil && len(d.durable) < d.groups() {
			return // a replica from before the first cursor is as good as an empty database: it stops, rightly
		}
		if d.replica != nil {
			d.failOver()
			w.say("shard %s fails over to its replica", d.name)
		} else {
			d.replica = d.cur.Copy()
			w.say("the replica of shard %s has all until now", d.name)
		}
	case 2:
		d.down = !d.down
		w.say("shard %s is down: %v", d.name, d.down)
	case 3:
		if len(d.locked) > 0 && w.chance(50) {
			clear(d.locked)
			w.say("no row of shard %s is locked", d.name)
			return
		}
		names := []string{"text", "metrics", "place", "old"}
		key := int64(w.rng.IntN(int(w.keysMax)))
		g := names[w.rng.IntN(len(names))]
		d.locked[g+string(keyBytes(w.proc.schemaNow(), key))] = true
		w.say("key %d of %s is locked on shard %s", key, g, d.name)
	}
}

// groups is how many groups the store has.
func (d *database) groups() int {
	n := 0
	for _, g := range d.w.schema.Groups() {
		if (g.Store == "lazy") == (d.name == "z") {
			n++
		}
	}
	return n
}

// heal ends all faults.
func (d *database) heal() {
	d.down = false
	clear(d.locked)
}

var _ store.Shard = (*link)(nil)
