package disk

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/journaltest"
)

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
