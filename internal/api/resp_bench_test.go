package api

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"sluice.dev/sluice"
)

// respLoop is a connection on which one pipeline comes again and again.
type respLoop struct {
	net.Conn
	pipeline []byte
	left     int
	written  int
}

func (l *respLoop) Read(b []byte) (int, error) {
	if l.left == 0 {
		return 0, net.ErrClosed
	}
	l.left--
	return copy(b, l.pipeline), nil
}

func (l *respLoop) Write(b []byte) (int, error) {
	l.written += len(b)
	return len(b), nil
}
func (l *respLoop) Close() error                     { return nil }
func (l *respLoop) SetReadDeadline(time.Time) error  { return nil }
func (l *respLoop) SetWriteDeadline(time.Time) error { return nil }
func (l *respLoop) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// nullWrites accepts everything and keeps nothing.
type nullWrites struct{ *respBackend }

func (nullWrites) Submit(context.Context, *sluice.Chunk) (sluice.Ack, error) {
	return sluice.Ack{Commit: 1}, nil
}

func BenchmarkRESPPipeline(b *testing.B) {
	backend := newRESPBackend(respTestSchema(b, respTestConfig))
	for _, depth := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(depth), func(b *testing.B) {
			d, err := NewRESP(RESPOptions{Writes: nullWrites{backend}, Reads: backend, Admin: backend})
			if err != nil {
				b.Fatal(err)
			}
			d.journal.Store(1)
			var wire []byte
			for i := range depth {
				wire = appendRESPCommand(wire, fmt.Sprintf("HINCRBY posts:%012d likes 1", i*7919))
			}
			l := &respLoop{pipeline: wire, left: b.N/depth + 1}
			c := newRESPConn(d, l)
			d.conns[c] = true
			c.greet()
			c.in.buf = make([]byte, respPipelineBytes)
			b.ReportAllocs()
			b.ResetTimer()
			for c.step() == nil {
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
}
