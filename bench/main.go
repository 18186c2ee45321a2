// Command bench measures Sluice against its rivals on the machine at hand, in
// one run, and prints one table with the ratios. It starts the servers that it
// measures (the real binary, redis-server, a private PostgreSQL) on loopback in
// a folder of its own, and ends them. README.md says how to read the table.
//
//	go run ./bench                    all of it, some minutes; results are kept
//	go run ./bench --quick            seconds; only to see that everything works
//	go run ./bench --only '^resp'     some parts
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"syscall"
	"time"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/internal/console"
)

// timeMax ends a run that hangs.
const timeMax = 40 * time.Minute

// scenario is one part of the run.
type scenario struct {
	name  string
	about string
	run   func(context.Context, *suite) error
}

func scenarios() []scenario {
	return []scenario{
		{"journal", "in process, 128-byte writes, against a bare append and fdatasync", journalScenario},
		{"sqlite-apply", "the SQLite store alone, against the best raw method of its driver", sqliteApplyScenario},
		{"resp", "HINCRBY by redis-benchmark, against redis-server with appendfsync always", respScenario},
		{"resp-latency", "time to the acknowledgement at 1 and 64 clients, against the same", respLatencyScenario},
		{"http", "single writes and NDJSON over HTTP", httpScenario},
		{"pg-apply", "the PostgreSQL store alone, against the best raw method", pgApplyScenario},
		{"pg-path", "the whole path into PostgreSQL, against 16 clients that write directly", pgPathScenario},
		{"growth", "cost of a write as keys and backlog grow, and restart after kill -9", growthScenario},
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeMax)
	defer cancel()
	if len(args) > 0 && args[0] == loadCommand {
		return loadMain(ctx, os.Stdin, os.Stdout)
	}
	var o options
	if err := o.parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	return o.measure(ctx)
}

type options struct {
	quick bool
	only  string
	json  string
	out   string
	dir   string
	prof  string
}

func (o *options) parse(args []string) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.quick, "quick", false, "runs of seconds: shows that everything works, its figures mean little")
	f.StringVar(&o.only, "only", "", "run only parts whose name matches this regular expression")
	f.StringVar(&o.json, "json", "", "write the rows to this file as JSON too")
	f.StringVar(&o.out, "out", "", "folder to keep the results in, as DATE-MACHINE.txt and .json (default bench/results for a full run, else none)")
	f.StringVar(&o.dir, "dir", os.TempDir(), "where the servers keep their data; must be on a real disk")
	f.StringVar(&o.prof, "cpuprofile", "", "write a CPU profile of this process to a file; for the parts in process")
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: go run ./bench [flags]")
		f.PrintDefaults()
		fmt.Fprintln(f.Output(), "parts:")
		for _, sc := range scenarios() {
			fmt.Fprintf(f.Output(), "  %-14s %s\n", sc.name, sc.about)
		}
	}
	return f.Parse(args)
}

// measure runs the chosen parts. A part that fails does not keep the others
// from running; the error comes at the end.
func (o *options) measure(ctx context.Context) error {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	s, err := newSuite(ctx, o)
	if err != nil {
		return err
	}
	defer s.Remove()
	stop, err := o.profile()
	if err != nil {
		return err
	}
	defer stop()
	var errs []error
	for _, sc := range scenarios() {
		if !only.MatchString(sc.name) || ctx.Err() != nil {
			continue
		}
		s.Progress("%s: %s", sc.name, sc.about)
		s.part = sc.name
		from := time.Now()
		if err := sc.run(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", sc.name, err))
			s.report.fail(sc.name, err)
			s.Progress("%s failed: %v", sc.name, err)
		}
		s.Progress("%s took %s", sc.name, console.Span(time.Since(from)))
	}
	return errors.Join(append(errs, ctx.Err(), o.publish(s))...)
}

func (o *options) profile() (stop func(), err error) {
	if o.prof == "" {
		return func() {}, nil
	}
	f, err := os.Create(o.prof)
	if err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, pprof.StartCPUProfile(f)
}

// publish prints the table and keeps it where it was asked for.
func (o *options) publish(s *suite) error {
	if err := s.report.write(os.Stdout, console.New(os.Stdout, os.LookupEnv)); err != nil {
		return err
	}
	var errs []error
	if o.json != "" {
		errs = append(errs, measure.ToFile(o.json, s.report.writeJSON))
	}
	out := o.out
	if out == "" && !o.quick && o.only == "" {
		out = filepath.Join(s.Root, "bench", "results")
	}
	if out != "" {
		name := filepath.Join(out, s.report.Machine.FileName())
		plain := func(w io.Writer) error { return s.report.write(w, &console.Console{W: w}) }
		errs = append(errs, os.MkdirAll(out, 0o755), measure.ToFile(name+".txt", plain), measure.ToFile(name+".json", s.report.writeJSON))
		s.Progress("kept in %s.txt and .json", name)
	}
	return errors.Join(errs...)
}
