package sluice

import (
	"encoding/json"
	"time"
)

// What became of one group of a write.
const (
	StateQueued   = "queued"
	StateApplied  = "applied"
	StateRejected = "rejected"
	StateExpired  = "expired"
	StateLost     = "lost"
)

// ReceiptStatus answers what became of a write (R1).
type ReceiptStatus struct {
	Receipt string        `json:"receipt"`
	State   string        `json:"state"` // the worst of its groups: lost, rejected, queued, expired, applied
	Groups  []GroupStatus `json:"groups"`
}

// GroupStatus is ReceiptStatus for one group.
type GroupStatus struct {
	Table   string   `json:"table"`
	Group   string   `json:"group,omitempty"`
	State   string   `json:"state"`
	Rejects []Reject `json:"rejects,omitempty"`
}

// Reject is one row that the database refused, kept until somebody decides (S10).
type Reject struct {
	ID        string          `json:"id"` // "commit.ordinal": the same after a rewind
	Table     string          `json:"table"`
	Group     string          `json:"group,omitempty"`
	Store     string          `json:"store"`
	Shard     string          `json:"shard"`
	Key       json.RawMessage `json:"key"`
	Change    json.RawMessage `json:"change"` // what was refused, by column
	SQLState  string          `json:"sqlstate,omitempty"`
	Reason    string          `json:"reason"`
	State     string          `json:"state"` // open, replayed, discarded
	At        time.Time       `json:"at"`
	Writes    uint32          `json:"writes"`
	KeyHash   uint64          `json:"-"`
	GroupID   GroupID         `json:"-"`
	Commit    uint64          `json:"-"`
	Ordinal   uint32          `json:"-"`
	Partition uint8           `json:"-"`
	Entry     []byte          `json:"-"` // encoded, as in the journal
}

// Row is what a read of one key answers.
type Row struct {
	Table   string                     `json:"table"`
	Key     json.RawMessage            `json:"key"`
	Found   bool                       `json:"found"`
	Columns map[string]json.RawMessage `json:"columns,omitempty"`
	// StaleBy is the age of the oldest write to these streams that the row
	// may not show; 0 when every acknowledged write is in it.
	StaleBy time.Duration `json:"stale_by_ns"`
}

// RouteInfo says where a key lives.
type RouteInfo struct {
	Table     string       `json:"table"`
	Key       string       `json:"key"`
	Slot      uint16       `json:"slot"`
	Partition uint8        `json:"partition"`
	Groups    []RouteGroup `json:"groups"`
}

// RouteGroup is RouteInfo for one group.
type RouteGroup struct {
	Group string `json:"group,omitempty"`
	Store string `json:"store"`
	Shard string `json:"shard"`
	Table string `json:"table"` // physical
}

// Status is the state of the whole process.
type Status struct {
	Version string         `json:"version"`
	Ready   bool           `json:"ready"`
	Uptime  float64        `json:"uptime_s"`
	Journal JournalStatus  `json:"journal"`
	Streams []StreamStatus `json:"groups"`
	Memory  uint64         `json:"memory_bytes"`
}

// JournalStatus describes the journal.
type JournalStatus struct {
	ID         string  `json:"id"`
	Head       uint64  `json:"head"`
	First      uint64  `json:"first"`
	Bytes      int64   `json:"bytes"`
	BytesMax   int64   `json:"bytes_max"`
	Segments   int     `json:"segments"`
	Accepted   uint64  `json:"accepted_writes"`
	Commits    uint64  `json:"commits"`
	PerSecond  float64 `json:"writes_per_s"`
	Refusing   string  `json:"refusing,omitempty"` // why writes are refused now
	RetainNote string  `json:"retain_note,omitempty"`
}

// StreamStatus describes one group on one shard.
type StreamStatus struct {
	Table     string  `json:"table"`
	Group     string  `json:"group,omitempty"`
	Store     string  `json:"store"`
	Shard     string  `json:"shard"`
	State     string  `json:"state"` // draining, idle, retrying, stopped
	Error     string  `json:"error,omitempty"`
	Commit    uint64  `json:"applied_commit"`
	Durable   uint64  `json:"durable_commit"`
	Queued    uint64  `json:"queued_writes"`
	Parked    uint64  `json:"parked_entries"`
	Rejected  uint64  `json:"rejected_writes"`
	Applied   uint64  `json:"applied_writes"`
	Rows      uint64  `json:"rows"`
	FoldRatio float64 `json:"fold_ratio"` // writes per row
	AgeSec    float64 `json:"queue_age_s"`
	RowsPerS  float64 `json:"rows_per_s"`
}

// HotKey is a key that takes at least 1 % of a group's writes.
type HotKey struct {
	Table      string          `json:"table"`
	Group      string          `json:"group,omitempty"`
	Key        json.RawMessage `json:"key"`
	State      string          `json:"state"`        // hot, or cooling: it will be forgotten unless it comes back
	PerSecond  float64         `json:"writes_per_s"` // at least
	Share      float64         `json:"share"`        // of the group's writes, at least
	ShareError float64         `json:"share_error"`  // so much more it may be
	Since      time.Time       `json:"since"`
	Rule       string          `json:"rule"`   // folded, last, batched
	Detail     string          `json:"detail"` // what is done about it, and why
}

// LedgerRow is one line of the ledger (R2).
type LedgerRow struct {
	Table     string            `json:"table"`
	Group     string            `json:"group,omitempty"`
	Offered   uint64            `json:"offered"`
	Acked     uint64            `json:"acked"`
	Duplicate uint64            `json:"duplicate"`
	Shed      map[string]uint64 `json:"shed,omitempty"`
	Refused   map[string]uint64 `json:"refused,omitempty"`
	Applied   uint64            `json:"applied"`
	Rejected  uint64            `json:"rejected"`
	Expired   uint64            `json:"expired"`
	Lost      uint64            `json:"lost"`
	Queued    uint64            `json:"queued"`
}

// ReadQuery asks for the rows of keys of one table.
type ReadQuery struct {
	Table  string
	Keys   [][]byte // encoded by the table
	Groups []string // nil: all that are not events
	After  *Receipt // wait until this write is applied, at most Wait
	Wait   time.Duration
}
