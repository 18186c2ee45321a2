package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"sluice.dev/sluice/bench/measure"
)

// A cost that grows shows between the first and the last of so many parts.
const (
	growthParts = 10
	growthMax   = 1.25
)

func growthScenario(ctx context.Context, s *suite) error {
	for _, strew := range []bool{false, true} {
		if err := growingKeys(ctx, s, strew); err != nil {
			return fmt.Errorf("keys: %w", err)
		}
	}
	if err := growingBacklog(ctx, s); err != nil {
		return fmt.Errorf("backlog: %w", err)
	}
	return nil
}

// growingKeys writes each key once, and looks at the processor time of the
// whole process for a write, drained into SQLite. Keys that rise go to the end of
// the table's tree, so what grows would be ours. Keys strewn over it cost SQLite
// a page each, the more the larger the table: that one has no goal.
func growingKeys(ctx context.Context, s *suite, strew bool) error {
	sv, err := s.serve(ctx, sqliteConfig)
	if err != nil {
		return err
	}
	defer sv.End(syscall.SIGKILL)
	part := pick[uint64](s, 300_000, 40_000)
	var costs []float64
	for i := range uint64(growthParts + 1) {
		before := sv.CPU()
		_, err := s.load(ctx, loadSpec{Door: "resp", Addr: sv.resp, Conns: 16, Batch: 64, Write: "increment", First: 1 + i*part, Strew: strew, Writes: part, Time: time.Minute})
		if err != nil {
			return err
		}
		if err := sv.drain(ctx); err != nil {
			return err
		}
		costs = append(costs, micros(sv.CPU()-before)/float64(part))
	}
	rows, err := sv.sqliteValue(ctx, "SELECT count(*) FROM posts WHERE likes = 1")
	if err != nil {
		return err
	}
	if err := wantTotal("keys", rows, int64(part)*(growthParts+1)); err != nil {
		return err
	}
	// The first part only warms up.
	kind, goal := "keys that rise", ratioAtMost(growthMax)
	if strew {
		kind, goal = "strewn keys", Goal{}
	}
	s.addGrowth(growth{fmt.Sprintf("processor time of a write to a new key, after %s %s", number(float64(part*growthParts)), kind), costs[1:],
		"after " + number(float64(part)), goal})
	s.addMemory(kind, sv.stop())
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// growth is how a cost went along.
type growth struct {
	what    string
	costs   []float64 // by parts
	against string
	goal    Goal
}

func (s *suite) addGrowth(g growth) {
	note := "by parts:"
	for _, c := range g.costs {
		note += " " + number(c)
	}
	last := len(g.costs) - 1
	s.add(Row{What: g.what, Unit: "µs", Sluice: g.costs[last:], Rival: g.costs[:1], Against: "itself " + g.against,
		Durable: "fdatasync", RivalDurable: "fdatasync", Goal: g.goal, Note: note})
}

// A port where nothing listens: the store is down, and everything waits in the journal.
const backlogConfig = `
stores: {main: {shards: {a: "postgres://postgres@127.0.0.1:%d/postgres"}, ddl: auto}}
journal: {dir: "%%DIR%%/journal"}
tables:
  log:
    key: {id: int64}
    groups:
      clicks: {kind: events, columns: {what: text, at: timestamp, n: int64}}
`

func growingBacklog(ctx context.Context, s *suite) error {
	nobody, err := measure.FreePort()
	if err != nil {
		return err
	}
	sv, err := s.serve(ctx, fmt.Sprintf(backlogConfig, nobody))
	if err != nil {
		return err
	}
	defer func() { sv.End(syscall.SIGKILL) }()
	target := pick[int64](s, 1<<30, 192<<20)
	var costs []float64
	var written uint64
	var bytes int64
	for bytes < target {
		before := sv.CPU()
		r, err := s.load(ctx, loadSpec{Door: "ndjson", Addr: sv.http, Conns: 4, Batch: 10_000, Write: "event", Keys: manyKeys, Writes: 250_000, Time: time.Minute})
		if err != nil {
			return err
		}
		written += r.Writes
		costs = append(costs, micros(sv.CPU()-before)/float64(r.Writes))
		st, err := sv.client.Status(ctx)
		if err != nil {
			return err
		}
		bytes = st.Journal.Bytes
	}
	tenth := max(1, len(costs)/growthParts)
	s.addGrowth(growth{fmt.Sprintf("processor time of a write, with a backlog of %s", number(float64(written))),
		[]float64{mean(costs[:tenth]), mean(costs[len(costs)-tenth:])}, "without", ratioAtMost(growthMax)})
	peak := sv.PeakMiB()
	seconds, again, err := s.restart(ctx, &sv)
	if err != nil {
		return err
	}
	gib := float64(bytes) / (1 << 30)
	s.add(Row{What: "restart after kill -9, for a GiB of backlog", Unit: "s", Sluice: []float64{seconds / gib}, Durable: "fdatasync",
		Note: fmt.Sprintf("%.2f s for %.2f GiB", seconds, gib)})
	s.addMemory("backlog", max(peak, again))
	return wantAcked(ctx, sv, written)
}

// restart kills the server and tells how long the next one takes to be ready.
func (s *suite) restart(ctx context.Context, sv **server) (seconds, peak float64, err error) {
	dir := (*sv).dir
	(*sv).End(syscall.SIGKILL)
	from := time.Now()
	next, err := s.serveAgain(ctx, dir)
	if err != nil {
		return 0, 0, err
	}
	*sv = next
	return time.Since(from).Seconds(), next.PeakMiB(), nil
}

// wantAcked refuses figures of a restart that forgot something.
func wantAcked(ctx context.Context, sv *server, want uint64) error {
	rows, err := sv.client.Ledger(ctx)
	if err != nil {
		return err
	}
	var acked uint64
	for _, r := range rows {
		acked += r.Acked
	}
	return wantTotal("acknowledged, after kill -9", int64(acked), int64(want))
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
