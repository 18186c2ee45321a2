package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/schema"
)

// RESP is the door for Redis clients. `COMMAND DOCS` is its reference; what
// differs from Redis:
//
//   - A key is `table:key`; a composite key is `likes:[42,7]`. PFADD and XADD
//     name a column or a group too: `posts.viewers:42`, `posts.analytics:42`.
//   - HINCRBY and HINCRBYFLOAT answer the amount that was accepted, not the
//     total: the total is in the database, some time later. HSET, PFADD and DEL
//     answer how much was accepted, not how much was new.
//   - HSET on a max or min column offers a candidate: the larger or smaller
//     value stays.
//   - Every answer to a write means that it is durable, so WAITAOF answers at
//     once. WAIT waits until what this connection wrote is in the databases.
//   - A pipeline is one chunk and commonly one commit, but each command stands
//     alone: one that is bad gets an error and the others are accepted.
//   - There is no identity in RESP. A client library that sends again after a
//     broken connection may count a write twice: go-redis does it unless
//     MaxRetries is -1, redis-py unless Retry is switched off, ioredis unless
//     maxRetriesPerRequest is 0. Use HTTP with an Idempotency-Key or the Go
//     client where that matters.
type RESP struct {
	o        RESPOptions
	commands map[string]*respCommand

	stop     context.Context // ends when connections are cut
	cut      context.CancelFunc
	leaving  context.Context // ends when Shutdown begins
	leave    context.CancelFunc
	stopping atomic.Bool
	serving  sync.WaitGroup // Serve calls and their connections

	mu        sync.Mutex
	listeners map[net.Listener]bool
	conns     map[*respConn]bool

	chunks  sync.Pool     // *respChunk: only connections with a pipeline in work hold one
	buffers atomic.Int64  // bytes of read buffers beyond respBufferBytes each
	journal atomic.Uint64 // the journal's number in receipts; 0: not yet known
	ids     atomic.Uint64 // of connections
	events  atomic.Uint64 // second half of the ids that XADD answers
	stats   respStats
}

// RESPOptions are the parts that the door needs.
type RESPOptions struct {
	Writes  Writes
	Reads   Reads
	Admin   Admin
	Auth    *Auth            // nil: one of its own
	TLS     *tls.Config      // nil: plain TCP
	Version string           // of Sluice, for HELLO
	Now     func() time.Time // judges skew_max; nil: time.Now

	// WriteTimeout cuts off a client that does not read its answers; 0: the
	// config's `read_timeout`.
	WriteTimeout time.Duration
}

// respStats are the figures of INFO.
type respStats struct {
	accepted, refused, connected atomic.Int64
	commands, bytesIn, bytesOut  atomic.Int64
	requestTime                  *observe.Histogram // of a pipeline, in seconds
}

const (
	acceptPauseMax  = time.Second            // between failing accepts (no file descriptors left)
	respLingerMax   = 500 * time.Millisecond // for the last answers to arrive before a connection is closed
	respShrinkAfter = time.Second            // of silence, a connection gives its large buffer back
)

// NewRESP makes the door. Serve opens it.
func NewRESP(o RESPOptions) (*RESP, error) {
	if o.Writes == nil || o.Reads == nil || o.Admin == nil {
		return nil, errors.New("the RESP door needs Writes, Reads and Admin")
	}
	if o.Auth == nil {
		o.Auth = NewAuth(o.Writes.Schema)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &RESP{o: o, commands: respCommands(), listeners: map[net.Listener]bool{}, conns: map[*respConn]bool{}}
	d.stats.requestTime = observe.NewHistogram(observe.Seconds)
	d.stop, d.cut = context.WithCancel(context.Background())
	d.leaving, d.leave = context.WithCancel(d.stop)
	d.chunks.New = func() any {
		b := schema.NewBuilder(o.Writes.Schema(), o.Now)
		b.Names = respVerbs
		return &respChunk{builder: b}
	}
	return d, nil
}

// Serve accepts connections from ln until Shutdown, or until ctx ends, which
// cuts every connection. It closes ln, and returns when its connections are
// gone. It may be called for several listeners.
func (d *RESP) Serve(ctx context.Context, ln net.Listener) error {
	if !d.add(ln) {
		ln.Close()
		return nil
	}
	defer d.serving.Done()
	defer d.remove(ln)
	defer context.AfterFunc(ctx, func() { d.close(); d.cutAll() })()

	var conns sync.WaitGroup
	defer conns.Wait()
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			if c := d.admit(nc); c != nil {
				conns.Go(c.serve)
			}
			continue
		}
		if d.stopping.Load() {
			return nil
		}
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() && !temporary(err) {
			d.close() // nobody could come in any more, and Serve waits for those who are
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), acceptPauseMax)
		select {
		case <-d.stop.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// temporary tells whether the next accept may succeed: the process ran out of
// file descriptors, or the client left before it was accepted.
func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

// Shutdown stops accepting, lets every connection answer the commands it has
// already read, and closes it. When ctx ends first, the rest is cut off.
func (d *RESP) Shutdown(ctx context.Context) error {
	d.close()
	gone := make(chan struct{})
	go func() {
		d.serving.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		d.cut()
		return nil
	case <-ctx.Done():
		d.cutAll()
		<-gone
		return ctx.Err()
	}
}

// close stops accepting and wakes the connections that wait for a command.
func (d *RESP) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping.Store(true)
	d.leave()
	for ln := range d.listeners {
		ln.Close()
	}
	for c := range d.conns {
		c.nc.SetReadDeadline(longAgo)
	}
}

func (d *RESP) cutAll() {
	d.cut()
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		c.nc.Close()
	}
}

var longAgo = time.Unix(1, 0)

func (d *RESP) add(ln net.Listener) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping.Load() {
		return false
	}
	d.serving.Add(1)
	d.listeners[ln] = true
	return true
}

func (d *RESP) remove(ln net.Listener) {
	ln.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.listeners, ln)
}

// admit makes a connection of nc, or closes it when there are too many.
func (d *RESP) admit(nc net.Conn) *respConn {
	limits := &d.o.Writes.Schema().Limits
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping.Load() {
		nc.Close()
		return nil
	}
	if len(d.conns) >= limits.ConnsMax {
		d.stats.refused.Add(1)
		if d.o.TLS == nil {
			// A new socket's send buffer is empty, so this does not block; the
			// deadline is for the network that proves it wrong.
			nc.SetWriteDeadline(time.Now().Add(respLingerMax))
			nc.Write([]byte("-ERR max number of clients reached (connections)\r\n"))
		}
		nc.Close()
		return nil
	}
	if d.o.TLS != nil {
		nc = tls.Server(nc, d.o.TLS)
	}
	c := newRESPConn(d, nc)
	d.conns[c] = true
	d.stats.accepted.Add(1)
	d.stats.connected.Add(1)
	return c
}

func (d *RESP) drop(c *respConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
	d.stats.connected.Add(-1)
}

// Samples are the door's metrics. A request is a pipeline: what one read brought.
func (d *RESP) Samples() observe.Samples {
	return func(yield func(observe.Sample) bool) {
		_ = yield(observe.Connections.Of(float64(d.stats.connected.Load()), "resp")) &&
			yield(observe.ConnectionsRefused.Of(float64(d.stats.refused.Load()), "resp")) &&
			yield(observe.RequestTime.With(d.stats.requestTime, "resp"))
	}
}
