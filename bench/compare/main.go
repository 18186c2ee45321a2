// Command compare gives Sluice and its rivals the same work on the machine at
// hand, in one run, and prints one table: what each does in a second, how long
// an answer takes, what it costs, and what is lost or doubled after kill -9.
// bench/rivals has each one's configuration with the reasons.
//
//	go run ./bench/compare                     all of it, half an hour
//	go run ./bench/compare --quick             seconds a cell
//	go run ./bench/compare --only 'hot.*Redis' some cells: workload/loop/row
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"sluice.dev/sluice/bench/measure"
)

// timeMax ends a run that hangs.
const timeMax = 90 * time.Minute

type options struct {
	quick   bool
	only    string
	out     string
	dir     string
	callers int
	rate    float64
	span    time.Duration
	kills   int
}

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var o options
	if err := o.parse(args); err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeMax)
	defer cancel()
	s, err := newSuite(ctx, &o)
	if err != nil {
		return err
	}
	defer s.Remove()
	s.only = only
	s.prepare(ctx)
	s.measure(ctx)
	s.kill(ctx)
	return errors.Join(ctx.Err(), s.publish())
}

func (o *options) parse(args []string) error {
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.BoolVar(&o.quick, "quick", false, "short cells: shows that everything works, its figures mean little")
	f.StringVar(&o.only, "only", "", "only cells whose workload/loop/row matches this regular expression, as zipf/open/Sluice or kill/Redis")
	f.StringVar(&o.out, "out", "", "folder for the results (default bench/results for a whole run, else none)")
	f.StringVar(&o.dir, "dir", os.TempDir(), "where the servers keep their data; must be on a real disk")
	f.IntVar(&o.callers, "callers", 256, "writes under way at most: each caller waits for its answer")
	f.Float64Var(&o.rate, "rate", 2000, "writes a second of the open loop")
	f.DurationVar(&o.span, "time", 0, "length of a cell (default 10s, quick 1.5s)")
	f.IntVar(&o.kills, "kills", 0, "kill -9 of each row (default 10, quick 2)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.span == 0 {
		o.span = pick(o, 10*time.Second, 1500*time.Millisecond)
	}
	if o.kills == 0 {
		o.kills = pick(o, 10, 2)
	}
	if o.callers < 1 || o.rate <= 0 || f.NArg() > 0 {
		return errors.New("--callers and --rate must be above 0, and there are no other arguments")
	}
	return nil
}

// pick is the size of a whole run or of a quick one.
func pick[T any](o *options, whole, quick T) T {
	if o.quick {
		return quick
	}
	return whole
}

// publish prints the table and keeps it where it was asked for.
func (s *suite) publish() error {
	if err := s.report.write(os.Stdout); err != nil {
		return err
	}
	out := s.o.out
	if out == "" && !s.o.quick && s.o.only == "" {
		out = filepath.Join(s.Root, "bench", "results")
	}
	if out == "" {
		return nil
	}
	name := filepath.Join(out, "compare-"+s.report.Machine.FileName())
	err := errors.Join(os.MkdirAll(out, 0o755), measure.ToFile(name+".txt", s.report.write), measure.ToFile(name+".json", s.report.writeJSON))
	for _, p := range s.report.plots() {
		err = errors.Join(err, measure.ToFile(name+"-"+p.name+".svg", p.write))
	}
	s.Progress("kept in %s.*", name)
	return err
}
