package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
	"sluice.dev/sluice/internal/schema"
)

const statusExample = `  sluice status
  sluice status --watch
  sluice status --json | jq '.groups[] | select(.state == "stopped")'`

func (p *program) status() *cobra.Command {
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use: "status", Short: "Show the queues, the journal and the stores", Example: statusExample, Args: p.noArgs(),
		Long: `Shows for each group how much waits, how old the oldest of it is, how many rows
a second go into the store and how many writes became one row.

States: draining, idle (everything is applied), retrying (the store does not
answer), stopped (needs a decision; the error names the command).`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runStatus(cmd.Context(), watch, every) },
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show again and again, until ctrl-C")
	cmd.Flags().DurationVar(&every, "every", time.Second, "how often, with --watch")
	return cmd
}

func (p *program) runStatus(ctx context.Context, watch bool, every time.Duration) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	if !watch {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if p.json {
			return p.printJSON(st)
		}
		return renderStatus(p.out, &st)
	}
	screen := p.out.Screen()
	var last sluice.Status
	return p.repeat(ctx, every, func() error {
		st, err := c.Status(ctx)
		if err == nil {
			next := st
			next.Streams = slices.Clone(st.Streams)
			rates(&st, &last)
			last = next
		}
		switch {
		case p.json && err == nil:
			return p.printJSON(st)
		case p.json || err != nil && sluice.CodeOf(err) != sluice.Unavailable:
			return err
		}
		// A server that restarts is what one watches for, so it does not end the watch.
		return screen.Draw(func(out *console.Console) error {
			if err != nil {
				_, err = out.W.Write([]byte(out.Yellow("no answer: "+console.Clean(err.Error())) + "\n"))
				return err
			}
			return renderStatus(out, &st)
		})
	})
}

// rates puts the rates since the look before in place of what the server says,
// which is smoother and slower. A server that restarted has no look before.
func rates(now, before *sluice.Status) {
	span := now.Uptime - before.Uptime
	if span <= 0 || before.Uptime == 0 || now.Journal.Accepted < before.Journal.Accepted {
		return
	}
	now.Journal.PerSecond = float64(now.Journal.Accepted-before.Journal.Accepted) / span
	for i := range now.Streams {
		s := &now.Streams[i]
		for j := range before.Streams {
			if b := &before.Streams[j]; b.Table == s.Table && b.Group == s.Group && b.Store == s.Store && b.Shard == s.Shard && s.Rows >= b.Rows {
				s.RowsPerS = float64(s.Rows-b.Rows) / span
			}
		}
	}
}

// repeat calls do now and then each interval, until ctx ends: that is no error.
func (p *program) repeat(ctx context.Context, every time.Duration, do func() error) error {
	tick := time.NewTicker(max(every, 50*time.Millisecond))
	defer tick.Stop()
	for {
		if err := do(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func renderStatus(out *console.Console, st *sluice.Status) error {
	var head console.Pairs
	state := out.Green("ready")
	if !st.Ready {
		state = out.Yellow("not ready")
	}
	head.Add("sluice", "%s, %s, up %s, memory %s", st.Version, state, console.Seconds(st.Uptime), console.Bytes(int64(st.Memory)))
	j := &st.Journal
	head.Add("journal", "%s %s of %s, %s, commits %s to %s", levelBar(j), console.Bytes(j.Bytes), console.Bytes(j.BytesMax),
		console.Plural(j.Segments, "segment", "segments"), console.Count(j.First), console.Count(j.Head))
	head.Add("accepted", "%s, %s", console.Plural(j.Accepted, "write", "writes"), console.PerSecond(j.PerSecond))
	head.Add("refusing", "%s", out.Red(console.Clean(j.Refusing)))
	head.Add("retain", "%s", console.Clean(j.RetainNote))
	if err := head.Write(out); err != nil {
		return err
	}
	if len(st.Streams) == 0 {
		return nil
	}
	if _, err := out.W.Write([]byte("\n")); err != nil {
		return err
	}
	streams := slices.Clone(st.Streams)
	slices.SortStableFunc(streams, func(a, b sluice.StreamStatus) int {
		return strings.Compare(a.Table+"\x00"+a.Group+"\x00"+a.Shard, b.Table+"\x00"+b.Group+"\x00"+b.Shard)
	})
	if err := streamTable(out, streams).Write(out); err != nil {
		return err
	}
	return streamErrors(out, streams)
}

// streamErrors says below the table what stops a stream: in a column the end of
// a sentence would be cut off, and there stands the cure.
func streamErrors(out *console.Console, streams []sluice.StreamStatus) error {
	for _, s := range streams {
		if s.Error == "" {
			continue
		}
		_, err := fmt.Fprintf(out.W, "\n%s in store %s is %s: %s\n", out.Bold(fullName(s.Table, s.Group)), storeName(s.Store, s.Shard),
			stateColor(out, s.State), console.Clean(s.Error))
		if err != nil {
			return err
		}
	}
	return nil
}

func levelBar(j *sluice.JournalStatus) string {
	if j.BytesMax <= 0 {
		return ""
	}
	return console.Bar(float64(j.Bytes)/float64(j.BytesMax), 10)
}

func streamTable(out *console.Console, streams []sluice.StreamStatus) *console.Table {
	l, r := console.Left, console.Right
	t := &console.Table{Columns: []console.Column{l("TABLE"), l("GROUP"), l("STORE"), l("STATE"), r("QUEUED"), r("AGE"), r("ROWS/S"),
		r("FOLD"), r("ROWS"), r("PARKED"), r("REJECTED")}}
	last := ""
	for _, s := range streams {
		table := s.Table
		if table == last {
			table = ""
		}
		last = s.Table
		t.Row(out.Bold(table), s.Group, storeName(s.Store, s.Shard), stateColor(out, s.State), zero(s.Queued), age(s), rowRate(s), console.Ratio(s.FoldRatio),
			console.Count(s.Rows), hidden(s.Parked), out.Yellow(hidden(s.Rejected)))
	}
	return t
}

// storeName leaves out the shard's name when the store has only the one.
func storeName(store, shard string) string {
	if shard == "" || shard == schema.ShortShard {
		return store
	}
	return store + "/" + shard
}

func stateColor(out *console.Console, state string) string {
	switch state {
	case "retrying":
		return out.Yellow(state)
	case "stopped":
		return out.Red(state)
	default:
		return state
	}
}

// zero shows nothing to do as a dash, so that what waits catches the eye.
func zero(n uint64) string {
	if n == 0 {
		return "-"
	}
	return console.Count(n)
}

// hidden is for columns that are there only when something is in them.
func hidden(n uint64) string {
	if n == 0 {
		return ""
	}
	return console.Count(n)
}

func age(s sluice.StreamStatus) string {
	if s.Queued == 0 {
		return "-"
	}
	return console.Seconds(s.AgeSec)
}

func rowRate(s sluice.StreamStatus) string {
	if s.RowsPerS < 0.05 {
		return "-"
	}
	return console.Short(s.RowsPerS)
}
