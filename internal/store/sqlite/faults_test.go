package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/storetest"
)

const counter = "    key: {id: int64}\n    columns: {n: int64 sum, name: text}\n"

// reason gives a StopError's reason, "" for another error.
func reason(err error) string {
	var stop *store.StopError
	if errors.As(err, &stop) {
		return stop.Reason
	}
	return ""
}

func TestS8_LockedDatabaseIsTransient(t *testing.T) {
	f := newFixture(t, counter).start()
	f.exec("BEGIN IMMEDIATE")
	_, err := f.apply(f.entry(1, map[string]string{"n": "1"}))
	if err == nil || reason(err) != "" || errors.Is(err, store.ErrFenced) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("while another process writes Apply answered %v, want a transient error that says so", err)
	}
	// Readers go on.
	if _, _, err := f.shard.Read(t.Context(), f.group, nil); err != nil {
		t.Errorf("Read: %v", err)
	}
	f.exec("COMMIT")
	r := f.must(f.apply(f.entry(1, map[string]string{"n": "1"})))
	if len(r.Parked) != 0 {
		t.Errorf("parked %+v for a lock of the whole database", r.Parked)
	}
	f.want("SELECT n FROM t", "1")
}

// replace points the process's descriptors of a file at another one, as a disk
// that fails does, until the returned function is called.
func replace(t *testing.T, file, with string, flags int) (back func()) {
	bad, err := os.OpenFile(with, flags, 0)
	if err != nil {
		t.Skip(err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	saved := map[int]int{}
	for _, e := range entries {
		var fd int
		link, _ := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil && link == file {
			if saved[fd], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
				t.Fatal(err)
			}
			if err := unix.Dup3(int(bad.Fd()), fd, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(saved) == 0 {
		t.Fatalf("no descriptor of %s is open", file)
	}
	return func() {
		for fd, s := range saved {
			unix.Dup3(s, fd, unix.O_CLOEXEC)
			unix.Close(s)
		}
		bad.Close()
	}
}

func TestJ4_IOErrorIsFinal(t *testing.T) {
	f := newFixture(t, counter).start()
	back := replace(t, f.path+"-wal", os.DevNull, os.O_RDONLY) // every write fails
	_, err := f.apply(f.entry(1, map[string]string{"n": "1"}))
	back()
	if reason(err) != "io_error" {
		t.Fatalf("Apply answered %v, want a StopError with io_error", err)
	}
	// The disk is well again, but nobody knows what is on it: nothing is retried.
	if _, err := f.shard.Take(t.Context(), f.group.ID, store.OwnerName, 9); reason(err) != "io_error" {
		t.Errorf("Take after it answered %v, want the same", err)
	}
	if _, _, err := f.shard.Read(t.Context(), f.group, nil); reason(err) != "io_error" {
		t.Errorf("Read after it answered %v, want the same", err)
	}
	f.want("SELECT count(*) FROM t", "0")
}

func TestDiskFullIsTransient(t *testing.T) {
	f := newFixture(t, counter).start()
	f.must(f.apply(f.entry(1, map[string]string{"n": "1"})))
	back := replace(t, f.path+"-wal", "/dev/full", os.O_RDWR)
	_, err := f.apply(f.entry(1, map[string]string{"n": "1"}))
	back()
	if err == nil || reason(err) != "" || !strings.Contains(err.Error(), "disk is full") {
		t.Fatalf("Apply answered %v, want a transient error that says the disk is full", err)
	}
	f.take()
	f.must(f.apply(f.entry(1, map[string]string{"n": "1"})))
	f.want("SELECT n FROM t", "2")
}

func TestS5_ConfirmIsSynchronous(t *testing.T) {
	f := newFixture(t, counter)
	f.shard.o.Store.SynchronousCommit = false
	f.start()
	if f.shard.SyncApply() {
		t.Error("SyncApply, though commits are not synchronous")
	}
	for _, durable := range []bool{true, false, true, false} {
		want := map[bool]string{true: "2", false: "1"}[durable]
		err := f.shard.write(t.Context(), durable, func(w *conn) error {
			got, err := w.texts("PRAGMA synchronous")
			if len(got) != 1 || durable && got[0] != want {
				t.Errorf("a durable=%v transaction runs with synchronous=%v, want %s", durable, got, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w, unlock, err := f.shard.lockWriter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if got, err := w.texts("PRAGMA synchronous"); err != nil || got[0] != "1" {
		t.Errorf("afterwards synchronous=%v, %v; want 1", got, err)
	}
}

func TestS2_GroupsShareTheWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	text := "stores:\n  main: {shards: {a: \"sqlite:" + path + "\"}, ddl: auto}\ntables:\n"
	for i := range 4 {
		text += fmt.Sprintf("  t%d:\n    store: main\n%s", i, counter)
	}
	sch := storetest.Parse(t, text)
	st := *sch.Stores["main"]
	s, err := Open(store.Options{Store: &st, Shard: st.Shards[0], Warn: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Ensure(t.Context(), store.Identity{}, sch.Groups()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, g := range sch.Groups() {
		wg.Go(func() { addOnes(t, s, g, 50) })
	}
	wg.Wait()
	for _, g := range sch.Groups() {
		key, _ := g.Table.AppendKey(nil, []sluice.Value{sluice.IntValue(1)})
		rows, cur, err := s.Read(t.Context(), g, [][]byte{key})
		if err != nil || !rows[0].Found || rows[0].Values[0].Num != 50 || cur.Commit != 50 {
			t.Errorf("%s: %+v at %+v, %v; want 50 at commit 50", g.FullName(), rows, cur, err)
		}
	}
}

func addOnes(t *testing.T, s *Shard, g *schema.Group, n int) {
	cur, err := s.Take(t.Context(), g.ID, store.OwnerName, 1)
	if err != nil {
		t.Error(err)
		return
	}
	key, _ := g.Table.AppendKey(nil, []sluice.Value{sluice.IntValue(1)})
	for range n {
		next := cur
		next.Commit++
		e := sluice.Entry{Group: g.ID, Key: key, Writes: 1, Commit: next.Commit, Cells: []sluice.Cell{{Column: g.Column([]byte("n")).ID, Value: sluice.IntValue(1)}}}
		if _, err := s.Apply(t.Context(), &store.Batch{Group: g, Prev: cur, Next: next, Entries: []sluice.Entry{e}}); err != nil {
			t.Error(err)
			return
		}
		cur = next
	}
}

func TestClose(t *testing.T) {
	f := newFixture(t, counter).start()
	if err := errors.Join(f.shard.Close(), f.shard.Close()); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if _, err := f.apply(f.entry(1, map[string]string{"n": "1"})); !errors.Is(err, errClosed) {
		t.Errorf("Apply after Close answered %v", err)
	}
	if _, _, err := f.shard.Read(t.Context(), f.group, nil); !errors.Is(err, errClosed) {
		t.Errorf("Read after Close answered %v", err)
	}
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"sqlite:app.db": "app.db", "sqlite:///var/x.db": "/var/x.db", "sqlite:/var/x.db": "/var/x.db",
		"sqlite:": "", "sqlite::memory:": "", "sqlite:a.db?mode=ro": "", "sqlite:file:a.db": "", "app.db": "",
	} {
		if got, err := pathOf(url); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", url, got, err, want)
		}
	}
}
