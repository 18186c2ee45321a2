package main

import (
	"context"
	"fmt"
	"time"
)

// benchRow is one run's result.
type benchRow struct {
	Workload    string       `json:"workload"`
	How         string       `json:"how"`
	Clients     int          `json:"clients"`
	PerRequest  int          `json:"writes_per_request"`
	Writes      int64        `json:"writes"`
	Acked       float64      `json:"acked_per_s"`
	InDatabase  float64      `json:"in_database_per_s"`
	P50         microseconds `json:"p50_us"`
	P99         microseconds `json:"p99_us"`
	Rows        int64        `json:"database_rows"`
	RowsByWrite float64      `json:"rows_per_write"`
	Ratio       float64      `json:"ratio"` // to direct; 0 for direct itself
	Lost        int64        `json:"lost"`
	Doubled     int64        `json:"doubled"`
}

// run measures one row. A server of Sluice lives only for its run, so that it
// takes nothing from the direct ones, and its rows are all counted when it ended.
func (b *bench) run(ctx context.Context, r *benchRun) error {
	before, err := b.db.rows(ctx)
	if err != nil {
		return err
	}
	if !r.direct {
		if err := b.server.start(ctx); err != nil {
			return err
		}
	}
	s, end, err := b.clients(ctx, r)
	if err != nil {
		return err
	}
	err = s.send(ctx, func(ctx context.Context) error { return b.watch(ctx, r, s) })
	acked := time.Since(s.began)
	end()
	if err != nil {
		return err
	}
	if err := b.settle(ctx, r); err != nil {
		return err
	}
	drained := time.Since(s.began)
	if !r.direct {
		if err := b.server.stop(); err != nil {
			return err
		}
	}
	after, err := b.db.rows(ctx)
	if err != nil {
		return err
	}
	row := newBenchRow(r, s, acked, drained)
	row.Rows = after - before
	row.RowsByWrite = float64(row.Rows) / float64(max(row.Writes, 1))
	check, err := b.db.compare(ctx, r.side(), s.tally)
	if err != nil {
		return err
	}
	row.Lost, row.Doubled = check.Lost, check.Doubled
	b.add(row, r.idle)
	return nil
}

// clients makes the clients of a run, and what ends them.
func (b *bench) clients(ctx context.Context, r *benchRun) (*sending, func(), error) {
	s := &sending{load: r.load, tally: b.sluice, keys: b.f.keys}
	if r.direct {
		s.tally = b.direct
	}
	var ends []func()
	end := func() {
		for _, e := range ends {
			e()
		}
	}
	n := b.f.clients
	if r.load.one {
		n = 1
	}
	for range n {
		w, e, err := r.writers(b, ctx)
		if err != nil {
			end()
			return nil, nil, err
		}
		s.writers, ends = append(s.writers, w), append(ends, e)
	}
	return s, end, nil
}

func (r *benchRun) side() string {
	if r.direct {
		return "direct"
	}
	return "sluice"
}

// settle waits until the database has what was acknowledged.
func (b *bench) settle(ctx context.Context, r *benchRun) error {
	if r.direct {
		return nil
	}
	drain, cancel := context.WithTimeout(ctx, benchDrainMax)
	defer cancel()
	if err := b.server.c.Drain(drain, func(queued uint64) { b.draw(r, nil, queued) }); err != nil {
		return fmt.Errorf("drain: %w; the server's log ends with:\n%s", err, b.server.lastWords())
	}
	return nil
}

func newBenchRow(r *benchRun, s *sending, acked, drained time.Duration) benchRow {
	times := s.latencies()
	writes := s.writes.Load()
	return benchRow{Workload: r.Workload, How: r.How, Clients: len(s.writers), PerRequest: max(s.load.batch, 1), Writes: writes,
		Acked: float64(writes) / acked.Seconds(), InDatabase: float64(writes) / drained.Seconds(),
		P50: quantile(times, 0.5), P99: quantile(times, 0.99)}
}

// add compares a row with the direct one above it and shows it.
func (b *bench) add(row benchRow, idle bool) {
	for i := range b.result.Rows {
		direct := &b.result.Rows[i]
		if direct.Workload != row.Workload || direct.How != "direct" {
			continue
		}
		if idle {
			row.Ratio = float64(direct.P50 / max(row.P50, 1))
		} else {
			row.Ratio = row.InDatabase / max(direct.InDatabase, 1)
		}
	}
	b.result.Rows = append(b.result.Rows, row)
	b.sayRow(&row)
}

// watch shows how it goes until the time is over or enough was written.
func (b *bench) watch(ctx context.Context, r *benchRun, s *sending) error {
	tick := time.NewTicker(demoLook)
	defer tick.Stop()
	end := time.NewTimer(b.sendTime())
	defer end.Stop()
	for s.writes.Load() < benchWritesMax {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-tick.C:
			b.draw(r, s, 0)
		}
	}
	return nil
}

func (b *bench) sendTime() time.Duration { return time.Duration(b.f.seconds * float64(time.Second)) }
