package pipeline

import (
	"errors"
	"sync"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/store"
)

// position is what others may know of a drainer: where its shard is, and what
// it did. Written by Step, read by anyone.
type position struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change

	state    string
	err      error
	retries  int
	row      store.Cursor     // as the shard has it
	except   map[uint8]uint64 // partitions that are held at an earlier commit
	heldBy   error            // why
	seen     uint64           // commit of the cursor that the shard showed last, trusted or not
	reached  uint64           // commits applied, durable or not
	safe     uint64           // commits durably applied (S5)
	verified time.Time        // when the shard last proved, durably, to be where row says (S4)
	passed   [sluice.Partitions]uint64
	rejected map[uint8]uint64
	parked   map[parkedID]store.ParkedKey
	counts   DrainCounts
}

type parkedID struct {
	commit  uint64
	ordinal uint32
}

// DrainCounts are what a drainer did since it was made.
type DrainCounts struct {
	Batches, Rows, Writes, Bytes, Rejected, Parked, Retries, Confirms uint64
	LastApply                                                         time.Time
	ApplyTime                                                         *observe.Histogram
	BatchRows                                                         *observe.Histogram
}

// States of a drainer.
const (
	StateStarting = "starting"
	StateDraining = "draining"
	StateIdle     = "idle"
	StateRetrying = "retrying"
	StateStopped  = "stopped" // until somebody acts
)

type appliedBatch struct {
	writes  uint64
	took    time.Duration
	durable bool
	at      time.Time
}

func (p *position) init() {
	p.changed, p.state = make(chan struct{}), StateStarting
	p.counts.ApplyTime, p.counts.BatchRows = observe.NewHistogram(observe.Seconds), observe.NewHistogram(observe.Sizes)
}

// change runs fn and tells everyone who waits.
func (p *position) change(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *position) saw(commit uint64) {
	p.change(func() { p.seen = commit })
}

func (p *position) took(at time.Time, cur store.Cursor, counts store.Counts, parked []store.ParkedKey, passed *[sluice.Partitions]uint64) {
	p.change(func() {
		p.verified = at
		p.state, p.err, p.retries = StateIdle, nil, 0
		// Take commits synchronously, so what it answers is durable.
		p.row, p.reached, p.safe, p.passed, p.except = cur, cur.Commit, cur.Commit, *passed, cur.Except
		p.rejected = counts.Rejected
		p.parked = make(map[parkedID]store.ParkedKey, len(parked))
		for _, k := range parked {
			p.parked[parkedID{k.Commit, k.Ordinal}] = k
		}
	})
}

func (p *position) applied(cur store.Cursor, res *store.Result, b appliedBatch, passed *[sluice.Partitions]uint64) {
	p.counts.ApplyTime.Observe(b.took.Seconds())
	p.counts.BatchRows.Observe(float64(res.Rows))
	p.change(func() {
		p.state, p.row, p.reached, p.passed, p.except = StateDraining, cur, cur.Commit, *passed, cur.Except
		if b.durable {
			p.safe, p.verified = cur.Commit, b.at
		}
		p.note(res)
		c := &p.counts
		c.Batches++
		c.Rows += uint64(res.Rows)
		c.Writes += b.writes
		c.Bytes += uint64(res.Bytes)
		c.LastApply = b.at
	})
}

func (p *position) note(res *store.Result) {
	for _, r := range res.Rejected {
		if p.rejected == nil {
			p.rejected = map[uint8]uint64{}
		}
		p.rejected[r.Partition] += uint64(r.Writes)
		p.counts.Rejected += uint64(r.Writes)
	}
	for _, k := range res.Parked {
		p.parked[parkedID{k.Commit, k.Ordinal}] = k
		p.counts.Parked++
	}
	for _, k := range res.Unparked {
		delete(p.parked, parkedID{k.Commit, k.Ordinal})
	}
}

func (p *position) unparked(res *store.Result, at time.Time) {
	p.change(func() {
		// What left the park and what was rejected there count when the shard has
		// been taken again: until then a crash may take it back.
		p.counts.Rows += uint64(res.Rows)
		for _, r := range res.Rejected {
			p.counts.Rejected += uint64(r.Writes)
		}
		p.counts.LastApply = at
	})
}

func (p *position) hold(except map[uint8]uint64, why error) {
	p.change(func() { p.except, p.heldBy = except, why })
}

func (p *position) parkedByPartition() map[uint8]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[uint8]int{}
	for _, k := range p.parked {
		out[k.Partition]++
	}
	return out
}

func (p *position) recounted(c store.Counts) {
	p.change(func() { p.rejected = c.Rejected })
}

// skipped: the commits up to cur hold nothing for this shard, so what was
// durable before is durable up to here.
func (p *position) skipped(cur store.Cursor) {
	p.change(func() {
		if p.safe == p.reached {
			p.safe = cur.Commit
		}
		p.reached, p.state = cur.Commit, StateIdle
	})
}

func (p *position) moved(cur store.Cursor, durable bool) {
	p.change(func() {
		p.row = cur
		if durable {
			p.safe = cur.Commit
		}
	})
}

func (p *position) confirmed(at time.Time, cur store.Cursor) {
	p.change(func() {
		p.verified = at
		p.safe, p.row = cur.Commit, cur
		p.counts.Confirms++
	})
}

// failed keeps the state and gives the wrapped error back. What is durable
// stays as it was last confirmed, until the shard is taken again.
func (p *position) failed(err, wrapped error) error {
	p.change(func() {
		p.state, p.err = StateRetrying, wrapped
		p.retries++
		p.counts.Retries++
		var stop *store.StopError
		if errors.As(err, &stop) {
			p.state = StateStopped
		}
	})
	return wrapped
}

func (p *position) stored() store.Cursor {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.row
}

func (p *position) durable() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.safe
}

func (p *position) hasParked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.parked) > 0
}

func (p *position) uncovered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.safe < p.reached
}

// Position is a copy of what is known of a drainer.
type Position struct {
	State    string
	Err      error
	Applied  uint64                    // commits applied, of partitions not in Except
	Durable  uint64                    // commits durably applied, of partitions not in Except
	Seen     uint64                    // commit of the cursor that the shard showed last, trusted or not
	Except   map[uint8]uint64          // partitions that are held, and the commit that they stay at
	Verified time.Time                 // when the shard last proved, durably, that it has Durable
	Passed   [sluice.Partitions]uint64 // cumulative writes applied, rejected or parked
	Rejected uint64
	Parked   []store.ParkedKey
	Counts   DrainCounts
	Changed  <-chan struct{}
}

// AppliedTo and DurableTo are Applied and Durable for one partition.
func (p *Position) AppliedTo(partition uint8) uint64 { return p.at(partition, p.Applied) }

// DurableTo: see AppliedTo.
func (p *Position) DurableTo(partition uint8) uint64 { return p.at(partition, p.Durable) }

func (p *Position) at(partition uint8, all uint64) uint64 {
	if n, held := p.Except[partition]; held {
		return min(n, all)
	}
	return all
}

// Position gives a copy.
func (d *Drainer) Position() Position {
	p := &d.pos
	p.mu.Lock()
	defer p.mu.Unlock()
	out := Position{State: p.state, Err: p.err, Applied: p.reached, Durable: p.safe, Seen: p.seen, Except: p.except, Verified: p.verified, Passed: p.passed, Counts: p.counts, Changed: p.changed}
	if out.Err == nil && len(p.except) > 0 {
		out.Err = p.heldBy
	}
	for _, n := range p.rejected {
		out.Rejected += n
	}
	for _, k := range p.parked {
		out.Parked = append(out.Parked, k)
	}
	return out
}

// Backoff is how long node waits after a Step that failed: doubled from retryMin
// to retryMax; a stopped stream looks again every retryMax, so that it goes on by
// itself when its cause is gone.
func (d *Drainer) Backoff() time.Duration {
	p := &d.pos
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == StateStopped {
		return retryMax
	}
	return min(retryMax, retryMin<<min(p.retries, 10))
}
