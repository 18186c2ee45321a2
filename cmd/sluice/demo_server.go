package main

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

	"sluice.dev/sluice/client"
)

const (
	demoStartMax = 30 * time.Second // until the server must be ready
	demoStopMax  = 30 * time.Second // until it must be gone after SIGTERM
	demoPoll     = 5 * time.Millisecond
)

// demoServer is the demo's own server process, started again after a kill.
type demoServer struct {
	config, dir string
	env         []string       // of the process, beside this one's
	c           *client.Client // of the workers: tries again
	looks       *client.Client // of the screen: does not
	cmd         *exec.Cmd
	stdin       io.Closer     // never written: the server stops when it closes, as it does when this process is gone
	exited      chan struct{} // closed when the process is gone
}

// freePort gives a loopback address that is free now. The server must have the
// same one after it was killed, so it cannot choose itself.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start starts the server and waits until it is ready.
func (s *demoServer) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	s.cmd = exec.Command(self, "serve", "--config", s.config, "--stop-with-stdin")
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	exited := make(chan struct{})
	s.exited = exited
	go func(cmd *exec.Cmd) {
		defer close(exited)
		_ = cmd.Wait() // how it ended stands in its log
	}(s.cmd)
	return s.ready(ctx)
}

func (s *demoServer) logFile() string { return filepath.Join(s.dir, "server.log") }

func (s *demoServer) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoStartMax)
	defer cancel()
	tick := time.NewTicker(demoPoll)
	defer tick.Stop()
	for {
		if s.c.Ready(ctx) == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return fmt.Errorf("the server ended before it was ready:\n%s", s.lastWords())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the server was not ready: %w\n%s", ctx.Err(), s.lastWords()), s.kill())
		}
	}
}

// lastWords is the end of the server's log.
func (s *demoServer) lastWords() []byte {
	const most = 2000
	text, _ := os.ReadFile(s.logFile())
	if len(text) > most {
		text = text[len(text)-most:]
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return text
}

// kill is kill -9.
func (s *demoServer) kill() error {
	err := s.cmd.Process.Kill()
	<-s.exited
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("the server was gone before it was killed:\n%s", s.lastWords())
	}
	return err
}

// stop stops the server in order; calling it again does nothing.
func (s *demoServer) stop() error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	select {
	case <-s.exited:
		return nil
	default:
	}
	err := s.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(demoStopMax)
	defer timer.Stop()
	select {
	case <-s.exited:
		return err
	case <-timer.C:
		return errors.Join(fmt.Errorf("the server did not stop within %s and was killed", demoStopMax), s.kill())
	}
}
