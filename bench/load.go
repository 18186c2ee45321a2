package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// loadCommand is the subcommand by which this program starts itself as a load
// generator: in a process of its own, as clients are.
const loadCommand = "load"

// loadSpec says what a load generator sends. It comes on standard input.
type loadSpec struct {
	Door   string        // resp, http (one write a request) or ndjson
	Addr   string        // host:port
	Conns  int           // each waits for its answer before it sends again
	Batch  int           // writes in a request: the pipeline of resp, the lines of ndjson
	Write  string        // increment or event
	Keys   uint64        // keys are random below it
	First  uint64        // when > 0, keys are not random: each number from here on, once
	Strew  bool          // with First: spread them over 32 bits, still each once
	Writes uint64        // stop after so many; 0: when Time is over
	Time   time.Duration // at most
}

// loadResult comes on standard output. Latencies are of requests.
type loadResult struct {
	Writes  uint64
	Seconds float64
	Millis  []float64
}

func (r *loadResult) perSecond() float64 { return float64(r.Writes) / r.Seconds }

// load runs a generator and waits for it.
func (s *suite) load(ctx context.Context, spec loadSpec) (*loadResult, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	cmd := exec.CommandContext(ctx, self, loadCommand)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = in, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := errors.Join(json.NewEncoder(out).Encode(spec), out.Close()); err != nil {
		return nil, err
	}
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("load generator: %w: %s", err, said.Bytes())
	}
	var r loadResult
	return &r, json.Unmarshal(text, &r)
}

func loadMain(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec loadSpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return err
	}
	r, err := spec.run(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// sender is one connection. send sends n writes in one request and returns when
// they are acknowledged.
type sender interface {
	send(key func() uint64, n int) error
	close()
}

func (l *loadSpec) run(ctx context.Context) (*loadResult, error) {
	senders := make([]sender, l.Conns)
	for i := range senders {
		var err error
		if senders[i], err = l.dial(); err != nil {
			return nil, err
		}
		defer senders[i].close()
	}
	var taken, keys atomic.Uint64
	keys.Store(l.First)
	next := func() uint64 { return rand.Uint64N(l.Keys) }
	switch {
	case l.First > 0 && l.Strew:
		// The factor is odd, so no key comes twice.
		next = func() uint64 { return (keys.Add(1) - 1) * 2654435761 & (1<<32 - 1) }
	case l.First > 0:
		next = func() uint64 { return keys.Add(1) - 1 }
	}
	var written atomic.Uint64
	t, err := closedLoop(ctx, l.Conns, l.Time, func(i int) error {
		n := uint64(l.Batch)
		if l.Writes > 0 {
			if at := taken.Add(n); at > l.Writes {
				if n -= min(n, at-l.Writes); n == 0 {
					return errEnough
				}
			}
		}
		written.Add(n)
		return senders[i].send(next, int(n))
	})
	if err != nil {
		return nil, err
	}
	if l.Writes > 0 && written.Load() != l.Writes {
		return nil, fmt.Errorf("only %d of %d writes were sent in %s", written.Load(), l.Writes, l.Time)
	}
	return &loadResult{Writes: written.Load(), Seconds: t.took.Seconds(), Millis: t.millis()}, nil
}

func (l *loadSpec) dial() (sender, error) {
	if l.Door == "resp" {
		c, err := dialRESP(l.Addr)
		if err != nil {
			return nil, err
		}
		return &respSender{c}, nil
	}
	return dialHTTP(l)
}

type respSender struct{ *respConn }

func (r *respSender) send(key func() uint64, n int) error {
	for range n {
		r.putIncrement(key())
	}
	return r.flush(n)
}

// appendLine is one write as JSON.
func (l *loadSpec) appendLine(b []byte, key uint64) []byte {
	if l.Write == "event" {
		b = append(b, `{"table":"log","key":`...)
		b = strconv.AppendUint(b, key, 10)
		return append(b, `,"append":{"clicks":{"what":"a button that was clicked","at":"2026-01-02T03:04:05Z","n":7}}}`...)
	}
	b = append(b, `{"table":"posts","key":`...)
	b = strconv.AppendUint(b, key, 10)
	return append(b, `,"add":{"likes":1}}`...)
}
