package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/console"
)

// program is one run of Main: its flags and its outputs.
type program struct {
	*Main
	out, err *console.Console

	config     string // --config
	url        string // --url
	token      string // --token
	json       bool   // --json
	cacert     string // --cacert
	cert       string // --cert
	key        string // --key
	journalDir string // journal --dir
	at         string // URL of the server in use, for errors
	command    string // the path of the command that runs, for hints
}

func newProgram(m *Main) *program {
	return &program{Main: m, out: console.New(m.Stdout, m.Env), err: console.New(m.Stderr, m.Env), command: "sluice"}
}

const rootHelp = `Sluice is the write path for applications whose database can no longer keep up
with its writes. It makes every write durable before it acknowledges it, folds
together what can be folded, and applies the rest to the databases in large
batches, each exactly once.

Two ways to begin:
  sluice demo                     see it work, nothing else needed
  sluice init && sluice serve     a config with comments, then the server

The config is --config, else $SLUICE_CONFIG, else ./sluice.yaml. Commands that
talk to a server use --url, else $SLUICE_URL, else the config's listen.http;
and --token, else $SLUICE_TOKEN.

` + exitHelp

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "The write path in front of your databases",
		Long:          rootHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := ""
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return usage("there is no command %q%s", args[0], hint)
		},
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { p.command = cmd.CommandPath() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		p.command = cmd.CommandPath()
		return usage("%v", err)
	})
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVarP(&p.config, "config", "c", "", "config file (default $SLUICE_CONFIG, else ./sluice.yaml)")
	flags.StringVar(&p.url, "url", "", "server to talk to (default $SLUICE_URL, else the config's listen.http)")
	flags.StringVar(&p.token, "token", "", "token of a client of the config (default $SLUICE_TOKEN)")
	flags.StringVar(&p.cacert, "cacert", "", "certificate of the authority that the server's is from")
	flags.StringVar(&p.cert, "cert", "", "client certificate")
	flags.StringVar(&p.key, "key", "", "private key of the client certificate")
	flags.BoolVar(&p.json, "json", false, "print JSON for programs")

	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "data", Title: "Write and read:"},
		&cobra.Group{ID: "operate", Title: "Watch and operate:"})
	p.add(root, "run", p.serve(), p.demo(), p.init(), p.check(), p.migrate())
	p.add(root, "data", p.write(), p.get(), p.receipt(), p.load())
	p.add(root, "operate", p.status(), p.hot(), p.rejects(), p.ledger(), p.drain(), p.resume(), p.reload(), p.journal(), p.bench(), p.version())
	root.SetHelpCommand(&cobra.Command{Hidden: true, GroupID: "run"})
	root.SetCompletionCommandGroupID("run")
	return root
}

func (p *program) add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// exactly, atLeast and noArgs check the number of arguments and say which they are.
func (p *program) exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			p.command = cmd.CommandPath()
			return usage("%s takes %s, %d given", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

func (p *program) atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			p.command = cmd.CommandPath()
			return usage("%s takes %s, %d given", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

func (p *program) noArgs() cobra.PositionalArgs { return p.exactly(0, "no arguments") }

// group is a command that is only a name for its subcommands.
func (p *program) group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usage("%s has no command %q", cmd.CommandPath(), args[0])
		}}
	cmd.AddCommand(commands...)
	return cmd
}

// printJSON prints one value, indented for a terminal and on a line elsewhere.
func (p *program) printJSON(v any) error {
	enc := json.NewEncoder(p.Stdout)
	enc.SetEscapeHTML(false)
	if p.out.Terminal {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// say prints a line for people.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(p.Stdout, format+"\n", args...)
}

// env is a variable of the environment that may not be there.
func (p *program) env(name string) string {
	value, _ := p.Env(name)
	return value
}

// configFile finds the config and tells whether it was asked for by name.
func (p *program) configFile() (file string, asked bool) {
	if p.config != "" {
		return p.config, true
	}
	if file := p.env("SLUICE_CONFIG"); file != "" {
		return file, true
	}
	return "sluice.yaml", false
}

// pause waits, or ends early with ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
