package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Limits of waiting for a process.
const (
	readyTimeMax = 2 * time.Minute
	stopTimeMax  = 30 * time.Second
	pollStep     = time.Millisecond // short: it is part of a measured restart

	saidBytesMax = 2000 // of what a process said, in an error
)

// Process is a program that was started to be measured. It ends with this one,
// also when this one is killed.
type Process struct {
	name   string
	proc   *os.Process
	exited <-chan struct{}
	said   func() string
}

// Start starts a program and, when hello is not nil, reads the line of JSON
// into it with which the program says that it is ready.
func Start(cmd *exec.Cmd, hello any) (*Process, error) {
	var errs bytes.Buffer // whole when the process has ended
	cmd.Stderr = &errs
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	var out io.Reader
	var err error
	if hello != nil {
		if out, err = cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Wait closes the pipe, so it comes after the line is read.
	if hello != nil {
		err = json.NewDecoder(out).Decode(hello)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	p := &Process{name: filepath.Base(cmd.Path), proc: cmd.Process, exited: exited, said: errs.String}
	if err != nil {
		p.End(syscall.SIGKILL)
		return nil, fmt.Errorf("start %s: %w: %s", p.name, err, p.tail())
	}
	return p, nil
}

// tail is the end of what the process said, after it ended.
func (p *Process) tail() string {
	<-p.exited
	text := p.said()
	return text[max(0, len(text)-saidBytesMax):]
}

// End sends a signal and waits; what does not end in time is killed.
func (p *Process) End(sig syscall.Signal) {
	_ = p.proc.Signal(sig)
	select {
	case <-p.exited:
	case <-time.After(stopTimeMax):
		_ = p.proc.Kill()
		<-p.exited
	}
}

// Poll asks again and again until ok says so, the process ends, or it takes too long.
func (p *Process) Poll(ctx context.Context, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeMax)
	defer cancel()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended while it started: %s", p.name, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.name, err)
		case <-time.After(pollStep):
		}
	}
}

// KillAll is kill -9 of the processes and all their descendants, as near to one
// moment as it can be.
func KillAll(processes []*Process) {
	for _, pid := range tree(processes) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, p := range processes {
		<-p.exited
	}
}
