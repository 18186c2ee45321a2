package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

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

func TestAnIndexOfAnotherFileIsNotBelieved(t *testing.T) {
	fsys, segs := trimmedJournal(t)
	s := segs[0]
	path := "/journal/" + segmentName(s.First)
	f, err := fsys.OpenRW(path)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 3*2*blockBytes), int64(s.Last-s.First-2)*2*blockBytes+blockBytes)
	must(t, err)
	must(t, f.Close())
	_, err = Open(small(fsys))
	wantCorrupt(t, err, "here or in the next file")
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

// TestJ1_ACommitProvesItsHistory puts a whole commit of the right number into
// the place of another: same journal, other history.
func TestJ1_ACommitProvesItsHistory(t *testing.T) {
	var disks [2]*vfs.Mem
	for i := range disks {
		disks[i] = vfs.NewMem(1)
		j := mustOpen(t, small(disks[i])) // the same identity, since its randomness is the same
		b := journaltest.NewBodies()
		b.Next(i+1, likes)
		for range i {
			b.Next(10, likes)
		}
		appendN(t, j, b, 3, 500)
		must(t, j.Close())
	}
	path := "/journal/" + segmentName(1)
	f, err := disks[1].Open(path)
	must(t, err)
	second := make([]byte, blockBytes)
	_, err = f.ReadAt(second, 2*blockBytes)
	must(t, err)
	overwrite(t, disks[0], path, 2*blockBytes, second, 0)
	_, err = Open(small(disks[0]))
	wantCorrupt(t, err, "commit 2 after chain")
}

func TestACommitLargerThanAnEmptySegmentGetsALargerOne(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := mustOpen(t, small(fsys))
	must(t, j.Close())
	opts := small(fsys)
	opts.SegmentBytes *= 4
	j = mustOpen(t, opts)
	all := appendN(t, j, journaltest.NewBodies(), 2, 50<<10)
	if segs := j.Segments(); len(segs) != 1 || segs[0].Bytes != opts.SegmentBytes {
		t.Fatalf("segments %+v", segs)
	}
	must(t, j.Close())
	j = mustOpen(t, opts)
	if got := j.Head(); got.Number != 2 || got.Chain != all[1].Chain {
		t.Fatalf("head %+v", got)
	}
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
