package sim_test

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// cursorApart moves the cursor in a transaction of its own.
type cursorApart struct{ store.Shard }

func (s *cursorApart) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	rows, cursor := *b, *b
	rows.Next, cursor.Entries = b.Prev, nil
	res, err := s.Shard.Apply(ctx, &rows)
	if err != nil {
		return res, err
	}
	_, err = s.Shard.Apply(ctx, &cursor)
	return res, err
}

// looseGuard lets every batch pass.
type looseGuard struct{ store.Shard }

func (s *looseGuard) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	loose := *b
	for _, c := range must(s.Shard.Cursors(ctx)) {
		if c.Group == b.Prev.Group && c.Owner == b.Prev.Owner {
			loose.Prev, loose.Next.Epoch = c, c.Epoch
		}
	}
	return s.Shard.Apply(ctx, &loose)
}

// foldOn keeps what it folded when a batch fails, and adds the next to it.
type foldOn struct {
	store.Shard
	kept []sluice.Entry
}

func (s *foldOn) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	more := *b
	more.Entries = sortByKey(b.Group, append(keepEntries(s.kept), b.Entries...))
	res, err := s.Shard.Apply(ctx, &more)
	s.kept = nil
	if err != nil {
		s.kept = keepEntries(more.Entries)
	}
	return res, err
}

func sortByKey(g *schema.Group, list []sluice.Entry) []sluice.Entry {
	if !g.Events {
		slices.SortStableFunc(list, func(a, b sluice.Entry) int { return bytes.Compare(a.Key, b.Key) })
	}
	return list
}

// oneCursor reads the furthest cursor of a shard as that of every group.
type oneCursor struct {
	store.Shard
	p *process
}

func (s *oneCursor) Take(ctx context.Context, g sluice.GroupID, owner string, epoch uint64) (store.Cursor, error) {
	cur, err := s.Shard.Take(ctx, g, owner, epoch)
	if err != nil {
		return cur, err
	}
	list, err := s.Shard.Cursors(ctx)
	if err != nil {
		return cur, err
	}
	next := cur
	for _, c := range list {
		if c.Commit > next.Commit {
			next.Commit, next.Chain = c.Commit, c.Chain
		}
	}
	if next.Commit > cur.Commit {
		_, err = s.Shard.Apply(ctx, &store.Batch{Group: s.p.schemaNow().Group(g), Prev: cur, Next: next})
	}
	return next, err
}

// drainDedup drops what it applied before in this process.
type drainDedup struct {
	store.Shard
	seen map[[2]uint64]bool
}

func (s *drainDedup) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	fresh := *b
	name := func(e sluice.Entry) [2]uint64 { return [2]uint64{e.Commit, uint64(e.Ordinal)} }
	fresh.Entries = slices.DeleteFunc(slices.Clone(b.Entries), func(e sluice.Entry) bool { return s.seen[name(e)] })
	res, err := s.Shard.Apply(ctx, &fresh)
	if err == nil {
		for _, e := range b.Entries {
			s.seen[name(e)] = true
		}
	}
	return res, err
}

// parkInMemory sets rows aside that others lock, and says that they are done.
type parkInMemory struct {
	store.Shard
	l    *link
	kept []sluice.Entry
}

func (s *parkInMemory) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	rest := *b
	rest.Entries = nil
	var aside []sluice.Entry
	for _, e := range sortByKey(b.Group, append(keepEntries(s.kept), keepEntries(b.Entries)...)) {
		if s.l.db.locked[b.Group.Name+string(e.Key)] {
			aside = append(aside, e)
		} else {
			rest.Entries = append(rest.Entries, e)
		}
	}
	res, err := s.Shard.Apply(ctx, &rest)
	if err == nil {
		s.kept = aside
	}
	return res, err
}

// nullSum leaves a column NULL that was NULL, as `n + 3` does in SQL.
type nullSum struct{ store.Shard }

func (s *nullSum) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	null := *b
	null.Entries = keepEntries(b.Entries)
	n := b.Group.Column([]byte("n"))
	for i := range null.Entries {
		e := &null.Entries[i]
		rows, _, err := s.Read(ctx, b.Group, [][]byte{e.Key})
		if err == nil && n != nil && rows[0].Found && rows[0].Values[n.Index].Kind == sluice.Null {
			e.Cells = slices.DeleteFunc(e.Cells, func(c sluice.Cell) bool { return c.Column == n.ID })
		}
	}
	return s.Shard.Apply(ctx, &null)
}

// neverAgain does not look at the cursor of a shard that has nothing to do.
type neverAgain struct {
	store.Shard
	done store.Cursor
}

func (s *neverAgain) Confirm(ctx context.Context, cur store.Cursor) error {
	if s.done.Commit == cur.Commit && s.done.Epoch == cur.Epoch {
		return nil
	}
	err := s.Shard.Confirm(ctx, cur)
	if err == nil {
		s.done = cur
	}
	return err
}

// pullBack takes a shard that is beyond the journal for one at its end.
type pullBack struct {
	store.Shard
	p *process
}

func (s *pullBack) Take(ctx context.Context, g sluice.GroupID, owner string, epoch uint64) (store.Cursor, error) {
	cur, err := s.Shard.Take(ctx, g, owner, epoch)
	head := s.p.journal.Head()
	if err != nil || cur.Commit <= head.Number {
		return cur, err
	}
	next := cur
	next.Commit, next.Chain = head.Number, head.Chain
	_, err = s.Shard.Apply(ctx, &store.Batch{Group: s.p.schemaNow().Group(g), Prev: cur, Next: next})
	return next, err
}

// rejectApart writes rejects in a transaction of their own.
type rejectApart struct{ store.Shard }

func (s *rejectApart) Apply(ctx context.Context, b *store.Batch) (store.Result, error) {
	title := b.Group.Column([]byte("title"))
	if title == nil || b.Unfold == nil {
		return s.Shard.Apply(ctx, b)
	}
	bad := func(e *sluice.Entry) bool {
		return slices.ContainsFunc(e.Cells, func(c sluice.Cell) bool {
			return c.Column == title.ID && strings.HasPrefix(string(c.Value.Bytes), "bad ")
		})
	}
	good, rejects := *b, *b
	good.Entries, rejects.Entries = nil, nil
	for i := range b.Entries {
		e := &b.Entries[i]
		if !bad(e) {
			good.Entries = append(good.Entries, *e)
			continue
		}
		for _, piece := range b.Unfold(e.Key) {
			if bad(&piece) {
				rejects.Entries = append(rejects.Entries, piece)
			} else {
				good.Entries = append(good.Entries, piece)
			}
		}
	}
	res, err := s.Shard.Apply(ctx, &good)
	if err != nil || len(rejects.Entries) == 0 {
		return res, err
	}
	rejects.Prev, rejects.Unfold = b.Next, nil
	more, err := s.Shard.Apply(ctx, &rejects)
	res.Rejected = more.Rejected
	return res, err
}
