package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/sluice/internal/schema"
)

func (c *respTestConn) say(t testing.TB, lines ...string) {
	t.Helper()
	var wire []byte
	for _, l := range lines {
		wire = appendRESPCommand(wire, l)
	}
	if _, err := c.Write(wire); err != nil {
		t.Fatal(err)
	}
}

func (c *respTestConn) answers(n int) string {
	var out strings.Builder
	for range n {
		if !readRESPAnswer(&out, c.r, "") {
			break
		}
	}
	return out.String()
}

func (c *respTestConn) expect(t testing.TB, want string) {
	t.Helper()
	if got := c.answers(strings.Count(want, "\n")); got != want {
		t.Fatalf("answered\n%swant\n%s", got, want)
	}
}

// limited is the test schema with other limits.
func limited(t testing.TB, config string, change func(*schema.Limits)) *schema.Schema {
	s := respTestSchema(t, config)
	change(&s.Limits)
	return s
}

func TestRESPPipelineIsOneChunk(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	_, addr := serveRESP(t, b, nil)
	c := dialRESP(t, addr)
	var lines []string
	for i := range 60 { // less than one buffer: it is read at once
		lines = append(lines, fmt.Sprintf("HINCRBY posts:%d likes 1", i))
	}
	c.say(t, lines...)
	c.expect(t, strings.Repeat(":1\n", 60))
	if b.chunks != 1 {
		t.Errorf("60 commands in one segment became %d chunks", b.chunks)
	}
}

func TestRESPPipelineMax(t *testing.T) {
	b := newRESPBackend(limited(t, respTestConfig, func(l *schema.Limits) { l.PipelineMax = 10 }))
	_, addr := serveRESP(t, b, nil)
	c := dialRESP(t, addr)
	c.say(t, strings.Split(strings.Repeat("HINCRBY posts:1 likes 1\n", 40)+"PING", "\n")...)
	c.expect(t, strings.Repeat(":1\n", 40)+"+PONG\n")
	if b.chunks < 4 {
		t.Errorf("40 commands became %d chunks although `pipeline` is 10", b.chunks)
	}
}

func TestRESPConnectionLimit(t *testing.T) {
	b := newRESPBackend(limited(t, respTestConfig, func(l *schema.Limits) { l.ConnsMax = 1 }))
	d, addr := serveRESP(t, b, nil)
	first := dialRESP(t, addr)
	first.say(t, "PING")
	first.expect(t, "+PONG\n")
	second := dialRESP(t, addr)
	second.expect(t, "-ERR max number of clients reached (connections)\n(closed)\n")
	first.say(t, "INFO clients")
	if got := first.answers(1); !strings.Contains(got, "connected_clients:1") {
		t.Errorf("INFO after a refused connection:\n%s", got)
	}
	figures := map[string]float64{}
	for s := range d.Samples() {
		if s.Histogram != nil {
			n, _, _ := s.Histogram.Snapshot()
			s.Value = float64(n)
		}
		figures[s.Metric.Name] = s.Value
	}
	if figures["sluice_connections"] != 1 || figures["sluice_connections_refused_total"] != 1 || figures["sluice_request_seconds"] == 0 {
		t.Errorf("metrics: %v", figures)
	}
}

func TestRESPIdleConnectionIsClosed(t *testing.T) {
	b := newRESPBackend(limited(t, respTestConfig, func(l *schema.Limits) { l.IdleTimeout = 10 * time.Millisecond }))
	_, addr := serveRESP(t, b, nil)
	dialRESP(t, addr).expect(t, "(closed)\n")
}

// A command must be whole in time, however slowly it trickles.
func TestRESPTricklingCommandIsCutOff(t *testing.T) {
	b := newRESPBackend(limited(t, respTestConfig, func(l *schema.Limits) { l.ReadTimeout = 30 * time.Millisecond }))
	_, addr := serveRESP(t, b, nil)
	c := dialRESP(t, addr)
	stop := make(chan struct{})
	go func() {
		wire := []byte("*2\r\n$4\r\nECHO\r\n$100000\r\n" + strings.Repeat("x", 100_000))
		for i := range wire {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := c.Write(wire[i : i+1]); err != nil {
				return
			}
		}
	}()
	got := c.answers(2)
	close(stop)
	if !strings.HasPrefix(got, "-ERR read_timeout: ") || !strings.HasSuffix(got, "(closed)\n") {
		t.Errorf("answered %s", got)
	}
}

// The time of a command counts from its own beginning: a stream of pipelines
// whose reads always end within a command goes on for ever.
func TestRESPStreamIsNotCutOff(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	d, err := NewRESP(RESPOptions{Writes: b, Reads: b, Admin: b})
	if err != nil {
		t.Fatal(err)
	}
	p := &respPieces{in: []byte(strings.Repeat("*1\r\n$4\r\nPING\r\n", 3)), cut: 20} // a read brings one and a half
	c := newRESPConn(d, p)
	c.greet()
	steps := func(n int) {
		for range n {
			if err := c.step(); err != nil {
				t.Fatal(err)
			}
		}
	}
	steps(1)
	c.began = longAgo // as if the second command had begun then; the next read ends it and begins the third
	steps(2)
	if p.readUntil.Before(time.Now()) {
		t.Errorf("the third command had to be whole by %v", p.readUntil)
	}
}

func TestRESPSlowReaderIsCutOff(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	_, addr := serveRESP(t, b, func(o *RESPOptions) { o.WriteTimeout = 20 * time.Millisecond })
	c := dialRESP(t, addr)
	wire := appendRESPCommand(nil, "ECHO "+strings.Repeat("x", 50_000))
	for {
		if _, err := c.Write(wire); err != nil { // nothing is read: writing ends only when we are cut off
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("never cut off")
			}
			return
		}
	}
}

func TestRESPLargeCommandsShareABudget(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	d, addr := serveRESP(t, b, nil)
	d.buffers.Store(respBufferBudgetMax - 100)
	c := dialRESP(t, addr)
	c.say(t, "ECHO "+strings.Repeat("x", 1000))
	c.expect(t, "\""+strings.Repeat("x", 1000)+"\"\n")
	go c.Write(appendRESPCommand(nil, "ECHO "+strings.Repeat("x", 100_000)))
	if got := c.answers(1); !strings.HasPrefix(got, "-BUSY memory_max ") {
		t.Errorf("answered %.200s", got)
	}
}

func TestRESPBuffersAreGivenBack(t *testing.T) {
	var budget atomic.Int64
	r := respReader{argsMax: 10, bulkMax: 1 << 20, cmdMax: 1 << 20, budget: &budget}
	wire := appendRESPCommand(nil, "ECHO "+strings.Repeat("x", 300_000))
	src := bytes.NewReader(wire)
	for {
		if err := r.fill(src); err != nil {
			t.Fatal(err)
		}
		if args, err := r.next(); err != nil {
			t.Fatal(err)
		} else if args != nil {
			break
		}
	}
	if got, most := int64(len(r.buf)), int64(len(wire)+respBufferBytes); got > most || budget.Load() != got-respBufferBytes {
		t.Errorf("a command of %d bytes holds %d, %d of the budget", len(wire), got, budget.Load())
	}
	r.fill(strings.NewReader("x"))
	r.next()
	r.start = r.end
	r.fill(strings.NewReader("x"))
	if len(r.buf) != respPipelineBytes {
		t.Errorf("after the large command the buffer has %d bytes", len(r.buf))
	}
	r.start, r.pos = r.end, 0
	r.shrink()
	if len(r.buf) != respBufferBytes || budget.Load() != 0 {
		t.Errorf("a silent connection holds %d bytes, %d of the budget", len(r.buf), budget.Load())
	}
	r.fill(strings.NewReader(strings.Repeat("y", respBufferBytes)))
	r.fill(strings.NewReader("y"))
	r.release()
	if budget.Load() != 0 {
		t.Errorf("a closed connection holds %d of the budget", budget.Load())
	}
}

// What is in flight when the door closes is answered, then the connection closes.
func TestRESPShutdownAnswersWhatWaits(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	gate, entered := make(chan struct{}), make(chan struct{}, 4)
	b.set(func(b *respBackend) { b.gate, b.entered = gate, entered })
	d, addr := serveRESP(t, b, nil)
	idle, busy := dialRESP(t, addr), dialRESP(t, addr)
	idle.say(t, "PING")
	idle.expect(t, "+PONG\n")
	busy.say(t, "HINCRBY posts:1 likes 1", "HINCRBY posts:2 likes x", "HINCRBY posts:3 likes 3")
	<-entered

	done := make(chan error, 1)
	go func() { done <- d.Shutdown(context.Background()) }()
	idle.expect(t, "(closed)\n")
	if _, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		t.Error("a new connection was accepted while closing")
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v before the pipeline was answered", err)
	default:
	}
	close(gate)
	busy.expect(t, ":1\n-ERR value is not an integer or out of range\n:3\n(closed)\n")
	busy.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := d.Shutdown(context.Background()); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
}

// Past the deadline connections are cut without an answer: nobody knows what
// became of their writes.
func TestRESPShutdownDeadlineCuts(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	entered := make(chan struct{}, 4)
	b.set(func(b *respBackend) { b.gate, b.entered = make(chan struct{}), entered })
	d, addr := serveRESP(t, b, nil)
	c := dialRESP(t, addr)
	c.say(t, "HINCRBY posts:1 likes 1")
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown past its deadline: %v", err)
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("a write of unknown outcome was answered")
	}
}

// A WAIT does not hold up a shutdown.
func TestRESPShutdownEndsWait(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	d, addr := serveRESP(t, b, nil)
	c := dialRESP(t, addr)
	c.say(t, "HINCRBY posts:1 likes 1")
	c.expect(t, ":1\n")
	entered := make(chan struct{}, 1)
	b.set(func(b *respBackend) { b.gate, b.entered = make(chan struct{}), entered })
	c.say(t, "WAIT 1 0")
	<-entered
	done := make(chan error, 1)
	go func() { done <- d.Shutdown(context.Background()) }()
	c.expect(t, ":0\n(closed)\n")
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRESPServeEndsWithItsContext(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	d, err := NewRESP(RESPOptions{Writes: b, Reads: b, Admin: b})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, ln) }()
	c := dialRESP(t, ln.Addr().String())
	c.say(t, "PING")
	c.expect(t, "+PONG\n")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the connection is still open")
	}
	if err := d.Serve(context.Background(), ln); err != nil {
		t.Errorf("Serve after the end: %v", err)
	}
}

// A reload that takes a client out of the config holds for open connections.
func TestRESPReloadTakesRights(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig+respTestClients))
	_, addr := serveRESP(t, b, nil)
	c := dialRESP(t, addr)
	c.say(t, "AUTH web web-token-0123456789abcdef", "HINCRBY posts:1 likes 1")
	c.expect(t, "+OK\n:1\n")
	next := respTestSchema(t, respTestConfig+respTestClients)
	next.Clients["web"].Tables = []string{"likes"}
	b.set(func(b *respBackend) { b.schema = next })
	c.say(t, "HINCRBY posts:1 likes 1")
	if got := c.answers(1); !strings.HasPrefix(got, "-NOPERM ") {
		t.Errorf("after the table was taken away: %s", got)
	}
	next = respTestSchema(t, respTestConfig+respTestClients)
	delete(next.Clients, "web")
	b.set(func(b *respBackend) { b.schema = next })
	c.say(t, "HINCRBY likes:[1,2] n 1")
	if got := c.answers(1); !strings.HasPrefix(got, "-NOAUTH ") {
		t.Errorf("after the client was taken away: %s", got)
	}
}

func TestRESPOverTLS(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	cert := respTestCertificate(t)
	_, addr := serveRESP(t, b, func(o *RESPOptions) { o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(appendRESPCommand(nil, "HINCRBY posts:1 likes 4")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != ":4\r\n" {
		t.Errorf("answered %q, %v", got, err)
	}
	plain := dialRESP(t, addr)
	plain.say(t, "PING")
	if got := plain.answers(1); strings.Contains(got, "PONG") {
		t.Errorf("answered %q without TLS", got)
	}
}

func TestRESPHotPathDoesNotAllocate(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	d, err := NewRESP(RESPOptions{Writes: nullWrites{b}, Reads: b, Admin: b})
	if err != nil {
		t.Fatal(err)
	}
	d.journal.Store(1)
	var wire []byte
	for i := range 64 {
		wire = appendRESPCommand(wire, fmt.Sprintf("HINCRBY posts:%d likes 1", i))
	}
	l := &respLoop{pipeline: wire, left: 1 << 30}
	c := newRESPConn(d, l)
	c.greet()
	const runs = 200
	if got := testing.AllocsPerRun(runs, func() { c.step() }); got > 16 { // not 0: the race detector empties the pool now and then
		t.Errorf("a pipeline of 64 commands allocates %.1f times", got)
	}
	if want := (runs + 1) * 64 * len(":1\r\n"); l.written < want {
		t.Errorf("answered %d bytes, want %d", l.written, want)
	}
}

// FuzzRESP feeds bytes in pieces: nothing panics, and what comes out are whole
// answers, the same as when the bytes come in one piece.
func FuzzRESP(f *testing.F) {
	for _, seed := range []string{
		"*4\r\n$7\r\nHINCRBY\r\n$7\r\nposts:5\r\n$5\r\nlikes\r\n$1\r\n5\r\n",
		"PING \"a\\x41\"\r\nHGETALL posts:1\r\n*1\r\n$4\r\nINFO\r\n",
		"*2\r\n$3\r\nDEL\r\n$-7\r\nposts:1\r\n", "*-1\r\n*0\r\n\r\n*1\r\n$0\r\n\r\n",
		"XADD posts.analytics:1 * event_type x\nWAIT 1 10\nMULTI\nPING\nEXEC\n",
		"COMMAND DOCS\r\nCONFIG GET *\r\nHELLO 3\r\nCLIENT ID\r\nRESET\r\n",
		"HSET posts:1 meta \"{\" content x\nPFADD posts.viewers:1 a b a\nDEL posts:1 likes:[1,2] posts\n",
		"*1\r\n$99999999999999999999\r\n", "*3\r\n$4\r\nECHO", "'\n", "\"\\x",
	} {
		f.Add([]byte(seed), uint8(3))
	}
	s := respTestSchema(f, respTestConfig)
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		whole := fuzzRESP(t, s, in, len(in))
		pieces := fuzzRESP(t, s, in, int(cut)+1)
		if !bytes.Equal(whole, pieces) {
			t.Fatalf("in one piece\n%q\nin pieces of %d\n%q", whole, cut, pieces)
		}
		if len(whole) > 0 && !bytes.HasSuffix(whole, []byte("\r\n")) {
			t.Fatalf("half an answer: %q", whole)
		}
	})
}

func fuzzRESP(t *testing.T, s *schema.Schema, in []byte, cut int) []byte {
	b := newRESPBackend(s)
	d, err := NewRESP(RESPOptions{Writes: b, Reads: b, Admin: b})
	if err != nil {
		t.Fatal(err)
	}
	delete(d.commands, "info") // counts the bytes it came in
	p := &respPieces{in: in, cut: max(cut, 1)}
	c := newRESPConn(d, p)
	d.conns[c] = true
	c.serve()
	return p.out
}

// respPieces gives bytes in pieces and keeps the answers.
type respPieces struct {
	respLoop
	in, out   []byte
	cut       int
	readUntil time.Time
}

func (p *respPieces) SetReadDeadline(t time.Time) error {
	p.readUntil = t
	return nil
}

func (p *respPieces) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.in[:min(p.cut, len(p.in))])
	p.in = p.in[n:]
	return n, nil
}

func (p *respPieces) Write(b []byte) (int, error) {
	p.out = append(p.out, b...)
	return len(b), nil
}
