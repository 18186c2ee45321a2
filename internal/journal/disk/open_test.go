package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/vfs"
)

func TestASecondProcessIsRefused(t *testing.T) {
	for name, opts := range map[string]Options{
		"mem": small(vfs.NewMem(1)),
		"os":  {Dir: filepath.Join(t.TempDir(), "journal"), SegmentBytes: testSegmentBytes},
	} {
		t.Run(name, func(t *testing.T) {
			j := mustOpen(t, opts)
			_, err := Open(opts)
			if !errors.Is(err, vfs.ErrLocked) || !strings.Contains(err.Error(), "in use by another process") {
				t.Fatalf("second open: %v", err)
			}
			if _, err := Adopt(opts, Seen{}); !errors.Is(err, vfs.ErrLocked) {
				t.Fatalf("adopt of an open journal: %v", err)
			}
			must(t, j.Close())
			mustOpen(t, opts)
		})
	}
}

// overwrite changes bytes of a file and the checksum behind them.
func overwrite(t *testing.T, fsys vfs.FS, path string, off int64, b []byte, sumAt int64) {
	t.Helper()
	f, err := fsys.OpenRW(path)
	must(t, err)
	_, err = f.WriteAt(b, off)
	must(t, err)
	if sumAt > 0 {
		head := make([]byte, sumAt)
		_, err = f.ReadAt(head, 0)
		must(t, err)
		_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, xxhash.Sum64(head)), sumAt)
		must(t, err)
	}
	must(t, f.Close())
}

// overwriteMark changes the format of the slot that the first commit writes.
func overwriteMark(t *testing.T, fsys vfs.FS, format []byte) {
	t.Helper()
	f, err := fsys.OpenRW("/journal/" + markFile)
	must(t, err)
	b := make([]byte, markBytes)
	_, err = f.ReadAt(b, blockBytes)
	must(t, err)
	copy(b[8:], format)
	binary.LittleEndian.PutUint64(b[markSumAt:], xxhash.Sum64(b[:markSumAt]))
	_, err = f.WriteAt(b, blockBytes)
	must(t, err)
	must(t, f.Close())
}

func TestAFormatOfTheFutureIsRefusedByName(t *testing.T) {
	newer := appendU32(nil, Format+1)
	for name, plant := range map[string]func(fsys *vfs.Mem){
		"segment": func(fsys *vfs.Mem) {
			overwrite(t, fsys, "/journal/"+segmentName(1), 8, newer, segmentSumAt)
		},
		"mark": func(fsys *vfs.Mem) {
			overwriteMark(t, fsys, newer)
		},
		"file": func(fsys *vfs.Mem) {
			data, err := readFile(fsys, "/journal", identityFile)
			must(t, err)
			b := envelope(identityFile, data)
			copy(b[8:], newer)
			binary.LittleEndian.PutUint64(b[24:], savedSum(identityFile, b[:24], data))
			overwrite(t, fsys, "/journal/"+identityFile, 0, b, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := vfs.NewMem(1)
			j := mustOpen(t, small(fsys))
			appendN(t, j, journaltest.NewBodies(), 1, 100)
			must(t, j.Close())
			plant(fsys)
			before := fsys.Changes()
			_, err := Open(small(fsys))
			want := fmt.Sprintf("this %s has format 2 and this build of Sluice reads formats up to 1", name)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("want %q, got %v", want, err)
			}
			if _, err := Verify(small(fsys), nil); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("verify: %v", err)
			}
			if fsys.Changes() != before {
				t.Fatal("the refused journal was changed")
			}
		})
	}
}

func TestDamageIsToldWithFileOffsetGotAndWant(t *testing.T) {
	for _, c := range []struct {
		name  string
		plant func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment)
		want  string
	}{
		{"segment header", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Flip("/journal/"+segmentName(segs[1].First), 40, 1))
		}, "over the header"},
		{"segment missing", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Remove("/journal/"+segmentName(segs[1].First)))
		}, "here or in the next file"},
		{"first segment missing", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Remove("/journal/"+segmentName(1)))
		}, "got no file, want commits 1 to"},
		{"last segment missing", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Remove("/journal/"+segmentName(segs[len(segs)-1].First)))
		}, "the mark says"},
		{"identity missing", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Remove("/journal/"+identityFile))
		}, "got no file, want the identity"},
		{"identity", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Flip("/journal/"+identityFile, 40, 1))
		}, "checksum"},
		{"checkpoint", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Flip("/journal/"+checkpointFile, 40, 1))
		}, "checksum"},
		{"epoch", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Flip("/journal/"+epochFile, 33, 1))
		}, "checksum"},
		{"sealed segment without an index", func(t *testing.T, fsys *vfs.Mem, segs []journal.Segment) {
			must(t, fsys.Remove("/journal/"+indexName(segs[1].First)))
			must(t, fsys.Flip("/journal/"+segmentName(segs[1].First), 2*blockBytes, 1))
		}, "checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys, segs := trimmedJournal(t)
			c.plant(t, fsys, segs)
			_, err := Open(small(fsys))
			wantCorrupt(t, err, c.want)
			if _, err := Verify(small(fsys), nil); err != nil {
				t.Fatalf("verify stops at damage: %v", err)
			}
		})
	}
}

// trimmedJournal is a closed journal of five segments of which the third was
// removed; the four that are left are answered.
func trimmedJournal(t *testing.T) (*vfs.Mem, []journal.Segment) {
	t.Helper()
	fsys := vfs.NewMem(1)
	j := mustOpen(t, small(fsys))
	b := journaltest.NewBodies()
	for len(j.Segments()) < 5 {
		appendN(t, j, b, 1, 5000)
	}
	appendN(t, j, b, 1, 5000)
	_, err := j.NextEpoch()
	must(t, err)
	must(t, j.Remove(j.Segments()[2].First))
	segs := j.Segments()
	must(t, j.Close())
	return fsys, segs
}

func TestASealedCommitIsCheckedWhenItIsRead(t *testing.T) {
	fsys, segs := trimmedJournal(t)
	must(t, fsys.Flip("/journal/"+segmentName(segs[1].First), 2*blockBytes, 1))
	j := mustOpen(t, small(fsys)) // the index spares the start from reading it
	_, err := j.Read(segs[1].First)
	wantCorrupt(t, err, "checksum")
	if _, err := j.Read(segs[1].First + 1); err != nil {
		t.Fatalf("its neighbour: %v", err)
	}
}

func TestAMissingIndexCostsOnlyTime(t *testing.T) {
	fsys, segs := trimmedJournal(t)
	for _, s := range segs[:len(segs)-1] {
		must(t, fsys.Remove("/journal/"+indexName(s.First)))
	}
	j := mustOpen(t, small(fsys))
	for i, got := range j.Segments() {
		want := segs[i]
		if got.First != want.First || got.Last != want.Last || fmt.Sprint(got.Streams) != fmt.Sprint(want.Streams) {
			t.Fatalf("segment %+v, want %+v", got, want)
		}
	}
	must(t, j.Prepare())
	for _, s := range segs[:len(segs)-1] {
		if _, err := readFile(fsys, "/journal", indexName(s.First)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatAKillLeftBehindIsRemoved(t *testing.T) {
	fsys, _ := trimmedJournal(t)
	for _, name := range []string{spareFile, "catalog" + savedSuffix + tempSuffix, indexName(77)} {
		f, err := fsys.Create("/journal/" + name)
		must(t, err)
		must(t, f.Close())
	}
	mustOpen(t, small(fsys))
	names, err := fsys.List("/journal")
	must(t, err)
	if all := strings.Join(names, " "); strings.Contains(all, tempSuffix) || strings.Contains(all, indexName(77)) {
		t.Fatalf("files are %s", all)
	}
}

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

func TestFilesAreReplacedWhole(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := mustOpen(t, small(fsys))
	if _, err := j.LoadFile("catalog"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load of what was never saved: %v", err)
	}
	for _, text := range []string{"one", "", "three"} {
		must(t, j.SaveFile("catalog", []byte(text)))
		got, err := j.LoadFile("catalog")
		if err != nil || string(got) != text {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	for _, name := range []string{"", "../x", "a.b", "identity", "epoch", "checkpoint", "A"} {
		if err := j.SaveFile(name, nil); err == nil {
			t.Errorf("%q was taken as a name", name)
		}
	}
	must(t, fsys.Rename("/journal/catalog"+savedSuffix, "/journal/other"+savedSuffix))
	_, err := j.LoadFile("other")
	wantCorrupt(t, err, "checksum")
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

// TestReadersDoNotWaitForASync holds a commit's sync and reads meanwhile.
func TestReadersDoNotWaitForASync(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := mustOpen(t, small(fsys))
	b := journaltest.NewBodies()
	appendN(t, j, b, 2, 500)
	entered, release := make(chan bool), make(chan bool)
	fsys.SetFault(func(op vfs.Op) error {
		if segmentOp(op, "sync") {
			entered <- true
			<-release
		}
		return nil
	})
	done := make(chan error)
	go func() {
		_, err := j.Append(b.Next(500, likes))
		done <- err
	}()
	select {
	case <-entered:
	case err := <-done:
		t.Fatalf("the commit was not synced: %v", err)
	}
	if _, err := j.Read(1); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Read(3); !errors.Is(err, journal.ErrNotYet) {
		t.Fatalf("a commit could be read before it was durable: %v", err)
	}
	if got := j.Stream(likes).Last; got != 2 || j.Head().Number != 2 {
		t.Fatalf("stream at %d, head %d", got, j.Head().Number)
	}
	release <- true
	must(t, <-done)
	fsys.SetFault(nil)
}

// TestJ1_NothingAClientSendsLooksLikeACommit builds a record from all that a
// client can learn, which is everything but the salt.
func TestJ1_NothingAClientSendsLooksLikeACommit(t *testing.T) {
	j := mustOpen(t, small(vfs.NewMem(1)))
	stranger := key{id: j.key.id, salt: j.key.salt + 1}
	r := record{number: 9, body: []byte("body")}
	b := stranger.encode(make([]byte, 2*blockBytes), &r)
	head, n, bad := j.key.header(b)
	if bad != nil {
		t.Fatal(bad.got)
	}
	if j.key.verify(&head, b[:recordHeaderBytes], b[recordHeaderBytes:recordHeaderBytes+n]) == nil {
		t.Fatal("a record made without the salt was taken")
	}
}

var golden = flag.Bool("golden", false, "write testdata/format1 anew")

// TestFormat1StaysReadable opens a journal that was written when format 1 was new.
func TestFormat1StaysReadable(t *testing.T) {
	const kept = "testdata/format1"
	if *golden {
		writeGolden(t, kept)
	}
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(kept)))
	opts := Options{Dir: dir, SegmentBytes: segmentBytesMin}
	report, err := Verify(opts, nil)
	must(t, err)
	if len(report.Damage) > 0 || report.Commits != 4 || report.Mark != 6 {
		t.Fatalf("report %+v", report)
	}
	j := mustOpen(t, opts)
	b := journaltest.NewBodies()
	for n := uint64(1); n <= 6; n++ {
		body := b.Next(5000, likes)
		c, err := j.Read(n)
		var hole *journal.HoleError
		if n <= 2 && errors.As(err, &hole) {
			continue
		}
		if err != nil || !bytes.Equal(c.Body, body) {
			t.Fatalf("commit %d: %v", n, err)
		}
	}
	if got := j.Head(); got.Chain != goldenChain {
		t.Fatalf("chain is %#x", got.Chain)
	}
	if got := j.Stream(likes); got != (journal.StreamState{Last: 6, Writes: 6, Removed: 2}) {
		t.Fatalf("stream is %+v", got)
	}
	if e, err := j.NextEpoch(); err != nil || e != epochStep+1 {
		t.Fatalf("epoch %d, %v", e, err)
	}
	if text, err := j.LoadFile("catalog"); err != nil || string(text) != "a catalog" {
		t.Fatalf("catalog %q, %v", text, err)
	}
}

const goldenChain = 0xeb29c3cff95d8be4

// writeGolden makes three segments, one of them trimmed.
func writeGolden(t *testing.T, dir string) {
	must(t, os.RemoveAll(dir))
	opts := Options{Dir: dir, SegmentBytes: segmentBytesMin, Random: strings.NewReader("sluice, format one, 2026"),
		Now: func() time.Time { return time.Unix(1_790_000_000, 0) }}
	j := mustOpen(t, opts)
	b := journaltest.NewBodies()
	appendN(t, j, b, 6, 5000) // two blocks each: one to a segment of four blocks
	for _, s := range j.Segments()[:2] {
		must(t, j.Remove(s.First))
	}
	_, err := j.NextEpoch()
	must(t, err)
	must(t, j.SaveFile("catalog", []byte("a catalog")))
	must(t, j.Close())
	must(t, os.Remove(filepath.Join(dir, lockFile)))
	t.Logf("chain %#x", j.head.Chain)
}
