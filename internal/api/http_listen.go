package api

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// httpConnsRefusal is what HTTP clients over the limit get.
var httpConnsRefusal = []byte("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nConnection: close\r\n\r\n" +
	`{"type":"about:blank","title":"Service Unavailable","status":503,"code":"overloaded","reason":"connections",` +
	`"detail":"all connections are taken, the limit is ` + "`connections`" + `; come back later","retry_after_ms":1000}` + "\n")

// limitListener holds at most limit connections. One more is answered with
// refusal (nil: nothing) and closed: a client learns why, which it would not when
// Accept just stopped. Under TLS there can be no refusal.
type limitListener struct {
	net.Listener
	limit   int64
	open    atomic.Int64
	refused atomic.Int64
	refusal []byte
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.limit {
			return &limitConn{Conn: c, listener: l}, nil
		}
		l.open.Add(-1)
		l.refused.Add(1)
		// A fresh connection's send buffer takes the refusal at once, and the
		// deadline keeps a strange one from holding up the next.
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = c.Write(l.refusal)
		_ = c.Close()
	}
}

type limitConn struct {
	net.Conn
	listener *limitListener
	once     sync.Once
}

func (c *limitConn) Close() error {
	c.once.Do(func() { c.listener.open.Add(-1) })
	return c.Conn.Close()
}
