package main

import (
	"context"
	"fmt"
	"time"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/bench/rivals/batch"
	"sluice.dev/sluice/internal/console"
)

// cell is one workload in one loop; every row goes through it.
type cell struct {
	*workload
	open bool
}

func cells() (out []cell) {
	all := workloads()
	for i := range all {
		out = append(out, cell{&all[i], false})
		if !all[i].closedOnly {
			out = append(out, cell{&all[i], true})
		}
	}
	return out
}

func (c *cell) loop() string {
	if c.open {
		return "open"
	}
	return "closed"
}

func (c *cell) name(r *rival) string { return c.workload.name + "/" + c.loop() + "/" + r.name }

// measure runs the chosen cells. A cell that fails is a row that says so.
func (s *suite) measure(ctx context.Context) {
	for _, c := range cells() {
		for _, r := range rivals() {
			if r.killOnly || s.out[r.name] != "" || ctx.Err() != nil || !s.only.MatchString(c.name(&r)) {
				continue
			}
			row, err := s.cell(ctx, &r, &c)
			row.Workload, row.About, row.Loop, row.Name = c.workload.name, c.about, c.loop(), r.name
			row.End, row.Durable, row.Differs = r.end, r.durable, r.differs
			if err != nil {
				row.Failed = err.Error()
			}
			s.report.Rows = append(s.report.Rows, row)
			s.Progress("%s: %s", c.name(&r), row.short())
		}
	}
}

func (s *suite) cell(ctx context.Context, r *rival, c *cell) (row Row, err error) {
	sys, done, err := s.system(r)
	if err != nil {
		return row, err
	}
	defer done()
	if err := sys.start(ctx); err != nil {
		return row, err
	}
	callers, rate := s.o.callers, 0.0
	if c.callers > 0 {
		callers = c.callers
	}
	if c.open {
		rate = s.o.rate
	}
	w, err := sys.dial(callers)
	if err != nil {
		return row, err
	}
	defer func() {
		if w != nil {
			w.close()
		}
	}()
	first, err := prime(w, c.workload, callers)
	if err != nil {
		return row, err
	}
	m, err := newMeter(ctx, sys)
	if err != nil {
		return row, err
	}
	t, err := load(ctx, w, c.workload, callers, newSchedule(s.o.span, rate))
	if err != nil {
		return row, err
	}
	if err := m.end(ctx, &row, t); err != nil {
		return row, err
	}
	first.merge(t)
	if err := verify(ctx, sys, first); err != nil {
		return row, err
	}
	w.close()
	w = nil
	rows, err := sys.rows(ctx)
	switch {
	case err != nil:
		return row, err
	case rows == oneEach:
		row.RowsPerWrite = 1
	default:
		row.RowsPerWrite = max(-1, float64(rows)/float64(first.writes()))
	}
	return row, nil
}

// meter compares what a system has used before and after.
type meter struct {
	sys   system
	from  time.Time
	usage measure.Usage
	wal   int64
	own   int64
}

func newMeter(ctx context.Context, sys system) (*meter, error) {
	wal, own, err := sys.logs(ctx)
	return &meter{sys, time.Now(), measure.UsageOf(sys.processes()), wal, own}, err
}

// end waits until everything is where it ends up: that work is charged too.
func (m *meter) end(ctx context.Context, row *Row, t *tally) error {
	landed, err := m.sys.settle(ctx)
	if err != nil {
		return err
	}
	took := max(landed.Sub(m.from), t.took)
	u := measure.UsageOf(m.sys.processes())
	wal, own, err := m.sys.logs(ctx)
	if err != nil {
		return err
	}
	n := float64(t.writes())
	row.Writes, row.Late = t.writes(), t.late
	row.PerSecond, row.LandedPerSecond = n/t.took.Seconds(), n/took.Seconds()
	row.P50, row.P99, row.P999 = t.Millis(0.5), t.Millis(0.99), t.Millis(0.999)
	row.MemoryMiB = float64(u.Memory) / (1 << 20)
	row.CPUPerMillion = (u.CPU - m.usage.CPU).Seconds() / n * 1e6
	row.WALPerWrite, row.OwnLogPerWrite = -1, -1
	if wal >= 0 {
		row.WALPerWrite = float64(wal-m.wal) / n
	}
	if own >= 0 {
		row.OwnLogPerWrite = float64(own-m.own) / n
	}
	return nil
}

// verify refuses the figures of a broken path: what was acknowledged must be there.
func verify(ctx context.Context, sys system, t *tally) error {
	h, err := sys.holds(ctx)
	if err != nil {
		return err
	}
	if want := (held{int64(t.kinds[batch.Like]), int64(t.kinds[batch.Event])}); h != want {
		return fmt.Errorf("void: %s likes and %s events were acknowledged, %s and %s are there",
			console.Count(want.likes), console.Count(want.events), console.Count(h.likes), console.Count(h.events))
	}
	return nil
}
