package api

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// respConn is one connection: a goroutine that reads what is there, gathers the
// writes of all whole commands into one chunk, submits it, and answers
// everything with one write.
type respConn struct {
	door *RESP
	nc   net.Conn
	in   respReader
	work *respChunk // from the first command of a step to its answers, else nil

	id        uint64
	name      string // CLIENT SETNAME
	principal *Principal
	schema    *schema.Schema // asked for anew at each step
	resp3     bool
	inMulti   bool // a refused MULTI: see multi
	quit      bool // close after the answers

	last   *respCommand // the previous command and the table it named: pipelines repeat themselves
	table  *schema.Table
	mayUse respRight // rights on table that were found already
	since  sinceConnect
	began  time.Time // when the command being read began
}

type respRight uint8

const (
	respMayRead respRight = 1 << iota
	respMayWrite
)

// sinceConnect is what WAIT waits for: the streams that this connection wrote
// to and the last commit it wrote in. Bounded by the number of groups.
type sinceConnect struct {
	commit uint64
	groups []sluice.ReceiptGroup
}

func newRESPConn(d *RESP, nc net.Conn) *respConn {
	c := &respConn{door: d, nc: nc, id: d.ids.Add(1)}
	c.in.budget = &d.buffers
	return c
}

var errRESPQuit = errors.New("the connection is to be closed")

// serve answers commands until the connection ends.
func (c *respConn) serve() {
	defer c.door.drop(c)
	defer c.nc.Close()
	defer c.in.release()
	if !c.greet() {
		return
	}
	for {
		if err := c.step(); err != nil {
			if errors.Is(err, errRESPQuit) {
				c.linger()
			}
			return
		}
	}
}

// greet does the TLS handshake, where there is one.
func (c *respConn) greet() bool {
	c.refresh()
	if tc, ok := c.nc.(*tls.Conn); ok {
		ctx, cancel := context.WithTimeout(c.door.stop, c.schema.Limits.ReadTimeout)
		defer cancel()
		if tc.HandshakeContext(ctx) != nil {
			return false
		}
	}
	c.identify()
	return true
}

// identify finds out who this is before AUTH: the client of a certificate, or
// anybody where no clients are configured. Else nobody, who may only AUTH.
func (c *respConn) identify() {
	c.principal, c.table = nil, nil
	auth := c.door.o.Auth
	if tc, ok := c.nc.(*tls.Conn); ok {
		state := tc.ConnectionState()
		c.principal, _ = auth.Certificate(&state)
	}
	if c.principal == nil {
		c.principal, _ = auth.Anonymous(c.nc.RemoteAddr().String())
	}
	c.refresh()
}

// refresh follows a reload: the schema, the limits, and what this client may do.
func (c *respConn) refresh() {
	s := c.door.o.Writes.Schema()
	if c.principal != nil {
		p, _ := c.door.o.Auth.Current(c.principal)
		if p != c.principal {
			c.principal, c.table = p, nil
		}
	}
	if s != c.schema {
		c.schema, c.table = s, nil
	}
	l := &s.Limits
	c.in.argsMax, c.in.bulkMax, c.in.cmdMax = respArgsMax, min(l.ValueBytesMax, l.LineBytesMax), l.LineBytesMax
	if c.principal == nil {
		c.in.argsMax, c.in.bulkMax, c.in.cmdMax = respAnonArgsMax, min(c.in.bulkMax, respAnonBulkMax), respAnonArgsMax*respAnonBulkMax
	}
}

// step reads once, carries out the commands that are whole, and answers them.
func (c *respConn) step() error {
	if err := c.read(); err != nil {
		return err
	}
	started := time.Now()
	c.refresh()
	c.begin()
	defer c.end()
	for !c.quit {
		from := c.in.start
		args, err := c.in.next()
		c.work.mark = len(c.work.out)
		if err != nil {
			c.work.fail("ERR", err.Error())
			c.quit = true
			break
		}
		if args == nil {
			break
		}
		c.began = time.Time{}
		c.work.commands++
		c.work.bytes += c.in.start - from
		c.command(args)
		if c.work.full(c.schema.Limits.PipelineMax) {
			if err := c.submit(); err != nil {
				return err
			}
		}
		if len(c.work.out) >= respOutBytesMax {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if c.work.broken != nil {
			return c.work.broken
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.door.stats.requestTime.Observe(time.Since(started).Seconds())
	if c.quit {
		return errRESPQuit
	}
	return nil
}

// deadline is until when the next bytes must come. Silence between commands may
// last `idle_timeout`; a command that has begun must be whole within
// `read_timeout`, however slowly it trickles.
func (c *respConn) deadline(now time.Time) time.Time {
	limits := &c.schema.Limits
	switch {
	case c.in.partial() && c.began.IsZero():
		c.began = now
		return now.Add(limits.ReadTimeout)
	case c.in.partial():
		return c.began.Add(limits.ReadTimeout)
	case c.principal == nil: // who has not said who they are does not hold a connection for long
		return now.Add(limits.ReadTimeout)
	}
	return now.Add(limits.IdleTimeout)
}

// read waits for bytes.
func (c *respConn) read() error {
	now := time.Now()
	until := c.deadline(now)
	for {
		wake := until
		if soon := now.Add(respShrinkAfter); len(c.in.buf) > respBufferBytes && !c.in.partial() && soon.Before(until) {
			wake = soon
		}
		c.nc.SetReadDeadline(wake)
		// Shutdown sets its flag before it wakes the readers, so either this
		// sees the flag or the deadline just set is overwritten.
		if c.door.stopping.Load() {
			return errRESPQuit
		}
		before := c.in.end - c.in.start
		err := c.in.fill(c.nc)
		c.door.stats.bytesIn.Add(int64(c.in.end - c.in.start - before))
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errRESPNoMemory):
			return c.farewell("BUSY", "memory_max 1000 the connections' buffers are full; send smaller commands or come again later")
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case c.door.stopping.Load(): // woken while nothing was there to be read: no need to linger
			return err
		case wake.Before(until):
			c.in.shrink()
			now = time.Now()
		case c.in.partial():
			return c.farewell("ERR", "read_timeout: the command that began "+c.schema.Limits.ReadTimeout.String()+" ago is still not whole")
		default:
			return err // idle_timeout: closed without a word, as Redis does
		}
	}
}

// farewell answers an error and ends the connection.
func (c *respConn) farewell(prefix, text string) error {
	c.begin()
	defer c.end()
	c.work.fail(prefix, text)
	if err := c.flush(); err != nil {
		return err
	}
	return errRESPQuit
}

// linger gives the last answers time to arrive: a socket closed with unread
// bytes in it resets the connection, and the reset overtakes the answers.
func (c *respConn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(respLingerMax))
	var waste [4096]byte
	for read := 0; read < respPipelineBytes*16; {
		n, err := c.nc.Read(waste[:])
		if err != nil {
			return
		}
		read += n
	}
}

// command carries out one command.
func (c *respConn) command(args [][]byte) {
	cmd := c.last
	if cmd == nil || !equalFold(cmd.name, args[0]) {
		if cmd = c.door.lookup(args[0]); cmd == nil {
			c.unknown(args)
			return
		}
		c.last = cmd
	}
	switch {
	case c.principal == nil && !cmd.open:
		c.work.fail("NOAUTH", "Authentication required: AUTH name token, or AUTH token; `clients` in the config lists who may come")
	case c.inMulti && !cmd.endsMulti:
		c.work.fail("ERR", cmd.name+" was not done: MULTI was refused, and all until EXEC or DISCARD with it")
	case cmd.arity > 0 && len(args) != cmd.arity, len(args) < -cmd.arity:
		c.work.fail("ERR", "wrong number of arguments for '"+cmd.name+"' command: use "+cmd.usage)
	default:
		if !cmd.write {
			// What follows a write must see it as Redis would: submitted before
			// this command is looked at.
			if c.work.broken = c.submit(); c.work.broken != nil {
				return
			}
		}
		cmd.do(c, args)
	}
}

// equalFold tells whether name (lower case) is said by b in any case.
func equalFold(name string, b []byte) bool {
	if len(name) != len(b) {
		return false
	}
	for i := range b {
		if lower(b[i]) != name[i] {
			return false
		}
	}
	return true
}

func lower(ch byte) byte {
	if ch >= 'A' && ch <= 'Z' {
		return ch | 0x20
	}
	return ch
}

// lookup finds a command by name in any case, without allocating.
func (d *RESP) lookup(name []byte) *respCommand {
	var low [respCommandNameMax]byte
	if len(name) > len(low) {
		return nil
	}
	for i, ch := range name {
		low[i] = lower(ch)
	}
	return d.commands[string(low[:len(name)])]
}

// flush submits what is gathered and writes the answers.
func (c *respConn) flush() error {
	if err := c.submit(); err != nil {
		return err
	}
	w := c.work
	c.door.stats.commands.Add(w.commands)
	w.commands = 0
	if len(w.out) == 0 {
		return nil
	}
	timeout := c.door.o.WriteTimeout
	if timeout == 0 {
		timeout = c.schema.Limits.ReadTimeout
	}
	c.nc.SetWriteDeadline(time.Now().Add(timeout))
	n, err := c.nc.Write(w.out)
	c.door.stats.bytesOut.Add(int64(n))
	w.out = w.out[:0]
	return err
}
