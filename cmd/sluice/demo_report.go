package main

import (
	"fmt"
	"time"

	"sluice.dev/sluice/internal/console"
)

// say tells what happens. On a terminal the lines stand above the block that is
// redrawn; for programs nothing is said before the end.
func (d *demo) say(format string, args ...any) {
	if d.p.json {
		return
	}
	d.p.say(format, args...)
	d.screen = d.p.out.Screen() // the next block begins below the line
}

// draw shows how far it is; send is 0 once everything is sent.
func (d *demo) draw(send time.Duration) {
	if d.p.json {
		return
	}
	gone := time.Since(d.began)
	if send == 0 {
		gone = d.took
	}
	accepted := d.accepted.Load()
	rows := d.before.rows + d.seen.rows
	if !d.p.out.Terminal {
		if send > 0 {
			d.p.say("%5.1f s  %s accepted, %s rows written, %s waiting", gone.Seconds(), console.Plural(accepted, "write", "writes"),
				console.Count(rows), console.Count(d.seen.queued))
		}
		return
	}
	_ = d.screen.Draw(func(out *console.Console) error { // a terminal that is gone is no reason to stop
		var t console.Pairs
		if send > 0 {
			t.Add("sending", "%s %s of %s", console.Bar(gone.Seconds()/send.Seconds(), 20), console.Span(min(gone, send)), console.Span(send))
		} else {
			t.Add("draining", "%s left", console.Plural(d.seen.queued, "write", "writes"))
		}
		t.Add("accepted", "%s  %s", out.Bold(console.Plural(accepted, "write", "writes")), console.PerSecond(float64(accepted)/gone.Seconds()))
		t.Add("database", "%s  %s, %s writes to a row", console.Plural(rows, "row", "rows"), console.PerSecond(float64(rows)/gone.Seconds()), foldRatio(accepted, rows))
		t.Add("queue", "%s", console.Plural(d.seen.queued, "write", "writes"))
		return t.Write(out)
	})
}

func foldRatio(writes int64, rows uint64) string {
	if rows == 0 {
		return "-"
	}
	return console.Short(float64(writes) / float64(rows))
}

// demoResult is what --json prints.
type demoResult struct {
	Accepted        int64       `json:"accepted"`
	Refused         int64       `json:"refused"`
	Seconds         float64     `json:"seconds"`
	PerSecond       float64     `json:"per_s"`
	Rows            uint64      `json:"rows_written"`
	FoldRatio       float64     `json:"fold_ratio"`
	RecoverySeconds float64     `json:"recovery_s"`
	DrainSeconds    float64     `json:"drain_s"`
	Lost            int64       `json:"lost"`
	Doubled         int64       `json:"doubled"`
	Wrong           int64       `json:"wrong"`
	Checks          []demoCheck `json:"checks"`
	Dir             string      `json:"dir,omitempty"`
}

func (d *demo) report(totals *demoTotals, checks []demoCheck) error {
	r := demoResult{Accepted: totals.accepted, Refused: totals.refused, Seconds: d.took.Seconds(), PerSecond: float64(totals.accepted) / d.took.Seconds(),
		Rows: d.before.rows + d.seen.rows, RecoverySeconds: d.recovery.Seconds(), DrainSeconds: d.drained.Seconds(), Checks: checks}
	r.FoldRatio = float64(r.Accepted) / float64(max(r.Rows, 1))
	for i := range checks {
		r.Lost += checks[i].Lost
		r.Doubled += checks[i].Doubled
		r.Wrong += checks[i].Wrong
	}
	if d.f.keep {
		r.Dir = d.server.dir
	}
	var err error
	if d.p.json {
		err = d.p.printJSON(r)
	} else {
		err = d.printResult(&r)
	}
	if err == nil && r.Lost+r.Doubled+r.Wrong > 0 {
		return answer(exitFailed)
	}
	return err
}

func (d *demo) printResult(r *demoResult) error {
	out := d.p.out
	if out.Terminal {
		_ = d.screen.Draw(func(*console.Console) error { return nil })
	}
	var t console.Pairs
	t.Add("accepted", "%s in %s, %s from %s", out.Bold(console.Plural(r.Accepted, "write", "writes")), console.Span(d.took),
		console.PerSecond(r.PerSecond), console.Plural(d.f.connections, "connection", "connections"))
	if r.Refused > 0 {
		t.Add("refused", "%s", console.Plural(r.Refused, "write", "writes"))
	}
	t.Add("written", "%s, %s writes to a row", out.Bold(console.Plural(r.Rows, "row", "rows")), foldRatio(r.Accepted, r.Rows))
	t.Add("kill -9", "after %s, with %s in the queue; ready again after %s", console.Span(d.killedAt),
		console.Plural(d.before.queued, "write", "writes"), out.Bold(console.Span(d.recovery)))
	t.Add("drain", "%s until the database had everything", console.Span(d.drained))
	d.p.say("")
	if err := t.Write(out); err != nil {
		return err
	}
	d.p.say("")
	if err := checkTable(out, r.Checks).Write(out); err != nil {
		return err
	}
	verdict := out.Green("lost 0, doubled 0: the database holds exactly what was acknowledged")
	if r.Lost+r.Doubled+r.Wrong > 0 {
		verdict = out.Red(fmt.Sprintf("lost %s, doubled %s, wrong %s", console.Count(r.Lost), console.Count(r.Doubled), console.Count(r.Wrong)))
	}
	d.p.say("\n%s", verdict)
	return nil
}

func checkTable(out *console.Console, checks []demoCheck) *console.Table {
	l, r := console.Left, console.Right
	t := &console.Table{Columns: []console.Column{l("IN SQLITE"), r("SENT"), r("FOUND"), r("LOST"), r("DOUBLED"), r("WRONG"), l("")}}
	for i := range checks {
		c := &checks[i]
		note := c.Note
		if !c.ok() {
			note = out.Red("differs") + " " + note
		}
		t.Row(c.What, console.Count(c.Sent), console.Count(c.Found), console.Count(c.Lost), console.Count(c.Doubled), hidden(uint64(c.Wrong)), note)
	}
	return t
}

// sayKept tells how to look into the folder.
func (d *demo) sayKept(dir string) {
	if d.p.json {
		return
	}
	d.p.say(`
kept in %s; to look around:
  sqlite3 %s/demo.db 'SELECT post_id, likes, views, viewers FROM posts_metrics ORDER BY likes DESC LIMIT 10'
  sluice serve -c %s/sluice.yaml
  sluice journal verify -c %s/sluice.yaml`, dir, dir, dir, dir)
}
