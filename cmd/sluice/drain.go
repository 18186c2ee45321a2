package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

func (p *program) drain() *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{Use: "drain", Short: "Empty the queue: the database has everything", Args: p.noArgs(),
		Long: `Waits until every store has every write that was acknowledged before, without
waiting for flush intervals. Then the tables hold everything and Sluice can be
taken away: stop the writers first, drain, stop the server.`,
		Example: "  sluice drain\n  sluice drain --timeout 10m && echo done",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.runDrain(cmd.Context(), limit) }}
	cmd.Flags().DurationVar(&limit, "timeout", 0, "give up after this time (default: never)")
	return cmd
}

func (p *program) runDrain(ctx context.Context, limit time.Duration) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	began := time.Now()
	bar := p.err.Progress(console.ProgressOptions{Title: "draining", Unit: func(n int64) string { return console.Short(float64(n)) }})
	var most, left uint64
	err = c.Drain(ctx, func(queued uint64) {
		most, left = max(most, queued), queued
		bar.Set(int64(most-queued), int64(most), "")
	})
	bar.Stop()
	if errors.Is(err, context.DeadlineExceeded) {
		return sluice.Errorf(sluice.Unavailable, "not_drained", "after %s %s still queued; `sluice status` says where, and `sluice drain` goes on",
			limit, console.Plural(left, "write is", "writes are"))
	}
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]any{"drained": true, "writes": most, "seconds": time.Since(began).Seconds()})
	}
	p.say("%s  (%s in %s)", p.out.Green("the database has everything"), console.Plural(most, "write", "writes"), console.Span(time.Since(began)))
	return nil
}
