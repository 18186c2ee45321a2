package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/console"
)

func (p *program) rejects() *cobra.Command {
	return p.group("rejects", "Show and decide what a database refused",
		"  sluice rejects ls\n  sluice rejects show 1042.7\n  sluice rejects replay 1042.7",
		p.rejectsList(), p.rejectsShow(),
		p.rejectsDecide("replay", "Write a reject again, through the journal", "after the cause is mended"),
		p.rejectsDecide("discard", "Give a reject up", "the ledger keeps counting it as rejected"))
}

func (p *program) rejectsList() *cobra.Command {
	q := client.RejectsQuery{}
	all := false
	cmd := &cobra.Command{Use: "ls", Short: "List rejects, newest first", Args: p.noArgs(),
		Example: "  sluice rejects ls\n  sluice rejects ls --table posts --all --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				q.State = ""
			}
			return p.runRejects(cmd.Context(), q)
		}}
	flags := cmd.Flags()
	flags.StringVar(&q.Table, "table", "", "of this table only")
	flags.StringVar(&q.Group, "group", "", "of this group only")
	flags.StringVar(&q.State, "state", "open", "open, replayed or discarded")
	flags.BoolVar(&all, "all", false, "in every state")
	flags.IntVar(&q.Max, "max", 100, "at most so many")
	return cmd
}

func (p *program) runRejects(ctx context.Context, q client.RejectsQuery) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	list, err := c.Rejects(ctx, q)
	if err != nil {
		return err
	}
	if p.json {
		for i := range list {
			if err := p.printJSON(list[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		p.say("no rejects")
		return nil
	}
	l := console.Left
	t := console.Table{Columns: []console.Column{l("ID"), l("AT"), l("TABLE"), l("GROUP"), l("KEY"), console.Right("WRITES"), l("STATE"), l("REASON")}}
	for _, r := range list {
		t.Row(p.out.Bold(r.ID), r.At.Local().Format(time.DateTime), r.Table, r.Group, console.Clean(showKey(r.Key)),
			console.Count(r.Writes), r.State, console.Clean(r.Reason))
	}
	if err := t.Write(p.out); err != nil {
		return err
	}
	if q.Max > 0 && len(list) == q.Max {
		p.say("%s", p.out.Dim("there may be more: --max"))
	}
	return nil
}

// rejectsShown bounds the search for one reject: the door lists them, it does not find them.
const rejectsShown = 10_000

func (p *program) rejectsShow() *cobra.Command {
	return &cobra.Command{Use: "show ID", Short: "Show one reject with what was refused", Args: p.exactly(1, "the id of a reject"),
		Example: "  sluice rejects show 1042.7",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			list, err := c.Rejects(cmd.Context(), client.RejectsQuery{Max: rejectsShown})
			if err != nil {
				return err
			}
			for i := range list {
				if list[i].ID == args[0] {
					return p.printReject(&list[i])
				}
			}
			return sluice.Errorf(sluice.NotFound, "no_reject", "no reject has id %s; `sluice rejects ls --all` lists them", args[0])
		}}
}

func (p *program) printReject(r *sluice.Reject) error {
	if p.json {
		return p.printJSON(r)
	}
	p.say("reject %s, %s", p.out.Bold(r.ID), r.State)
	var t console.Pairs
	t.Add("table", "%s", fullName(r.Table, r.Group))
	t.Add("key", "%s", console.Clean(showKey(r.Key)))
	t.Add("store", "%s", storeName(r.Store, r.Shard))
	t.Add("at", "%s", r.At.Local().Format(time.RFC3339))
	t.Add("reason", "%s", p.out.Red(console.Clean(r.Reason)))
	t.Add("sqlstate", "%s", r.SQLState)
	t.Add("writes", "%s", console.Count(r.Writes))
	var change bytes.Buffer
	if json.Indent(&change, r.Change, "          ", "  ") != nil {
		change.Reset()
		change.Write(r.Change)
	}
	if err := t.Write(p.out); err != nil {
		return err
	}
	p.say("  %s  %s", p.out.Dim("change"), change.String())
	if r.State == "open" {
		p.say("then: sluice rejects replay %s, or sluice rejects discard %s", r.ID, r.ID)
	}
	return nil
}

func fullName(table, group string) string {
	if group == "" {
		return table
	}
	return table + "." + group
}

func (p *program) rejectsDecide(decision, short, note string) *cobra.Command {
	return &cobra.Command{Use: decision + " ID...", Short: short, Long: short + ": " + note + ".",
		Example: fmt.Sprintf("  sluice rejects %s 1042.7\n  sluice rejects ls --json | jq -r .id | xargs sluice rejects %s", decision, decision),
		Args:    p.atLeast(1, "ids of rejects"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			return p.decide(cmd.Context(), c, decision, args)
		}}
}

// decide goes through all ids; one that fails does not keep the others.
func (p *program) decide(ctx context.Context, c *client.Client, decision string, ids []string) error {
	var failed []error
	for _, id := range ids {
		if err := c.DecideReject(ctx, id, decision); err != nil {
			failed = append(failed, fmt.Errorf("%s %s: %w", decision, id, p.unreachable(err)))
			continue
		}
		if p.json {
			if err := p.printJSON(map[string]string{"id": id, "decision": decision}); err != nil {
				return err
			}
			continue
		}
		p.say("%s: %s", id, map[string]string{"replay": "journaled again; its receipt is in the database when it is applied", "discard": "discarded"}[decision])
	}
	return errors.Join(failed...)
}
