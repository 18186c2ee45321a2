package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

const hotHelp = `Shows the keys that take at least 1 % of a group's writes, and at least 25 writes a
second: how much they take, since when, and what is done about it. A key is
here within a second. SHARE is of the last 0.6 s and at least what it says;
ERROR is how much more it may be, and empty where the count is exact.

A key that has had less than 0.5 % for 5 s is forgotten; until then it is cooling.`

const hotExample = `  sluice hot
  sluice hot --watch
  sluice hot --json | jq '.[] | select(.rule == "batched")'`

func (p *program) hot() *cobra.Command {
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{Use: "hot", Short: "Show the keys that take many of the writes", Long: hotHelp, Example: hotExample, Args: p.noArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runHot(cmd.Context(), watch, every) }}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show again and again, until ctrl-C")
	cmd.Flags().DurationVar(&every, "every", time.Second, "how often, with --watch")
	return cmd
}

func (p *program) runHot(ctx context.Context, watch bool, every time.Duration) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	screen := p.out.Screen()
	show := func() error {
		keys, err := c.Hot(ctx)
		switch {
		case err != nil && watch && !p.json && sluice.CodeOf(err) == sluice.Unavailable:
			// A server that restarts does not end the watch, as in status.
			return screen.Draw(func(out *console.Console) error {
				_, err = out.W.Write([]byte(out.Yellow("no answer: "+console.Clean(err.Error())) + "\n"))
				return err
			})
		case err != nil:
			return err
		case p.json:
			return p.printJSON(keys)
		}
		return screen.Draw(func(out *console.Console) error { return renderHot(out, keys, time.Now()) })
	}
	if !watch {
		return show()
	}
	return p.repeat(ctx, every, show)
}

func renderHot(out *console.Console, keys []sluice.HotKey, now time.Time) error {
	if len(keys) == 0 {
		_, err := out.W.Write([]byte("no key takes 1 % of a group's writes and 25 writes a second\n"))
		return err
	}
	l, r := console.Left, console.Right
	t := &console.Table{Columns: []console.Column{l("TABLE"), l("GROUP"), l("KEY"), r("WRITES/S"), r("SHARE"), r("ERROR"), r("SINCE"), l("STATE"), l("WHAT IS DONE")}}
	last := ""
	for _, k := range keys {
		table := k.Table
		if table == last {
			table = ""
		}
		last = k.Table
		state := ""
		if k.State != "hot" {
			state = out.Dim(k.State)
		}
		t.Row(out.Bold(table), k.Group, console.Clean(showKey(k.Key)), console.Short(k.PerSecond), percent(k.Share), errorText(k.ShareError),
			console.Span(max(0, now.Sub(k.Since))), state, console.Clean(k.Detail))
	}
	return t.Write(out)
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', 1, 64) + " %" }

// errorText leaves out what is too small to show.
func errorText(share float64) string {
	if share < 0.000005 {
		return ""
	}
	return "+" + strconv.FormatFloat(100*share, 'f', 3, 64) + " %"
}
