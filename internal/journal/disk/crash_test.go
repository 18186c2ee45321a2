package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/vfs"
)

// witness remembers what the outside world was told.
type witness struct {
	readable map[uint64]journal.Commit // acknowledged, or read by somebody
	forgot   map[uint64]bool           // a Remove of its segment was begun
	epoch    uint64
	catalog  []string // values that SaveFile was asked to save; the last may have failed
	saved    int      // so many of them were acknowledged
	bodies   *journaltest.Bodies
}

func newWitness() *witness {
	return &witness{readable: map[uint64]journal.Commit{}, forgot: map[uint64]bool{}, bodies: journaltest.NewBodies()}
}

func small(fsys *vfs.Mem) Options {
	o := onMem(fsys)
	o.SegmentBytes = 32 << 10
	return o
}

// live is a short life of a journal in which every file operation occurs. It
// ends at the first error.
func (w *witness) live(fsys *vfs.Mem) error {
	for round := range 3 {
		j, err := Open(small(fsys))
		if err != nil {
			return err
		}
		if err := w.work(j, round); err != nil {
			return err
		}
		if err := j.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (w *witness) work(j *Journal, round int) error {
	for i := range 6 {
		c, err := j.Append(w.bodies.Next([]int{100, 9000, 3000, 200, 12000, 50}[i], likes))
		if err != nil {
			return err
		}
		w.readable[c.Number] = c
		steps := []func() error{j.Prepare, j.SyncMark, w.epochOf(j), w.catalogOf(j, fmt.Sprint(round, i))}
		if err := steps[i%len(steps)](); err != nil {
			return err
		}
	}
	if segs := j.Segments(); round > 0 {
		for n := segs[0].First; n <= segs[0].Last; n++ {
			w.forgot[n] = true
		}
		return j.Remove(segs[0].First)
	}
	return nil
}

func (w *witness) epochOf(j *Journal) func() error {
	return func() error {
		e, err := j.NextEpoch()
		if err == nil && e <= w.epoch {
			return fmt.Errorf("epoch %d after %d", e, w.epoch)
		}
		w.epoch = max(w.epoch, e)
		return err
	}
}

func (w *witness) catalogOf(j *Journal, value string) func() error {
	return func() error {
		w.catalog = append(w.catalog, value)
		err := j.SaveFile("catalog", []byte(value))
		if err == nil {
			w.saved = len(w.catalog)
		}
		return err
	}
}

// check opens what a crash left and compares it with what was told.
func (w *witness) check(fsys *vfs.Mem) error {
	j, err := Open(small(fsys))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := w.compare(j); err != nil {
		return err
	}
	if e, err := j.NextEpoch(); err != nil || e <= w.epoch {
		return fmt.Errorf("epoch %d after %d, %v", e, w.epoch, err)
	}
	value, err := j.LoadFile("catalog")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if allowed := append([]string{""}, w.catalog...)[w.saved:]; !slices.Contains(allowed, string(value)) {
		return fmt.Errorf("catalog is %q, want one of %q", value, allowed)
	}
	if _, err := j.Append(journaltest.Resume(j.Streams()).Next(500, likes)); err != nil {
		return fmt.Errorf("append after the crash: %w", err)
	}
	if err := j.Close(); err != nil {
		return err
	}
	report, err := Verify(small(fsys), nil)
	if err == nil && (len(report.Damage) > 0 || report.Torn != nil) {
		err = fmt.Errorf("verify finds %+v, torn %+v", report.Damage, report.Torn)
	}
	return err
}

func (w *witness) compare(j *Journal) error {
	head := j.Head().Number
	for n, want := range w.readable {
		got, err := j.Read(n)
		var hole *journal.HoleError
		if errors.As(err, &hole) && w.forgot[n] {
			continue
		}
		if err != nil {
			return fmt.Errorf("commit %d was readable, now: %w (head %d)", n, err, head)
		}
		if got.Chain != want.Chain || !bytes.Equal(got.Body, want.Body) {
			return fmt.Errorf("commit %d has other bytes", n)
		}
	}
	for n := uint64(1); n <= head; n++ {
		c, err := j.Read(n)
		if err == nil {
			w.readable[n] = c
		} else if !w.forgot[n] {
			return fmt.Errorf("commit %d of %d: %w", n, head, err)
		}
	}
	if st := j.Stream(likes); st.Last != head || st.Writes != head {
		return fmt.Errorf("stream is %+v at head %d", st, head)
	}
	return nil
}

// TestJ1J2J3_CrashBetweenEveryPairOfOperations stops the machine in every file
// operation, by kill and by power cut, then in the recovery too, and looks
// whether anything that was told became untrue.
func TestJ1J2J3_CrashBetweenEveryPairOfOperations(t *testing.T) {
	whole := vfs.NewMem(1)
	must(t, newWitness().live(whole))
	operations := whole.Changes()
	if operations < 100 {
		t.Fatalf("only %d operations: the life is too short to show anything", operations)
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for at := 1; at <= operations; at += step {
		for _, how := range []string{"kill", "power", "power twice", "kill, power", "power in recovery"} {
			if err := crashOnce(at, how); err != nil {
				t.Fatalf("crash in operation %d of %d (%s): %v", at, operations, how, err)
			}
		}
	}
}

func crashOnce(at int, how string) error {
	seed := uint64(at)
	fsys := vfs.NewMem(seed)
	fsys.CrashAt(at)
	w := newWitness()
	if err := w.live(fsys); !errors.Is(err, vfs.ErrCrashed) {
		return fmt.Errorf("life ended with %w", err)
	}
	switch how {
	case "kill":
		return w.check(fsys.Kill(seed))
	case "power":
		return w.check(fsys.PowerCut(seed))
	case "power twice":
		after := fsys.PowerCut(seed + 1)
		if err := w.check(after); err != nil {
			return err
		}
		return w.check(after.PowerCut(seed))
	case "kill, power":
		// What the process after the kill could read must outlive a power cut
		// right after it opened.
		killed := fsys.Kill(seed)
		j, err := Open(small(killed))
		if err != nil {
			return err
		}
		if err := w.compare(j); err != nil {
			return err
		}
		return w.check(killed.PowerCut(seed))
	default:
		again := fsys.PowerCut(seed)
		again.CrashAt(1 + rand.New(rand.NewPCG(seed, 0)).IntN(12))
		if j, err := Open(small(again)); err == nil {
			if err := w.compare(j); err != nil {
				return err
			}
		} else if !errors.Is(err, vfs.ErrCrashed) {
			return err
		}
		return w.check(again.PowerCut(seed + 7))
	}
}

// segmentOp says whether a call is of one kind on a segment.
func segmentOp(op vfs.Op, kind string) bool {
	return op.Kind == kind && strings.HasSuffix(op.Name, segmentSuffix)
}

// unsyncedTail gives a disk on which commit 4 is whole in the page cache and
// nowhere else: its sync failed, and then the process died.
func unsyncedTail(t *testing.T, seed uint64) *vfs.Mem {
	t.Helper()
	fsys := vfs.NewMem(seed)
	j, err := Open(small(fsys))
	must(t, err)
	b := journaltest.NewBodies()
	appendN(t, j, b, 3, 3000)
	fsys.SetFault(func(op vfs.Op) error {
		if segmentOp(op, "sync") {
			return errors.New("input/output error")
		}
		return nil
	})
	if _, err := j.Append(b.Next(3000, likes)); err == nil {
		t.Fatal("the commit whose sync failed was acknowledged")
	}
	return fsys.Kill(seed)
}

// headAfterPowerCut opens, says which head could be read, cuts the power and
// says which head is there then; 0 when the journal is damaged.
func headAfterPowerCut(t *testing.T, fsys *vfs.Mem, seed uint64) (read, after uint64) {
	t.Helper()
	j, err := Open(small(fsys))
	must(t, err)
	read = j.Head().Number
	if _, err := j.Read(read); err != nil {
		t.Fatal(err)
	}
	fsys.SetFault(nil)
	if j, err = Open(small(fsys.PowerCut(seed))); err != nil {
		wantCorrupt(t, err, "the mark says")
		return read, 0
	}
	return read, j.Head().Number
}

func TestJ2_TheLastCommitIsWrittenAgainBeforeItIsRead(t *testing.T) {
	for seed := range uint64(20) {
		read, after := headAfterPowerCut(t, unsyncedTail(t, seed), seed)
		if read != 4 || after != 4 {
			t.Fatalf("seed %d: commit %d could be read, after the power cut the head is %d", seed, read, after)
		}
	}
}

// The defect is planted in the disk: it skips the write, and syncs all the same.
func TestJ2_PlantedDefect_WithoutTheWriteInPlaceAReadCommitIsLost(t *testing.T) {
	lost := false
	for seed := range uint64(20) {
		fsys := unsyncedTail(t, seed)
		fsys.SetFault(func(op vfs.Op) error {
			if segmentOp(op, "write") {
				return vfs.ErrSkip
			}
			return nil
		})
		read, after := headAfterPowerCut(t, fsys, seed)
		lost = lost || after < read
	}
	if !lost {
		t.Fatal("a sync alone was always enough: this test shows nothing")
	}
}

// flippedTail gives a disk whose last acknowledged commit has one flipped bit.
func flippedTail(t *testing.T, fsys *vfs.Mem) *vfs.Mem {
	t.Helper()
	j, err := Open(small(fsys))
	must(t, err)
	appendN(t, j, journaltest.NewBodies(), 3, 500)
	off, _ := j.segs[0].bounds(3)
	fsys.SetFault(nil)
	must(t, fsys.Flip(j.segs[0].path, off+100, 1))
	return fsys.Kill(1)
}

func TestJ3_AFlippedBitInTheLastCommitIsDamage(t *testing.T) {
	fsys := flippedTail(t, vfs.NewMem(1))
	_, err := Open(small(fsys))
	wantCorrupt(t, err, "the mark says that commit 3 was acknowledged")
	if got := fsys.Changes(); got != 0 {
		t.Fatalf("a start that found damage changed the disk: %d operations", got)
	}
}

func TestJ3_PlantedDefect_WithoutTheMarkTheLastCommitIsCutSilently(t *testing.T) {
	fsys := vfs.NewMem(1)
	fsys.SetFault(func(op vfs.Op) error {
		if op.Kind == "write" && strings.HasSuffix(op.Name, "/"+markFile) {
			return vfs.ErrSkip
		}
		return nil
	})
	j, err := Open(small(flippedTail(t, fsys)))
	if err != nil || j.Head().Number != 2 {
		t.Fatalf("want the acknowledged commit lost, got %v", err)
	}
}

func TestJ3_TheMarkOutlivesAPowerCutOnceItIsSynced(t *testing.T) {
	for seed := range uint64(10) {
		fsys := vfs.NewMem(seed)
		j, err := Open(small(fsys))
		must(t, err)
		appendN(t, j, journaltest.NewBodies(), 3, 500)
		must(t, j.SyncMark())
		off, _ := j.segs[0].bounds(3)
		cut := fsys.PowerCut(seed)
		must(t, cut.Flip(j.segs[0].path, off+100, 1))
		_, err = Open(small(cut))
		wantCorrupt(t, err, "the mark says")
	}
}

func TestJ3_ATornMarkIsHarmless(t *testing.T) {
	for slot := range int64(markSlots) {
		fsys := vfs.NewMem(1)
		j, err := Open(small(fsys))
		must(t, err)
		appendN(t, j, journaltest.NewBodies(), 4, 500)
		fsys = fsys.Kill(1)
		must(t, fsys.Flip("/journal/"+markFile, slot*blockBytes+33, 0xff))
		j, err = Open(small(fsys))
		must(t, err)
		if j.Head().Number != 4 {
			t.Fatalf("head is %d", j.Head().Number)
		}
	}
}

func TestJ3_ABadCommitBeforeAValidOneIsDamage(t *testing.T) {
	fsys := vfs.NewMem(1)
	j, err := Open(small(fsys))
	must(t, err)
	appendN(t, j, journaltest.NewBodies(), 4, 500)
	off, _ := j.segs[0].bounds(2)
	fsys = fsys.Kill(1)
	must(t, fsys.Remove("/journal/"+markFile)) // no mark vouches
	for i := range int64(blockBytes) {         // the whole commit reads as zeros: a lost write
		f, err := fsys.Open(j.segs[0].path)
		must(t, err)
		var b [1]byte
		_, err = f.ReadAt(b[:], off+i)
		must(t, err)
		must(t, fsys.Flip(j.segs[0].path, off+i, b[0]))
	}
	_, err = Open(small(fsys))
	wantCorrupt(t, err, "commit 3 behind it is whole")
}

func TestJ4_EveryFailureOfTheCommitPathPoisons(t *testing.T) {
	for _, c := range []struct{ kind, suffix string }{
		{"write", segmentSuffix}, {"sync", segmentSuffix}, {"write", markFile}, {"sync", markFile},
	} {
		t.Run(c.kind+" "+c.suffix, func(t *testing.T) {
			fsys := vfs.NewMem(1)
			j := mustOpen(t, small(fsys))
			b := journaltest.NewBodies()
			appendN(t, j, b, 1, 500)
			broken := errors.New("input/output error")
			failed := 0
			fsys.SetFault(func(op vfs.Op) error {
				if op.Kind == c.kind && strings.HasSuffix(op.Name, c.suffix) {
					failed++
					return broken
				}
				return nil
			})
			_, err := j.Append(b.Next(500, likes))
			if err == nil {
				err = j.SyncMark()
			}
			if !errors.Is(err, broken) {
				t.Fatalf("got %v", err)
			}
			fsys.SetFault(nil)
			if _, err := j.Append(b.Next(500, likes)); !errors.Is(err, broken) || failed != 1 {
				t.Fatalf("after the failure: %v, %d attempts", err, failed)
			}
			for what, err := range map[string]error{"prepare": j.Prepare(), "sync mark": j.SyncMark(), "save": j.SaveFile("a", nil)} {
				if !errors.Is(err, broken) {
					t.Errorf("%s after the failure: %v", what, err)
				}
			}
		})
	}
}
