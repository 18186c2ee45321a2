// Package sluice holds the words that every other part of Sluice speaks: the
// write as a client says it, the entry as the journal keeps it, values, codes
// of errors, and the receipt. It does nothing: no I/O, no goroutine, no state.
package sluice

// Sizes fixed by the formats. Changing one makes every journal unreadable.
const (
	Slots             = 16384 // slots of the key space, as in Redis Cluster
	Partitions        = 256   // contiguous ranges of slots; unit of order, placement and moving
	SlotsPerPartition = Slots / Partitions
)

// Ids are given by the catalog, once, and never used again for another thing.
type (
	TableID  uint32
	GroupID  uint32
	ColumnID uint16 // unique within its group
)

// Write is one change to one key, as a client says it. Verb and merge must
// agree: Set for `set` columns (and all columns of a latest_by group), Add for
// sum, Max, Min and Unique for theirs, Append for groups of events. Delete
// stands alone.
type Write struct {
	Table  string                    `json:"table"`
	Key    any                       `json:"key"` // a scalar, or an object for composite keys
	Set    map[string]any            `json:"set,omitempty"`
	Add    map[string]any            `json:"add,omitempty"`
	Max    map[string]any            `json:"max,omitempty"`
	Min    map[string]any            `json:"min,omitempty"`
	Unique map[string]any            `json:"unique,omitempty"` // an element, or an array of elements
	Append map[string]map[string]any `json:"append,omitempty"` // group name -> the event's columns
	Delete bool                      `json:"delete,omitempty"`
}

// Entry is one folded change to one key of one group. It is what a commit
// holds, what fold merges and what a store applies.
//
// Byte slices inside an Entry may point into a buffer of whoever made it; who
// keeps an Entry longer than the call that handed it over copies it.
type Entry struct {
	Group   GroupID
	Slot    uint16 // 0..Slots-1
	Key     []byte // schema's key encoding; two keys are equal when their bytes are
	Reset   bool   // a delete came first: forget the row, then apply Cells
	Replay  uint64 // 0, or the number of the reject that this entry replays
	Cells   []Cell // at most one a column; none and Reset: a delete
	Writes  uint32 // acknowledged writes folded into it, at least 1
	Commit  uint64 // where it stands in the journal: commit number (last one folded in) ...
	Ordinal uint32 // ... and its position among the commit's entries, from 0
}

// Partition is the partition of the entry's slot.
func (e *Entry) Partition() uint8 { return PartitionOf(e.Slot) }

// PartitionOf is the partition that holds a slot.
func PartitionOf(slot uint16) uint8 { return uint8(slot / SlotsPerPartition) }

// Cell is the change of one column. What it means is the column's merge: for a
// sum the amount to add, for set the new value, and so on.
type Cell struct {
	Column ColumnID
	Value  Value
}
