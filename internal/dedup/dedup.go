// Package dedup remembers which chunks were accepted, so that a retry of one
// is answered with the original's receipt instead of counting twice (rules I1
// to I4). It is asked before validation, admission and routing, by the one
// appender of a journal. It starts no goroutine, reads no clock, knows nothing
// of commits but their numbers, and never forgets an identity to make room for
// another.
//
// What is remembered lies in three places: chunks in flight and chunks done
// since the last checkpoint in memory, all older random keys in immutable
// sorted files, each with a filter in memory. The journal is the log of this
// table: after a crash the records of the commits above Through are replayed.
package dedup

import (
	"errors"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/vfs"
)

// Record is what is remembered of one accepted chunk.
type Record struct {
	Identity sluice.Identity
	Hash     [16]byte // of the chunk's bytes
	// Receipt is the original's. Its Commit is the commit that holds the chunk;
	// its Journal is not stored, since a table serves one journal.
	Receipt  sluice.Receipt
	Outcomes []sluice.Reason // by line; nil when all lines were accepted
}

// Commit is the number of the commit that holds the chunk.
func (r *Record) Commit() uint64 { return r.Receipt.Commit }

// Kind says what an identity is.
type Kind uint8

// The kinds of verdict.
const (
	// New: never seen. It is now in flight: whoever got this verdict calls Done or Abandon, once.
	New Kind = iota
	// InFlight: the original is not decided yet. Ask again when Wait is closed.
	InFlight
	// Duplicate: accepted before; Record is the original's, to be answered again.
	Duplicate
	// Mismatch: the same identity was accepted with other bytes (422).
	Mismatch
	// Forgotten: a producer id that was never issued or was idle too long, or a
	// number below the producer's lowest. It may have been accepted, so it is
	// never taken for new (I3).
	Forgotten
	// BadNumber: the identity breaks a rule of numbers: 0, below its own lowest,
	// or ProducerInFlightMax or more above it.
	BadNumber
	// Full: new, but there is no room to remember it. Refused, so that no older
	// one has to be forgotten (I4).
	Full
)

var kindNames = [...]string{"new", "in flight", "duplicate", "mismatch", "forgotten", "bad number", "full"}

func (k Kind) String() string { return kindNames[k] }

// Verdict is the answer of Begin.
type Verdict struct {
	Kind   Kind
	Record Record          // Duplicate only
	Wait   <-chan struct{} // InFlight only: closed when the original is decided
}

// Options of a table. A zero limit means its default.
type Options struct {
	Dir     string
	FS      vfs.FS
	Journal uint64 // first 8 bytes of the journal's id: belongs into the receipts

	Window       time.Duration // how long random keys are remembered, 24h
	BytesMax     int64         // of random keys on disk and in memory, 4 GiB
	ProducerIdle time.Duration // a producer unused for so long is forgotten, 30 days

	RecentBytesMax   int64 // memory of random keys that are in no file yet, 128 MiB
	ProducersMax     int   // producers known at a time, 100,000
	ProducerBytesMax int64 // memory of what producers may still retry, 64 MiB
	InFlightMax      int   // chunks in flight, 100,000
}

// BytesPerKey is what a random key costs on disk, as docs/dedup.md measures
// it: with it, `check` says which rate a window and BytesMax carry.
const BytesPerKey = 60

func (o *Options) setDefaults() {
	setDefault(&o.Window, 24*time.Hour)
	setDefault(&o.BytesMax, 4<<30)
	setDefault(&o.ProducerIdle, 30*24*time.Hour)
	setDefault(&o.RecentBytesMax, 128<<20)
	setDefault(&o.ProducersMax, 100_000)
	setDefault(&o.ProducerBytesMax, 64<<20)
	setDefault(&o.InFlightMax, 100_000)
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// ErrProducersMax answers IssueProducer when as many producers are known as may be.
var ErrProducersMax = errors.New("dedup: too many producers are known; those idle for 30 days are forgotten, resume saved ids instead of asking for new ones")

// Stats is what the table holds now.
type Stats struct {
	Keys        uint64 // random keys remembered
	Bytes       int64  // of them, on disk and in memory
	MemoryBytes int64  // of everything the table holds in memory, about
	Producers   int
	InFlight    int
	Files       int
}
