// Package decay_test guards against slow decay by counting, not timing: what a
// write costs in allocations, journal bytes, fsyncs, statements, rows and round
// trips is held to the figures of testdata/decay.txt. A figure that changes is a
// decision: `go test ./internal/decay -rewrite` records it, and the diff is the
// review. A better figure fails too, so that what was won is not lost unseen.
package decay_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/sluice/internal/store/pgtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(pgtest.Main(m))
}

// figure is one count: what, and how many.
type figure struct {
	name  string
	value float64
}

func TestDecay(t *testing.T) {
	datadriven.RunTest(t, "testdata/decay.txt", func(t *testing.T, d *datadriven.TestData) string {
		var figures []figure
		switch d.Cmd {
		case "allocations":
			if raceDetector {
				return d.Expected // it allocates too
			}
			figures = allocations(t, text(t, d, "way"), number(t, d, "writes"))
		case "journal":
			figures = journaled(t, text(t, d, "load"), number(t, d, "writes"))
		case "postgres":
			if os.Getenv("SLUICE_SKIP_POSTGRES") == "1" {
				return d.Expected
			}
			figures = drained(t, text(t, d, "load"), number(t, d, "writes"))
		default:
			d.Fatalf(t, "there is no %q", d.Cmd)
		}
		tolerance, err := strconv.ParseFloat(strings.TrimSuffix(text(t, d, "tolerance"), "%"), 64)
		if err != nil {
			d.Fatalf(t, "tolerance: %v", err)
		}
		if got := render(figures); !within(d.Expected, figures, tolerance/100) {
			return got
		}
		return d.Expected // also when rewriting: noise is no diff to review
	})
}

func text(t *testing.T, d *datadriven.TestData, name string) (value string) {
	t.Helper()
	d.ScanArgs(t, name, &value)
	return value
}

func number(t *testing.T, d *datadriven.TestData, name string) (value int) {
	t.Helper()
	d.ScanArgs(t, name, &value)
	return value
}

func render(figures []figure) string {
	var b strings.Builder
	for _, f := range figures {
		fmt.Fprintf(&b, "%s: %s\n", f.name, strconv.FormatFloat(f.value, 'g', 4, 64))
	}
	return b.String()
}

// within tells whether the figures are those recorded, each within a share of it.
func within(recorded string, figures []figure, tolerance float64) bool {
	lines := strings.Split(strings.TrimSuffix(recorded, "\n"), "\n")
	if len(lines) != len(figures) {
		return false
	}
	for i, f := range figures {
		name, value, _ := strings.Cut(lines[i], ": ")
		want, err := strconv.ParseFloat(value, 64)
		// Half a unit of the last digit recorded is rounding.
		if err != nil || name != f.name || math.Abs(f.value-want) > want*tolerance+math.Abs(want)*5e-4 {
			return false
		}
	}
	return true
}

func TestDecay_FailsOutsideTheTolerance(t *testing.T) {
	recorded := "a: 100\nb: 0.5\n"
	for _, c := range []struct {
		a, b      float64
		tolerance float64
		want      bool
	}{
		{100, 0.5, 0, true}, {101, 0.5, 0.01, true}, {99, 0.505, 0.01, true},
		{101, 0.5, 0, false}, {101.2, 0.5, 0.01, false}, {98.8, 0.5, 0.01, false}, {100, 0.51, 0.01, false}, {100, 0, 0.01, false},
	} {
		if got := within(recorded, []figure{{"a", c.a}, {"b", c.b}}, c.tolerance); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
	if within(recorded, []figure{{"a", 100}}, 1) || within(recorded, []figure{{"b", 100}, {"a", 0.5}}, 1) || within("", []figure{{"a", 1}}, 1) {
		t.Error("a figure that is missing or has another name passes")
	}
}
