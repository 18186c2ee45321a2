package main

import (
	"fmt"
	"time"

	"sluice.dev/sluice/internal/console"
)

// benchResult is what --json prints.
type benchResult struct {
	Database    benchFacts   `json:"database"`
	JournalSync microseconds `json:"journal_fsync_us"`
	Schema      string       `json:"schema"`
	Seconds     float64      `json:"seconds"`
	Clients     int          `json:"clients"`
	Keys        int          `json:"keys"`
	Rows        []benchRow   `json:"rows"`
	Kill        []benchKill  `json:"kill,omitempty"`
}

// say tells what happens; on a terminal it stands above the block that is redrawn.
func (b *bench) say(format string, args ...any) {
	if b.p.json {
		return
	}
	_ = b.screen.Draw(func(*console.Console) error { return nil })
	b.p.say(format, args...)
	b.screen = b.p.out.Screen()
}

// head says what the numbers depend on.
func (b *bench) head() {
	d := &b.result.Database
	b.say("PostgreSQL %s, fsync %s, synchronous_commit %s, a round trip takes %s", d.Version, d.Fsync, d.SynchronousCommit, d.RoundTrip.span())
	b.say("Sluice's journal in %s, an fsync takes %s", b.server.dir, b.result.JournalSync.span())
	b.say("%s clients, %s posts, %s a run, schema %s", console.Count(b.f.clients), console.Count(b.f.keys), console.Span(b.sendTime()), b.f.schema)
	for _, w := range b.warnings() {
		b.say("%s %s", b.p.out.Yellow("note:"), w)
	}
	b.say("")
}

// warnings are the reasons why a comparison would not be fair.
func (b *bench) warnings() (w []string) {
	if b.result.JournalSync < benchSyncFreeMax {
		w = append(w, "an fsync costs nothing there: it is memory, or a disk that promises too much; name a folder on a real disk with --dir")
	}
	if d := &b.result.Database; d.Fsync == "off" || d.SynchronousCommit == "off" {
		w = append(w, "direct writes are not durable when they are acknowledged, Sluice's are: the settings above save the database what Sluice pays")
	}
	return w
}

// draw shows what is under way; s is nil once everything is sent.
func (b *bench) draw(r *benchRun, s *sending, queued uint64) {
	if b.p.json || !b.p.out.Terminal {
		return
	}
	_ = b.screen.Draw(func(out *console.Console) error { // a terminal that is gone is no reason to stop
		if err := benchTable(out, b.result.Rows).Write(out); err != nil {
			return err
		}
		doing := fmt.Sprintf("draining, %s left", console.Plural(queued, "write", "writes"))
		if s != nil {
			gone := time.Since(s.began)
			doing = fmt.Sprintf("%s %s of %s  %s", console.Bar(gone.Seconds()/b.f.seconds, 20), console.Span(min(gone, b.sendTime())), console.Span(b.sendTime()),
				console.PerSecond(float64(s.writes.Load())/gone.Seconds()))
		}
		_, err := fmt.Fprintf(out.W, "\n%s, %s: %s\n", r.Workload, r.How, doing)
		return err
	})
}

func (b *bench) drawKill(k *benchKill, s *sending) {
	if b.p.json || !b.p.out.Terminal {
		return
	}
	_ = b.screen.Draw(func(out *console.Console) error {
		if err := benchTable(out, b.result.Rows).Write(out); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out.W, "\nkill -9, %s: %d of %d, %s acknowledged\n", k.Side, k.Kills, benchKills, console.Plural(s.writes.Load(), "write", "writes"))
		return err
	})
}

// sayRow and sayKill tell a result where nothing can be redrawn.
func (b *bench) sayRow(r *benchRow) {
	if !b.p.out.Terminal {
		b.say("%-14s %-24s %10s", r.Workload, r.How, console.PerSecond(r.InDatabase))
	}
}

func (b *bench) sayKill(k *benchKill) {
	if !b.p.out.Terminal {
		b.say("%-14s %-24s lost %s, doubled %s", "kill -9", k.Side, console.Count(k.Lost), console.Count(k.Doubled))
	}
}

// report prints the result. Sluice must not lose or double; that direct does
// so when it is killed is a finding.
func (b *bench) report() error {
	bad := 0
	for i := range b.result.Rows {
		if r := &b.result.Rows[i]; r.Lost != 0 || r.Doubled != 0 {
			bad++
		}
	}
	for i := range b.result.Kill {
		if k := &b.result.Kill[i]; k.Side == "sluice" && (k.Lost != 0 || k.Doubled != 0) {
			bad++
		}
	}
	if b.p.json {
		if err := b.p.printJSON(b.result); err != nil {
			return err
		}
	} else if err := b.printTables(bad); err != nil {
		return err
	}
	if bad > 0 {
		return answer(exitFailed)
	}
	return nil
}

func (b *bench) printTables(bad int) error {
	out := b.p.out
	b.say("")
	if err := benchTable(out, b.result.Rows).Write(out); err != nil {
		return err
	}
	b.say("\none idle like: the ratio compares p50; elsewhere IN DB/S. SQL sees a write of Sluice after flush (here 1 s), or when its receipt is waited for.")
	b.say("%d a request compares with single statements too; batches written by hand would make direct quicker as well.", benchBatch)
	if len(b.result.Kill) > 0 {
		b.say("")
		if err := killTable(out, b.result.Kill).Write(out); err != nil {
			return err
		}
		b.say("\nboth sides send again what was not answered; direct has no name for a write, so what had been committed counts twice.")
	}
	if bad > 0 {
		b.say("\n%s", out.Red("the database does not hold what was acknowledged: see LOST and DOUBLED"))
		return nil
	}
	b.say("\n%s", out.Green("every total of Sluice is exact"))
	return nil
}

func benchTable(out *console.Console, rows []benchRow) *console.Table {
	l, r := console.Left, console.Right
	t := &console.Table{Columns: []console.Column{l("WORKLOAD"), l("HOW"), r("WRITES"), r("ACKED/S"), r("IN DB/S"), r("P50"), r("P99"), r("DB ROWS"), r("RATIO"),
		r("LOST"), r("DOUBLED")}}
	last := ""
	for i := range rows {
		row := &rows[i]
		name := row.Workload
		if name == last {
			name = ""
		}
		last = row.Workload
		ratio := console.Ratio(row.Ratio)
		switch {
		case row.Ratio == 0:
			ratio = ""
		case row.Ratio < 1:
			ratio = out.Yellow(ratio)
		}
		t.Row(out.Bold(name), row.How, console.Count(row.Writes), console.Short(row.Acked), console.Short(row.InDatabase), row.P50.span(), row.P99.span(),
			console.Count(row.Rows), ratio, out.Red(hidden(uint64(max(row.Lost, 0)))), out.Red(hidden(uint64(max(row.Doubled, 0)))))
	}
	return t
}
