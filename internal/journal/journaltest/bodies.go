package journaltest

import (
	"encoding/binary"
	"maps"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
)

// Bodies makes bodies of commits, each different from all before it.
type Bodies struct {
	// Counts is the cumulative count of writes of each stream.
	Counts map[journal.Stream]uint64

	encoder journal.Encoder
	made    int64
}

// NewBodies starts from nothing.
func NewBodies() *Bodies { return Resume(nil) }

// Resume goes on from what a journal says of its streams.
func Resume(streams map[journal.Stream]journal.StreamState) *Bodies {
	b := &Bodies{Counts: map[journal.Stream]uint64{}}
	for s, st := range streams {
		b.Counts[s] = st.Writes
	}
	b.encoder.Cumulate = func(s journal.Stream, writes uint64) uint64 {
		b.Counts[s] += writes
		return b.Counts[s]
	}
	return b
}

// Next makes a body with one entry of some writes for each stream, of about
// size bytes. The streams come sorted by group and partition.
func (b *Bodies) Next(size int, streams ...journal.Stream) []byte {
	b.made++
	b.encoder.Begin(journal.Header{Time: b.made, Wall: b.made})
	for i, s := range streams {
		value := make([]byte, max(0, size/len(streams)-20))
		for n := 0; n+8 <= len(value); n += 8 {
			binary.LittleEndian.PutUint64(value[n:], uint64(b.made)<<32|uint64(n))
		}
		b.encoder.Entry(&sluice.Entry{
			Group:  s.Group,
			Slot:   uint16(s.Partition) * sluice.SlotsPerPartition,
			Key:    binary.BigEndian.AppendUint64(nil, uint64(b.made)),
			Cells:  []sluice.Cell{{Column: 1, Value: sluice.Value{Kind: sluice.Text, Bytes: value}}},
			Writes: uint32(i + 1),
		})
	}
	body := b.encoder.Finish()
	return append(make([]byte, 0, len(body)), body...)
}

// Snapshot is a copy of the counts.
func (b *Bodies) Snapshot() map[journal.Stream]uint64 { return maps.Clone(b.Counts) }
