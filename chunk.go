package sluice

import "crypto/sha256"

// Identity names a chunk, so that a retry of it is known as one (I2). Either
// Producer (an id that this journal issued) or Key (an Idempotency-Key) is set.
type Identity struct {
	Producer uint64
	Key      string // at most IdentityKeyBytesMax; scoped by the client's name by whoever fills it in
	Chunk    uint64 // producers: the request's number, from 1; keys: index of the chunk in the body, from 0
	Lowest   uint64 // producers: the lowest number not yet resolved by the client; smaller ones may be forgotten
	Format   uint8  // of chunk cutting; ChunkFormat
}

// Constants of the chunk format (I2): never configured, since a retry must be cut as its original was.
const (
	ChunkFormat         = 1
	ChunkLinesMax       = 1000
	ChunkBytesMax       = 1 << 20
	IdentityKeyBytesMax = 255
	ProducerInFlightMax = 64
)

// Reason says why a line of a chunk was not accepted. Numbers are part of the
// journal's format; 0 is accepted.
type Reason uint8

// The reasons.
const (
	Accepted       Reason = 0
	BadLine        Reason = 1 // does not parse, names what does not exist, value out of range
	JournalFull    Reason = 2
	DiskReserve    Reason = 3
	BacklogMax     Reason = 4
	MemoryMax      Reason = 5
	RateLimit      Reason = 6
	Overload       Reason = 7
	Sampled        Reason = 8
	Thinned        Reason = 9
	ShuttingDown   Reason = 10
	NotAllowed     Reason = 11
	StreamStopped  Reason = 12
	IdempotencyMax Reason = 13
)

var reasonNames = [...]string{"accepted", "bad_line", "journal_full", "disk_reserve", "backlog_max", "memory_max",
	"rate_limit", "overload", "sampled", "thinned", "shutting_down", "not_allowed", "stream_stopped", "idempotency_max"}

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Chunk is what a door hands to the pipeline in one piece. It becomes durable
// in one commit, or nothing of it does.
type Chunk struct {
	Client   string    // name of the authenticated client, or ""
	Identity *Identity // nil: a retry of this chunk may count twice
	Hash     [16]byte  // of the chunk's bytes; only with Identity

	// Fill is called once, when the chunk is not a retry, and appends its
	// entries. nil when Entries is already filled. An error means that
	// nothing of the chunk may be accepted.
	Fill func(*Chunk) error

	// Entries, one for each write and group, in the order said. The pipeline
	// copies what it keeps before Submit returns.
	Entries []Entry
	// EntryLine[i] is the line of Entries[i]; nil when every entry is its own line.
	EntryLine []int32
	// Outcomes by line. Fill marks bad lines, admission marks refused ones.
	// nil means that all lines were accepted so far.
	Outcomes []Reason

	WantReceipt bool // build Ack.Receipt
}

// HashChunk is Chunk.Hash of a chunk's bytes: 128 bits, so that two different
// bodies under one identity are told apart also when somebody chose them to collide.
func HashChunk(text []byte) (h [16]byte) {
	sum := sha256.Sum256(text)
	copy(h[:], sum[:])
	return h
}

// Line is the line of entry i.
func (c *Chunk) Line(i int) int {
	if c.EntryLine == nil {
		return i
	}
	return int(c.EntryLine[i])
}

// Accepts tells whether the line of entry i was not refused so far.
func (c *Chunk) Accepts(i int) bool { return c.Outcomes == nil || c.Outcomes[c.Line(i)] == Accepted }

// Refuse marks the line of entry i as refused, with all its other entries.
func (c *Chunk) Refuse(i int, reason Reason) {
	if c.Outcomes == nil {
		lines := 0
		if n := len(c.Entries); n > 0 {
			lines = c.Line(n-1) + 1
		}
		c.Outcomes = make([]Reason, lines)
	}
	c.Outcomes[c.Line(i)] = reason
}

// AnyAccepted tells whether an entry is left that was not refused.
func (c *Chunk) AnyAccepted() bool {
	for i := range c.Entries {
		if c.Accepts(i) {
			return true
		}
	}
	return false
}

// Ack says that a chunk is durable.
type Ack struct {
	Commit    uint64   // 0 when no line was accepted
	Receipt   string   // "" unless asked for, or when no line was accepted
	Duplicate bool     // the answer is that of the original
	Outcomes  []Reason // by line; nil when all were accepted
}
