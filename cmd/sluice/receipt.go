package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

func (p *program) receipt() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{Use: "receipt RECEIPT", Short: "Say what became of a write", Args: p.exactly(1, "one receipt"),
		Long: `Says for each group of a write whether it is queued, applied, rejected (the
database refused it), expired or lost. Exit code 4 when some of it was rejected.`,
		Example: "  sluice receipt AWxv...\n  sluice receipt AWxv... --wait 5s",
		RunE:    func(cmd *cobra.Command, args []string) error { return p.runReceipt(cmd.Context(), args[0], wait) }}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait this long for the database to have it")
	return cmd
}

func (p *program) runReceipt(ctx context.Context, receipt string, wait time.Duration) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	st, err := c.Receipt(ctx, receipt, wait)
	if err != nil {
		return err
	}
	if p.json {
		err = p.printJSON(st)
	} else {
		err = groupTable(p.out, st.Groups).Write(p.out)
	}
	if err != nil {
		return err
	}
	return stateExit(st.State)
}

// groupTable says what became of each group of a write.
func groupTable(out *console.Console, groups []sluice.GroupStatus) *console.Table {
	t := &console.Table{Columns: []console.Column{console.Left("TABLE"), console.Left("GROUP"), console.Left("STATE"), console.Left("WHY")}}
	for _, g := range groups {
		why := ""
		if len(g.Rejects) > 0 {
			r := g.Rejects[0]
			why = fmt.Sprintf("%s: %s (reject %s)", showKey(r.Key), r.Reason, r.ID)
			if more := len(g.Rejects) - 1; more > 0 {
				why += fmt.Sprintf(" and %s", console.Plural(more, "more", "more"))
			}
		}
		t.Row(g.Table, g.Group, writeState(out, g.State), console.Clean(why))
	}
	return t
}

func writeState(out *console.Console, state string) string {
	switch state {
	case sluice.StateApplied:
		return out.Green(state)
	case sluice.StateRejected, sluice.StateLost:
		return out.Red(state)
	default:
		return out.Yellow(state)
	}
}

// stateExit is the exit code for the state of a write.
func stateExit(state string) error {
	switch state {
	case sluice.StateRejected, sluice.StateExpired:
		return answer(exitPartly)
	case sluice.StateLost:
		return answer(exitFailed)
	default:
		return nil
	}
}
