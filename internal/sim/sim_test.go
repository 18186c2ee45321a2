package sim_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this seed only")
	traceFlag = flag.Bool("trace", false, "print the trace of -seed")
	seedsFlag = flag.Uint64("seeds", 1000, "run so many seeds")
	firstFlag = flag.Uint64("first", 1, "the first of them")
)

// slower divides the number of seeds where each takes longer.
var slower uint64 = 1

// simulate runs one seed in a bubble of its own.
func simulate(t *testing.T, seed uint64, d *defect) (w *world, what string) {
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(seed, d)
		what = w.run()
	})
	if what == "" && !w.history.linearizable(w) {
		what = "promise 7: the reads of the counter are not those of one counter"
	}
	return w, what
}

// replay is the command that runs a seed again.
func replay(seed uint64) string {
	return fmt.Sprintf("go test ./internal/sim -run TestSeeds -seed %d -trace", seed)
}

func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		w, what := simulate(t, *seedFlag, nil)
		if *traceFlag {
			fmt.Println(strings.Join(w.trace, "\n"))
		}
		if what != "" {
			t.Fatalf("seed %d: %s", *seedFlag, what)
		}
		return
	}
	seeds := *seedsFlag / slower
	var next, failed atomic.Uint64
	next.Store(*firstFlag)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				seed := next.Add(1) - 1
				if seed >= *firstFlag+seeds || failed.Load() > 4 {
					return
				}
				if _, what := simulate(t, seed, nil); what != "" {
					failed.Add(1)
					t.Errorf("seed %d: %s\n%s", seed, what, replay(seed))
				}
			}
		})
	}
	wg.Wait()
}

// TestKeptSeeds runs every seed that ever failed.
func TestKeptSeeds(t *testing.T) {
	files, err := filepath.Glob("testdata/seeds/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		word, _, _ := strings.Cut(string(text), "\n")
		seed, err := strconv.ParseUint(strings.TrimSpace(word), 10, 64)
		if err != nil {
			t.Fatalf("%s: the first line is no seed: %v", name, err)
		}
		if _, what := simulate(t, seed, nil); what != "" {
			t.Errorf("seed %d of %s: %s\n%s", seed, name, what, replay(seed))
		}
	}
}

// TestSameSeedSameTrace: a failure that cannot be had again is worth nothing.
func TestSameSeedSameTrace(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		a, _ := simulate(t, seed, nil)
		b, _ := simulate(t, seed, nil)
		for i := range min(len(a.trace), len(b.trace)) {
			if a.trace[i] != b.trace[i] {
				t.Fatalf("seed %d, line %d:\n%s\n%s", seed, i, a.trace[i], b.trace[i])
			}
		}
		if len(a.trace) != len(b.trace) {
			t.Fatalf("seed %d: %d lines, then %d", seed, len(a.trace), len(b.trace))
		}
	}
}
