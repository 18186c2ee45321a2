package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/console"
)

const demoHelp = `Shows Sluice at work, with nothing else installed, in a folder of its own that
is removed afterwards.

It starts a server with SQLite, sends it the writes of a social network (posts
that are viewed and liked, the few popular ones most; comments; edits; drivers
who report where they are), kills the server with kill -9 in the middle and
starts it again while the clients just try again. Then it drains, opens the
SQLite file itself and compares every total with what was acknowledged. It fails
when anything differs.`

const demoExample = `  sluice demo
  sluice demo --seconds 30 --connections 16
  sluice demo --keep        # then look around in the database`

type demoFlags struct {
	seconds     float64
	connections int
	keep        bool
}

const (
	demoConnectionsMax = 256
	demoBudget         = time.Minute // a client's patience with a server that is gone
	demoLook           = 200 * time.Millisecond
	demoPlainLook      = 2 * time.Second // where nothing can be redrawn
)

func (p *program) demo() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{Use: "demo", Short: "See it work: load, kill -9, recover, compare", Long: demoHelp, Example: demoExample, Args: p.noArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.seconds <= 0 || f.connections < 1 || f.connections > demoConnectionsMax {
				return usage("--seconds must be above 0, and --connections 1 to %d", demoConnectionsMax)
			}
			return p.runDemo(cmd.Context(), f)
		}}
	cmd.Flags().Float64Var(&f.seconds, "seconds", 8, "how long to send")
	cmd.Flags().IntVar(&f.connections, "connections", 4, "how many clients send at once")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave the folder, and say how to look into it")
	return cmd
}

// demo is one run.
type demo struct {
	p       *program
	f       demoFlags
	server  demoServer
	workers []*demoWorker
	screen  *console.Screen

	stopWorkers context.CancelFunc

	accepted atomic.Int64 // all workers add, the screen reads
	began    time.Time
	took     time.Duration // of sending
	seen     demoSeen      // of this server process, at the last look
	before   demoSeen      // of the one that was killed, right before
	killedAt time.Duration // since began; 0: not yet
	recovery time.Duration // from kill -9 until it was ready again
	drained  time.Duration
}

// demoSeen is what one server process said it had done.
type demoSeen struct{ rows, queued uint64 }

func (p *program) runDemo(ctx context.Context, f demoFlags) (err error) {
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return err
	}
	d := &demo{p: p, f: f, screen: p.out.Screen()}
	defer func() { err = errors.Join(err, d.cleanUp(dir, err)) }()
	if err := d.prepare(dir); err != nil {
		return err
	}
	if err := d.run(ctx); err != nil {
		return err
	}
	totals := newDemoTotals()
	for _, w := range d.workers {
		totals.add(w.totals)
	}
	checks, err := verifyDemo(ctx, filepath.Join(dir, "demo.db"), totals)
	if err != nil {
		return err
	}
	return d.report(totals, checks)
}

func (d *demo) prepare(dir string) error {
	addr, err := freePort()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, demoConfig, file, addr), 0o600); err != nil {
		return err
	}
	c, err := client.New(client.Options{URL: "http://" + addr, RetryBudget: demoBudget})
	if err != nil {
		return err
	}
	looks, err := client.New(client.Options{URL: "http://" + addr, RetryBudget: once, AttemptTimeout: time.Second})
	if err != nil {
		return err
	}
	d.server = demoServer{config: file, dir: dir, c: c, looks: looks}
	for i := range d.f.connections {
		d.workers = append(d.workers, newDemoWorker(c, i, d.f.connections, &d.accepted))
	}
	return nil
}

func (d *demo) cleanUp(dir string, failed error) error {
	err := d.server.stop()
	if d.server.c != nil {
		d.server.c.Close()
		d.server.looks.Close()
	}
	switch {
	case d.f.keep:
		d.sayKept(dir)
		return err
	case failed != nil && !errors.Is(failed, context.Canceled):
		fmt.Fprintf(d.p.Stderr, "the folder is left to look into: %s\n", dir)
		return err
	default:
		return errors.Join(err, os.RemoveAll(dir))
	}
}

// run starts, sends, kills in the middle, starts again, sends on, and drains.
func (d *demo) run(ctx context.Context) error {
	d.say("starting a server with SQLite in %s", d.server.dir)
	if err := d.server.start(ctx); err != nil {
		return err
	}
	d.began = time.Now()
	send := time.Duration(d.f.seconds * float64(time.Second))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work, workCtx := errgroup.WithContext(ctx)
	for _, w := range d.workers {
		work.Go(func() error { return w.run(workCtx, d.began.Add(send)) })
	}
	sent := make(chan error, 1)
	go func() { sent <- work.Wait() }()
	d.stopWorkers = cancel
	if err := d.watch(ctx, sent, send); err != nil {
		return err
	}
	d.took = time.Since(d.began)
	return d.finish(ctx)
}

// watch shows how it goes until everything is sent, and kills the server in the
// middle of it. It returns when the workers have.
func (d *demo) watch(ctx context.Context, sent <-chan error, send time.Duration) error {
	every := demoLook
	if !d.p.out.Terminal {
		every = demoPlainLook
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	kill := time.NewTimer(send / 2)
	defer kill.Stop()
	for {
		select {
		case err := <-sent:
			if err == nil && d.killedAt == 0 {
				err = d.crash(ctx)
			}
			return err
		case <-kill.C:
			if err := d.crash(ctx); err != nil {
				d.stopWorkers()
				<-sent
				return err
			}
		case <-tick.C:
			d.look(ctx)
			d.draw(send)
		}
	}
}

// crash kills the server and starts it again. The workers go on trying.
func (d *demo) crash(ctx context.Context) error {
	d.look(ctx)
	d.before, d.seen = d.seen, demoSeen{}
	killed := time.Now()
	d.killedAt = killed.Sub(d.began)
	if err := d.server.kill(); err != nil {
		return err
	}
	d.say("killed the server with kill -9 after %s, with %s in the queue; starting it again", console.Span(d.killedAt), console.Plural(d.before.queued, "write", "writes"))
	if err := d.server.start(ctx); err != nil {
		return fmt.Errorf("after kill -9: %w", err)
	}
	d.recovery = time.Since(killed)
	d.say("ready again after %s", console.Span(d.recovery))
	return nil
}

// look asks the server what it has done. One that is gone has nothing new to say.
func (d *demo) look(ctx context.Context) {
	st, err := d.server.looks.Status(ctx)
	if err != nil {
		return
	}
	d.seen = demoSeen{}
	for _, s := range st.Streams {
		d.seen.rows += s.Rows
		d.seen.queued += s.Queued
	}
}

// finish drains, and stops the server so that the database file is closed.
func (d *demo) finish(ctx context.Context) error {
	began := time.Now()
	d.say("draining %s", console.Plural(d.seen.queued, "write", "writes"))
	if err := d.server.c.Drain(ctx, func(queued uint64) {
		d.seen.queued = queued
		d.draw(0)
	}); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	d.drained = time.Since(began)
	d.look(ctx)
	return d.server.stop()
}
