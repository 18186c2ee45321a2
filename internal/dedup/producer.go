package dedup

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"sluice.dev/sluice"
)

// producers is the state of all known producers (I3). Each keeps at most
// ProducerInFlightMax records, those at or above its lowest unresolved number.
type producers struct {
	byID map[uint64]*producer
	// next is the id to issue next; ids below limit are reserved on disk and
	// may be handed out. Invariant: limit is durable before an id below it is issued.
	next, limit uint64
	bytes       int64 // of all values
}

type producer struct {
	lowest uint64        // smaller numbers are resolved: the client does not send them again
	used   time.Duration // journal time of the last use
	done   []doneChunk   // not sorted; few
}

type doneChunk struct {
	number uint64
	value  []byte // never changes
}

const (
	producerBytes     = 120 // memory of one in the map, without its values
	doneChunkBytes    = 48
	producersReserved = 64 // ids reserved by one write of the reservation
)

func producerKey(id uint64) (k key) {
	binary.BigEndian.PutUint64(k[:], id)
	return k
}

// beginProducer judges a producer's chunk; t.mu is held.
func (t *Table) beginProducer(id *sluice.Identity, hash [16]byte) (Verdict, error) {
	lowest := max(id.Lowest, 1)
	// Measured from the lowest of this request, not from the highest ever
	// heard: recovery may know an older one, and the number must fit there too.
	if id.Chunk < lowest || id.Chunk-lowest >= sluice.ProducerInFlightMax {
		return Verdict{Kind: BadNumber}, nil
	}
	p := t.producers.byID[id.Producer]
	if p == nil {
		return Verdict{Kind: Forgotten}, nil
	}
	p.used = t.now
	t.producers.raise(p, lowest)
	if id.Chunk < p.lowest {
		return Verdict{Kind: Forgotten}, nil
	}
	for _, d := range p.done {
		if d.number == id.Chunk {
			return t.known(*id, hash, d.value)
		}
	}
	if t.producers.bytes >= t.o.ProducerBytesMax {
		return Verdict{Kind: Full}, nil
	}
	t.inFlight[identOf(id)] = make(chan struct{})
	return Verdict{Kind: New}, nil
}

// raise forgets what is resolved.
func (ps *producers) raise(p *producer, lowest uint64) {
	if lowest <= p.lowest {
		return
	}
	p.lowest = lowest
	p.done = slices.DeleteFunc(p.done, func(d doneChunk) bool {
		if d.number < lowest {
			ps.bytes -= int64(len(d.value)) + doneChunkBytes
			return true
		}
		return false
	})
}

// remember keeps a record; the same one twice is once.
func (ps *producers) remember(rec *Record, now time.Duration) {
	id := rec.Identity.Producer
	p := ps.byID[id]
	if p == nil {
		p = &producer{lowest: 1}
		ps.byID[id] = p
		// Only when the folder was lost and the journal was not. What is above
		// the limit in memory is not reserved: the next id writes a new one.
		ps.next = max(ps.next, id+1)
		ps.limit = max(ps.limit, ps.next)
	}
	p.used = now
	ps.raise(p, rec.Identity.Lowest)
	number := rec.Identity.Chunk
	if number < p.lowest || slices.ContainsFunc(p.done, func(d doneChunk) bool { return d.number == number }) {
		return
	}
	value := appendValue(nil, rec)
	p.done = append(p.done, doneChunk{number, value})
	ps.bytes += int64(len(value)) + doneChunkBytes
}

func (ps *producers) memory() int64 { return int64(len(ps.byID))*producerBytes + ps.bytes }

// IssueProducer gives a new producer id, in order, never one that was given
// before.
//
// What makes it so: ids are handed out only below a limit that was made durable
// before (64 ids at a time, so an id costs no fsync). After a crash every id
// between the next one of the last checkpoint and the limit counts as issued
// and is known with an empty window; the chunks it has in commits after the
// checkpoint are replayed into it. New ids start at the limit. So an id that
// was issued and not yet used survives a crash, and the caller need not journal it.
func (t *Table) IssueProducer() (uint64, error) {
	t.issue.Lock()
	defer t.issue.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	ps := &t.producers
	if len(ps.byID) >= t.o.ProducersMax {
		return 0, ErrProducersMax
	}
	if ps.next == ps.limit {
		limit := ps.limit + producersReserved
		t.mu.Unlock() // Begin does not wait for the disk; t.issue keeps others from here
		err := t.dir.writeReservation(limit)
		t.mu.Lock()
		if err != nil {
			return 0, err
		}
		ps.limit = limit
	}
	id := ps.next
	ps.next++
	ps.byID[id] = &producer{lowest: 1, used: t.now}
	return id, nil
}

// forgetIdle forgets producers that were idle too long. Called only as part of
// a checkpoint: a producer forgotten in memory alone would come back at the next start.
func (ps *producers) forgetIdle(before time.Duration) {
	maps.DeleteFunc(ps.byID, func(_ uint64, p *producer) bool {
		if p.used >= before {
			return false
		}
		for _, d := range p.done {
			ps.bytes -= int64(len(d.value)) + doneChunkBytes
		}
		return true
	})
}

// snapshot copies what a checkpoint writes. The values are shared, since they never change.
func (ps *producers) snapshot() map[uint64]producer {
	all := make(map[uint64]producer, len(ps.byID))
	for id, p := range ps.byID {
		all[id] = producer{lowest: p.lowest, used: p.used, done: slices.Clone(p.done)}
	}
	return all
}

func appendProducer(dst []byte, p *producer) []byte {
	dst = binary.AppendUvarint(dst, p.lowest)
	dst = binary.AppendUvarint(dst, uint64(p.used))
	for _, d := range p.done {
		dst = binary.AppendUvarint(dst, d.number)
		dst = binary.AppendUvarint(dst, uint64(len(d.value)))
		dst = append(dst, d.value...)
	}
	return dst
}

func decodeProducer(data []byte) (*producer, error) {
	d := decoder{data: data}
	p := &producer{lowest: d.uvarint(), used: time.Duration(d.uvarint())}
	for len(d.data) > 0 && !d.bad {
		number := d.uvarint()
		p.done = append(p.done, doneChunk{number, slices.Clone(d.bytes(d.count(len(d.data))))})
	}
	if d.bad {
		return nil, errRecord
	}
	return p, nil
}
