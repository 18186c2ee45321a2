package pipeline

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/dedup"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
)

// Trimmer removes segments whose every entry is durably applied, and closes the
// gate where the journal or its disk is full. Segments go singly, so a dead
// store pins only what it needs itself (J5).
type Trimmer struct {
	Journal journal.Journal
	Dedup   *dedup.Table
	Drains  *Drains
	Gate    *admit.Gate
	Config  func() *schema.Schema
	Now     func() time.Time
	Before  func() error // keeps what else must outlive the commits

	note atomic.Pointer[string]
	free map[uint64]time.Time // sealed segments in which all is applied, since when; by first commit
}

// Note says that bytes won over time at the last Step, for status; "" when not.
func (t *Trimmer) Note() string {
	if s := t.note.Load(); s != nil {
		return *s
	}
	return ""
}

const refusedRetryAfter = 5 * time.Second

// Step looks once at the journal's size and removes what may go.
func (t *Trimmer) Step(ctx context.Context) error {
	config := t.Config().Journal
	segments := t.Journal.Segments()
	pinned := t.pinned(segments)
	t.admission(config, segments, pinned)
	t.note.Store(nil)

	kept := int64(0)
	for _, s := range segments {
		kept += s.Bytes
	}
	saved := false // up to the head, so once covers every segment of this Step
	for i, s := range segments {
		if s.SealedAt == 0 || !t.freed(s, len(pinned[i]) > 0) {
			continue
		}
		old := t.Now().Sub(time.Unix(s.SealedAt, 0)) >= config.RetainTime
		if !old && kept <= config.RetainBytes {
			continue
		}
		if !old {
			note := fmt.Sprintf("journal.retain.bytes (%d) wins over journal.retain.time (%s)", config.RetainBytes, config.RetainTime)
			t.note.Store(&note)
		}
		if !saved {
			if err := t.save(); err != nil {
				return err
			}
			saved = true
		}
		if err := t.Journal.Remove(s.First); err != nil {
			return fmt.Errorf("trim: remove segment %d: %w", s.First, err)
		}
		delete(t.free, s.First)
		kept -= s.Bytes
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// save keeps what must outlive the commits: identities (I4), and what Before does.
func (t *Trimmer) save() error {
	if err := t.Dedup.Checkpoint(t.Journal.Head().Number); err != nil {
		return fmt.Errorf("trim: remember identities: %w", err)
	}
	if err := t.Before(); err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	return nil
}

// freed tells whether a segment may go: all in it is applied, and every shard
// concerned has proved that it still is, after this was first seen. Without the
// second look, a shard that went back since its last confirmation would need
// what is being removed (S4).
func (t *Trimmer) freed(s journal.Segment, pinned bool) bool {
	if t.free == nil {
		t.free = map[uint64]time.Time{}
	}
	if pinned {
		delete(t.free, s.First)
		return false
	}
	since, seen := t.free[s.First]
	if !seen {
		since = t.Now()
		t.free[s.First] = since
	}
	verified := map[*Drainer]bool{}
	for stream := range s.Streams {
		if t.gone(stream) {
			continue
		}
		d := t.Drains.Find(stream)
		ok, seen := verified[d]
		if !seen {
			ok = d.Position().Verified.After(since)
			verified[d] = ok
		}
		if !ok {
			return false
		}
	}
	return true
}

// pinned gives for each segment the drainers that still need it.
func (t *Trimmer) pinned(segments []journal.Segment) [][]*Drainer {
	out := make([][]*Drainer, len(segments))
	for i, s := range segments {
		seen := map[*Drainer]Position{}
		for stream, last := range s.Streams {
			if t.gone(stream) {
				continue
			}
			d := t.Drains.Find(stream)
			if d == nil {
				// Nobody drains it at this moment: it stays.
				out[i] = append(out[i], nil)
				continue
			}
			pos, known := seen[d]
			if !known {
				pos = d.Position()
				seen[d] = pos
			}
			if last > pos.DurableTo(stream.Partition) && !slices.Contains(out[i], d) {
				out[i] = append(out[i], d)
			}
		}
	}
	return out
}

// gone tells of a group that the catalog forgot: everything of it is durably
// applied, and after the next start nobody drains it.
func (t *Trimmer) gone(s journal.Stream) bool { return t.Config().Group(s.Group) == nil }

// admission closes the gate for everyone when the disk or the journal is full,
// and for a single shard when its backlog pins more than its part.
func (t *Trimmer) admission(config schema.Journal, segments []journal.Segment, pinned [][]*Drainer) {
	if t.Gate.Refusing() != nil && t.Gate.Refusing().Reason == sluice.ShuttingDown {
		return
	}
	usage := t.Journal.Usage()
	switch {
	case usage.FreeDisk < config.DiskReserve:
		t.Gate.RefuseAll(&admit.Refusal{Reason: sluice.DiskReserve, RetryAfter: refusedRetryAfter,
			Detail: fmt.Sprintf("only %d MiB are free on the journal's disk, journal.disk_reserve is %d MiB: writes are refused, reads and draining go on; free some space", usage.FreeDisk>>20, config.DiskReserve>>20)})
	case usage.Bytes+config.SegmentBytes > config.BytesMax:
		t.Gate.RefuseAll(&admit.Refusal{Reason: sluice.JournalFull, RetryAfter: refusedRetryAfter,
			Detail: fmt.Sprintf("the journal holds %d MiB of at most %d MiB (journal.bytes_max); `sluice status` shows which store is behind", usage.Bytes>>20, config.BytesMax>>20)})
	default:
		t.Gate.RefuseAll(nil)
	}
	t.Gate.SetBlocks(t.backlogs(config, segments, pinned))
}

// backlogs refuses the writes of shards that pin more than backlog_max: by
// default half of what the journal may hold and others do not pin.
func (t *Trimmer) backlogs(config schema.Journal, segments []journal.Segment, pinned [][]*Drainer) []admit.Block {
	type shard struct{ store, name string }
	bytes := map[shard]int64{}
	shared := int64(0)
	for i, s := range segments {
		seen := map[shard]bool{}
		for _, d := range pinned[i] {
			if d != nil {
				seen[shard{d.o.Store.Name, d.o.ShardName}] = true
			}
		}
		for sh := range seen {
			bytes[sh] += s.Bytes
		}
		if len(seen) > 0 {
			shared += s.Bytes
		}
	}
	var blocks []admit.Block
	for _, d := range t.Drains.All() {
		mine := bytes[shard{d.o.Store.Name, d.o.ShardName}]
		limit := config.BacklogMax
		if limit == 0 {
			limit = max(config.SegmentBytes*2, (config.BytesMax-(shared-mine))/2)
		}
		if mine > limit {
			blocks = append(blocks, admit.Block{Group: d.Group().ID, Partitions: d.o.Partitions, Refusal: &admit.Refusal{
				Reason: sluice.BacklogMax, RetryAfter: refusedRetryAfter,
				Detail: fmt.Sprintf("shard %s of store %s is behind by %d MiB of journal, at most %d MiB (journal.backlog_max); `sluice status` says why", d.o.ShardName, d.o.Store.Name, mine>>20, limit>>20)}})
		}
	}
	return blocks
}
