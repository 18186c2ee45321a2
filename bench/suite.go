package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"sluice.dev/sluice/internal/console"
)

// suite is what the parts of one run share.
type suite struct {
	quick  bool
	root   string // of the module
	dir    string // everything that a part keeps on disk is below it
	bin    string // the sluice binary; "" until the first part needs it
	part   string // the one that runs
	dirs   int
	report *report
	from   time.Time
}

const tmpfsMagic = 0x01021994

func newSuite(ctx context.Context, o *options) (*suite, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sluice.dev/sluice").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w; run it inside the repository", err)
	}
	dir, err := os.MkdirTemp(o.dir, "sluice-bench-")
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
	s := &suite{quick: o.quick, root: string(bytes.TrimSpace(out)), dir: dir, from: time.Now()}
	s.report = &report{Machine: thisMachine(ctx, dir), Quick: o.quick}
	return s, nil
}

// pick is the size of a full run or of a quick one.
func pick[T any](s *suite, full, quick T) T {
	if s.quick {
		return quick
	}
	return full
}

func (s *suite) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%8s  %s\n", console.Span(time.Since(s.from).Round(time.Second)), fmt.Sprintf(format, args...))
}

// newDir makes an empty folder.
func (s *suite) newDir() (string, error) {
	s.dirs++
	dir := filepath.Join(s.dir, fmt.Sprintf("%s-%d", s.part, s.dirs))
	return dir, os.MkdirAll(dir, 0o755)
}

// binary builds sluice, once.
func (s *suite) binary(ctx context.Context) (string, error) {
	if s.bin != "" {
		return s.bin, nil
	}
	bin := filepath.Join(s.dir, "sluice")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin, "./cmd/sluice")
	cmd.Dir = s.root
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
	s.progress("  %s: %s, rival %s, ratio %s", r.What, r.cell(r.Sluice), r.cell(r.Rival), r.ratio())
}
