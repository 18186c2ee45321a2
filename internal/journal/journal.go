// Package journal says what a journal is and how a commit's body is laid out.
// It never opens a file (journal/disk does) and knows nothing of merging.
package journal

import (
	"context"
	"errors"
	"strconv"

	"sluice.dev/sluice"
)

// Journal is one durable, totally ordered sequence of commits.
//
// Rules every implementation keeps (journaltest has a case for each):
//   - J1 Numbers are consecutive from 1. A commit is read whole or not at all.
//   - J2 A commit can be read only after it is durable.
//   - J3 Append returns after the commit is durable and the mark is written.
//   - J4 After the first failed sync every call answers that error; nothing is retried.
//   - J5 Segments are removed singly; holes are allowed and told from damage.
//   - J7 NextEpoch never gives the same number twice, also across crashes.
type Journal interface {
	// ID is the journal's identity, made when it was made.
	ID() [16]byte
	// Append makes body durable as the next commit. One caller at a time; body
	// is not kept after the return unless the implementation copies it.
	Append(body []byte) (Commit, error)
	// Read gives commit n. ErrNotYet: beyond the head. *HoleError: trimmed.
	Read(n uint64) (Commit, error)
	// Wait returns when the head is above n or ctx ends.
	Wait(ctx context.Context, n uint64) error
	// Head is the number and chain of the last durable commit, without its
	// body; 0 when there is none.
	Head() Commit
	// Streams is, for each stream that ever had an entry, the last commit that
	// holds one and the cumulative count of writes up to it, as of the head.
	// The map is a copy.
	Streams() map[Stream]StreamState
	// Stream is Streams for one.
	Stream(s Stream) StreamState
	// Segments lists what could be removed, oldest first; the open one is last.
	Segments() []Segment
	// Remove deletes the sealed segment that starts at first. The caller has
	// made sure that all in it is durably applied (S5) and may be forgotten.
	// What Streams says survives it.
	Remove(first uint64) error
	// NextEpoch gives the next epoch from the durable counter (J7).
	NextEpoch() (uint64, error)
	// AdoptEpoch raises the counter to the next multiple of 2^32 above seen.
	AdoptEpoch(seen uint64) error
	// Usage is what the journal occupies and what is free on its disk.
	Usage() Usage
	// Close syncs and closes. No Append may be under way.
	Close() error
}

// Commit is one durable commit. Body must not be written to; it stays valid as
// long as somebody holds it.
type Commit struct {
	Number uint64
	Chain  uint64 // checksum over this commit and, through it, all before it
	Body   []byte
}

// Stream is one (group, partition): the unit of order (S1).
type Stream struct {
	Group     sluice.GroupID
	Partition uint8
}

// StreamState is what the journal remembers of a stream for ever.
type StreamState struct {
	Last    uint64 // last commit that holds an entry of it
	Writes  uint64 // cumulative writes up to Last
	Removed uint64 // last commit that held an entry of it and was removed; 0: none
}

// Segment is one file of the journal.
type Segment struct {
	First, Last uint64 // commit numbers; Last < First: still empty
	Bytes       int64
	SealedAt    int64 // unix seconds; 0 while it is open
	// Streams holds, for a sealed segment, the last commit of each stream in it.
	Streams map[Stream]uint64
}

// Usage of the disk.
type Usage struct {
	Bytes    int64 // of all segments
	FreeDisk int64
}

// ErrNotYet answers a Read beyond the head.
var ErrNotYet = errors.New("journal: commit is not there yet")

// ErrClosed answers every call after Close.
var ErrClosed = errors.New("journal: closed")

// HoleError answers a Read of a commit whose segment was removed.
type HoleError struct {
	Number uint64
	Next   uint64 // first commit after the hole; it may not be written yet
	Lost   bool   // lost and accepted as lost (adopt); false: trimmed
	// Chain is the chain of Number when Next is Number+1: the commit behind a
	// hole records what it continues, so a cursor at the hole's end can still
	// be checked (S4). 0: not known.
	Chain uint64
}

func (e *HoleError) Error() string {
	n := strconv.FormatUint(e.Number, 10)
	if e.Lost {
		return "journal: commit " + n + " was lost, and `sluice journal adopt` accepted that"
	}
	return "journal: commit " + n + " was trimmed"
}

// CorruptError says where the journal does not hold what was written (J3).
type CorruptError struct {
	File   string
	Offset int64
	Got    string
	Want   string
}

func (e *CorruptError) Error() string {
	return "journal is damaged: " + e.File + " at offset " + strconv.FormatInt(e.Offset, 10) + ": got " + e.Got + ", want " + e.Want +
		"; `sluice journal verify` shows the extent, `sluice journal adopt` goes on without what is lost"
}
