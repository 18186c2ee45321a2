package disk

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/vfs"
)

// adoptable is a closed journal of several segments, and what it holds.
func adoptable(t *testing.T) (*vfs.Mem, []journal.Segment, []journal.Commit) {
	t.Helper()
	fsys := vfs.NewMem(1)
	j := mustOpen(t, small(fsys))
	var all []journal.Commit
	b := journaltest.NewBodies()
	for len(j.Segments()) < 4 {
		all = append(all, appendN(t, j, b, 1, 3000)...)
	}
	all = append(all, appendN(t, j, b, 2, 3000)...)
	_, err := j.NextEpoch()
	must(t, err)
	segs := j.Segments()
	must(t, j.Close())
	return fsys, segs, all
}

func flipCommit(t *testing.T, fsys *vfs.Mem, segs []journal.Segment, n uint64) {
	t.Helper()
	for _, s := range segs {
		if s.First <= n && n <= s.Last {
			must(t, fsys.Flip("/journal/"+segmentName(s.First), int64(1+(n-s.First))*blockBytes+200, 4))
			return
		}
	}
	t.Fatalf("no commit %d", n)
}

// wantAdopted opens an adopted journal: commits in lost answer a lost hole, all
// others their bytes, and it goes on at next.
func wantAdopted(t *testing.T, fsys *vfs.Mem, all []journal.Commit, lost func(n uint64) bool, next uint64) *Journal {
	t.Helper()
	j := mustOpen(t, small(fsys))
	for _, want := range all {
		got, err := j.Read(want.Number)
		var hole *journal.HoleError
		switch {
		case !lost(want.Number) && (err != nil || got.Chain != want.Chain || string(got.Body) != string(want.Body)):
			t.Fatalf("commit %d, which was whole: %v", want.Number, err)
		case lost(want.Number) && (!errors.As(err, &hole) || !hole.Lost):
			t.Fatalf("commit %d, which was lost: %v", want.Number, err)
		}
	}
	c, err := j.Append(journaltest.Resume(j.Streams()).Next(100, likes))
	must(t, err)
	if c.Number != next {
		t.Fatalf("the journal goes on at %d, want %d", c.Number, next)
	}
	if e, err := j.NextEpoch(); err != nil || e != epochEra {
		t.Fatalf("epoch %d, %v", e, err)
	}
	must(t, j.Close())
	report, err := Verify(small(fsys), nil)
	must(t, err)
	if len(report.Damage) > 0 {
		t.Fatalf("damage is left: %+v", report.Damage)
	}
	return mustOpen(t, small(fsys))
}

func TestAdoptKeepsWhatIsBehindADamagedCommit(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		fsys, segs, all := adoptable(t)
		bad := segs[1].First + 2
		if !sealed {
			bad = segs[len(segs)-1].First
		}
		flipCommit(t, fsys, segs, bad)
		report, err := Verify(small(fsys), nil)
		must(t, err)
		if len(report.Damage) != 1 || report.Damage[0].First != bad || report.Damage[0].Last != bad || report.Commits != uint64(len(all)-1) {
			t.Fatalf("verify: %+v", report)
		}
		out, err := Adopt(small(fsys), Seen{})
		must(t, err)
		if len(out.Gaps) != 1 || out.Gaps[0].First != bad || len(out.Aside) != 1 {
			t.Fatalf("adopted %+v", out)
		}
		j := wantAdopted(t, fsys, all, func(n uint64) bool { return n == bad }, uint64(len(all))+1)
		if st := j.Stream(likes); st.Removed != bad || st.Last != j.Head().Number {
			t.Fatalf("stream %+v: a shard behind the gap would go over it silently", st)
		}
	}
}

func TestJ7_AdoptOfALostEndNeverGivesANumberTwice(t *testing.T) {
	fsys, segs, all := adoptable(t)
	last := all[len(all)-1].Number
	flipCommit(t, fsys, segs, last)
	_, err := Open(small(fsys))
	wantCorrupt(t, err, "the mark says")
	out, err := Adopt(small(fsys), Seen{})
	must(t, err)
	if out.Last != last-1 || out.Next != epochEra || out.Epoch != epochEra {
		t.Fatalf("adopted %+v", out)
	}
	wantAdopted(t, fsys, all, func(n uint64) bool { return n == last }, epochEra)
}

func TestAdoptOfAMissingSegment(t *testing.T) {
	for _, gone := range []int{0, 1, 3} {
		fsys, segs, all := adoptable(t)
		must(t, fsys.Remove("/journal/"+segmentName(segs[gone].First)))
		_, err := Adopt(small(fsys), Seen{})
		must(t, err)
		next := uint64(len(all)) + 1
		if gone == 3 {
			next = epochEra
		}
		wantAdopted(t, fsys, all, func(n uint64) bool { return segs[gone].First <= n && n <= segs[gone].Last }, next)
	}
}

func TestAdoptWhenAShardIsAhead(t *testing.T) {
	fsys, _, all := adoptable(t)
	out, err := Adopt(small(fsys), Seen{Commit: 500, Epoch: 3})
	must(t, err)
	if out.Next != epochEra || len(out.Aside) != 0 {
		t.Fatalf("adopted %+v", out)
	}
	j := wantAdopted(t, fsys, all, func(uint64) bool { return false }, epochEra)
	var hole *journal.HoleError
	if _, err := j.Read(500); !errors.As(err, &hole) || !hole.Lost || hole.Next != epochEra {
		t.Fatalf("a commit that only a shard knows: %v", err)
	}
}

func TestAdoptOfAWholeJournalOnlyRaisesTheEpoch(t *testing.T) {
	fsys, _, all := adoptable(t)
	out, err := Adopt(small(fsys), Seen{Commit: 2})
	must(t, err)
	if len(out.Gaps) > 0 || len(out.Aside) > 0 {
		t.Fatalf("adopted %+v", out)
	}
	wantAdopted(t, fsys, all, func(uint64) bool { return false }, uint64(len(all))+1)
}

func TestAdoptRestoresTheSmallFiles(t *testing.T) {
	for _, name := range []string{identityFile, checkpointFile, epochFile} {
		fsys, _, all := adoptable(t)
		f, err := fsys.Create("/journal/" + name)
		must(t, err)
		_, err = f.WriteAt([]byte("nonsense that is long enough to be looked at"), 0)
		must(t, err)
		must(t, f.Close())
		if _, err := Open(small(fsys)); err == nil {
			t.Fatalf("%s is nonsense and nobody minds", name)
		}
		_, err = Adopt(small(fsys), Seen{})
		must(t, err)
		wantAdopted(t, fsys, all, func(uint64) bool { return false }, uint64(len(all))+1)
	}
}

func TestAdoptOfADamagedHeaderKeepsTheCommits(t *testing.T) {
	for _, at := range []int{0, 1, 3} {
		fsys, segs, all := adoptable(t)
		must(t, fsys.Flip("/journal/"+segmentName(segs[at].First), 20, 1))
		_, err := Adopt(small(fsys), Seen{})
		must(t, err)
		wantAdopted(t, fsys, all, func(uint64) bool { return false }, uint64(len(all))+1)
	}
}

// TestAdoptCanBeRunAgain stops the machine in every operation of an adopt.
func TestAdoptCanBeRunAgain(t *testing.T) {
	for seed := range uint64(4) {
		adoptTwice(t, seed)
	}
}

func adoptTwice(t *testing.T, seed uint64) {
	for at := 1; ; at++ {
		fsys, segs, all := adoptable(t)
		bad, last := segs[1].First+1, all[len(all)-1].Number
		flipCommit(t, fsys, segs, bad)
		flipCommit(t, fsys, segs, last)
		fsys.CrashAt(fsys.Changes() + at)
		_, err := Adopt(small(fsys), Seen{})
		if err == nil {
			if at < 20 {
				t.Fatalf("adopt has only %d operations", at)
			}
			return
		}
		if !errors.Is(err, vfs.ErrCrashed) {
			t.Fatal(err)
		}
		after := fsys.PowerCut(seed<<8 + uint64(at))
		if j, err := Open(small(after)); err == nil {
			// Then the loss was accepted as a whole, not cut silently.
			if _, err := j.Read(last); err == nil || errors.Is(err, journal.ErrNotYet) {
				t.Fatalf("crash in operation %d: commit %d was lost silently: %v", at, last, err)
			}
			must(t, j.Close())
			continue
		}
		if _, err := Adopt(small(after), Seen{}); err != nil {
			t.Fatalf("crash in operation %d, adopt again: %v", at, err)
		}
		j, err := Open(small(after))
		must(t, err)
		for _, c := range all {
			_, err := j.Read(c.Number)
			var hole *journal.HoleError
			if lost := c.Number == bad || c.Number == last; lost != errors.As(err, &hole) {
				t.Fatalf("crash in operation %d: commit %d: %v", at, c.Number, err)
			}
		}
		must(t, j.Close())
	}
}

func TestAdoptRefusesTwoHistories(t *testing.T) {
	fsys, segs, _ := adoptable(t)
	other := vfs.NewMem(2)
	j := mustOpen(t, small(other)) // the same identity, since its randomness is the same
	b := journaltest.NewBodies()
	b.Next(10, likes)
	for len(j.Segments()) < 4 {
		appendN(t, j, b, 1, 3000)
	}
	copyFile(t, other, fsys, "/journal/"+segmentName(segs[2].First))
	_, err := Adopt(small(fsys), Seen{})
	if err == nil || !strings.Contains(err.Error(), "different histories") {
		t.Fatalf("got %v", err)
	}
}

func copyFile(t *testing.T, from, to vfs.FS, path string) {
	t.Helper()
	src, err := from.Open(path)
	must(t, err)
	size, err := src.Size()
	must(t, err)
	b := make([]byte, size)
	_, err = src.ReadAt(b, 0)
	must(t, err)
	dst, err := to.Create(path)
	must(t, err)
	_, err = dst.WriteAt(b, 0)
	must(t, err)
	must(t, dst.Close())
}

func TestInspectGivesEveryWholeCommitAndThenTheDamage(t *testing.T) {
	fsys, segs, all := adoptable(t)
	bad := segs[1].First + 1
	flipCommit(t, fsys, segs, bad)
	var numbers []uint64
	var damage []error
	for r, err := range Inspect(small(fsys)) {
		if err != nil {
			damage = append(damage, err)
			continue
		}
		if r.Streams != 1 || r.Entries != 1 || r.Writes != 1 || r.Fault != "" || r.Time.IsZero() {
			t.Fatalf("record %+v", r)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, r.Number)
	}
	if len(numbers) != len(all)-1 || slices.Contains(numbers, bad) || !slices.IsSorted(numbers) {
		t.Fatalf("commits %v", numbers)
	}
	if len(damage) != 1 {
		t.Fatalf("damage %v", damage)
	}
	wantCorrupt(t, damage[0], "checksum")
	for range Inspect(small(fsys)) {
		break // a caller may stop at any record
	}
}

func TestVerifyOfARunningJournal(t *testing.T) {
	fsys := vfs.NewMem(1)
	j := mustOpen(t, small(fsys))
	b := journaltest.NewBodies()
	stop, done := make(chan bool), make(chan error)
	go func() {
		for {
			report, err := Verify(small(fsys), nil)
			if err == nil && len(report.Damage) > 0 {
				err = report.Damage[0].Err()
			}
			select {
			case <-stop:
				done <- err
				return
			default:
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 150 {
		appendN(t, j, b, 1, 3000)
		if segs := j.Segments(); len(segs) > 4 {
			must(t, j.Remove(segs[1].First))
		}
	}
	close(stop)
	must(t, <-done)
}

func TestVerifyTellsATornEndFromDamage(t *testing.T) {
	fsys, segs, all := adoptable(t)
	flipCommit(t, fsys, segs, all[len(all)-1].Number)
	must(t, fsys.Remove("/journal/"+markFile))
	var seen []int64
	report, err := Verify(small(fsys), func(done, total int64) {
		if done > total || total != 4*32<<10 {
			t.Fatalf("%d of %d bytes", done, total)
		}
		seen = append(seen, done)
	})
	must(t, err)
	if report.Torn == nil || len(report.Damage) > 0 || report.Commits != uint64(len(all)-1) {
		t.Fatalf("report %+v", report)
	}
	if !slices.IsSorted(seen) || seen[len(seen)-1] != 4*32<<10 {
		t.Fatalf("progress %v", seen)
	}
}
