package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

const ledgerHelp = `Shows for each group what became of every write that was offered:

  offered = acked + duplicate + shed + refused
  acked   = applied + rejected + expired + lost + queued

Shed writes were sampled or thinned away as the config says; refused ones hit a
limit and were answered with a reason and a time to come back. A line that does
not balance is marked: a kill loses at most the last second of the counts of
duplicate, shed and refused, never of a write.`

func (p *program) ledger() *cobra.Command {
	var follow bool
	var every time.Duration
	cmd := &cobra.Command{Use: "ledger", Short: "Show what became of every write", Long: ledgerHelp, Args: p.noArgs(),
		Example: "  sluice ledger\n  sluice ledger --follow\n  sluice ledger --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.runLedger(cmd.Context(), follow, every) }}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "show again and again, until ctrl-C")
	cmd.Flags().DurationVar(&every, "every", time.Second, "how often, with --follow")
	return cmd
}

func (p *program) runLedger(ctx context.Context, follow bool, every time.Duration) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	screen := p.out.Screen()
	show := func() error {
		rows, err := c.Ledger(ctx)
		if err != nil {
			return err
		}
		if p.json {
			return p.printJSON(rows)
		}
		return screen.Draw(func(out *console.Console) error { return ledgerTable(out, rows).Write(out) })
	}
	if !follow {
		return show()
	}
	return p.repeat(ctx, every, show)
}

func ledgerTable(out *console.Console, rows []sluice.LedgerRow) *console.Table {
	l, r := console.Left, console.Right
	t := &console.Table{Columns: []console.Column{l("TABLE"), l("GROUP"), r("OFFERED"), r("ACKED"), r("DUPLICATE"), r("SHED"), r("REFUSED"),
		r("APPLIED"), r("QUEUED"), r("REJECTED"), r("EXPIRED"), r("LOST"), l("NOTES")}}
	last := ""
	for _, row := range rows {
		table := row.Table
		if table == last {
			table = ""
		}
		last = row.Table
		t.Row(out.Bold(table), row.Group, console.Count(row.Offered), console.Count(row.Acked), hidden(row.Duplicate),
			hidden(total(row.Shed)), out.Yellow(hidden(total(row.Refused))), console.Count(row.Applied), zero(row.Queued),
			out.Red(hidden(row.Rejected)), hidden(row.Expired), out.Red(hidden(row.Lost)), out.Yellow(ledgerNotes(&row)))
	}
	return t
}

func total(counts map[string]uint64) (sum uint64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// ledgerNotes gives the reasons, and what does not balance.
func ledgerNotes(r *sluice.LedgerRow) string {
	var notes []string
	for _, counts := range []map[string]uint64{r.Shed, r.Refused} {
		for _, reason := range slices.Sorted(maps.Keys(counts)) {
			notes = append(notes, reason+" "+console.Count(counts[reason]))
		}
	}
	if offered := r.Acked + r.Duplicate + total(r.Shed) + total(r.Refused); offered != r.Offered {
		notes = append(notes, "offered is off by "+console.Count(int64(r.Offered-offered)))
	}
	if acked := r.Applied + r.Rejected + r.Expired + r.Lost + r.Queued; acked != r.Acked {
		notes = append(notes, "acked is off by "+console.Count(int64(r.Acked-acked)))
	}
	return strings.Join(notes, ", ")
}
