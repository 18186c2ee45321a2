package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/console"
)

const getHelp = `Reads rows by key from the stores, all groups of a row together.

A row is what the database holds; writes that wait in the queue are not in it,
and the answer says how old they are. With --receipt the read waits for that
write.

` + valueHelp

const getExample = `  sluice get posts 42
  sluice get posts 42 43 44
  sluice get timeline user_id=7,post_id=42
  sluice get posts 42 --receipt AWxv... --json`

func (p *program) get() *cobra.Command {
	var o client.ReadOptions
	cmd := &cobra.Command{Use: "get TABLE KEY...", Short: "Read rows by key", Long: getHelp, Example: getExample,
		Args: p.atLeast(2, "a table and one or more keys"),
		RunE: func(cmd *cobra.Command, args []string) error { return p.runGet(cmd.Context(), args, o) }}
	cmd.Flags().StringVar(&o.Receipt, "receipt", "", "wait for the write with this receipt")
	cmd.Flags().DurationVar(&o.Wait, "wait", 5*time.Second, "how long, with --receipt")
	cmd.Flags().StringSliceVar(&o.Groups, "group", nil, "read these groups only")
	return cmd
}

func (p *program) runGet(ctx context.Context, args []string, o client.ReadOptions) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	if o.Receipt == "" {
		o.Wait = 0
	}
	var keys []any
	for _, text := range args[1:] {
		keys = append(keys, parseKey(text))
	}
	rows, err := c.ReadMany(ctx, args[0], keys, o)
	if err != nil {
		return err
	}
	if p.json {
		for i := range rows {
			if err := p.printJSON(rows[i]); err != nil {
				return err
			}
		}
	} else if err := p.printRows(rows); err != nil {
		return err
	}
	if !slices.ContainsFunc(rows, func(r sluice.Row) bool { return r.Found }) {
		return answer(exitFailed)
	}
	return nil
}

func (p *program) printRows(rows []sluice.Row) error {
	if len(rows) > 1 {
		return rowTable(p.out, rows).Write(p.out)
	}
	row := rows[0]
	p.say("%s %s", p.out.Bold(row.Table), p.out.Bold(console.Clean(showKey(row.Key))))
	if !row.Found {
		p.say("  no such row%s", staleness(row.StaleBy, "; a write that waits may make it"))
		return nil
	}
	var t console.Pairs
	for _, column := range slices.Sorted(maps.Keys(row.Columns)) {
		t.Add(column, "%s", cell(p.out, row.Columns[column]))
	}
	if err := t.Write(p.out); err != nil {
		return err
	}
	if row.StaleBy > 0 {
		p.say("%s", p.out.Yellow("writes of the last "+console.Span(row.StaleBy)+" may not be in it"))
	}
	return nil
}

func staleness(by time.Duration, text string) string {
	if by == 0 {
		return ""
	}
	return text + " (" + console.Span(by) + ")"
}

// rowTable shows several rows under each other, with all columns that any has.
func rowTable(out *console.Console, rows []sluice.Row) *console.Table {
	names := map[string]bool{}
	for _, row := range rows {
		for name := range row.Columns {
			names[name] = true
		}
	}
	columns := slices.Sorted(maps.Keys(names))
	t := &console.Table{Columns: []console.Column{console.Left("KEY")}}
	for _, name := range columns {
		t.Columns = append(t.Columns, console.Left(name))
	}
	t.Columns = append(t.Columns, console.Right("STALE BY"), console.Left(""))
	for _, row := range rows {
		cells := []string{out.Bold(console.Clean(showKey(row.Key)))}
		for _, name := range columns {
			cells = append(cells, cell(out, row.Columns[name]))
		}
		stale, missing := "", ""
		if row.StaleBy > 0 {
			stale = out.Yellow(console.Span(row.StaleBy))
		}
		if !row.Found {
			missing = "no such row"
		}
		t.Row(append(cells, stale, missing)...)
	}
	return t
}

func cell(out *console.Console, raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return out.Dim("-")
	}
	return console.Clean(showJSON(raw))
}
