// Package measure is what the programs that measure have in common: the folder
// of a run, the description of the machine, recorded latencies, the processes
// that are measured with what they have used, and a private PostgreSQL. It
// never decides what is measured, and never judges or prints a figure: that is
// each program's own.
package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"sluice.dev/sluice/internal/console"
)

// Run is what all parts of one run share: its folder, and the time since it began.
type Run struct {
	Root string // of the module
	Dir  string // everything that the run keeps on disk is below it
	dirs int
	from time.Time
}

const tmpfsMagic = 0x01021994

// NewRun makes the run's folder in dir; its name begins with prefix. A folder
// in memory is refused: nothing would be durable there.
func NewRun(ctx context.Context, dir, prefix string) (*Run, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sluice.dev/sluice").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w; run it inside the repository", err)
	}
	if dir, err = os.MkdirTemp(dir, prefix); err != nil {
		return nil, err
	}
	r := &Run{Root: string(bytes.TrimSpace(root)), Dir: dir, from: time.Now()}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil && fs.Type == tmpfsMagic {
		r.Remove()
		return nil, fmt.Errorf("%s is in memory: nothing would be durable and every figure wrong; name a folder on a disk with --dir", dir)
	}
	// Others must be able to enter: PostgreSQL runs as another user than root.
	if err := os.Chmod(dir, 0o755); err != nil {
		r.Remove()
		return nil, err
	}
	return r, nil
}

// Remove deletes the run's folder.
func (r *Run) Remove() { _ = os.RemoveAll(r.Dir) }

// NewDir makes an empty folder; a number behind the name tells those of one name apart.
func (r *Run) NewDir(name string) (string, error) {
	r.dirs++
	dir := filepath.Join(r.Dir, fmt.Sprintf("%s-%d", name, r.dirs))
	return dir, os.MkdirAll(dir, 0o755)
}

// Progress tells on standard error how far the run is.
func (r *Run) Progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%8s  %s\n", console.Span(time.Since(r.from).Round(time.Second)), fmt.Sprintf(format, args...))
}

// ToFile writes a file anew.
func ToFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// FreePort gives a port of loopback on which nothing listens now.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
