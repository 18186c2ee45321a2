package disk

import (
	"bytes"
	"errors"
	"testing"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/vfs"
)

// FuzzOpen changes bytes of a segment, of its index, or of the small files, and
// opens the journal. Whatever stands there, nothing panics, and what can be
// read is what was written.
func FuzzOpen(f *testing.F) {
	fsys := vfs.NewMem(1)
	j, err := Open(small(fsys))
	if err != nil {
		f.Fatal(err)
	}
	b := journaltest.NewBodies()
	var all []journal.Commit
	for range 14 {
		c, err := j.Append(b.Next(3000, likes))
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, c)
	}
	if err := errors.Join(j.Prepare(), j.Remove(1), j.Close()); err != nil {
		f.Fatal(err)
	}
	names, err := fsys.List("/journal")
	if err != nil {
		f.Fatal(err)
	}
	for i := range names {
		f.Add(byte(i), uint32(40), []byte{1, 2, 3, 4, 5, 6, 7, 8}, false)
		f.Add(byte(i), uint32(4096), make([]byte, 64), true)
	}
	f.Fuzz(func(t *testing.T, file byte, off uint32, with []byte, noMark bool) {
		fsys := fsys.Kill(1)
		path := "/journal/" + names[int(file)%len(names)]
		if w, err := fsys.OpenRW(path); err == nil {
			size, _ := w.Size()
			if _, err := w.WriteAt(with, int64(off)%(size+1)); err != nil {
				t.Fatal(err)
			}
		}
		if noMark {
			must(t, fsys.Remove("/journal/"+markFile))
		}
		if _, err := Verify(small(fsys), nil); err != nil && path == "" {
			t.Fatal(err)
		}
		j, err := Open(small(fsys))
		if err != nil {
			return
		}
		defer j.Close()
		for _, want := range all {
			got, err := j.Read(want.Number)
			if err == nil && (got.Chain != want.Chain || !bytes.Equal(got.Body, want.Body)) {
				t.Fatalf("commit %d reads as something else", want.Number)
			}
		}
	})
}

// FuzzSegment opens a journal whose only segment is arbitrary bytes behind a
// right header: no record in it can be valid.
func FuzzSegment(f *testing.F) {
	k := key{salt: 7}
	r := record{number: 1, body: []byte{1}}
	f.Add(k.encode(make([]byte, blockBytes), &r))
	f.Add([]byte(recordMagic))
	f.Fuzz(func(t *testing.T, bytes []byte) {
		fsys := vfs.NewMem(1)
		j, err := Open(small(fsys))
		must(t, err)
		must(t, j.Close())
		w, err := fsys.OpenRW("/journal/" + segmentName(1))
		must(t, err)
		_, err = w.WriteAt(bytes, blockBytes)
		must(t, err)
		must(t, w.Close())
		j, err = Open(small(fsys))
		must(t, err)
		defer j.Close()
		if j.Head().Number != 0 {
			t.Fatal("arbitrary bytes were read as a commit")
		}
		appendN(t, j, journaltest.NewBodies(), 2, 3000)
		must(t, j.Close())
		if report, err := Verify(small(fsys), nil); err != nil || len(report.Damage) > 0 || report.Torn != nil {
			t.Fatalf("after the cut: %+v, %v", report, err)
		}
	})
}
