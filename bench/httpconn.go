package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// httpConn is one connection that is kept alive. It writes requests and reads
// answers by hand, since net/http's client would take more of the cores than
// the server that is measured on them.
type httpConn struct {
	l    *loadSpec
	c    net.Conn
	in   *bufio.Reader
	body []byte
	out  []byte
}

func dialHTTP(l *loadSpec) (*httpConn, error) {
	h := &httpConn{l: l, in: bufio.NewReaderSize(nil, 8<<10)}
	return h, h.dial()
}

func (h *httpConn) dial() (err error) {
	if h.c, err = net.DialTimeout("tcp", h.l.Addr, 5*time.Second); err == nil {
		h.in.Reset(h.c)
	}
	return err
}

func (h *httpConn) close() { h.c.Close() }

func (h *httpConn) send(key func() uint64, n int) error {
	h.body = h.body[:0]
	kind := "application/json"
	if h.l.Door == "ndjson" {
		kind = "application/x-ndjson"
	}
	for i := range n {
		if i > 0 {
			h.body = append(h.body, '\n')
		}
		h.body = h.l.appendLine(h.body, key())
	}
	h.out = append(append(append(h.out[:0], "POST /v1/writes HTTP/1.1\r\nHost: "...), h.l.Addr...), "\r\nContent-Type: "...)
	h.out = append(append(h.out, kind...), "\r\nContent-Length: "...)
	h.out = append(strconv.AppendInt(h.out, int64(len(h.body)), 10), "\r\n\r\n"...)
	h.out = append(h.out, h.body...)
	_ = h.c.SetDeadline(time.Now().Add(answerTimeMax))
	if _, err := h.c.Write(h.out); err != nil {
		return err
	}
	if h.l.Door == "ndjson" {
		return h.readLines(n)
	}
	return h.readAccepted()
}

// readAccepted reads the answer to one write: 202 and a body of known length.
func (h *httpConn) readAccepted() error {
	status, err := h.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 202"))
	said := string(status[:min(len(status), 40)])
	length := 0
	for {
		line, err := h.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if !ok {
		text := make([]byte, min(length, 400))
		_, _ = io.ReadFull(h.in, text)
		return fmt.Errorf("the server answered %q %s", said, text)
	}
	_, err = h.in.Discard(length)
	return err
}

// readLines reads the answer to a stream: its last line says how much was
// accepted, and without it nothing is known.
func (h *httpConn) readLines(n int) error {
	r, err := http.ReadResponse(h.in, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	last := lines[len(lines)-1]
	var sum struct{ Accepted, Refused int }
	if err := json.Unmarshal(last, &sum); err != nil || r.StatusCode != http.StatusOK || sum.Accepted != n {
		return fmt.Errorf("of %d lines the server says: %s %.300s", n, r.Status, last)
	}
	// The server closes after a stream whose end it had not seen when it began to
	// answer; a new connection is part of what a client pays.
	if r.Close {
		h.c.Close()
		return h.dial()
	}
	return nil
}
