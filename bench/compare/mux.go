package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"sluice.dev/sluice/bench/rivals/batch"
)

// mux is one RESP connection that many callers share: what they ask for while
// the connection is being written goes out together, as the pipelining clients
// of Redis do it. Sluice, Redis, SQLite and pgbatch are all reached by it.
type mux struct {
	c      net.Conn
	mu     sync.Mutex
	out    []byte
	spare  []byte
	queue  []chan error // answers come in the order of the commands
	wake   chan struct{}
	failed error
}

const dialTimeMax = 5 * time.Second

func dialMux(addr string) (*mux, error) {
	c, err := net.DialTimeout("tcp", addr, dialTimeMax)
	if err != nil {
		return nil, err
	}
	m := &mux{c: c, wake: make(chan struct{}, 1)}
	go m.send()
	go m.receive()
	return m, nil
}

func (m *mux) put(encode func([]byte) []byte, done chan error) error {
	m.mu.Lock()
	if m.failed != nil {
		m.mu.Unlock()
		return m.failed
	}
	m.out = encode(m.out)
	m.queue = append(m.queue, done)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default: // it is awake and will see this
	}
	return nil
}

func (m *mux) send() {
	for range m.wake {
		m.mu.Lock()
		text := m.out
		m.out, m.spare = m.spare[:0], nil
		over := m.failed != nil
		m.mu.Unlock()
		if over {
			return
		}
		if _, err := m.c.Write(text); err != nil {
			m.fail(err)
			return
		}
		m.mu.Lock()
		m.spare = text
		m.mu.Unlock()
	}
}

func (m *mux) receive() {
	in := bufio.NewReaderSize(m.c, 64<<10)
	for {
		err := answer(in)
		var refused *refusal
		if err != nil && !errors.As(err, &refused) {
			m.fail(err)
			return
		}
		m.mu.Lock()
		if len(m.queue) == 0 {
			m.mu.Unlock()
			m.fail(errors.New("an answer that nobody asked for"))
			return
		}
		done := m.queue[0]
		m.queue = m.queue[1:]
		m.mu.Unlock()
		done <- err
	}
}

// refusal is an error that the server answered; the connection goes on.
type refusal struct{ text string }

func (r *refusal) Error() string { return "the server answered: " + r.text }

// answer reads a simple string, a number or a bulk string.
func answer(in *bufio.Reader) error {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	switch line[0] {
	case '-':
		return &refusal{string(line[1 : len(line)-2])}
	case '$':
		n, err := strconv.Atoi(string(line[1 : len(line)-2]))
		if err != nil {
			return err
		}
		_, err = in.Discard(max(n, -2) + 2)
		return err
	case ':', '+':
		return nil
	}
	return fmt.Errorf("the server answered %q", line)
}

func (m *mux) fail(err error) {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	m.mu.Lock()
	queue := m.queue
	if m.failed == nil {
		m.failed = err
	}
	m.queue = nil
	m.mu.Unlock()
	m.c.Close()
	for _, done := range queue {
		done <- err
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// respWriter spreads callers over some connections.
type respWriter struct {
	conns  []*mux
	done   []chan error // by caller
	oneLog bool         // Redis: one stream holds all events
}

const respConns = 16

func dialRESP(addr string, callers int) (*respWriter, error) {
	w := &respWriter{done: make([]chan error, callers)}
	for i := range w.done {
		w.done[i] = make(chan error, 1)
	}
	for range min(respConns, callers) {
		m, err := dialMux(addr)
		if err != nil {
			w.close()
			return nil, err
		}
		w.conns = append(w.conns, m)
	}
	return w, nil
}

func (w *respWriter) write(caller int, o op) error {
	done := w.done[caller]
	if err := w.conns[caller%len(w.conns)].put(func(b []byte) []byte { return w.encode(b, o.Write) }, done); err != nil {
		return err
	}
	return <-done
}

func (w *respWriter) encode(b []byte, o batch.Write) []byte {
	key := strconv.FormatUint(o.Key, 10)
	switch o.Kind {
	case batch.Like:
		return appendRESP(b, "HINCRBY", "posts:"+key, "likes", "1")
	case batch.Place:
		return appendRESP(b, "HSET", "drivers:"+key, "place", batch.Where(o.N))
	}
	if w.oneLog {
		return appendRESP(b, "XADD", "log", "*", "id", key, "what", batch.What, "n", strconv.FormatUint(o.N, 10))
	}
	return appendRESP(b, "XADD", "log.clicks:"+key, "*", "what", batch.What, "n", strconv.FormatUint(o.N, 10))
}

func appendRESP(b []byte, args ...string) []byte {
	b = append(strconv.AppendInt(append(b, '*'), int64(len(args)), 10), '\r', '\n')
	for _, a := range args {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(a)), 10), '\r', '\n')
		b = append(append(b, a...), '\r', '\n')
	}
	return b
}

func (w *respWriter) close() {
	for _, m := range w.conns {
		m.fail(net.ErrClosed)
	}
}
