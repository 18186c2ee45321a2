// Package api is the doors: HTTP with JSON, and RESP. It authenticates, parses,
// limits and answers. It never decides what a write means (schema), whether it
// is accepted (pipeline), or where it goes.
package api

import (
	"context"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// Writes is the way in. pipeline.Acceptor implements it.
type Writes interface {
	// Schema is the one in force; it changes at a reload, so ask for each chunk.
	Schema() *schema.Schema
	// Submit returns when the chunk is durable, or with an error when nothing
	// of it was accepted. A retry of a known identity answers the original's Ack.
	Submit(ctx context.Context, c *sluice.Chunk) (sluice.Ack, error)
	// NewProducer issues a producer id (I3).
	NewProducer(ctx context.Context) (uint64, error)
}

// Reads is the way out. pipeline.Reader implements it.
type Reads interface {
	// Read gives one Row a key, in order.
	Read(ctx context.Context, q sluice.ReadQuery) ([]sluice.Row, error)
	// Receipt says what became of a write. With wait > 0 it asks the drainers to
	// flush these streams at once and returns when the state is final or wait
	// is over; durable is what counts.
	Receipt(ctx context.Context, r *sluice.Receipt, wait time.Duration) (sluice.ReceiptStatus, error)
	// Route says where a key lives.
	Route(t *schema.Table, key []byte) sluice.RouteInfo
}

// Admin is the operator's side. node implements it.
type Admin interface {
	Status() sluice.Status
	Ledger() []sluice.LedgerRow
	// Hot lists hot keys by group, hottest first.
	Hot() []sluice.HotKey
	Rejects(ctx context.Context, q RejectsQuery) ([]sluice.Reject, error)
	// DecideReject does "replay" or "discard" with the reject of this id.
	DecideReject(ctx context.Context, id, decision string) error
	// Reload reads the config again; the error lists every fault.
	Reload(ctx context.Context) error
	// Resume makes stopped streams of a store try again at once. shard "" means
	// all of its shards. acceptGap lets those go on whose history is missing;
	// receipts of what is missing say "lost" from then on.
	Resume(ctx context.Context, store, shard string, acceptGap bool) error
	// Drain flushes until every store has everything that was acknowledged
	// before the call, or ctx ends; progress gets what is still queued.
	Drain(ctx context.Context, progress func(queued uint64)) error
}

// RejectsQuery filters rejects; zero fields do not filter.
type RejectsQuery struct {
	Table, Group, State string
	Max                 int
}
