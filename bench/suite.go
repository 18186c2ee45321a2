package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"sluice.dev/sluice/bench/measure"
)

// suite is what the parts of one run share.
type suite struct {
	*measure.Run
	quick  bool
	bin    string // the sluice binary; "" until the first part needs it
	part   string // the one that runs
	report *report
}

func newSuite(ctx context.Context, o *options) (*suite, error) {
	run, err := measure.NewRun(ctx, o.dir, "sluice-bench-")
	if err != nil {
		return nil, err
	}
	return &suite{Run: run, quick: o.quick, report: &report{Machine: measure.ThisMachine(ctx, run.Dir), Quick: o.quick}}, nil
}

// pick is the size of a full run or of a quick one.
func pick[T any](s *suite, full, quick T) T {
	if s.quick {
		return quick
	}
	return full
}

// newDir makes an empty folder for the part that runs.
func (s *suite) newDir() (string, error) { return s.NewDir(s.part) }

// binary builds sluice, once.
func (s *suite) binary(ctx context.Context) (string, error) {
	if s.bin != "" {
		return s.bin, nil
	}
	bin := filepath.Join(s.Dir, "sluice")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin, "./cmd/sluice")
	cmd.Dir = s.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sluice: %w\n%s", err, out)
	}
	s.bin = bin
	return bin, nil
}

// add puts a row into the report and tells how it came out.
func (s *suite) add(r Row) {
	r.Part = s.part
	r.judge()
	s.report.Rows = append(s.report.Rows, r)
	s.Progress("  %s: %s, rival %s, ratio %s", r.What, r.cell(r.Sluice), r.cell(r.Rival), r.ratio())
}
