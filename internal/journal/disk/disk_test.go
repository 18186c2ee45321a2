package disk

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/vfs"
)

const testSegmentBytes = 64 << 10

// onMem gives options on a disk in memory that keep little in memory, so that
// reads come from the files.
func onMem(fsys *vfs.Mem) Options {
	return Options{Dir: "/journal", FS: fsys, SegmentBytes: testSegmentBytes, RecentBytesMax: 1, Random: strings.NewReader(strings.Repeat("sluice! ", 3))}
}

func mustOpen(t *testing.T, opts Options) *Journal {
	t.Helper()
	j, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestJournal runs the suite on both file systems.
func TestJournal(t *testing.T) {
	t.Run("mem", func(t *testing.T) {
		reopen := func(t *testing.T, j journal.Journal) journal.Journal {
			must(t, j.Close())
			return mustOpen(t, onMem(j.(*Journal).opts.FS.(*vfs.Mem)))
		}
		journaltest.Run(t, journaltest.Harness{
			New:    func(t *testing.T) journal.Journal { return mustOpen(t, onMem(vfs.NewMem(1))) },
			Reopen: reopen,
			Crash: func(t *testing.T, j journal.Journal) journal.Journal {
				return mustOpen(t, onMem(j.(*Journal).opts.FS.(*vfs.Mem).Kill(2)))
			},
			FailSync: failSync,
		})
	})
	t.Run("os", func(t *testing.T) {
		options := func(dir string) Options {
			return Options{Dir: dir, SegmentBytes: testSegmentBytes, RecentBytesMax: 20000}
		}
		reopen := func(t *testing.T, j journal.Journal) journal.Journal {
			must(t, j.Close())
			return mustOpen(t, options(j.(*Journal).opts.Dir))
		}
		journaltest.Run(t, journaltest.Harness{
			New:    func(t *testing.T) journal.Journal { return mustOpen(t, options(filepath.Join(t.TempDir(), "journal"))) },
			Reopen: reopen,
			Crash: func(t *testing.T, j journal.Journal) journal.Journal {
				// The kernel lets the lock of a killed process go.
				must(t, j.(*Journal).lock.Close())
				return mustOpen(t, options(j.(*Journal).opts.Dir))
			},
			FailSync: func(t *testing.T, j journal.Journal, err error) {
				j.(*Journal).file = failingFile{j.(*Journal).file, err}
			},
		})
	})
}

func failSync(t *testing.T, j journal.Journal, err error) {
	j.(*Journal).opts.FS.(*vfs.Mem).SetFault(func(op vfs.Op) error {
		if op.Kind == "sync" && strings.HasSuffix(op.Name, segmentSuffix) {
			return err
		}
		return nil
	})
}

type failingFile struct {
	vfs.File
	err error
}

func (f failingFile) Sync() error { return f.err }

var likes = journal.Stream{Group: 1, Partition: 7}

func appendN(t *testing.T, j *Journal, b *journaltest.Bodies, n, size int) []journal.Commit {
	t.Helper()
	var out []journal.Commit
	for range n {
		c, err := j.Append(b.Next(size, likes))
		must(t, err)
		out = append(out, c)
	}
	return out
}

func wantCorrupt(t *testing.T, err error, part string) {
	t.Helper()
	var c *journal.CorruptError
	if !errors.As(err, &c) {
		t.Fatalf("want damage, got %v", err)
	}
	if !strings.Contains(c.Error(), part) {
		t.Fatalf("%q does not say %q", c.Error(), part)
	}
}
