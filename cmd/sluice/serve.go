package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/console"
	"sluice.dev/sluice/internal/node"
	"sluice.dev/sluice/internal/schema"
)

const serveHelp = `Runs the server until SIGTERM or SIGINT (ctrl-C).

The first signal stops it in order: the doors close, accepted requests finish,
the journal is synced, and the stores get what is queued until limits.stop_drain
is over; what is left is in the journal and goes on at the next start. A second
signal ends the process at once, which loses nothing that was acknowledged.
SIGHUP reads the config again.`

const serveExample = `  sluice serve
  sluice serve -c shop.yaml --log json
  kill -HUP $(pidof sluice)      # read the config again`

type serveFlags struct {
	log       string
	level     string
	withStdin bool
}

func (p *program) serve() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{Use: "serve", Short: "Run the server", Long: serveHelp, Example: serveExample, Args: p.noArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runServe(cmd.Context(), f) }}
	flags := cmd.Flags()
	flags.StringVar(&f.log, "log", "text", "how to log, to standard error: text or json")
	flags.StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	flags.BoolVar(&f.withStdin, "stop-with-stdin", false, "stop when standard input ends")
	_ = flags.MarkHidden("stop-with-stdin")
	return cmd
}

func (p *program) runServe(ctx context.Context, f serveFlags) error {
	log, err := p.logger(f)
	if err != nil {
		return err
	}
	file, _ := p.configFile()
	config, err := p.readConfig()
	if err != nil {
		return err
	}
	if f.withStdin {
		var cancel context.CancelFunc
		ctx, cancel = p.untilStdinEnds(ctx)
		defer cancel()
	}
	n, err := node.Open(ctx, node.Options{File: file, Log: log, Getenv: p.Env})
	if err != nil {
		return err
	}
	if err := p.printDoors(n, config); err != nil {
		return errors.Join(err, n.Close())
	}
	done := p.reloadOnHangup(ctx, n, log)
	err = n.Run(ctx)
	done()
	return err
}

func (p *program) logger(f serveFlags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, usage("--log-level %q is not known; use debug, info, warn or error", f.level)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.log {
	case "text":
		return slog.New(slog.NewTextHandler(p.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(p.Stderr, o)), nil
	default:
		return nil, usage("--log %q is not known; use text or json", f.log)
	}
}

// untilStdinEnds gives a context that ends when standard input does, or ctx.
// A program that starts a server this way never leaves it behind, even when it
// is killed itself.
func (p *program) untilStdinEnds(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	// Not awaited: nothing ends a read of standard input but its other side.
	go func() {
		_, _ = io.Copy(io.Discard, p.Stdin)
		cancel()
	}()
	return ctx, cancel
}

// printDoors says where the doors are and where the data lives.
func (p *program) printDoors(n *node.Node, config *schema.Config) error {
	type doors struct {
		HTTP    string            `json:"http,omitempty"`
		RESP    string            `json:"resp,omitempty"`
		Journal string            `json:"journal"`
		Stores  map[string]string `json:"stores"`
		PID     int               `json:"pid"`
	}
	d := doors{HTTP: n.HTTPAddr(), RESP: n.RESPAddr(), Journal: absolute(config.Journal.Dir), Stores: map[string]string{}, PID: os.Getpid()}
	var t console.Pairs
	scheme := "http"
	if config.Listen.CertFile != "" {
		scheme = "https"
	}
	if d.HTTP != "" {
		d.HTTP = scheme + "://" + d.HTTP
		t.Add("HTTP", "%s", p.out.Bold(d.HTTP))
	}
	if d.RESP != "" {
		t.Add("RESP", "%s", p.out.Bold(d.RESP))
	}
	t.Add("journal", "%s", d.Journal)
	for _, s := range sortedStores(config) {
		var shards []string
		for _, sh := range s.Shards {
			shards = append(shards, shardPlace(s.Driver, sh))
		}
		d.Stores[s.Name] = strings.Join(shards, " ")
		t.Add("store "+s.Name, "%s", d.Stores[s.Name])
	}
	if p.json {
		return p.printJSON(d)
	}
	if d.HTTP == "" && d.RESP == "" {
		t.Add("doors", "%s", p.out.Yellow("all closed: this process only drains"))
	}
	p.say("%s %s", p.out.Bold("sluice"), node.Version)
	return t.Write(p.out)
}

// shardPlace says where a shard's data lives, without its password.
func shardPlace(driver string, sh schema.Shard) string {
	if file, ok := strings.CutPrefix(sh.URL, "sqlite:"); ok && driver == "sqlite" {
		return "sqlite " + absolute(file)
	}
	return sh.Redacted()
}

// reloadOnHangup reloads at SIGHUP until the function it gives is called, which
// waits for a reload under way.
func (p *program) reloadOnHangup(ctx context.Context, n *node.Node, log *slog.Logger) func() {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-hangup:
				if err := n.Reload(ctx); err != nil {
					log.Error("the config stays as it was", "error", fmt.Sprint(err))
				} else {
					log.Info("reloaded the config")
				}
			case <-stop:
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(stop)
		<-stopped
	}
}
