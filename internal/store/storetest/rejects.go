package storetest

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

func testMappedNull(f *fixture) {
	f.needSQL()
	f.start()
	g := f.group("people")
	f.db.Exec(f.T, `INSERT INTO people (id, name, note) VALUES (1, 'ann', 'keep')`)
	r := f.apply(g, f.entry(g, keys{1}, cells{"visits": 3, "best": 4}), // NULL + 3 is 3
		f.entry(g, keys{2}, cells{"visits": 1}), // the row is missing, and without a name it may not be
		f.entry(g, keys{3}, cells{"visits": 1, "name": "cat"}))
	f.wantRow(g, keys{1}, cells{"visits": 3, "best": 4, "name": "ann", "note": "keep"})
	f.wantNone(g, 2)
	f.wantRow(g, keys{3}, cells{"visits": 1, "name": "cat"})
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "23502" {
		f.Errorf("rejected %+v, want one with 23502", r.Rejected)
	}
	f.apply(g, f.entry(g, keys{1}, cells{"visits": -1, "best": 2}))
	f.wantRow(g, keys{1}, cells{"visits": 2, "best": 4})
	f.db.Exec(f.T, `UPDATE people SET visits = visits + 100 WHERE id = 1`) // another writer
	f.apply(g, f.entry(g, keys{1}, cells{"visits": 1}))
	f.wantRow(g, keys{1}, cells{"visits": 103})
}

func testMissingRow(f *fixture) {
	f.needSQL()
	f.start()
	g := f.group("members")
	f.db.Exec(f.T, `INSERT INTO members (id, points) VALUES (1, 5)`)
	r := f.apply(g, f.entry(g, keys{1}, cells{"points": 3}), f.entry(g, keys{2}, cells{"points": 1}), f.reset(g, keys{3}, nil))
	f.wantRow(g, keys{1}, cells{"points": 8})
	f.wantNone(g, 2)
	if len(r.Rejected) != 1 || r.Rejected[0].Ordinal != 1 {
		f.Errorf("rejected %+v, want the change to the missing row (and not the delete of one)", r.Rejected)
	}
}

func testRejects(f *fixture) {
	f.needMapped()
	f.start()
	g := f.group("people")
	var entries []sluice.Entry
	for id := range 20 {
		name := fmt.Sprint("p", id)
		if id == 7 {
			name = "far too long a name"
		}
		e := f.entry(g, keys{id}, cells{"name": name, "visits": id})
		if id == 13 {
			e = f.entry(g, keys{id}, cells{"name": nil, "visits": id})
		}
		e.Writes = uint32(id + 1)
		entries = append(entries, e)
	}
	r := f.apply(g, entries...)
	if len(r.Rejected) != 2 {
		f.Fatalf("rejected %+v, want the rows 7 and 13", r.Rejected)
	}
	for id := range 20 {
		if id == 7 || id == 13 {
			f.wantNone(g, id)
		} else {
			f.wantRow(g, keys{id}, cells{"name": fmt.Sprint("p", id), "visits": id})
		}
	}
	f.restart() // they are in the shard, not in memory
	f.checkReject(g, entries[7], "23514")
	f.checkReject(g, entries[13], "23502")
	f.checkRejectQueries(g, entries)
	f.checkDiscard(g, entries[7])
}

// checkReject looks the reject of an entry of commit 1 up by its key.
func (f *fixture) checkReject(g *schema.Group, e sluice.Entry, sqlstate string) {
	f.Helper()
	hash := sluice.KeyHash(g.ID, e.Key)
	list, err := f.shard.Rejects(f.ctx, store.RejectQuery{Group: &g.ID, KeyHash: hash, Max: 10})
	if err != nil || len(list) != 1 {
		f.Fatalf("Rejects by key gave %d, %v", len(list), err)
	}
	got := list[0]
	if want := fmt.Sprintf("%d.%d", got.Commit, got.Ordinal); got.ID != want || got.Commit != 1 {
		f.Errorf("reject has id %q of commit %d.%d, want %q of commit 1", got.ID, got.Commit, got.Ordinal, want)
	}
	if got.SQLState != sqlstate || got.Reason == "" || got.State != "open" || got.At.IsZero() {
		f.Errorf("reject %+v, want open with %s, a reason and a time", got, sqlstate)
	}
	if got.KeyHash != hash || got.GroupID != g.ID || got.Partition != e.Partition() || got.Writes != e.Writes || got.Table != g.Table.Name || got.Store != "main" || got.Shard != "a" {
		f.Errorf("reject %+v does not say whose it is", got)
	}
	if !json.Valid(got.Key) || !json.Valid(got.Change) || !strings.Contains(string(got.Change), "visits") {
		f.Errorf("reject of key %s, change %s", got.Key, got.Change)
	}
	entry, err := journal.DecodeEntry(got.Entry)
	if err != nil || string(entry.Key) != string(e.Key) || len(entry.Cells) != len(e.Cells) || entry.Commit != got.Commit || entry.Ordinal != got.Ordinal {
		f.Errorf("reject keeps entry %+v, %v", entry, err)
	}
}

func (f *fixture) checkRejectQueries(g *schema.Group, entries []sluice.Entry) {
	f.Helper()
	other := f.group("pages").ID
	for _, q := range []struct {
		q    store.RejectQuery
		want int
	}{
		{store.RejectQuery{Max: 10}, 2},
		{store.RejectQuery{Max: 1}, 1},
		{store.RejectQuery{Commit: 1, Max: 10}, 2},
		{store.RejectQuery{Commit: 2, Max: 10}, 0},
		{store.RejectQuery{State: "open", Max: 10}, 2},
		{store.RejectQuery{State: "discarded", Max: 10}, 0},
		{store.RejectQuery{Group: &other, Max: 10}, 0},
		{store.RejectQuery{KeyHash: 1, Max: 10}, 0},
	} {
		list, err := f.shard.Rejects(f.ctx, q.q)
		if err != nil || len(list) != q.want {
			f.Errorf("Rejects(%+v) gave %d, %v; want %d", q.q, len(list), err, q.want)
		}
		if len(list) == 2 && list[0].Ordinal < list[1].Ordinal {
			f.Errorf("Rejects(%+v) is not newest first", q.q)
		}
	}
	f.wantCounts(g, entries[7].Writes+entries[13].Writes, 0)
}

func (f *fixture) checkDiscard(g *schema.Group, e sluice.Entry) {
	f.Helper()
	list, err := f.shard.Rejects(f.ctx, store.RejectQuery{KeyHash: sluice.KeyHash(g.ID, e.Key), Max: 1})
	if err != nil || len(list) != 1 {
		f.Fatalf("%d rejects, %v", len(list), err)
	}
	for range 2 {
		err = f.shard.SetRejectState(f.ctx, g.ID, list[0].Commit, list[0].Ordinal, "discarded")
		if err != nil {
			break
		}
	}
	// The second time there is no open reject of this id.
	if sluice.CodeOf(err) != sluice.NotFound && sluice.CodeOf(err) != sluice.Conflict {
		f.Errorf("discarding twice answered %v, want not_found or conflict", err)
	}
	f.wantCounts(g, 8+14, 0) // discarded ones are refused for ever, so they count
	list, err = f.shard.Rejects(f.ctx, store.RejectQuery{State: "discarded", Max: 10})
	if err != nil || len(list) != 1 {
		f.Errorf("%d discarded, %v; want 1", len(list), err)
	}
}

func (f *fixture) wantCounts(g *schema.Group, rejected, parked uint32) {
	f.Helper()
	c, err := f.shard.Counts(f.ctx, g.ID)
	if err != nil {
		f.Fatal(err)
	}
	var r, p uint64
	for _, n := range c.Rejected {
		r += n
	}
	for _, n := range c.Parked {
		p += n
	}
	if r != uint64(rejected) || p != uint64(parked) {
		f.Errorf("Counts says %d rejected, %d parked; want %d, %d", r, p, rejected, parked)
	}
}

func testUnfold(f *fixture) {
	f.needMapped()
	f.start()
	g := f.group("people")
	folded := f.entry(g, keys{1}, cells{"name": "far too long a name", "note": "n", "visits": 6})
	b := f.batch(g, f.entry(g, keys{0}, cells{"name": "zero"}), folded, f.entry(g, keys{2}, cells{"name": "two"}))
	pieces := []sluice.Entry{
		f.entry(g, keys{1}, cells{"name": "good", "visits": 1}),
		f.entry(g, keys{1}, cells{"name": "far too long a name", "visits": 2}),
		f.entry(g, keys{1}, cells{"note": "n", "visits": 3}),
	}
	for i := range pieces {
		pieces[i].Commit, pieces[i].Ordinal = uint64(10+i), 5
	}
	b.Next.Commit = 12
	b.Entries[1].Commit, b.Entries[1].Ordinal, b.Entries[1].Writes = 12, 5, 3
	b.Unfold = func(key []byte) []sluice.Entry {
		if string(key) == string(pieces[0].Key) {
			return pieces
		}
		return nil
	}
	r := f.applyBatch(b)
	if len(r.Rejected) != 1 || r.Rejected[0].ID != "11.5" || r.Rejected[0].Writes != 1 {
		f.Errorf("rejected %+v, want the piece 11.5 alone", r.Rejected)
	}
	f.wantRow(g, keys{1}, cells{"name": "good", "visits": 4, "note": "n"})
	f.wantRow(g, keys{0}, cells{"name": "zero"})
	f.wantRow(g, keys{2}, cells{"name": "two"})
}

// testStandTogether refuses the second entry of a key wherever the key lies in
// the batch: the first must count once, though all of the key is tried again.
func testStandTogether(f *fixture) {
	f.start()
	g := f.group("counters")
	for place := range 20 {
		var entries []sluice.Entry
		for id := range 40 {
			entries = append(entries, f.entry(g, keys{place*100 + id}, cells{"n": 1}))
		}
		key := place*100 + place
		entries = append(entries, f.entry(g, keys{key}, cells{"n": int64(math.MaxInt64)}), f.entry(g, keys{key}, cells{"n": 5}))
		b := f.batch(g, entries...)
		b.Unfold = func(k []byte) (pieces []sluice.Entry) {
			for _, e := range b.Entries {
				if string(e.Key) == string(k) {
					pieces = append(pieces, e)
				}
			}
			return pieces
		}
		r := f.applyBatch(b)
		if len(r.Rejected) != 1 || r.Rejected[0].Ordinal != 40 {
			f.Errorf("place %d: rejected %+v, want the second entry of the key", place, r.Rejected)
		}
		f.wantSums(g, place*100, 40, map[int]int64{key: 6})
	}
}

// wantSums checks column n of the rows with ids from..from+n-1: 1 but for what other says.
func (f *fixture) wantSums(g *schema.Group, from, n int, other map[int]int64) {
	f.Helper()
	var all [][]byte
	for id := range n {
		all = append(all, f.key(g, keys{from + id}))
	}
	rows, _, err := f.shard.Read(f.ctx, g, all)
	if err != nil {
		f.Fatal(err)
	}
	for i, row := range rows {
		want, ok := other[from+i]
		if !ok {
			want = 1
		}
		if !row.Found || row.Values[g.Column([]byte("n")).Index].Num != want {
			f.Errorf("row %d is %+v, want n = %d", from+i, row, want)
		}
	}
}

func testOnceMore(f *fixture) {
	f.needSQL()
	f.start()
	g := f.group("people")
	f.apply(g, f.entry(g, keys{5}, cells{"name": "five", "email": "a@x"}))
	r := f.apply(g, f.entry(g, keys{1}, cells{"name": "one", "email": "a@x"}), f.entry(g, keys{5}, cells{"email": "b@x"}))
	if len(r.Rejected) != 0 {
		f.Errorf("rejected %+v, though the address is free at the batch's end", r.Rejected)
	}
	f.wantRow(g, keys{1}, cells{"email": "a@x"})
	f.wantRow(g, keys{5}, cells{"email": "b@x"})
	r = f.apply(g, f.entry(g, keys{2}, cells{"name": "two", "email": "a@x"}), f.entry(g, keys{3}, cells{"name": "three"}))
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "23505" {
		f.Errorf("rejected %+v, want the second holder of the address with 23505", r.Rejected)
	}
	f.wantRow(g, keys{3}, cells{"name": "three"})
}

func testReplay(f *fixture) {
	f.needMapped()
	f.start()
	g := f.group("people")
	r := f.apply(g, f.entry(g, keys{1}, cells{"name": "far too long a name"}), f.entry(g, keys{2}, cells{"name": "far too long a name"}))
	if len(r.Rejected) != 2 {
		f.Fatalf("rejected %+v, want two", r.Rejected)
	}
	good := f.entry(g, keys{1}, cells{"name": "short"})
	good.Replay = store.ReplayNumber(r.Rejected[0].Commit, r.Rejected[0].Ordinal)
	bad := f.entry(g, keys{2}, cells{"name": "far too long a name"})
	bad.Replay = store.ReplayNumber(r.Rejected[1].Commit, r.Rejected[1].Ordinal)
	f.apply(g, good, bad)
	f.wantRow(g, keys{1}, cells{"name": "short"})
	f.wantNone(g, 2)
	states := map[string]string{}
	list, err := f.shard.Rejects(f.ctx, store.RejectQuery{Max: 10})
	if err != nil {
		f.Fatal(err)
	}
	for _, x := range list {
		states[x.ID] = x.State
	}
	// A replay that is refused again leaves its reject open; it makes no second
	// one, which would count one write twice.
	if len(states) != 2 || states[r.Rejected[0].ID] != "replayed" || states[r.Rejected[1].ID] != "open" {
		f.Errorf("states are %v, want %s replayed and %s open", states, r.Rejected[0].ID, r.Rejected[1].ID)
	}
	f.wantCounts(g, 1, 0)
}

func testOverflow(f *fixture) {
	f.start()
	g := f.group("counters")
	f.apply(g, f.entry(g, keys{1}, cells{"n": int64(math.MaxInt64)}))
	var entries []sluice.Entry
	for id := range 40 {
		entries = append(entries, f.entry(g, keys{id}, cells{"n": 1}))
	}
	r := f.apply(g, entries...)
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "22003" || r.Rows != 39 {
		f.Fatalf("%d rows, rejected %+v; want 39, and the sum that overflows with 22003", r.Rows, r.Rejected)
	}
	f.wantSums(g, 0, 40, map[int]int64{1: math.MaxInt64})
	f.apply(g, f.entry(g, keys{1}, cells{"n": -1}))
	f.wantRow(g, keys{1}, cells{"n": int64(math.MaxInt64 - 1)})
}

// samePartition gives n ids whose keys lie in one partition.
func (f *fixture) samePartition(g *schema.Group, n int) (ids []int) {
	first := f.entry(g, keys{0}, nil)
	for id := 0; len(ids) < n; id++ {
		if e := f.entry(g, keys{id}, nil); e.Partition() == first.Partition() {
			ids = append(ids, id)
		}
	}
	return ids
}

func testRejectsMax(f *fixture) {
	f.needMapped()
	f.tune = func(s *schema.Store) { s.RejectsMax = 3 }
	f.start()
	g := f.group("people")
	ids := f.samePartition(g, 6)
	bad := func(i int) sluice.Entry {
		return f.entry(g, keys{ids[i]}, cells{"name": "far too long a name"})
	}
	f.apply(g, bad(0), bad(1), f.entry(g, keys{ids[5]}, cells{"name": "good"}))
	b := f.batch(g, bad(2), bad(3), f.entry(g, keys{ids[4]}, cells{"name": "good"}))
	_, err := f.shard.Apply(f.ctx, b)
	f.wantStop(err, "too_many_rejects")
	f.take(g)
	if cur := f.cursor(g); cur.Commit != 1 {
		f.Errorf("cursor is at %d, want 1", cur.Commit)
	}
	f.wantNone(g, ids[4])
	f.wantCounts(g, 2, 0)
}

// testMassRejects: when all of a large batch is refused, the table has changed.
func testMassRejects(f *fixture) {
	f.needMapped()
	f.start()
	g := f.group("people")
	var entries []sluice.Entry
	for id := range 1000 {
		entries = append(entries, f.entry(g, keys{id}, cells{"name": "far too long a name"}))
	}
	_, err := f.shard.Apply(f.ctx, f.batch(g, entries...))
	f.wantStop(err, "mass_rejects")
	f.take(g)
	f.wantCounts(g, 0, 0)
	r := f.apply(g, append(entries, f.entry(g, keys{1000}, cells{"name": "good"}))...)
	if len(r.Rejected) != 1000 { // one good row tells that the table still takes some
		f.Errorf("%d rejected, want 1000", len(r.Rejected))
	}
	f.wantRow(g, keys{1000}, cells{"name": "good"})
}

func testForeignKey(f *fixture) {
	f.needSQL()
	f.start()
	g := f.group("pets")
	var asked []string
	behind := func(parent string, _ uint64) bool { asked = append(asked, parent); return false }
	b := f.batch(g, f.entry(g, keys{1}, cells{"owner_id": 9, "name": "rex"}), f.entry(g, keys{2}, cells{"name": "stray"}))
	b.ParentsPassed = behind
	r := f.applyBatch(b)
	if len(r.Parked) != 1 || len(r.Rejected) != 0 {
		f.Fatalf("parked %+v, rejected %+v; want one parked", r.Parked, r.Rejected)
	}
	if len(asked) == 0 || !strings.HasSuffix(asked[0], "people") {
		f.Errorf("asked for the parents %q, want people", asked)
	}
	f.wantRow(g, keys{2}, cells{"name": "stray"})
	b = f.batch(g, f.entry(g, keys{1}, cells{"name": "max"})) // follows, though it needs no parent
	b.ParentsPassed = behind
	if r = f.applyBatch(b); len(r.Parked) != 1 {
		f.Errorf("parked %+v, want the entry that follows", r.Parked)
	}
	f.wantNone(g, 1)
	// Within one batch too: what came after the entry that waits, waits behind it.
	pieces := []sluice.Entry{f.entry(g, keys{3}, cells{"name": "first"}), f.entry(g, keys{3}, cells{"owner_id": 9}), f.entry(g, keys{3}, cells{"name": "third"})}
	b = f.batch(g, pieces...)
	pieces = b.Entries
	b.ParentsPassed, b.Unfold = behind, func([]byte) []sluice.Entry { return pieces }
	if r = f.applyBatch(b); len(r.Parked) != 2 {
		f.Errorf("parked %+v, want the second and the third entry", r.Parked)
	}
	f.wantRow(g, keys{3}, cells{"name": "first", "owner_id": nil})
	f.db.Exec(f.T, `INSERT INTO people (id, name) VALUES (9, 'owner')`)
	if r = f.unpark(g, behind); len(r.Unparked) != 4 || len(r.Rejected) != 0 {
		f.Errorf("unparked %+v, rejected %+v; want all to leave", r.Unparked, r.Rejected)
	}
	f.wantRow(g, keys{1}, cells{"owner_id": 9, "name": "max"})
	f.wantRow(g, keys{3}, cells{"owner_id": 9, "name": "third"})
	f.wantCounts(g, 0, 0)
}

// unpark tries the parked entries of a group.
func (f *fixture) unpark(g *schema.Group, passed func(string, uint64) bool) store.Result {
	f.Helper()
	cur := f.cursors[g.ID]
	r, err := f.shard.Unpark(f.ctx, &store.Batch{Group: g, Prev: cur, Next: cur, ParentsPassed: passed}, 100)
	if err != nil {
		f.Fatalf("Unpark: %v", err)
	}
	return r
}

func testForeignKeyFinal(f *fixture) {
	f.needSQL()
	f.start()
	g := f.group("pets")
	passed := func(string, uint64) bool { return true }
	r := f.apply(g, f.entry(g, keys{1}, cells{"owner_id": 9})) // no parent comes through Sluice
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "23503" {
		f.Errorf("rejected %+v, want one with 23503", r.Rejected)
	}
	b := f.batch(g, f.entry(g, keys{2}, cells{"owner_id": 9}))
	b.ParentsPassed = passed
	if r = f.applyBatch(b); len(r.Rejected) != 1 || len(r.Parked) != 0 { // fk_wait is 0
		f.Errorf("rejected %+v, parked %+v; want one rejected", r.Rejected, r.Parked)
	}
	f.tune = func(s *schema.Store) { s.FKWait = time.Hour }
	f.restart()
	b = f.batch(g, f.entry(g, keys{3}, cells{"owner_id": 9}))
	b.ParentsPassed = passed
	if r = f.applyBatch(b); len(r.Rejected) != 0 || len(r.Parked) != 1 {
		f.Errorf("rejected %+v, parked %+v; want one parked for fk_wait", r.Rejected, r.Parked)
	}
	if r = f.unpark(g, passed); len(r.Unparked)+len(r.Rejected) != 0 {
		f.Errorf("unparked %+v, rejected %+v before fk_wait was over", r.Unparked, r.Rejected)
	}
	f.tune = nil
	f.restart()
	f.take(g)
	if r = f.unpark(g, passed); len(r.Rejected) != 1 || len(r.Unparked) != 1 {
		f.Errorf("rejected %+v, unparked %+v after fk_wait; want one that left the park as a reject", r.Rejected, r.Unparked)
	}
	f.wantCounts(g, 3, 0)
}

func testMappedDelete(f *fixture) {
	f.needSQL()
	f.start()
	g := f.group("pages")
	f.db.Exec(f.T, `INSERT INTO pages (id, title, hits, owner) VALUES (1, 't', 3, 'me'), (2, 't', 3, 'me')`)
	f.apply(g, f.reset(g, keys{1}, nil), f.reset(g, keys{2}, cells{"hits": 2}), f.reset(g, keys{3}, nil))
	f.wantRow(g, keys{1}, cells{"title": "untitled", "hits": 7})
	f.wantRow(g, keys{2}, cells{"title": "untitled", "hits": 9})
	f.wantNone(g, 3)
	if got := f.db.Query(f.T, `SELECT count(*) FROM pages WHERE owner = 'me'`); got != "2" {
		f.Errorf("%s rows kept the column that is not the group's, want 2", got)
	}
}

func testMappedDeleteRow(f *fixture) {
	f.needSQL()
	f.start()
	g := f.group("bins")
	f.db.Exec(f.T, `INSERT INTO bins (id, n) VALUES (1, 3), (2, 3)`)
	f.apply(g, f.reset(g, keys{1}, nil), f.reset(g, keys{2}, cells{"n": 2}), f.reset(g, keys{3}, nil))
	f.wantNone(g, 1)
	f.wantRow(g, keys{2}, cells{"n": 2})
	f.wantNone(g, 3)
}
