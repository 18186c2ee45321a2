package crash_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy forwards connections to a target that may change, and spoils them on
// request.
type proxy struct {
	ln net.Listener

	mu     sync.Mutex
	target string
	conns  map[net.Conn]bool
	mood   mood
}

// mood is what the proxy does to bytes.
type mood struct {
	delay time.Duration // before each piece
	hole  bool          // nothing comes through, nobody is told
	half  bool          // only half of the next piece, then the connection ends
	shut  bool          // new connections are refused
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, target: target, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() { p.accept(&wg) })
	t.Cleanup(func() {
		ln.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }
func (p *proxy) port() int    { return p.ln.Addr().(*net.TCPAddr).Port }

func (p *proxy) accept(wg *sync.WaitGroup) {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target, shut := p.target, p.mood.shut
		p.mu.Unlock()
		if shut {
			c.Close()
			continue
		}
		up, err := net.DialTimeout("tcp", target, time.Second)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.conns[c], p.conns[up] = true, true
		p.mu.Unlock()
		wg.Go(func() { p.pump(c, up) })
		wg.Go(func() { p.pump(up, c) })
	}
}

func (p *proxy) pump(from, to net.Conn) {
	defer p.drop(from)
	defer p.drop(to)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		m := p.mood
		p.mood.half = false
		p.mu.Unlock()
		switch {
		case m.hole:
			_, _ = io.Copy(io.Discard, from) // until somebody gives up
			return
		case m.half:
			_, _ = to.Write(buf[:n/2])
			return
		}
		time.Sleep(m.delay)
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// cut ends every connection at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) set(m mood) {
	p.mu.Lock()
	p.mood = m
	p.mu.Unlock()
}

// move sends new connections elsewhere and ends the old ones.
func (p *proxy) move(target string) {
	p.mu.Lock()
	p.target = target
	p.mu.Unlock()
	p.cut()
}
