package storetest

import (
	"context"
	"errors"
	"maps"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

func testCursorPerGroupAndOwner(f *fixture) {
	f.start()
	counters, kinds := f.group("counters"), f.group("kinds")
	if cur := f.take(counters); cur.Found || cur.Commit != 0 {
		f.Fatalf("first Take answered %+v, want none found at commit 0", cur)
	}
	f.take(kinds)
	if _, err := f.shard.Take(f.ctx, counters.ID, "move:7", 1); err != nil {
		f.Fatalf("Take of a follower: %v", err)
	}
	f.apply(counters, f.entry(counters, keys{1}, cells{"n": 1}))
	f.apply(counters, f.entry(counters, keys{1}, cells{"n": 1}))
	f.apply(kinds, f.entry(kinds, keys{1}, cells{"i": 1}))

	got := map[string]uint64{}
	curs, err := f.shard.Cursors(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range curs {
		got[f.schema.Group(c.Group).FullName()+"/"+c.Owner] = c.Commit
		if !c.Found || c.At.IsZero() {
			f.Errorf("cursor %+v is not Found or has no time", c)
		}
	}
	want := map[string]uint64{counters.FullName() + "/owner": 2, kinds.FullName() + "/owner": 1, counters.FullName() + "/move:7": 0}
	if !maps.Equal(got, want) {
		f.Errorf("cursors are %v, want %v", got, want)
	}
}

func testExceptions(f *fixture) {
	f.start()
	g := f.group("counters")
	b := f.batch(g)
	b.Next.Commit = 10
	b.Next.Except = map[uint8]uint64{0: 12, 3: 4, 255: 9}
	b.Next.Chain = 0xFEDCBA9876543210
	f.applyBatch(b)
	f.restart()
	cur := f.take(g)
	if !cur.Found || cur.Commit != 10 || cur.Chain != b.Next.Chain || !maps.Equal(cur.Except, b.Next.Except) {
		f.Errorf("cursor came back as %+v, want %+v", cur, b.Next)
	}
	if cur.Applied(3) != 4 || cur.Applied(4) != 10 || cur.Highest() != 12 {
		f.Errorf("Applied(3) %d, Applied(4) %d, Highest %d; want 4, 10, 12", cur.Applied(3), cur.Applied(4), cur.Highest())
	}
	f.apply(g, f.entry(g, keys{1}, cells{"n": 1})) // the guard takes the exceptions as they were answered
}

// wantFenced checks that a batch is fenced and changes nothing.
func (f *fixture) wantFenced(b *store.Batch, why string) {
	f.Helper()
	before := f.cursor(b.Group)
	if _, err := f.shard.Apply(f.ctx, b); !errors.Is(err, store.ErrFenced) {
		f.Errorf("%s: Apply answered %v, want ErrFenced", why, err)
	}
	if _, err := f.shard.Unpark(f.ctx, &store.Batch{Group: b.Group, Prev: b.Prev, Next: b.Prev}, 10); !errors.Is(err, store.ErrFenced) {
		f.Errorf("%s: Unpark answered %v, want ErrFenced", why, err)
	}
	if after := f.cursor(b.Group); after.Commit != before.Commit || after.Epoch != before.Epoch {
		f.Errorf("%s: cursor went from %+v to %+v", why, before, after)
	}
	for _, e := range b.Entries {
		rows, _, err := f.shard.Read(f.ctx, b.Group, [][]byte{e.Key})
		if err != nil || rows[0].Found {
			f.Errorf("%s: the row is there (%v)", why, err)
		}
	}
}

// cursor reads the owner's cursor of a group without taking it.
func (f *fixture) cursor(g *schema.Group) store.Cursor {
	f.Helper()
	curs, err := f.shard.Cursors(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range curs {
		if c.Group == g.ID && c.Owner == store.OwnerName {
			return c
		}
	}
	return store.Cursor{}
}

func testGuardEpoch(f *fixture) {
	f.start()
	g := f.group("counters")
	b := f.batch(g, f.entry(g, keys{1}, cells{"n": 1}))
	b.Prev.Epoch++
	b.Next.Epoch++
	f.wantFenced(b, "higher epoch than the shard's")
	b.Prev.Epoch -= 2
	b.Next.Epoch -= 2
	f.wantFenced(b, "lower epoch than the shard's")
	b = f.batch(g, f.entry(g, keys{1}, cells{"n": 1}))
	b.Prev.Owner, b.Next.Owner = "move:1", "move:1"
	f.wantFenced(b, "no cursor row at all")
}

func testGuardPosition(f *fixture) {
	f.start()
	g := f.group("counters")
	f.apply(g, f.entry(g, keys{9}, cells{"n": 1}))
	b := f.batch(g, f.entry(g, keys{1}, cells{"n": 1}))
	b.Prev.Commit--
	f.wantFenced(b, "position before the shard's")
	b.Prev.Commit += 2
	b.Next.Commit = b.Prev.Commit + 1
	f.wantFenced(b, "position after the shard's")
	b = f.batch(g, f.entry(g, keys{1}, cells{"n": 1}))
	b.Prev.Except = map[uint8]uint64{4: 9}
	f.wantFenced(b, "other exceptions than the shard's")
	// The same batch twice: what a retry after a lost answer must not do.
	b = f.batch(g, f.entry(g, keys{1}, cells{"n": 1}))
	f.applyBatch(b)
	if _, err := f.shard.Apply(f.ctx, b); !errors.Is(err, store.ErrFenced) {
		f.Errorf("the same batch again answered %v, want ErrFenced", err)
	}
	f.wantRow(g, keys{1}, cells{"n": 1})
}

func testAllOrNothing(f *fixture) {
	f.start()
	g := f.group("counters")
	f.apply(g, f.entry(g, keys{9}, cells{"n": 1}))
	for _, fail := range []string{"unknown column", "cancelled"} {
		b := f.batch(g, f.entry(g, keys{1}, cells{"n": 1}), f.entry(g, keys{9}, cells{"n": 1}), f.entry(g, keys{99}, cells{"n": 1}))
		ctx, cancel := context.WithCancel(f.ctx)
		if fail == "cancelled" {
			cancel()
		} else {
			b.Entries[2].Cells = append(b.Entries[2].Cells, sluice.Cell{Column: 999, Value: sluice.IntValue(1)})
		}
		if _, err := f.shard.Apply(ctx, b); err == nil {
			f.Fatalf("%s: Apply went through", fail)
		}
		cancel()
		f.take(g) // as the drainer does after any error
		if cur := f.cursor(g); cur.Commit != 1 {
			f.Errorf("%s: cursor is at %d, want 1", fail, cur.Commit)
		}
		f.wantNone(g, 1)
		f.wantRow(g, keys{9}, cells{"n": 1})
	}
	f.apply(g, f.entry(g, keys{1}, cells{"n": 1}))
	f.wantRow(g, keys{1}, cells{"n": 1})
}

func testTakeFences(f *fixture) {
	f.start()
	g := f.group("counters")
	old := f.batch(g, f.entry(g, keys{1}, cells{"n": 1}))
	f.take(g)
	f.wantFenced(old, "batch of an earlier epoch")
	if err := f.shard.Confirm(f.ctx, old.Prev); !errors.Is(err, store.ErrFenced) {
		f.Errorf("Confirm by an earlier epoch answered %v, want ErrFenced", err)
	}
	cur, err := f.shard.Take(f.ctx, g.ID, store.OwnerName, f.epoch-1)
	if !errors.Is(err, store.ErrFenced) || cur.Epoch != f.epoch {
		f.Errorf("Take by an earlier epoch answered epoch %d, %v; want %d, ErrFenced", cur.Epoch, err, f.epoch)
	}
	f.apply(g, f.entry(g, keys{1}, cells{"n": 1}))
}

// testTakeTells: two handles on one database, as two processes would be.
func testTakeTells(f *fixture) {
	f.start()
	g := f.group("counters")
	b := f.batch(g, f.entry(g, keys{1}, cells{"n": 5}))
	f.applyBatch(b)
	first := f.shard
	f.open()
	f.ensure()
	if cur := f.take(g); !cur.Found || cur.Commit != b.Next.Commit || cur.Chain != b.Next.Chain {
		f.Errorf("Take by another handle answered %+v, want the position of %+v", cur, b.Next)
	}
	late := &store.Batch{Group: g, Prev: b.Next, Next: b.Next, Entries: []sluice.Entry{f.entry(g, keys{1}, cells{"n": 5})}}
	late.Next.Commit++
	if _, err := first.Apply(f.ctx, late); !errors.Is(err, store.ErrFenced) {
		f.Errorf("the first handle's Apply answered %v, want ErrFenced", err)
	}
	f.wantRow(g, keys{1}, cells{"n": 5})
}

func testConfirm(f *fixture) {
	f.start()
	g := f.group("counters")
	b := f.batch(g, f.entry(g, keys{1}, cells{"n": 5}))
	f.applyBatch(b)
	if err := f.shard.Confirm(f.ctx, b.Next); err != nil {
		f.Errorf("Confirm: %v", err)
	}
	if err := f.shard.Confirm(f.ctx, b.Prev); !errors.Is(err, store.ErrFenced) {
		f.Errorf("Confirm of a position that is past answered %v, want ErrFenced", err)
	}
	ahead := b.Next
	ahead.Commit++
	if err := f.shard.Confirm(f.ctx, ahead); !errors.Is(err, store.ErrFenced) {
		f.Errorf("Confirm of a position not reached answered %v, want ErrFenced", err)
	}
	if cur := f.cursor(g); cur.Commit != b.Next.Commit || cur.Chain != b.Next.Chain {
		f.Errorf("Confirm changed the cursor to %+v", cur)
	}
}

func (f *fixture) wantStop(err error, reason string) {
	f.Helper()
	var stop *store.StopError
	if !errors.As(err, &stop) || stop.Reason != reason {
		f.Errorf("answered %v, want a StopError with reason %s", err, reason)
	} else if len(stop.Detail) < 20 {
		f.Errorf("StopError says only %q", stop.Detail)
	}
}

func testIdentity(f *fixture) {
	f.start()
	mine := f.id
	for _, other := range []store.Identity{
		{Journal: [16]byte{9}, Store: mine.Store, Shard: mine.Shard, MapVersion: 1},
		{Journal: mine.Journal, Store: "other", Shard: mine.Shard, MapVersion: 1},
		{Journal: mine.Journal, Store: mine.Store, Shard: "b", MapVersion: 1},
	} {
		f.open()
		f.wantStop(f.shard.Ensure(f.ctx, other, f.schema.Groups()), "wrong_shard")
	}
	f.ensure()
}

func testMapVersion(f *fixture) {
	f.start()
	f.id.MapVersion = 5
	f.ensure()
	older := f.id
	older.MapVersion = 4
	f.open()
	f.wantStop(f.shard.Ensure(f.ctx, older, f.schema.Groups()), "newer_map")
	f.ensure()
}

func testEnsureAdds(f *fixture) {
	f.start()
	g := f.group("pairs")
	f.apply(g, f.entry(g, keys{"a", 1}, cells{"n": 1}))
	f.ensure()
	text := strings.Replace(config, "note: text}", "note: text, more: int64 sum, when: timestamp, fans: text unique}", 1)
	text = strings.Replace(text, "MAPPED", "  added:\n    key: {id: int64}\n    store: main\n    columns: {v: text}\nMAPPED", 1)
	f.load(text, "auto")
	f.ensure()
	g = f.group("pairs")
	f.wantRow(g, keys{"a", 1}, cells{"n": 1, "when": nil})
	f.apply(g, f.entry(g, keys{"a", 1}, cells{"more": 2, "when": 5, "fans": []string{"x"}}))
	f.wantRow(g, keys{"a", 1}, cells{"n": 1, "more": 2, "when": 5, "fans": 1})
	added := f.group("added")
	f.apply(added, f.entry(added, keys{1}, cells{"v": "x"}))
	f.wantRow(added, keys{1}, cells{"v": "x"})
}

func testEnsurePrints(f *fixture) {
	f.load(config, "print")
	if f.o.Mapped && f.db.Exec != nil {
		f.db.Exec(f.T, MappedSQL...)
	}
	f.open()
	m, ok := f.shard.(store.Migrator)
	if !ok {
		f.Skip("this store makes no tables")
	}
	var missing *store.MissingError
	if err := f.shard.Ensure(f.ctx, f.id, f.schema.Groups()); !errors.As(err, &missing) || len(missing.Statements) == 0 {
		f.Fatalf("Ensure answered %v, want a MissingError with statements", err)
	}
	up, err := m.Plan(f.ctx, f.schema.Groups(), false)
	if err != nil || len(up) != len(missing.Statements) {
		f.Fatalf("Plan gave %d statements, %v; MissingError has %d", len(up), err, len(missing.Statements))
	}
	if err := m.Run(f.ctx, up); err != nil {
		f.Fatalf("Run: %v", err)
	}
	f.ensure()
	if up, err = m.Plan(f.ctx, f.schema.Groups(), false); err != nil || len(up) != 0 {
		f.Errorf("Plan after Run gave %q, %v; want nothing", up, err)
	}
	g := f.group("counters")
	f.apply(g, f.entry(g, keys{1}, cells{"n": 1}))
	down, err := m.Plan(f.ctx, f.schema.Groups(), true)
	if err != nil || len(down) == 0 {
		f.Fatalf("Plan down gave %q, %v", down, err)
	}
	if err := m.Run(f.ctx, down); err != nil {
		f.Fatalf("Run down: %v", err)
	}
	if again, err := m.Plan(f.ctx, f.schema.Groups(), false); err != nil || len(again) != len(missing.Statements) {
		f.Errorf("after the way down Plan gives %d statements, %v; want all %d", len(again), err, len(missing.Statements))
	}
}
