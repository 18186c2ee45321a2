package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// natsWriter speaks the text protocol of NATS, so that its client need not be a
// dependency: a publication asks for an answer at the caller's own subject, and
// JetStream answers when the message is in the stream.
type natsWriter struct {
	conns []*natsConn
}

type natsConn struct {
	c      net.Conn
	mu     sync.Mutex
	out    []byte
	wake   chan struct{}
	done   []chan error // by caller; nil for callers of other connections
	failed error
}

const natsConns = 4 // the server flushes each connection's answers together

func dialNATS(addr string, callers int) (*natsWriter, error) {
	w := &natsWriter{}
	for i := range min(natsConns, callers) {
		c, err := net.DialTimeout("tcp", addr, dialTimeMax)
		if err != nil {
			w.close()
			return nil, err
		}
		n := &natsConn{c: c, wake: make(chan struct{}, 1), done: make([]chan error, callers)}
		for caller := i; caller < callers; caller += natsConns {
			n.done[caller] = make(chan error, 1)
		}
		n.out = append(n.out, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\nSUB r.* 1\r\n"...)
		// Answers of one connection must not reach another.
		n.out = bytes.Replace(n.out, []byte("r.*"), fmt.Appendf(nil, "r%d.*", i), 1)
		n.wake <- struct{}{}
		w.conns = append(w.conns, n)
		go n.send()
		go n.receive()
	}
	return w, nil
}

func (w *natsWriter) close() {
	for _, n := range w.conns {
		n.fail(net.ErrClosed)
	}
}

func (w *natsWriter) write(caller int, o op) error {
	conn := caller % natsConns
	n := w.conns[conn]
	text := fmt.Appendf(nil, "%c %d %d", o.Kind, o.Key, o.N)
	n.mu.Lock()
	if n.failed != nil {
		n.mu.Unlock()
		return n.failed
	}
	if o.id == "" {
		n.out = fmt.Appendf(n.out, "PUB w r%d.%d %d\r\n%s\r\n", conn, caller, len(text), text)
	} else {
		head := "NATS/1.0\r\nNats-Msg-Id: " + o.id + "\r\n\r\n"
		n.out = fmt.Appendf(n.out, "HPUB w r%d.%d %d %d\r\n%s%s\r\n", conn, caller, len(head), len(head)+len(text), head, text)
	}
	n.mu.Unlock()
	n.rouse()
	return <-n.done[caller]
}

func (n *natsConn) rouse() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *natsConn) send() {
	for range n.wake {
		n.mu.Lock()
		text, over := n.out, n.failed != nil
		n.out = nil
		n.mu.Unlock()
		if over {
			return
		}
		if _, err := n.c.Write(text); err != nil {
			n.fail(err)
			return
		}
	}
}

func (n *natsConn) receive() {
	in := bufio.NewReaderSize(n.c, 64<<10)
	for {
		if err := n.one(in); err != nil {
			n.fail(err)
			return
		}
	}
}

// one reads one line of the server, and the message that follows it if any.
func (n *natsConn) one(in *bufio.Reader) error {
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	f := bytes.Fields([]byte(line))
	if len(f) == 0 {
		return nil
	}
	switch string(f[0]) {
	case "PING":
		n.mu.Lock()
		n.out = append(n.out, "PONG\r\n"...)
		n.mu.Unlock()
		n.rouse()
		return nil
	case "-ERR":
		return errors.New(line)
	case "MSG", "HMSG":
	default: // INFO, PONG, +OK
		return nil
	}
	size, err := strconv.Atoi(string(f[len(f)-1]))
	if err != nil {
		return err
	}
	text := make([]byte, size+2)
	if _, err := io.ReadFull(in, text); err != nil {
		return err
	}
	_, last, _ := bytes.Cut(f[1], []byte("."))
	caller, err := strconv.Atoi(string(last))
	if err != nil || caller >= len(n.done) || n.done[caller] == nil {
		return fmt.Errorf("an answer for nobody: %q", line)
	}
	if !bytes.Contains(text, []byte(`"seq"`)) {
		n.done[caller] <- &refusal{string(text)}
		return nil
	}
	n.done[caller] <- nil
	return nil
}

// fail answers every caller; one that had nothing under way finds its answer
// taken out before it writes again, since the connection stays failed.
func (n *natsConn) fail(err error) {
	n.mu.Lock()
	first := n.failed == nil
	if first {
		n.failed = err
	}
	n.mu.Unlock()
	n.c.Close()
	n.rouse()
	for _, done := range n.done {
		if first && done != nil {
			select {
			case done <- err:
			default:
			}
		}
	}
}

// backlogNATS asks JetStream how many messages its consumer has not settled.
func backlogNATS(addr string) (int, error) {
	c, err := net.DialTimeout("tcp", addr, dialTimeMax)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(dialTimeMax))
	if _, err := io.WriteString(c, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB info 1\r\nPUB $JS.API.CONSUMER.INFO.writes.postgres info 0\r\n\r\n"); err != nil {
		return 0, err
	}
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if !strings.HasPrefix(line, "MSG ") {
			continue
		}
		var info struct {
			Pending    *int `json:"num_pending"`
			AckPending int  `json:"num_ack_pending"`
		}
		if err := json.NewDecoder(in).Decode(&info); err != nil {
			return 0, err
		}
		if info.Pending == nil {
			return 0, errors.New("JetStream does not know its consumer")
		}
		return *info.Pending + info.AckPending, nil
	}
}
