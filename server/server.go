// Package server is all of Sluice inside another program: the same process that
// `sluice serve` runs, with the writes handed over in memory. It is a thin
// public face and decides nothing.
package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/node"
	"sluice.dev/sluice/internal/schema"
)

// Options open a Server. One of File and Config is set.
type Options struct {
	File   string       // path of a sluice.yaml
	Config []byte       // its text instead; relative paths are relative to the working directory
	Log    *slog.Logger // nil: nothing is logged
	Getenv func(string) (string, bool)
}

// Server is one Sluice process. Its methods are safe for concurrent use.
type Server struct {
	node     *node.Node
	builders sync.Pool
}

// Open recovers the journal. The error of a bad config lists every fault with
// its line and cure. Nothing is written or drained before Run.
func Open(ctx context.Context, o Options) (*Server, error) {
	no := node.Options{File: o.File, Log: o.Log, Getenv: o.Getenv}
	if o.Config != nil {
		getenv := o.Getenv
		if getenv == nil {
			getenv = os.LookupEnv
		}
		config, faults := schema.Parse("sluice.yaml", o.Config, getenv)
		if len(faults) > 0 {
			return nil, faults
		}
		no.Config = config
	}
	n, err := node.Open(ctx, no)
	if err != nil {
		return nil, err
	}
	return &Server{node: n}, nil
}

// Run serves until ctx ends, then drains to the configured deadline and
// releases everything. It is called once. A Server that is not run is closed
// with Close.
func (s *Server) Run(ctx context.Context) error { return s.node.Run(ctx) }

// Close releases everything at once; what is queued is drained at the next start.
func (s *Server) Close() error { return s.node.Close() }

// HTTPAddr is where the HTTP door listens; "" when the config closes it.
func (s *Server) HTTPAddr() string { return s.node.HTTPAddr() }

// RESPAddr is HTTPAddr for RESP.
func (s *Server) RESPAddr() string { return s.node.RESPAddr() }

// Write makes writes durable, all or none of them, and answers their receipt.
// The error is a *sluice.Error: Invalid names the write and the cure, Overloaded
// and Unavailable say when to try again. Write needs a running Run.
//
// At most ChunkLinesMax writes go in one call: they become one commit.
func (s *Server) Write(ctx context.Context, writes ...sluice.Write) (string, error) {
	return s.submit(ctx, nil, writes)
}

// WriteOnce is Write with an idempotency key: calling it again with the same
// key and the same writes answers the first call's receipt and counts once.
func (s *Server) WriteOnce(ctx context.Context, key string, writes ...sluice.Write) (string, error) {
	if key == "" || len(key) > sluice.IdentityKeyBytesMax {
		return "", sluice.Errorf(sluice.Invalid, "bad_key", "an idempotency key has 1 to %d bytes", sluice.IdentityKeyBytesMax)
	}
	return s.submit(ctx, &sluice.Identity{Key: key, Format: sluice.ChunkFormat}, writes)
}

func (s *Server) submit(ctx context.Context, id *sluice.Identity, writes []sluice.Write) (string, error) {
	if len(writes) == 0 || len(writes) > sluice.ChunkLinesMax {
		return "", sluice.Errorf(sluice.TooLarge, "batch_writes", "%d writes in one call, 1 to %d are possible", len(writes), sluice.ChunkLinesMax)
	}
	b, _ := s.builders.Get().(*schema.Builder)
	if b == nil {
		b = schema.NewBuilder(s.node.Acceptor().Schema(), time.Now)
	}
	defer s.builders.Put(b)
	c := &sluice.Chunk{Identity: id, WantReceipt: true, Fill: func(c *sluice.Chunk) error { return fill(b, s.node.Acceptor().Schema(), c, writes) }}
	if id != nil {
		text, err := json.Marshal(writes)
		if err != nil {
			return "", sluice.Errorf(sluice.Invalid, "bad_value", "writes do not fit JSON: %w", err)
		}
		c.Hash = sluice.HashChunk(text)
	}
	ack, err := s.node.Acceptor().Submit(ctx, c)
	if err != nil {
		return "", err
	}
	for i, reason := range ack.Outcomes {
		if reason != sluice.Accepted {
			return ack.Receipt, sluice.Errorf(sluice.Overloaded, reason.String(), "write %d was not accepted: %s; those before it may have been, see the receipt", i, reason)
		}
	}
	return ack.Receipt, nil
}

func fill(b *schema.Builder, s *schema.Schema, c *sluice.Chunk, writes []sluice.Write) error {
	b.Reset(s)
	c.EntryLine = c.EntryLine[:0]
	for i := range writes {
		from := b.Len()
		if err := b.AddWrite(&writes[i]); err != nil {
			return sluice.Errorf(sluice.CodeOf(err), "bad_value", "write %d: %w", i, err)
		}
		for range b.Len() - from {
			c.EntryLine = append(c.EntryLine, int32(i))
		}
	}
	c.Entries = b.Entries()
	return nil
}

// Read gives the row of a key, as old as Row.StaleBy says. With a receipt it
// waits, at most as long as ctx and the config allow, until that write is in it.
func (s *Server) Read(ctx context.Context, table string, key any, receipt string) (sluice.Row, error) {
	t := s.node.Acceptor().Schema().Table([]byte(table))
	if t == nil {
		return sluice.Row{}, sluice.Errorf(sluice.NotFound, "no_table", "no table %q", table)
	}
	raw, err := json.Marshal(key)
	if err != nil {
		return sluice.Row{}, sluice.Errorf(sluice.Invalid, "bad_key", "key does not fit JSON: %w", err)
	}
	k, err := t.KeyFromJSON(nil, raw)
	if err != nil {
		return sluice.Row{}, err
	}
	q := sluice.ReadQuery{Table: table, Keys: [][]byte{k}}
	if receipt != "" {
		if q.After, err = sluice.ParseReceipt(receipt); err != nil {
			return sluice.Row{}, err
		}
		q.Wait = waitOf(ctx)
	}
	rows, err := s.node.Reader().Read(ctx, q)
	if err != nil {
		return sluice.Row{}, err
	}
	if len(rows) != 1 {
		return sluice.Row{}, fmt.Errorf("read answered %d rows for one key", len(rows))
	}
	return rows[0], nil
}

// Receipt says what became of a write. With wait > 0 it flushes the write and
// returns when its fate is known, or after wait.
func (s *Server) Receipt(ctx context.Context, receipt string, wait time.Duration) (sluice.ReceiptStatus, error) {
	r, err := sluice.ParseReceipt(receipt)
	if err != nil {
		return sluice.ReceiptStatus{}, err
	}
	return s.node.Reader().Receipt(ctx, r, wait)
}

// Status is what `sluice status` shows.
func (s *Server) Status() sluice.Status { return s.node.Status() }

// Drain flushes until the databases have everything that was acknowledged
// before the call.
func (s *Server) Drain(ctx context.Context) error { return s.node.Drain(ctx, func(uint64) {}) }

const waitDefault = 30 * time.Second

func waitOf(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return max(time.Millisecond, time.Until(end))
	}
	return waitDefault
}
