package observe

import (
	"flag"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/metrics.md from the catalogue")

func TestNamesAreUniqueAndSayTheirUnit(t *testing.T) {
	name := regexp.MustCompile(`^sluice_[a-z]+(_[a-z]+)*$`)
	seen := map[string]bool{}
	for _, m := range Metrics() {
		if !name.MatchString(m.Name) || seen[m.Name] {
			t.Errorf("%s: twice, or not a name", m.Name)
		}
		seen[m.Name] = true
		if counter := strings.HasSuffix(m.Name, "_total"); counter != (m.Kind == Counter) {
			t.Errorf("%s is a %s: counters, and only they, end in _total", m.Name, m.Kind)
		}
		checkSentence(t, m.Name, m.Help)
	}
	for _, e := range Events() {
		if seen[e.Name] {
			t.Errorf("event %s: twice", e.Name)
		}
		seen[e.Name] = true
		checkSentence(t, e.Name, e.Help)
	}
}

func checkSentence(t *testing.T, name, help string) {
	t.Helper()
	if !strings.HasSuffix(help, ".") || strings.Count(help, ". ") > 0 {
		t.Errorf("%s: the help is not one sentence: %q", name, help)
	}
}

func TestDocsListEveryMetricAndEvent(t *testing.T) {
	const path = "../../docs/metrics.md"
	want := page()
	if *rewrite {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the catalogue says; `go test ./internal/observe -rewrite` writes it", path)
	}
}

func page() string {
	var b strings.Builder
	b.WriteString("# Metrics and events\n\nWhat `/metrics` answers, in the format of Prometheus, and what is logged.\n\n" +
		"| metric | kind | labels | what it is |\n|---|---|---|---|\n")
	for _, m := range Metrics() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.Labels, ", "), m.Help)
	}
	b.WriteString("\n| event | level | what it means |\n|---|---|---|\n")
	for _, e := range Events() {
		level := map[Level]string{Debug: "debug", Info: "info", Warn: "warn", Error: "error"}[e.Level]
		fmt.Fprintf(&b, "| %s | %s | %s |\n", e.Name, level, e.Help)
	}
	return b.String()
}

func TestHistogramCountsEachObservationOnce(t *testing.T) {
	h := NewHistogram([]float64{1, 10, 100})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for _, v := range []float64{0, 1, 1.5, 10, 99, 100, 101, 1e9} {
				h.Observe(v)
			}
		})
	}
	wait.Wait()
	count, sum, cumulative := h.Snapshot()
	if count != 32 || math.Abs(sum-4*(1e9+312.5)) > 1e-3 {
		t.Errorf("count %d, sum %g", count, sum)
	}
	for bound, want := range map[float64]uint64{1: 8, 10: 16, 100: 24} {
		if cumulative[bound] != want {
			t.Errorf("at or below %g: %d, want %d", bound, cumulative[bound], want)
		}
	}
}

func TestSamplesCarryTheirLabels(t *testing.T) {
	var source Samples = func(yield func(Sample) bool) {
		_ = yield(Refused.Of(3, "overload")) && yield(RequestTime.With(NewHistogram(Seconds), "http"))
	}
	for s := range source {
		if len(s.Labels) != len(s.Metric.Labels) || (s.Metric.Kind == HistogramKind) != (s.Histogram != nil) {
			t.Errorf("%s: labels %v, histogram %v", s.Metric.Name, s.Labels, s.Histogram)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	h := NewHistogram(Seconds)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.Observe(.003)
		}
	})
}
