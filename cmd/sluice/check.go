package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/console"
	"sluice.dev/sluice/internal/schema"
)

func (p *program) check() *cobra.Command {
	return &cobra.Command{Use: "check", Short: "Check the config, and say what it promises", Args: p.noArgs(),
		Long: `Checks the config as a whole and prints every fault with its line and the cure;
exit code 1 when there is one. Without faults it prints what each table promises:
how writes to each column merge, what is exact, what the database may refuse, and
what can be moved between shards. No database is asked.`,
		Example: "  sluice check\n  sluice check -c shop.yaml --json",
		RunE:    func(*cobra.Command, []string) error { return p.runCheck() }}
}

func (p *program) runCheck() error {
	file, _ := p.configFile()
	config, faults := schema.Load(file, p.Env)
	if p.json {
		return p.checkJSON(config, faults)
	}
	if len(faults) > 0 {
		for _, f := range faults {
			fmt.Fprintln(p.Stdout, f.String())
		}
		p.say("%s", p.out.Red(console.Plural(len(faults), "fault", "faults")))
		return answer(exitFailed)
	}
	for _, t := range config.Promises() {
		if err := p.printPromise(&t); err != nil {
			return err
		}
	}
	for _, note := range config.Notes() {
		p.say("note: %s", note)
	}
	p.say("%s", p.out.Green(file+" has no faults"))
	return nil
}

func (p *program) checkJSON(config *schema.Config, faults schema.Faults) error {
	type fault struct {
		File   string `json:"file"`
		Line   int    `json:"line"`
		Column int    `json:"column"`
		What   string `json:"what"`
		Cure   string `json:"cure"`
	}
	out := struct {
		Faults []fault               `json:"faults"`
		Tables []schema.TablePromise `json:"tables,omitempty"`
		Notes  []string              `json:"notes,omitempty"`
	}{Faults: []fault{}}
	for _, f := range faults {
		out.Faults = append(out.Faults, fault(f))
	}
	if config != nil {
		out.Tables, out.Notes = config.Promises(), config.Notes()
	}
	if err := p.printJSON(out); err != nil {
		return err
	}
	if len(faults) > 0 {
		return answer(exitFailed)
	}
	return nil
}

func (p *program) printPromise(t *schema.TablePromise) error {
	p.say("%s  key (%s), writes to one %s keep their order", p.out.Bold(t.Table), t.Key, t.PartitionBy)
	for _, g := range t.Groups {
		p.say("\n  %s in store %s (%s), table %s", p.out.Bold(g.Group), g.Store, g.Driver, g.Physical)
		cols := console.Table{Columns: []console.Column{console.Left("    COLUMN"), console.Left("TYPE"), console.Left("PROMISE")}}
		for _, c := range g.Columns {
			cols.Row("    "+c.Name, c.Type, c.Says)
		}
		if err := cols.Write(p.out); err != nil {
			return err
		}
		for _, s := range g.Says {
			p.say("    - %s", s)
		}
		p.say("    - %s", movable(&g))
	}
	p.say("")
	return nil
}

func movable(g *schema.GroupPromise) string {
	text := "can be moved between shards"
	if !g.Movable {
		text = "cannot be moved between shards"
	}
	if len(g.WhyNot) > 0 {
		text += ": " + strings.Join(g.WhyNot, "; ")
	}
	return text
}
