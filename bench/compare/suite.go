package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"sluice.dev/sluice/bench/measure"
)

// suite is what the cells of one run share.
type suite struct {
	*measure.Run
	o       *options
	only    *regexp.Regexp
	cluster *cluster
	out     map[string]string // rows that are left out, with the reason
	report  *report
}

func newSuite(ctx context.Context, o *options) (*suite, error) {
	run, err := measure.NewRun(ctx, o.dir, "sluice-compare-")
	if err != nil {
		return nil, err
	}
	return &suite{Run: run, o: o, out: map[string]string{},
		report: &report{Machine: measure.ThisMachine(ctx, run.Dir), Quick: o.quick, Callers: o.callers, Rate: o.rate, Seconds: o.span.Seconds()}}, nil
}

func (s *suite) binary(name string) string { return filepath.Join(s.Dir, "bin-"+name) }

// build builds a program, once; folder is where its module is.
func (s *suite) build(ctx context.Context, name, folder, pkg string) error {
	if _, err := os.Stat(s.binary(name)); err == nil {
		return nil
	}
	s.Progress("build %s", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", s.binary(name), pkg)
	cmd.Dir = filepath.Join(s.Root, folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %.300s", name, err, out)
	}
	return nil
}

// prepare makes what the chosen rows need. A row that cannot be made is left
// out, and the table says why.
func (s *suite) prepare(ctx context.Context) {
	for _, r := range rivals() {
		if !s.chosen(&r) {
			continue
		}
		var err error
		if r.needs != nil {
			err = r.needs(ctx, s)
		}
		if err == nil && r.end == endPostgres && s.cluster == nil {
			err = s.makeCluster()
		}
		if err == nil && r.end == endRedis {
			_, err = exec.LookPath("redis-server")
		}
		if err != nil {
			s.leaveOut(&r, err)
		}
	}
}

func (s *suite) makeCluster() (err error) {
	dir, err := s.newDir()
	if err != nil {
		return err
	}
	s.cluster, err = newCluster(dir, filepath.Join(s.Root, "bench/rivals/postgres/postgresql.conf"))
	return err
}

func (s *suite) leaveOut(r *rival, err error) {
	s.out[r.name] = err.Error()
	s.report.Missing = append(s.report.Missing, missing{r.name, err.Error()})
	s.Progress("%s is left out: %v", r.name, err)
}

// chosen tells whether any cell of a row will run.
func (s *suite) chosen(r *rival) bool {
	for _, c := range cells() {
		if !r.killOnly && s.only.MatchString(c.name(r)) {
			return true
		}
	}
	return s.only.MatchString(killName(r))
}

// newDir makes an empty folder for a row.
func (s *suite) newDir() (string, error) { return s.NewDir("row") }

// system makes a row's system in a folder of its own; done ends it and removes the folder.
func (s *suite) system(r *rival) (sys system, done func(), err error) {
	dir, err := s.newDir()
	if err != nil {
		return nil, nil, err
	}
	if sys, err = r.make(s, dir); err != nil {
		return nil, nil, err
	}
	return sys, func() {
		sys.stop()
		os.RemoveAll(dir)
	}, nil
}
