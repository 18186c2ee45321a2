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
