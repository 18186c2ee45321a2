package disk

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/vfs"
)

func TestPrepareMakesOneSpareThatTheNextSegmentUses(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := mustOpen(t, small(fsys))
	must(t, j.Prepare())
	before := fsys.Changes()
	must(t, j.Prepare())
	if fsys.Changes() != before {
		t.Fatal("a second spare was made")
	}
	used := j.Usage().Bytes
	b := journaltest.NewBodies()
	fsys.SetFault(func(op vfs.Op) error {
		if op.Kind == "create" {
			return errors.New("the commit path made a file")
		}
		return nil
	})
	for len(j.Segments()) < 2 {
		appendN(t, j, b, 1, 5000)
	}
	if j.Usage().Bytes != used {
		t.Fatalf("the journal occupies %d bytes, with the spare it was %d", j.Usage().Bytes, used)
	}
}

func TestAFullJournalRefusesAndGoesOnWhenRoomIsMade(t *testing.T) {
	fsys := vfs.NewMem(1)
	opts := small(fsys)
	opts.BytesMax = 3 * opts.SegmentBytes
	j := mustOpen(t, opts)
	b := journaltest.NewBodies()
	var err error
	for err == nil {
		must(t, j.Prepare())
		_, err = j.Append(b.Next(5000, likes))
	}
	wantRefused(t, err, "journal_full")
	head := j.Head().Number
	if _, err := j.Read(head); err != nil {
		t.Fatalf("read from a full journal: %v", err)
	}
	must(t, j.Remove(1))
	if c, err := j.Append(journaltest.Resume(j.Streams()).Next(5000, likes)); err != nil || c.Number != head+1 {
		t.Fatalf("after trimming: commit %d, %v", c.Number, err)
	}
}

func TestAFullDiskRefusesAndGoesOnWhenRoomIsMade(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := mustOpen(t, small(fsys))
	fsys.SetCapacity(100 << 10)
	b := journaltest.NewBodies()
	var err error
	for err == nil {
		_, err = j.Append(b.Next(5000, likes))
	}
	wantRefused(t, err, "disk_full")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the cause is lost: %v", err)
	}
	wantRefused(t, j.Prepare(), "disk_full")
	if free := j.Usage().FreeDisk; free <= 0 || free >= 32<<10 {
		t.Fatalf("%d bytes are free", free)
	}
	fsys.SetCapacity(0)
	appendN(t, j, b, 3, 5000)
}

func wantRefused(t *testing.T, err error, reason string) {
	t.Helper()
	var e *sluice.Error
	if !errors.As(err, &e) || e.Code != sluice.Overloaded || e.Reason != reason || e.RetryAfter == 0 {
		t.Fatalf("want a refusal for %s, got %v", reason, err)
	}
}

func TestACommitThatFitsNoSegmentIsRefused(t *testing.T) {
	j := mustOpen(t, small(vfs.NewMem(1)))
	b := journaltest.NewBodies()
	_, err := j.Append(b.Next(40<<10, likes))
	if sluice.CodeOf(err) != sluice.TooLarge {
		t.Fatalf("got %v", err)
	}
	appendN(t, j, journaltest.NewBodies(), 1, 100)
}

func TestRecentCommitsStayInMemoryUpToTheLimit(t *testing.T) {
	fsys := vfs.NewMem(1)
	opts := small(fsys)
	opts.RecentBytesMax = 4 * (1000 + commitBytes)
	j := mustOpen(t, opts)
	all := appendN(t, j, journaltest.NewBodies(), 200, 900)
	reads := 0
	fsys.SetFault(func(op vfs.Op) error {
		if op.Kind == "read" {
			reads++
		}
		return nil
	})
	for _, want := range all {
		got, err := j.Read(want.Number)
		if err != nil || !bytes.Equal(got.Body, want.Body) {
			t.Fatalf("read %d: %v", want.Number, err)
		}
	}
	if reads < 190 || reads > 197 {
		t.Fatalf("%d of 200 commits were read from the disk", reads)
	}
}
