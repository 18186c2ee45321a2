package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"sluice.dev/sluice/internal/vfs"
)

// both runs a case on the real file system and on the one in memory.
func both(t *testing.T, f func(t *testing.T, fs vfs.FS, dir string)) {
	t.Run("os", func(t *testing.T) { f(t, vfs.OS{}, t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		m := vfs.NewMem(1)
		must(t, m.MkdirAll("/data"))
		f(t, m, "/data")
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, f vfs.File, off int64, text string) {
	t.Helper()
	if _, err := f.WriteAt([]byte(text), off); err != nil {
		t.Fatal(err)
	}
}

// content reads a whole file; "" when it is not there.
func content(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !(size == 0 && err == io.EOF) {
		t.Fatal(err)
	}
	return string(b)
}

func TestFilesAreWrittenReadRenamedAndListed(t *testing.T) {
	both(t, func(t *testing.T, fsys vfs.FS, dir string) {
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		f, err := fsys.Create(a)
		must(t, err)
		must(t, f.Allocate(8))
		write(t, f, 2, "xy")
		must(t, f.Sync())
		must(t, f.Close())
		must(t, fsys.Rename(a, b))
		must(t, fsys.SyncDir(dir))
		if got := content(t, fsys, b); got != "\x00\x00xy\x00\x00\x00\x00" {
			t.Fatalf("content is %q", got)
		}
		names, err := fsys.List(dir)
		must(t, err)
		if !slices.Equal(names, []string{"b"}) {
			t.Fatalf("files are %v", names)
		}
		must(t, fsys.Remove(b))
		if _, err := fsys.Open(b); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("open of a removed file: %v", err)
		}
		if free, err := fsys.Free(dir); err != nil || free <= 0 {
			t.Fatalf("free space %d, %v", free, err)
		}
	})
}

func TestReadPastTheEndIsEOF(t *testing.T) {
	both(t, func(t *testing.T, fsys vfs.FS, dir string) {
		f, err := fsys.Create(filepath.Join(dir, "a"))
		must(t, err)
		write(t, f, 0, "abc")
		b := make([]byte, 5)
		if n, err := f.ReadAt(b, 1); n != 2 || err != io.EOF {
			t.Fatalf("read %d, %v", n, err)
		}
		if n, err := f.ReadAt(b, 9); n != 0 || err != io.EOF {
			t.Fatalf("read %d, %v", n, err)
		}
		must(t, f.Close())
		if _, err := f.ReadAt(b, 0); !errors.Is(err, fs.ErrClosed) {
			t.Fatalf("read after close: %v", err)
		}
	})
}

func TestAFileOpenedForReadingIsNotWritten(t *testing.T) {
	both(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a")
		f, err := fsys.Create(name)
		must(t, err)
		must(t, f.Close())
		f, err = fsys.Open(name)
		must(t, err)
		defer f.Close()
		if _, err := f.WriteAt([]byte("x"), 0); err == nil {
			t.Fatal("a read-only file was written")
		}
	})
}

func TestTheLockIsForOne(t *testing.T) {
	both(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		l, err := fsys.Lock(name)
		must(t, err)
		if _, err := fsys.Lock(name); !errors.Is(err, vfs.ErrLocked) {
			t.Fatalf("second lock: %v", err)
		}
		must(t, l.Close())
		l, err = fsys.Lock(name)
		must(t, err)
		must(t, l.Close())
	})
}

// script makes a file with a synced and an unsynced part.
func script(t *testing.T, m *vfs.Mem) vfs.File {
	t.Helper()
	f, err := m.Create("/f")
	must(t, err)
	must(t, m.SyncDir("/"))
	write(t, f, 0, string(bytes.Repeat([]byte("a"), 2048)))
	must(t, f.Sync())
	write(t, f, 0, string(bytes.Repeat([]byte("b"), 2048)))
	return f
}

func TestAPowerCutTearsAndReordersSectors(t *testing.T) {
	m := vfs.NewMem(1)
	script(t, m)
	seen := map[string]bool{}
	for seed := range uint64(64) {
		got := content(t, m.PowerCut(seed), "/f")
		shape := ""
		for s := 0; s < 4; s++ {
			sector := got[s*512 : s*512+512]
			if sector != string(bytes.Repeat([]byte{sector[0]}, 512)) {
				t.Fatalf("a sector is torn: %q", sector)
			}
			shape += sector[:1]
		}
		seen[shape] = true
	}
	if !seen["baba"] && !seen["aabb"] || len(seen) < 8 {
		t.Fatalf("too few ways to be cut: %v", seen)
	}
}

func TestAKillKeepsWhatWasNotSyncedUntilThePowerGoes(t *testing.T) {
	m := vfs.NewMem(1)
	script(t, m)
	killed := m.Kill(2)
	if got := content(t, killed, "/f"); got[0] != 'b' || got[2047] != 'b' {
		t.Fatal("a kill lost a write")
	}
	lost := false
	for seed := range uint64(16) {
		lost = lost || content(t, killed.PowerCut(seed), "/f")[0] == 'a'
	}
	if !lost {
		t.Fatal("no power cut after the kill lost the unsynced write")
	}
}

func TestNamesNeedADirectorySync(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(32) {
		m := vfs.NewMem(seed)
		f, err := m.Create("/new")
		must(t, err)
		write(t, f, 0, "new")
		must(t, f.Sync())
		must(t, m.Rename("/new", "/name"))
		cut := m.PowerCut(seed)
		outcomes[content(t, cut, "/new")+"|"+content(t, cut, "/name")] = true
		must(t, m.SyncDir("/"))
		if got := content(t, m.PowerCut(seed), "/name"); got != "new" {
			t.Fatalf("a synced rename was lost: %q", got)
		}
	}
	for _, want := range []string{"|", "new|", "|new"} {
		if !outcomes[want] {
			t.Fatalf("no power cut gave %q: %v", want, outcomes)
		}
	}
}

func TestAFailedSyncIsNotMadeGoodByTheNext(t *testing.T) {
	lost := false
	for seed := range uint64(16) {
		m := vfs.NewMem(seed)
		f := script(t, m)
		fail := errors.New("EIO")
		m.SetFault(func(op vfs.Op) error {
			if op.Kind == "sync" {
				return fail
			}
			return nil
		})
		if err := f.Sync(); !errors.Is(err, fail) {
			t.Fatalf("sync: %v", err)
		}
		m.SetFault(nil)
		must(t, f.Sync())
		lost = lost || content(t, m.PowerCut(seed), "/f")[0] == 'a'
	}
	if !lost {
		t.Fatal("a second sync always brought back what the first lost")
	}
}

func TestACrashStopsTheMachineInTheCall(t *testing.T) {
	m := vfs.NewMem(1)
	m.CrashAt(3)
	f, err := m.Create("/f")
	must(t, err)
	write(t, f, 0, "one")
	if _, err := f.WriteAt([]byte("two"), 0); !errors.Is(err, vfs.ErrCrashed) {
		t.Fatalf("the third call: %v", err)
	}
	if _, err := m.Open("/f"); !errors.Is(err, vfs.ErrCrashed) {
		t.Fatalf("after the crash: %v", err)
	}
	if m.Changes() != 3 {
		t.Fatalf("counted %d changes", m.Changes())
	}
}

func TestAFullDiskRefuses(t *testing.T) {
	m := vfs.NewMem(1)
	m.SetCapacity(1000)
	f, err := m.Create("/f")
	must(t, err)
	must(t, f.Allocate(900))
	if free, _ := m.Free("/"); free != 100 {
		t.Fatalf("%d bytes free", free)
	}
	if _, err := f.WriteAt(make([]byte, 200), 850); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write over the end: %v", err)
	}
	write(t, f, 0, "inside")
}

func TestTheSameSeedGivesTheSameDisk(t *testing.T) {
	run := func() string {
		m := vfs.NewMem(7)
		script(t, m)
		return content(t, m.PowerCut(9), "/f")
	}
	if a, b := run(), run(); a != b {
		t.Fatal("two runs differ")
	}
}

func TestASkippedCallReportsSuccess(t *testing.T) {
	m := vfs.NewMem(1)
	f, err := m.Create("/f")
	must(t, err)
	write(t, f, 0, "old")
	m.SetFault(func(op vfs.Op) error { return vfs.ErrSkip })
	write(t, f, 0, "new")
	m.SetFault(nil)
	if got := content(t, m, "/f"); got != "old" {
		t.Fatalf("content is %q", got)
	}
	must(t, m.Flip("/f", 0, 1))
	if got := content(t, m, "/f"); got != "nld" {
		t.Fatalf("after a flip: %q", got)
	}
}
