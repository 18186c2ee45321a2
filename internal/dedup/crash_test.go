package dedup

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/vfs"
)

// life is the journal and the clients around a table: what a table owes them
// after any crash.
type life struct {
	t       testing.TB
	table   *Table
	commits [][]*Record // commit n is commits[n-1]; every one of them is durable
	trimmed uint64      // commits up to this one are gone, which a checkpoint allowed
	issued  []uint64
	numbers map[uint64]uint64 // next number of each producer
	lowest  map[uint64]uint64 // what each producer said last
	keys    int
}

func startLife(t testing.TB, fs vfs.FS) *life {
	l := &life{t: t, numbers: map[uint64]uint64{}, lowest: map[uint64]uint64{}}
	return l.start(fs)
}

func (l *life) options(fs vfs.FS) Options {
	return Options{Dir: "/dedup", FS: fs, Journal: journalID, Window: 24 * time.Hour}
}

// start opens the table and replays what the journal retains, one time too many.
func (l *life) start(fs vfs.FS) *life {
	l.t.Helper()
	table, err := Open(l.options(fs))
	if errors.Is(err, vfs.ErrCrashed) {
		return l
	}
	if err != nil {
		l.t.Fatal(err)
	}
	if table.Through() < l.trimmed {
		l.t.Fatalf("through %d, but commits up to %d were trimmed", table.Through(), l.trimmed)
	}
	l.table = table
	for range 2 {
		for _, commit := range l.commits[l.trimmed:] {
			for _, rec := range commit {
				table.Replay(rec)
			}
		}
	}
	return l
}

// commit accepts some new chunks; they are durable in the journal before the
// table is told.
func (l *life) commit(rng *rand.Rand) {
	var commit []*Record
	number := uint64(len(l.commits) + 1)
	for range 1 + rng.IntN(20) {
		id := keyID(fmt.Sprint("key-", l.keys), uint64(rng.IntN(3)))
		if len(l.issued) > 0 && rng.IntN(3) == 0 {
			id = l.nextNumber(rng)
		} else {
			l.keys++
		}
		begin(l.t, l.table, id, "body", New)
		if rng.IntN(10) == 0 {
			l.table.Abandon(id)
			continue
		}
		commit = append(commit, recordOf(id, "body", number))
	}
	l.commits = append(l.commits, commit)
	for _, rec := range commit {
		l.table.Done(rec)
	}
}

func (l *life) nextNumber(rng *rand.Rand) sluice.Identity {
	producer := l.issued[rng.IntN(len(l.issued))]
	l.numbers[producer]++
	number := l.numbers[producer]
	if low := l.lowest[producer]; number-low >= 60 || rng.IntN(5) == 0 {
		l.lowest[producer] = number - min(number-low, uint64(rng.IntN(10)))
	}
	return producerID(producer, number, l.lowest[producer])
}

// step does one thing; false when the machine went down in it.
func (l *life) step(rng *rand.Rand) bool {
	l.t.Helper()
	var err error
	switch n := rng.IntN(10); {
	case n < 6:
		l.commit(rng)
	case n < 8:
		var id uint64
		if id, err = l.table.IssueProducer(); err == nil {
			l.checkNeverIssued(id)
			l.lowest[id] = 1
			l.issued = append(l.issued, id)
		}
	default:
		l.table.Advance(l.table.Now() + time.Duration(rng.IntN(60))*time.Minute)
		upTo := uint64(len(l.commits))
		if err = l.table.Checkpoint(upTo); err == nil {
			l.trimmed = max(l.trimmed, upTo-min(upTo, uint64(rng.IntN(3))))
		}
	}
	if err != nil && !errors.Is(err, vfs.ErrCrashed) {
		l.t.Fatal(err)
	}
	return err == nil
}

func (l *life) checkNeverIssued(id uint64) {
	l.t.Helper()
	for _, other := range l.issued {
		if other >= id {
			l.t.Fatalf("producer id %d issued after %d", id, other)
		}
	}
}

// check asks for everything that was ever accepted.
func (l *life) check() {
	l.t.Helper()
	for _, commit := range l.commits {
		for _, rec := range commit {
			if p := rec.Identity.Producer; p != 0 && rec.Identity.Chunk < l.lowest[p] {
				continue // resolved: the client will not ask
			}
			duplicate(l.t, l.table, rec)
		}
	}
	for _, p := range l.issued {
		id := producerID(p, l.numbers[p]+1, max(l.lowest[p], 1))
		begin(l.t, l.table, id, "body", New)
		l.table.Abandon(id)
	}
	for i := range 20 {
		id := keyID(fmt.Sprint("never-", i), 0)
		begin(l.t, l.table, id, "body", New)
		l.table.Abandon(id)
	}
}

// run does some steps, or goes down.
func (l *life) run(rng *rand.Rand, steps int) {
	for range steps {
		if l.table == nil || !l.step(rng) {
			return
		}
	}
}

func TestI4_NothingIsForgottenInAnyCrash(t *testing.T) {
	const steps = 50
	whole := vfs.NewMem(1)
	startLife(t, whole).run(rand.New(rand.NewPCG(1, 1)), steps)
	if whole.Changes() < 100 {
		t.Fatalf("only %d changes to crash in", whole.Changes())
	}
	for n := 1; n <= whole.Changes(); n++ {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("change%d/seed%d", n, seed), func(t *testing.T) {
				disk := vfs.NewMem(seed)
				disk.CrashAt(n)
				l := startLife(t, disk)
				l.run(rand.New(rand.NewPCG(1, 1)), steps)
				next := disk.PowerCut(seed)
				if seed == 0 {
					next = disk.Kill(seed)
				}
				l.start(next).check()
				l.run(rand.New(rand.NewPCG(2, seed)), 5) // and it goes on from there
				l.start(next.PowerCut(seed)).check()
			})
		}
	}
}

func TestI4_ModelOfManyLives(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			disk := vfs.NewMem(seed)
			l := startLife(t, disk)
			for round := range uint64(5) {
				l.run(rng, 60)
				if l.table.Now() > 23*time.Hour {
					break // beyond it, keys may be forgotten
				}
				l.check()
				disk = disk.PowerCut(round)
				l.start(disk).check()
			}
		})
	}
}

func TestJ4_FailedSyncIsNeverRetried(t *testing.T) {
	disk := vfs.NewMem(1)
	l := startLife(t, disk)
	rec := accept(t, l.table, keyID("k", 0), "body", 1)
	failures := 0
	disk.SetFault(func(op vfs.Op) error {
		if op.Kind == "sync" && failures == 0 {
			failures++
			return errors.New("input/output error")
		}
		return nil
	})
	first := l.table.Checkpoint(1)
	if second := l.table.Checkpoint(1); first == nil || second != first {
		t.Fatalf("first %v, second %v: want the same error", first, second)
	}
	duplicate(t, l.table, rec)
}
