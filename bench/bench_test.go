package main

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice.dev/sluice/internal/console"
	"sluice.dev/sluice/internal/journal"
)

func TestGoals(t *testing.T) {
	for _, c := range []struct {
		sluice, rival []float64
		goal          Goal
		want          string
	}{
		{[]float64{90}, []float64{100}, ratioAtLeast(0.9), "pass"},
		{[]float64{89}, []float64{100}, ratioAtLeast(0.9), "MISS"},
		{[]float64{1, 19, 99}, []float64{1, 10, 10}, ratioAtMost(2), "pass"},
		{[]float64{1, 21, 1}, []float64{1, 10, 10}, ratioAtMost(2), "MISS"},
		{[]float64{511}, nil, atMost(512), "pass"},
		{[]float64{513}, nil, atMost(512), "MISS"},
		{[]float64{20_001}, nil, atLeast(20_000), "pass"},
		{[]float64{1}, []float64{2}, Goal{}, ""},
	} {
		r := Row{Sluice: c.sluice, Rival: c.rival, Goal: c.goal}
		if r.judge(); r.Verdict != c.want {
			t.Errorf("%v against %v with %s: %q, want %q", c.sluice, c.rival, r.goal(), r.Verdict, c.want)
		}
	}
}

func TestGroupCommitFlushesEachItemOnce(t *testing.T) {
	var flushed []int // flushes never overlap
	g := newGroupCommit(func(items []int) error {
		flushed = append(flushed, items...)
		return nil
	})
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			if err := g.write(i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	slices.Sort(flushed)
	for i, n := range flushed {
		if i != n {
			t.Fatalf("item %d is missing or doubled", i)
		}
	}
	if len(flushed) != 500 {
		t.Errorf("%d items flushed", len(flushed))
	}
}

func TestGroupCommitTellsAllOfAnError(t *testing.T) {
	broken := errors.New("no disk")
	g := newGroupCommit(func([]int) error { return broken })
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := g.write(i); err != broken {
				t.Errorf("writer %d heard %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestJournalEntriesAreAsLongAsTheySay(t *testing.T) {
	entries, _, err := journalEntries(3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		if n := len(journal.AppendEntry(nil, &entries[i])); n != recordBytes {
			t.Errorf("entry %d takes %d bytes", i, n)
		}
	}
}

func TestWhatIsSent(t *testing.T) {
	spec := loadSpec{Write: "event", Keys: 10}
	line := string(spec.appendLine(nil, 7))
	if want := `{"table":"log","key":7,"append":{"clicks":{`; !strings.HasPrefix(line, want) {
		t.Errorf("line %s", line)
	}
	if got := placeholders(2, 3); got != "($1,$2,$3),($4,$5,$6)" {
		t.Errorf("placeholders %s", got)
	}
	keys := randomKeys(100, 1000)
	if !slices.IsSorted(keys) || len(slices.Compact(keys)) != 100 {
		t.Errorf("keys are not different and rising: %v", keys)
	}
}

func TestTableShowsFailures(t *testing.T) {
	rp := report{Rows: []Row{{Part: "resp", What: "x", Unit: "ops/s", Sluice: []float64{12345}, Rival: []float64{1}, Durable: "fdatasync", RivalDurable: "none"}}}
	rp.Rows[0].judge()
	rp.fail("http", errors.New("no door"))
	var b strings.Builder
	if err := rp.write(&b, &console.Console{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12,345 ops/s", "fdatasync | none", "http FAILED: no door"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}
