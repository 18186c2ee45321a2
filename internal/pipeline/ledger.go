package pipeline

import (
	"sync"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
)

// Ledger adds up what was offered and what became of it (R2). The unit is one
// write to one group. Acked comes from the cumulative counts inside the commits
// and the rest from the shards, so both are exact after any crash; refused, shed
// and duplicate ride in commits as notes and are counted from there.
type Ledger struct {
	mu      sync.Mutex
	through uint64 // commits counted so far
	notes   map[noteKey]uint64
	passed  map[journal.Stream]uint64 // writes that a shard was last known to have passed
}

// Add counts the notes of a commit, while recovering and for each new commit.
// One that was counted before changes nothing.
func (l *Ledger) Add(commit uint64, list []journal.Note) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if commit <= l.through {
		return
	}
	l.through = commit
	if l.notes == nil {
		l.notes = map[noteKey]uint64{}
	}
	for _, n := range list {
		l.notes[noteKey{n.Group, n.Reason}] += n.Count
	}
}

// Snapshot gives all counts as notes and the last commit in them, to be kept
// beside the journal before commits are trimmed.
func (l *Ledger) Snapshot() (uint64, []journal.Note) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]journal.Note, 0, len(l.notes))
	for k, n := range l.notes {
		out = append(out, journal.Note{Group: k.group, Reason: k.reason, Count: n})
	}
	return l.through, out
}

// Rows gives one row a group.
func (l *Ledger) Rows(s *schema.Schema, j journal.Journal, drains *Drains) []sluice.LedgerRow {
	streams := j.Streams()
	var out []sluice.LedgerRow
	for _, g := range s.Groups() {
		row := sluice.LedgerRow{Table: g.Table.Name, Group: g.Name}
		for stream, st := range streams {
			if stream.Group == g.ID {
				row.Acked += st.Writes
			}
		}
		for _, d := range drains.Of(g.ID) {
			pos := d.Position()
			row.Queued += d.queuedAt(&pos, streams)
			row.Rejected += pos.Rejected
		}
		row.Queued += l.unreached(g.ID, streams, drains)
		row.Applied = row.Acked - min(row.Acked, row.Queued+row.Rejected)
		l.addNotes(&row, g.ID)
		row.Offered = row.Acked + row.Duplicate
		for _, byReason := range []map[string]uint64{row.Shed, row.Refused} {
			for _, n := range byReason {
				row.Offered += n
			}
		}
		out = append(out, row)
	}
	return out
}

func (l *Ledger) addNotes(row *sluice.LedgerRow, g sluice.GroupID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, n := range l.notes {
		if k.group != g {
			continue
		}
		switch k.reason {
		case journal.NoteDuplicate:
			row.Duplicate += n
		case sluice.Sampled, sluice.Thinned, sluice.Overload:
			if row.Shed == nil {
				row.Shed = map[string]uint64{}
			}
			row.Shed[k.reason.String()] += n
		default:
			if row.Refused == nil {
				row.Refused = map[string]uint64{}
			}
			row.Refused[k.reason.String()] += n
		}
	}
}

// unreached counts the writes to streams whose shard was not reached since the
// start: all that the shard was not known to have passed before. It may have
// more, and says so when it is reached; a ledger must not call a write applied
// on a guess.
func (l *Ledger) unreached(g sluice.GroupID, streams map[journal.Stream]journal.StreamState, drains *Drains) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	queued := uint64(0)
	for s, st := range streams {
		if s.Group == g && drains.Find(s) == nil && st.Writes > l.passed[s] {
			queued += st.Writes - l.passed[s]
		}
	}
	return queued
}

// Passed gives how many writes of each stream its shard has passed, as far as
// is known, to be kept over a restart.
func (l *Ledger) Passed(drains *Drains) map[journal.Stream]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.passed == nil {
		l.passed = map[journal.Stream]uint64{}
	}
	for _, d := range drains.All() {
		pos, group := d.Position(), d.Group().ID
		for _, p := range d.o.Partitions.List() {
			if n := pos.Passed[p]; n > 0 {
				l.passed[journal.Stream{Group: group, Partition: p}] = n
			}
		}
	}
	out := make(map[journal.Stream]uint64, len(l.passed))
	for s, n := range l.passed {
		out[s] = n
	}
	return out
}

// SetPassed is what Passed gave before a restart.
func (l *Ledger) SetPassed(passed map[journal.Stream]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passed = passed
}
