package postgres

import (
	"context"
	"fmt"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/store"
)

// applier is one batch on its way into the database.
type applier struct {
	s    *Shard
	db   *database
	t    *target
	b    *store.Batch
	park *park
	fresh,
	follow []sluice.Entry // follow goes behind entries of its key that are parked
	res store.Result

	// of the careful way:
	x     *tx
	w     *writer
	good  int // entries applied
	again []unit
	notes
}

// Apply commits a batch whole, or nothing of it. The quick way is one piece
// sent to the server, guard first and COMMIT last. When the database refuses
// a row, or a row is locked, all of it is rolled back and the careful way
// finds out which.
func (s *Shard) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	a, err := s.applier(ctx, b)
	if err != nil {
		return store.Result{}, err
	}
	a.split()
	err = a.limitParked()
	if err == nil {
		err = a.quick(ctx)
	}
	if err != nil && isRowFault(err) {
		a.notes, a.res = notes{}, store.Result{}
		err = a.careful(ctx)
	}
	if err != nil {
		s.forgetPark(b.Group.ID)
		return store.Result{}, s.outcome(fmt.Sprintf("apply group %s up to commit %d", a.t.group.FullName(), b.Next.Commit), err)
	}
	a.park.keep(&a.notes)
	return a.res, nil
}

func (s *Shard) applier(ctx context.Context, b *store.Batch) (*applier, error) {
	db, t, err := s.target(b.Group)
	if err != nil {
		return nil, err
	}
	a := &applier{s: s, db: db, t: t, b: b}
	if a.park, err = s.park(ctx, db, b.Group.ID); err != nil {
		return nil, s.outcome("read the parked entries of group "+t.group.FullName(), err)
	}
	return a, nil
}

// split parts the entries whose key is parked from the others.
func (a *applier) split() {
	if len(a.park.keys) == 0 {
		a.fresh = a.b.Entries
		return
	}
	for i := range a.b.Entries {
		if e := &a.b.Entries[i]; a.park.keys[string(e.Key)] > 0 {
			a.follow = append(a.follow, *e)
		} else {
			a.fresh = append(a.fresh, *e)
		}
	}
	a.parkRuns(a.follow)
}

// parkRuns notes the journal entries of each key as parked.
func (a *applier) parkRuns(entries []sluice.Entry) {
	for len(entries) > 0 {
		n := a.runLength(entries)
		a.notes.parkEntries(a.pieces(entries[:n]), a.t.group.ID)
		entries = entries[n:]
	}
}

// begin opens a transaction with the guard queued.
func (a *applier) begin(ctx context.Context) (*tx, error) {
	x, err := a.s.begin(ctx, a.db.texts.settings)
	if err != nil {
		return nil, err
	}
	if err := x.guard(ctx, a.db, &a.b.Prev, &a.b.Next); err != nil {
		x.end(ctx)
		return nil, err
	}
	return x, nil
}

func (a *applier) quick(ctx context.Context) error {
	x, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer x.end(ctx)
	w := &writer{x: x, t: a.t}
	if err := w.write(ctx, a.fresh); err != nil {
		return err
	}
	a.notes.applied(a.fresh)
	if err := a.notes.write(x, a.db); err != nil {
		return err
	}
	if _, err := x.commit(ctx); err != nil {
		return err
	}
	a.finish(x)
	return nil
}

func (a *applier) finish(x *tx) {
	a.res.Rows, a.res.Bytes = x.rows, x.bytes
	a.res.Rejected = a.notes.rejects
	a.res.Parked = a.notes.parkedKeys
	a.res.Unparked = a.notes.left
}
