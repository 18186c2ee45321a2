// Package admit says yes, or no with a reason and a time. It sees states that
// others measure (journal, disk, backlog of shards) and never measures, waits
// or keeps a write itself.
package admit

import (
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
)

// Refusal is a no.
type Refusal struct {
	Reason     sluice.Reason
	Detail     string // a sentence for people, with the cure
	RetryAfter time.Duration
}

// Error is the refusal as clients see it.
func (r *Refusal) Error() *sluice.Error {
	code := sluice.Overloaded
	if r.Reason == sluice.ShuttingDown || r.Reason == sluice.DiskReserve {
		code = sluice.Unavailable
	}
	return &sluice.Error{Code: code, Reason: r.Reason.String(), Detail: r.Detail, RetryAfter: r.RetryAfter}
}

// Block refuses the writes of one group to some partitions.
type Block struct {
	Group      sluice.GroupID
	Partitions sluice.PartitionSet
	Refusal    *Refusal
}

// Gate holds what is refused at this moment. Reading it costs two atomic
// loads, so it is asked for every entry. Safe for concurrent use.
type Gate struct {
	all    atomic.Pointer[Refusal]
	blocks atomic.Pointer[[]Block]
}

// RefuseAll refuses every write; nil opens the gate again.
func (g *Gate) RefuseAll(r *Refusal) { g.all.Store(r) }

// Refusing gives the refusal of every write in force, or nil.
func (g *Gate) Refusing() *Refusal { return g.all.Load() }

// SetBlocks replaces what is refused for single shards.
func (g *Gate) SetBlocks(blocks []Block) {
	if len(blocks) == 0 {
		g.blocks.Store(nil)
		return
	}
	g.blocks.Store(&blocks)
}

// Blocks lists what is refused for single shards.
func (g *Gate) Blocks() []Block {
	if b := g.blocks.Load(); b != nil {
		return *b
	}
	return nil
}

// Admit gives nil when the entry may pass.
func (g *Gate) Admit(e *sluice.Entry) *Refusal {
	if r := g.all.Load(); r != nil {
		return r
	}
	blocks := g.blocks.Load()
	if blocks == nil {
		return nil
	}
	for i := range *blocks {
		b := &(*blocks)[i]
		if b.Group == e.Group && b.Partitions.Has(e.Partition()) {
			return b.Refusal
		}
	}
	return nil
}
