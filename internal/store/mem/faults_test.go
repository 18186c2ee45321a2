package mem_test

import (
	"context"
	"errors"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
	"sluice.dev/sluice/internal/store/storetest"
)

// world is a database with one counter, taken by one drainer.
type world struct {
	*testing.T
	db    *mem.Database
	shard *mem.Shard
	group *schema.Group
	cur   store.Cursor
}

func newWorld(t *testing.T, sync bool) *world {
	sch := storetest.Parse(t, "stores:\n  main: \"mem:\"\ntables:\n  t:\n    store: main\n    key: {id: int64}\n    columns: {n: int64 sum}\n")
	st := *sch.Stores["main"]
	st.SynchronousCommit = sync
	w := &world{T: t, db: &mem.Database{}, group: sch.Table([]byte("t")).Groups[0]}
	w.shard = w.db.Open(store.Options{Store: &st, Shard: st.Shards[0], Warn: func(string) {}})
	w.take()
	return w
}

func (w *world) take() {
	w.Helper()
	cur, err := w.shard.Take(w.Context(), w.group.ID, store.OwnerName, w.cur.Epoch+1)
	if err != nil {
		w.Fatal(err)
	}
	w.cur = cur
}

// add applies +1 to row 1 as the next commit.
func (w *world) add() error {
	next := w.cur
	next.Commit++
	e := sluice.Entry{Group: w.group.ID, Key: intKey(1), Writes: 1, Commit: next.Commit, Cells: []sluice.Cell{{Column: w.group.Columns[0].ID, Value: sluice.IntValue(1)}}}
	_, err := w.shard.Apply(w.Context(), &store.Batch{Group: w.group, Prev: w.cur, Next: next, Entries: []sluice.Entry{e}})
	if err == nil {
		w.cur = next
	}
	return err
}

// want checks that row and cursor stand together at n.
func (w *world) want(n int64) {
	w.Helper()
	rows, cur, err := w.shard.Read(w.Context(), w.group, [][]byte{intKey(1)})
	if err != nil {
		w.Fatal(err)
	}
	got := int64(0)
	if rows[0].Found {
		got = rows[0].Values[0].Num
	}
	if got != n || cur.Commit != uint64(n) {
		w.Errorf("row is %d at commit %d, want both %d", got, cur.Commit, n)
	}
}

func TestS5_CrashTakesBackWhatIsNotConfirmed(t *testing.T) {
	w := newWorld(t, false)
	if w.shard.SyncApply() {
		t.Fatal("SyncApply without synchronous commits")
	}
	for range 3 {
		if err := w.add(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.shard.Confirm(t.Context(), w.cur); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := w.add(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.db.Lose(1); n != 1 {
		t.Errorf("lost %d, want 1", n)
	}
	w.want(6)
	if n := w.db.Crash(); n != 3 {
		t.Errorf("lost %d, want 3", n)
	}
	w.want(3)
	if err := w.add(); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Apply from before the crash answered %v, want ErrFenced", err)
	}
	w.take() // synchronous: what came before it stays too
	w.want(3)
	if n := w.db.Crash(); n != 0 {
		t.Errorf("lost %d after Take, want none", n)
	}
}

func TestSynchronousCommitsAreNotLost(t *testing.T) {
	w := newWorld(t, true)
	if err := w.add(); err != nil {
		t.Fatal(err)
	}
	if n := w.db.Crash(); n != 0 || !w.shard.SyncApply() {
		t.Errorf("lost %d synchronous commits", n)
	}
	w.want(1)
}

func TestHooks(t *testing.T) {
	w := newWorld(t, false)
	fault := errors.New("as asked")
	w.db.SetHooks(mem.Hooks{BeforeCommit: func(*store.Batch) error { return fault }})
	if err := w.add(); !errors.Is(err, fault) {
		t.Errorf("BeforeCommit: %v", err)
	}
	w.want(0)
	w.db.SetHooks(mem.Hooks{AfterCommit: func(*store.Batch) error { return store.ErrUnknown }})
	if err := w.add(); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("AfterCommit: %v", err)
	}
	w.want(1) // the answer was lost, not the commit
	w.take()
	ctx, cancel := context.WithCancelCause(t.Context())
	w.db.SetHooks(mem.Hooks{Slow: func(context.Context, *store.Batch) error { cancel(fault); return context.Cause(ctx) }})
	if err := w.add(); !errors.Is(err, fault) {
		t.Errorf("Slow: %v", err)
	}
	w.want(1)
	w.db.SetHooks(mem.Hooks{})
	if err := w.add(); err != nil {
		t.Error(err)
	}
	w.want(2)
}
