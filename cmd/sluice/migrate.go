package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/console"
	"sluice.dev/sluice/internal/node"
)

const migrateHelp = `Shows the statements that make the tables which the config needs and the
databases lack, and runs them with --apply. With ddl: auto (the default but for
PostgreSQL with existing tables) the server does that itself.

--down is the way back: it takes away Sluice's own tables and those that it made,
with all rows in them. Tables that were there before are never touched. Drain and
stop the server first.`

type migrateFlags struct{ print, apply, down, yes bool }

func (p *program) migrate() *cobra.Command {
	var f migrateFlags
	cmd := &cobra.Command{Use: "migrate", Short: "Show or run the statements that the databases need", Long: migrateHelp, Args: p.noArgs(),
		Example: `  sluice migrate --print
  sluice migrate --print > review.sql
  sluice migrate --apply
  sluice migrate --down --print
  sluice migrate --down --apply --yes`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runMigrate(cmd.Context(), f) }}
	flags := cmd.Flags()
	flags.BoolVar(&f.print, "print", false, "only show the statements (the default)")
	flags.BoolVar(&f.apply, "apply", false, "run the statements")
	flags.BoolVar(&f.down, "down", false, "the statements that take the tables away")
	flags.BoolVar(&f.yes, "yes", false, "with --down --apply: yes, the rows too")
	return cmd
}

func (p *program) runMigrate(ctx context.Context, f migrateFlags) error {
	if f.print && f.apply {
		return usage("--print only shows the statements, --apply runs them: give one of them")
	}
	if f.down && f.apply && !f.yes {
		return usage("--down --apply deletes tables with all rows in them; see what with --down --print, then add --yes")
	}
	config, err := p.readConfig()
	if err != nil {
		return err
	}
	warn := func(text string) { fmt.Fprintf(p.Stderr, "%s %s\n", p.err.Yellow("warning:"), text) }
	plans, err := node.Migrate(ctx, config, node.MigrateOptions{Down: f.down, Apply: f.apply, Warn: warn})
	if err != nil {
		return err
	}
	if p.json {
		return p.plansJSON(plans, f.apply)
	}
	statements := 0
	for _, plan := range plans {
		statements += len(plan.Statements)
		p.printPlan(&plan)
	}
	switch {
	case statements == 0 && f.down:
		p.say("-- no database has tables of Sluice")
	case statements == 0:
		p.say("-- the databases have all tables")
	case f.apply:
		p.say("-- %s", p.out.Green("ran "+console.Plural(statements, "statement", "statements")))
	}
	return nil
}

// printPlan prints a plan as SQL that can be run as it is.
func (p *program) printPlan(plan *node.ShardPlan) {
	if len(plan.Statements) == 0 {
		return
	}
	p.say("-- store %s", storeName(plan.Store, plan.Shard))
	for _, sql := range plan.Statements {
		p.say("%s;", strings.TrimSuffix(strings.TrimSpace(sql), ";"))
	}
	p.say("")
}

func (p *program) plansJSON(plans []node.ShardPlan, applied bool) error {
	type shard struct {
		Store      string   `json:"store"`
		Shard      string   `json:"shard"`
		Statements []string `json:"statements"`
		Applied    bool     `json:"applied"`
	}
	out := []shard{}
	for _, plan := range plans {
		out = append(out, shard{plan.Store, plan.Shard, plan.Statements, applied && len(plan.Statements) > 0})
	}
	return p.printJSON(out)
}
