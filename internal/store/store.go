// Package store says what a shard of a store must do, and in which words it
// answers. It knows no database, no journal format and no clock.
package store

import (
	"context"
	"errors"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// Exactness is what a store's Apply can promise (DESIGN section 5).
type Exactness string

// The kinds of exactness.
const (
	Transaction   Exactness = "transaction"
	Absolute      Exactness = "absolute"
	AtLeastOnce   Exactness = "at_least_once"
	OwnerName               = "owner" // Cursor.Owner of a group's owner; a follower's is "move:ID"
	SQLStateGuard           = "SL001"
)

// Shard is one database. Methods are safe for concurrent use, but for one
// (group, owner) Take, Apply, Unpark and Confirm are called one at a time.
//
// Rules every shard keeps (storetest has a case for each):
//   - S1 one cursor row per (group, owner); a batch is whole commits.
//   - S2 guard, rows, rejects, parked and cursor are one transaction; the guard
//     raises inside the database when epoch or previous cursor differ.
//   - S3 Take waits for the transaction of an earlier epoch, so that after it
//     the cursor it answers is final.
//   - S5 Take and Confirm are synchronous commits whatever the store's setting.
//   - S6 Ensure refuses another's database.
//   - S8-S12 see Batch.
type Shard interface {
	// Ensure checks or writes the shard's identity (S6) and brings Sluice's own
	// tables and the tables of the groups into being, or, when ddl is not auto,
	// checks that they are there and answers *MissingError with the statements.
	// It is idempotent, and called again after a reload added something.
	Ensure(ctx context.Context, id Identity, groups []*schema.Group) error
	// Take makes epoch the only one whose batches pass the guard and gives the
	// cursor, with Found false when there is none yet (it is created at commit 0).
	// ErrFenced when a higher epoch is there (the cursor given says which).
	Take(ctx context.Context, group sluice.GroupID, owner string, epoch uint64) (Cursor, error)
	// Apply commits a batch whole, or nothing of it.
	Apply(ctx context.Context, b *Batch) (Result, error)
	// Unpark tries parked entries of the group again, oldest first, at most max
	// keys, in a guarded transaction that leaves the cursor as it is.
	Unpark(ctx context.Context, b *Batch, max int) (Result, error)
	// Confirm writes the cursor row as it is, guarded and with a synchronous
	// commit: when it returns nil, cur is durable (S5).
	Confirm(ctx context.Context, cur Cursor) error
	// Cursors reads all cursor rows of the shard, of one snapshot.
	Cursors(ctx context.Context) ([]Cursor, error)
	// Read gives the rows of keys of one group, in the keys' order, and the
	// owner's cursor in the same snapshot.
	Read(ctx context.Context, g *schema.Group, keys [][]byte) ([]Row, Cursor, error)
	// Rejects and parked entries, and what is known of them.
	Rejects(ctx context.Context, q RejectQuery) ([]sluice.Reject, error)
	// SetRejectState moves a reject from open to discarded.
	SetRejectState(ctx context.Context, group sluice.GroupID, commit uint64, ordinal uint32, state string) error
	// Counts gives, for a group's streams, what was rejected and is parked.
	Counts(ctx context.Context, group sluice.GroupID) (Counts, error)
	// ParkedKeys gives the KeyHash of every parked entry of the group with its commit.
	ParkedKeys(ctx context.Context, group sluice.GroupID) ([]ParkedKey, error)
	// Exactness of Apply, and whether Apply's commit is durable when it returns.
	Exactness() Exactness
	SyncApply() bool
	Close() error
}

// Identity of a shard (S6).
type Identity struct {
	Journal    [16]byte
	Store      string
	Shard      string
	MapVersion uint64
}

// Cursor says which commits a shard has applied for one group.
type Cursor struct {
	Group  sluice.GroupID
	Owner  string
	Epoch  uint64
	Commit uint64 // every partition not in Except has applied through this
	Chain  uint64 // the journal's chain at the highest commit named here
	Except map[uint8]uint64
	At     time.Time // of the shard's clock: when the row was written
	Found  bool
}

// Applied is the last commit applied for a partition.
func (c *Cursor) Applied(p uint8) uint64 {
	if n, ok := c.Except[p]; ok {
		return n
	}
	return c.Commit
}

// Highest is the highest commit named in the cursor.
func (c *Cursor) Highest() uint64 {
	n := c.Commit
	for _, e := range c.Except {
		n = max(n, e)
	}
	return n
}

// Batch is what one transaction applies: whole commits of one group.
type Batch struct {
	Group *schema.Group
	Prev  Cursor // guard: epoch and position must be these
	Next  Cursor // position after; the same epoch
	// Entries are folded and sorted by key (bytes). Entries of one key that did
	// not fold stand one after the other and go into successive statements (S9).
	// For groups of events they are in journal order.
	Entries []sluice.Entry
	// Unfold gives the journal entries that were folded into the entry of a key, in
	// order. A refused folded row is tried again piece by piece (S10).
	Unfold func(key []byte) []sluice.Entry
	// ParentsPassed tells whether every stream of the named parent table on
	// this shard has passed the commit (S10: a foreign key miss is final only
	// then, and after fk_wait). nil: no parent is written by Sluice.
	ParentsPassed func(parent string, commit uint64) bool
}

// Result says what Apply did.
type Result struct {
	Rows     int // rows written
	Rejected []sluice.Reject
	Parked   []ParkedKey // newly parked
	Unparked []ParkedKey // left the park in this transaction
	Bytes    int64
}

// ParkedKey names one parked entry.
type ParkedKey struct {
	KeyHash   uint64
	Partition uint8
	Commit    uint64
	Ordinal   uint32
	Writes    uint32
}

// Counts of one group on one shard, by partition.
type Counts struct {
	Rejected map[uint8]uint64 // writes in rejects that are open or discarded
	Parked   map[uint8]uint64 // writes parked
}

// Row is one row as read. Values are by Column.Index; a column that the row
// does not have is Null. A unique column's value is its estimate (Int64).
type Row struct {
	Found  bool
	Values []sluice.Value
}

// RejectQuery selects rejects.
type RejectQuery struct {
	Group   *sluice.GroupID
	Commit  uint64 // 0: any
	KeyHash uint64 // 0: any
	State   string // "": any
	Max     int    // at most so many, newest first
}

// Errors of Take, Apply, Unpark and Confirm. Anything else is transient: the
// drainer backs off, takes the shard again and goes on from its cursor.
var (
	// ErrFenced: another epoch owns the group on this shard, or the cursor is
	// not the one the batch was made for.
	ErrFenced = errors.New("store: fenced: epoch or cursor is not the expected one (SL001)")
	// ErrUnknown: the answer to COMMIT was lost; Take tells (S3).
	ErrUnknown = errors.New("store: outcome of commit unknown")
	// ErrShrink: the batch took too long or was too large; try half of it.
	ErrShrink = errors.New("store: batch too large for this database")
)

// StopError stops the stream until somebody acts: retrying cannot help.
type StopError struct {
	Reason    string // too_many_rejects, parked_max, wrong_shard, newer_map, no_privilege, corrupt ...
	Detail    string // what is wrong, where, and the command that goes on
	Partition uint8  // with ReasonParkedMax: the one that is full; the others may go on (S8)
}

// ReasonIOError is the Reason of a StopError after which the process must end:
// what a failed sync left on the disk is not known (J4).
const ReasonIOError = "io_error"

// ReasonParkedMax is the Reason of a StopError that concerns one partition only.
const ReasonParkedMax = "parked_max"

func (e *StopError) Error() string { return e.Detail }

// MissingError says which statements somebody has to run first (ddl: print).
type MissingError struct {
	Store, Shard string
	Statements   []string
}

func (e *MissingError) Error() string {
	return "store " + e.Store + ", shard " + e.Shard + ": tables are missing; `sluice migrate --print` shows the statements, `sluice migrate --apply` runs them"
}

// Migrator is implemented by shards that need tables made.
type Migrator interface {
	// Plan gives the statements that Ensure would run, in order; up or down.
	Plan(ctx context.Context, groups []*schema.Group, down bool) ([]string, error)
	// Run executes statements.
	Run(ctx context.Context, statements []string) error
}

// Options open a shard.
type Options struct {
	Store *schema.Store
	Shard schema.Shard
	// Warn is called with sentences for people: a setting that costs writes, a
	// privilege that is missing. Never nil.
	Warn func(string)
}

// ReplayNumber is the number by which a replay's entry names its reject
// (sluice.Entry.Replay): the reject's commit and ordinal in one. A commit holds
// far fewer than 2^24 entries, and 2^40 commits last for centuries. A replay that
// is refused again makes no second reject: the one it names stays open with the
// newer reason.
func ReplayNumber(commit uint64, ordinal uint32) uint64 {
	return commit<<24 | uint64(ordinal)&(1<<24-1)
}

// RejectOf is the inverse of ReplayNumber.
func RejectOf(replay uint64) (commit uint64, ordinal uint32) {
	return replay >> 24, uint32(replay & (1<<24 - 1))
}

// MassRejects tells whether a batch looks like a changed table and not like bad
// rows (S10): nothing of it was taken, and much was refused. The stream then
// stops instead of turning the backlog into rejects.
func MassRejects(refused, taken, rejectsMax int) bool {
	return taken == 0 && refused >= max(100, rejectsMax/10)
}
