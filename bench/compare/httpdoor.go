package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// httpWriter has one connection for each caller and writes and reads by hand:
// net/http's client would take more of the cores than what is measured on them.
type httpWriter struct {
	path  string
	body  func([]byte, op) []byte
	conns []*httpConn
}

type httpConn struct {
	addr      string
	broken    bool
	mu        sync.Mutex // over c and over
	over      bool
	c         net.Conn
	in        *bufio.Reader
	out, body []byte
}

const answerTimeMax = time.Minute

func dialHTTP(addr, path string, callers int, body func([]byte, op) []byte) (*httpWriter, error) {
	w := &httpWriter{path: path, body: body}
	for range callers {
		h := &httpConn{addr: addr, in: bufio.NewReaderSize(nil, 4<<10)}
		if err := h.dial(); err != nil {
			w.close()
			return nil, err
		}
		w.conns = append(w.conns, h)
	}
	return w, nil
}

// dial may meet a close by another goroutine.
func (h *httpConn) dial() error {
	c, err := net.DialTimeout("tcp", h.addr, dialTimeMax)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		c.Close()
		return net.ErrClosed
	}
	h.c, h.broken = c, false
	h.in.Reset(c)
	return nil
}

func (h *httpConn) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	h.c.Close()
}

func (w *httpWriter) close() {
	for _, h := range w.conns {
		h.close()
	}
}

func (w *httpWriter) write(caller int, o op) error {
	h := w.conns[caller]
	h.body = w.body(h.body[:0], o)
	h.out = append(append(append(h.out[:0], "POST "...), w.path...), " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"...)
	if o.id != "" {
		h.out = append(append(append(h.out, "Idempotency-Key: \""...), o.id...), "\"\r\n"...)
	}
	h.out = strconv.AppendInt(append(h.out, "Content-Length: "...), int64(len(h.body)), 10)
	h.out = append(append(h.out, "\r\n\r\n"...), h.body...)
	err := h.exchange()
	if err != nil && !h.broken {
		h.broken = true
		h.c.Close()
	}
	return err
}

// exchange redials after an error: a server may close a connection when it refuses.
func (h *httpConn) exchange() error {
	if h.broken {
		if err := h.dial(); err != nil {
			return err
		}
	}
	_ = h.c.SetDeadline(time.Now().Add(answerTimeMax))
	if _, err := h.c.Write(h.out); err != nil {
		return err
	}
	return h.read()
}

// read takes an answer of a known length; anything but 2xx is an error.
func (h *httpConn) read() error {
	line, err := h.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	said := string(bytes.TrimSpace(line))
	length := 0
	for {
		line, err := h.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if len(said) > 9 && said[9] == '2' {
		_, err = h.in.Discard(length)
		return err
	}
	text := make([]byte, min(length, 300))
	_, _ = io.ReadFull(h.in, text)
	return &refusal{said + " " + string(text)}
}
