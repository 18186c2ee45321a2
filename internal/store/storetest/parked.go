package storetest

import (
	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

func (f *fixture) needLocks() {
	f.Helper()
	f.needMapped()
	if f.db.Lock == nil {
		f.Skip("this store does not lock single rows")
	}
}

func testParked(f *fixture) {
	f.needLocks()
	f.start()
	g := f.group("people")
	f.apply(g, f.entry(g, keys{1}, cells{"name": "one"}), f.entry(g, keys{2}, cells{"name": "two"}), f.entry(g, keys{3}, cells{"name": "three"}))
	unlock := f.db.Lock(f.T, 2)
	defer func() { unlock() }()
	visit := func(id, n int, note string) sluice.Entry {
		return f.entry(g, keys{id}, cells{"visits": n, "note": note})
	}
	r := f.apply(g, visit(1, 1, "a"), visit(2, 1, "a"), visit(3, 1, "a"))
	hash := sluice.KeyHash(g.ID, f.key(g, keys{2}))
	if len(r.Parked) != 1 || r.Parked[0].KeyHash != hash || r.Parked[0].Commit != 2 || r.Parked[0].Ordinal != 1 || len(r.Rejected) != 0 {
		f.Fatalf("parked %+v, rejected %+v; want row 2 parked", r.Parked, r.Rejected)
	}
	f.wantRow(g, keys{1}, cells{"visits": 1, "note": "a"})
	f.wantRow(g, keys{2}, cells{"visits": nil})
	f.wantRow(g, keys{3}, cells{"visits": 1})

	b := f.batch(g, visit(2, 110, "c"), visit(3, 1, "b")) // two writes folded: they are parked singly
	pieces := []sluice.Entry{visit(2, 10, "b"), visit(2, 100, "c")}
	for i := range pieces {
		pieces[i].Commit, pieces[i].Ordinal = 3, uint32(i)
	}
	b.Entries[0].Writes = 2
	b.Unfold = func([]byte) []sluice.Entry { return pieces }
	f.applyBatch(b)
	if r = f.unpark(g, nil); len(r.Unparked) != 0 {
		f.Errorf("unparked %+v while the row is locked", r.Unparked)
	}
	f.checkParkedKeys(g, hash)
	f.restart()
	f.checkParkedKeys(g, hash)
	f.wantCounts(g, 0, 3)
	f.wantRow(g, keys{3}, cells{"visits": 2, "note": "b"})

	unlock()
	unlock = func() {}
	f.take(g)
	// The row is free, but order holds: a later entry goes behind those that wait.
	f.apply(g, visit(2, 1000, "d"))
	f.wantRow(g, keys{2}, cells{"visits": nil})
	if r = f.unpark(g, nil); len(r.Unparked) != 4 {
		f.Errorf("unparked %+v, want all four", r.Unparked)
	}
	f.wantRow(g, keys{2}, cells{"visits": 1111, "note": "d"})
	f.wantCounts(g, 0, 0)
	if cur := f.cursor(g); cur.Commit != 4 {
		f.Errorf("Unpark moved the cursor to %d", cur.Commit)
	}
	f.apply(g, visit(2, 1, "e"))
	f.wantRow(g, keys{2}, cells{"visits": 1112, "note": "e"})
}

// checkParkedKeys wants three entries of one key, of the commits 2, 3 and 3.
func (f *fixture) checkParkedKeys(g *schema.Group, hash uint64) {
	f.Helper()
	list, err := f.shard.ParkedKeys(f.ctx, g.ID)
	if err != nil || len(list) != 3 {
		f.Fatalf("ParkedKeys gave %+v, %v; want three", list, err)
	}
	for i, p := range list {
		if p.KeyHash != hash || p.Commit != []uint64{2, 3, 3}[i] || p.Writes != 1 {
			f.Errorf("ParkedKeys[%d] is %+v", i, p)
		}
	}
}

func testParkedMax(f *fixture) {
	f.needLocks()
	f.tune = func(s *schema.Store) { s.ParkedMax = 2 }
	f.start()
	g := f.group("people")
	f.apply(g, f.entry(g, keys{1}, cells{"name": "one"}))
	defer f.db.Lock(f.T, 1)()
	var b *store.Batch
	for range 2 {
		f.apply(g, f.entry(g, keys{1}, cells{"visits": 1}))
	}
	b = f.batch(g, f.entry(g, keys{1}, cells{"visits": 1}))
	_, err := f.shard.Apply(f.ctx, b)
	f.wantStop(err, "parked_max")
	f.wantCounts(g, 0, 2)
	if cur := f.cursor(g); cur.Commit != 3 {
		f.Errorf("cursor is at %d, want 3", cur.Commit)
	}
}
