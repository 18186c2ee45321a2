package decay_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/api"
	"sluice.dev/sluice/internal/pipeline"
)

const (
	warmUps = 50 // requests, until pools and buffers have their size
	windows = 5
	rounds  = 60 // requests in a window
)

// allocations counts those of the whole process, from a request's first byte to
// its answer, with a commit and its fsync for each request.
func allocations(t *testing.T, way string, writes int) []figure {
	l := newLine(t)
	request := map[string]func(*line, int) func(){"submit": bySubmit, "resp": byRESP, "http": byHTTP}[way]
	if request == nil {
		t.Fatalf("there is no way %q", way)
	}
	once := request(l, writes)
	// A collection in between empties the pools, at a moment that nobody chose.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for range warmUps {
		once()
	}
	// The least of some windows: what the scheduler and the runtime allocate now
	// and then is not the request's, and what the request needs is in each.
	least := math.Inf(1)
	for range windows {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			once()
		}
		runtime.ReadMemStats(&after)
		least = min(least, float64(after.Mallocs-before.Mallocs)/rounds)
	}
	return []figure{{"allocations per request", least}, {"allocations per write", least / float64(writes)}}
}

func bySubmit(l *line, writes int) func() {
	c := l.chunk("uniform", writes)
	return func() {
		if _, err := l.acceptor.Submit(l.t.Context(), &sluice.Chunk{Entries: c.Entries}); err != nil {
			l.t.Fatal(err)
		}
	}
}

// byRESP sends a pipeline.
func byRESP(l *line, writes int) func() {
	d, err := api.NewRESP(api.RESPOptions{Writes: l.acceptor, Reads: l.reader(), Admin: noAdmin{}})
	if err != nil {
		l.t.Fatal(err)
	}
	var text, answer []byte
	for range writes {
		key := "posts:" + strconv.FormatInt(l.random.Int64N(uniformKeys), 10)
		text = fmt.Appendf(text, "*4\r\n$7\r\nHINCRBY\r\n$%d\r\n%s\r\n$5\r\nlikes\r\n$1\r\n1\r\n", len(key), key)
		answer = append(answer, ":1\r\n"...)
	}
	return l.serve(d.Serve, text, func(got []byte) bool { return bytes.Equal(got, answer) })
}

// byHTTP sends lines of JSON.
func byHTTP(l *line, writes int) func() {
	h, err := api.NewHTTP(api.Options{Writes: l.acceptor, Reads: l.reader(), Admin: noAdmin{}, Auth: api.NewAuth(l.acceptor.Schema)})
	if err != nil {
		l.t.Fatal(err)
	}
	body := l.lines("uniform", writes)
	text := fmt.Appendf(nil, "POST /v1/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	last := fmt.Appendf(nil, `"accepted":%d`, writes)
	return l.serve(h.Serve, text, func(got []byte) bool {
		return bytes.HasSuffix(got, []byte("\r\n0\r\n\r\n")) && bytes.Contains(got, last)
	})
}

// noAdmin is what the doors ask for and no write uses.
type noAdmin struct{ api.Admin }

func (l *line) reader() *pipeline.Reader {
	return pipeline.NewReader(pipeline.ReaderOptions{Schema: l.acceptor.Schema, Journal: l.journal, Drains: &l.drains})
}

// serve opens a door on one connection in memory, where each read gets the same
// bytes every time, and gives what sends the text and reads until the answer is whole.
func (l *line) serve(serve func(context.Context, net.Listener) error, text []byte, whole func([]byte) bool) func() {
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	ln := &oneListener{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	ln.conn <- theirs
	send := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { _ = serve(ctx, ln) }) // an answer that does not come tells
	running.Go(func() {
		for range send {
			if _, err := ours.Write(text); err != nil {
				return
			}
		}
	})
	l.t.Cleanup(func() {
		close(send)
		cancel()
		_ = ours.Close()
		running.Wait()
	})
	answer := make([]byte, 64<<10)
	return func() {
		send <- struct{}{}
		n := 0
		for !whole(answer[:n]) {
			more, err := ours.Read(answer[n:])
			if n += more; err != nil || n == len(answer) {
				l.t.Fatalf("answer %.500q: %v", answer[:n], err)
			}
		}
	}
}

// oneListener gives one connection.
type oneListener struct {
	conn   chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return loopbackConn{c}, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *oneListener) Addr() net.Addr { return loopback }

var (
	loopback           = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	_        io.Closer = (*oneListener)(nil)
)

// loopbackConn looks like a connection from this machine: pipes have no address.
type loopbackConn struct{ net.Conn }

func (loopbackConn) RemoteAddr() net.Addr { return loopback }
func (loopbackConn) LocalAddr() net.Addr  { return loopback }
