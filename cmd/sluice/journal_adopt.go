package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/console"
	"sluice.dev/sluice/internal/journal/disk"
	"sluice.dev/sluice/internal/node"
)

const adoptHelp = `Goes on after a loss: keeps every whole commit, records what is missing as
accepted (receipts of it say "lost"), and raises commit and epoch above all that
any shard has seen. Damaged files are kept beside the journal under another name.

The server must be stopped. All shards are asked what they have, since a shard
ahead of the journal may be the only trace of a loss; --no-shards goes on without
them, with what --seen-commit and --seen-epoch say. Without --yes it only shows
what it would do.`

type adoptFlags struct {
	yes, noShards bool
	seen          disk.Seen
}

func (p *program) journalAdopt() *cobra.Command {
	var f adoptFlags
	cmd := &cobra.Command{Use: "adopt", Short: "Go on without what is lost", Long: adoptHelp, Args: p.noArgs(),
		Example: `  sluice journal verify
  sluice journal adopt            # shows what is lost
  sluice journal adopt --yes`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runAdopt(cmd.Context(), f) }}
	flags := cmd.Flags()
	flags.BoolVar(&f.yes, "yes", false, "yes, go on without what is lost")
	flags.BoolVar(&f.noShards, "no-shards", false, "do not ask the shards")
	flags.Uint64Var(&f.seen.Commit, "seen-commit", 0, "highest commit that a shard has")
	flags.Uint64Var(&f.seen.Epoch, "seen-epoch", 0, "highest epoch that a shard has")
	return cmd
}

func (p *program) runAdopt(ctx context.Context, f adoptFlags) error {
	o, err := p.journalOptions()
	if err != nil {
		return err
	}
	if !f.noShards {
		if err := p.askShards(ctx, &f.seen); err != nil {
			return err
		}
	}
	if !f.yes {
		return p.previewAdopt(o, f.seen)
	}
	done, err := disk.Adopt(o, f.seen)
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]any{"last": done.Last, "next": done.Next, "epoch": done.Epoch, "gaps": done.Gaps, "aside": done.Aside})
	}
	var t console.Pairs
	t.Add("kept", "commits to %s", console.Count(done.Last))
	t.Add("goes on", "at commit %s, epoch %s", console.Count(done.Next), console.Count(done.Epoch))
	for _, g := range done.Gaps {
		t.Add("lost", "commits %s to %s %s", console.Count(g.First), console.Count(g.Last), g.Note)
	}
	for _, file := range done.Aside {
		t.Add("kept aside", "%s", file)
	}
	p.say("%s", p.out.Green("adopted: the next start goes on from here"))
	return t.Write(p.out)
}

// askShards raises seen to what the shards have.
func (p *program) askShards(ctx context.Context, seen *disk.Seen) error {
	config, err := p.readConfig()
	if err != nil {
		return fmt.Errorf("which shards are there? the config has faults, and --no-shards goes on without it:\n%w", err)
	}
	found, err := node.Seen(ctx, config)
	if err != nil {
		return fmt.Errorf("ask the shards what they have: %w; --no-shards with --seen-commit and --seen-epoch goes on without them", err)
	}
	seen.Commit, seen.Epoch = max(seen.Commit, found.Commit), max(seen.Epoch, found.Epoch)
	return nil
}

// previewAdopt shows what is lost and changes nothing.
func (p *program) previewAdopt(o disk.Options, seen disk.Seen) error {
	report, err := disk.Verify(o, nil)
	if err != nil {
		return err
	}
	if p.json {
		out := verifyJSON(&report)
		out["seen_commit"], out["seen_epoch"], out["adopted"] = seen.Commit, seen.Epoch, false
		return p.printJSON(out)
	}
	if err := p.printReport(o.Dir, &report); err != nil {
		return err
	}
	if seen.Commit > report.Last {
		p.say("a shard has commit %s, the journal ends at %s: what lies between is lost", console.Count(seen.Commit), console.Count(report.Last))
	}
	p.say("nothing was changed; --yes goes on without what is lost")
	return nil
}
