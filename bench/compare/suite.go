package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"sluice.dev/sluice/internal/console"
)

// suite is what the cells of one run share.
type suite struct {
	o       *options
	only    *regexp.Regexp
	root    string // of the module
	dir     string // everything that a row keeps on disk is below it
	cluster *cluster
	out     map[string]string // rows that are left out, with the reason
	rows    int
	report  *report
	from    time.Time
}

const tmpfsMagic = 0x01021994

func newSuite(ctx context.Context, o *options) (*suite, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sluice.dev/sluice").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w; run it inside the repository", err)
	}
	dir, err := os.MkdirTemp(o.dir, "sluice-compare-")
	if err != nil {
		return nil, err
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil && fs.Type == tmpfsMagic {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("%s is in memory: nothing would be durable and every figure wrong; name a folder on a disk with --dir", dir)
	}
	// Others must be able to enter: PostgreSQL runs as another user than root.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	s := &suite{o: o, root: string(bytes.TrimSpace(root)), dir: dir, out: map[string]string{}, from: time.Now()}
	s.report = &report{Machine: thisMachine(ctx, dir), Quick: o.quick, Callers: o.callers, Rate: o.rate, Seconds: o.span.Seconds()}
	return s, nil
}

func (s *suite) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%8s  %s\n", console.Span(time.Since(s.from).Round(time.Second)), fmt.Sprintf(format, args...))
}

func (s *suite) binary(name string) string { return filepath.Join(s.dir, "bin-"+name) }

// build builds a program, once; folder is where its module is.
func (s *suite) build(ctx context.Context, name, folder, pkg string) error {
	if _, err := os.Stat(s.binary(name)); err == nil {
		return nil
	}
	s.progress("build %s", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", s.binary(name), pkg)
	cmd.Dir = filepath.Join(s.root, folder)
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
	s.cluster, err = newCluster(dir, filepath.Join(s.root, "bench/rivals/postgres/postgresql.conf"))
	return err
}

func (s *suite) leaveOut(r *rival, err error) {
	s.out[r.name] = err.Error()
	s.report.Missing = append(s.report.Missing, missing{r.name, err.Error()})
	s.progress("%s is left out: %v", r.name, err)
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

func (s *suite) newDir() (string, error) {
	s.rows++
	dir := filepath.Join(s.dir, fmt.Sprintf("row-%d", s.rows))
	return dir, os.MkdirAll(dir, 0o755)
}

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

func toFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
