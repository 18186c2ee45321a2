// Package mem is a journal in memory, for tests. It keeps every rule of
// journal.Journal but durability, and outlives its Close through Reopen.
package mem

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"

	"github.com/cespare/xxhash/v2"

	"sluice.dev/sluice/internal/journal"
)

// DefaultSegmentBytes is small, so that tests have segments to remove.
const DefaultSegmentBytes = 64 << 10

// Options of a journal. A zero field takes its default.
type Options struct {
	SegmentBytes int64
	ID           [16]byte
}

// Journal is a journal.Journal in memory.
type Journal struct {
	opts Options

	mu      sync.Mutex
	err     error // the first failure, for ever
	failing error // what the next Append fails with
	head    journal.Commit
	segs    []*segment
	streams map[journal.Stream]journal.StreamState
	epoch   uint64
	wake    chan struct{} // closed at the next commit; nil when nobody waits
}

type segment struct {
	journal.Segment
	before  uint64
	commits []journal.Commit
}

var _ journal.Journal = (*Journal)(nil)

// New makes an empty journal.
func New(opts Options) *Journal {
	if opts.SegmentBytes == 0 {
		opts.SegmentBytes = DefaultSegmentBytes
	}
	if opts.ID == [16]byte{} {
		copy(opts.ID[:], "sluice in memory")
	}
	return &Journal{opts: opts, segs: []*segment{newSegment(1, 0)}, streams: map[journal.Stream]journal.StreamState{}}
}

// Reopen gives a journal with the same content, as the next process would find
// it. The old one must be closed, or never used again.
func (j *Journal) Reopen() *Journal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return &Journal{opts: j.opts, head: j.head, segs: j.segs, streams: j.streams, epoch: j.epoch}
}

// Fail lets the next Append fail as if its sync had failed with err (J4).
func (j *Journal) Fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failing = err
}

func newSegment(first, before uint64) *segment {
	return &segment{Segment: journal.Segment{First: first, Last: first - 1, Streams: map[journal.Stream]uint64{}}, before: before}
}

// ID implements journal.Journal.
func (j *Journal) ID() [16]byte { return j.opts.ID }

// Append implements journal.Journal.
func (j *Journal) Append(body []byte) (journal.Commit, error) {
	view, err := journal.DecodeBody(body)
	if err != nil {
		return journal.Commit{}, err
	}
	touched := map[journal.Stream]uint64{}
	if err := view.Streams(func(s journal.Stream, writes uint64) { touched[s] = writes }); err != nil {
		return journal.Commit{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failing != nil && j.err == nil {
		j.err = fmt.Errorf("journal in memory: %w", j.failing)
		j.wakeAll()
	}
	if j.err != nil {
		return journal.Commit{}, j.err
	}
	c := journal.Commit{Number: j.head.Number + 1, Chain: chain(j.head.Chain, body), Body: bytes.Clone(body)}
	seg := j.openSegment(int64(len(body)))
	seg.commits = append(seg.commits, c)
	seg.Last = c.Number
	seg.Bytes += int64(len(body))
	for s, writes := range touched {
		seg.Streams[s] = c.Number
		j.streams[s] = journal.StreamState{Last: c.Number, Writes: writes, Removed: j.streams[s].Removed}
	}
	j.head = journal.Commit{Number: c.Number, Chain: c.Chain}
	j.wakeAll()
	return c, nil
}

// openSegment is the one with room for a body of n bytes.
func (j *Journal) openSegment(n int64) *segment {
	seg := j.segs[len(j.segs)-1]
	if seg.Bytes+n <= j.opts.SegmentBytes || len(seg.commits) == 0 {
		return seg
	}
	seg.SealedAt = 1
	next := newSegment(seg.Last+1, j.head.Chain)
	j.segs = append(slices.Clone(j.segs), next)
	return next
}

func chain(prev uint64, body []byte) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(prev)
	d.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(body))))
	d.Write(body)
	return d.Sum64()
}

func (j *Journal) wakeAll() {
	if j.wake != nil {
		close(j.wake)
		j.wake = nil
	}
}

// Read implements journal.Journal.
func (j *Journal) Read(n uint64) (journal.Commit, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return journal.Commit{}, j.err
	}
	if n > j.segs[len(j.segs)-1].Last {
		return journal.Commit{}, journal.ErrNotYet
	}
	i := sort.Search(len(j.segs), func(i int) bool { return j.segs[i].First > n })
	if i > 0 && n <= j.segs[i-1].Last {
		seg := j.segs[i-1]
		return seg.commits[n-seg.First], nil
	}
	hole := &journal.HoleError{Number: n, Next: j.segs[i].First}
	if hole.Next == n+1 {
		hole.Chain = j.segs[i].before
	}
	return journal.Commit{}, hole
}

// Wait implements journal.Journal.
func (j *Journal) Wait(ctx context.Context, n uint64) error {
	for {
		j.mu.Lock()
		if j.err != nil || j.head.Number > n {
			defer j.mu.Unlock()
			return j.err
		}
		if j.wake == nil {
			j.wake = make(chan struct{})
		}
		wake := j.wake
		j.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Head implements journal.Journal.
func (j *Journal) Head() journal.Commit {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// Streams implements journal.Journal.
func (j *Journal) Streams() map[journal.Stream]journal.StreamState {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.streams)
}

// Stream implements journal.Journal.
func (j *Journal) Stream(s journal.Stream) journal.StreamState {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.streams[s]
}

// Segments implements journal.Journal.
func (j *Journal) Segments() []journal.Segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]journal.Segment, 0, len(j.segs))
	for _, seg := range j.segs {
		s := seg.Segment
		if s.SealedAt == 0 {
			s.Streams = nil
		}
		out = append(out, s)
	}
	return out
}

// Remove implements journal.Journal.
func (j *Journal) Remove(first uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	i := slices.IndexFunc(j.segs, func(s *segment) bool { return s.First == first })
	if i < 0 || j.segs[i].SealedAt == 0 {
		return fmt.Errorf("journal: no sealed segment starts at commit %d", first)
	}
	for s, last := range j.segs[i].Streams {
		st := j.streams[s]
		st.Removed = max(st.Removed, last)
		j.streams[s] = st
	}
	j.segs = slices.Delete(slices.Clone(j.segs), i, i+1)
	return nil
}

// NextEpoch implements journal.Journal.
func (j *Journal) NextEpoch() (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, j.err
	}
	j.epoch++
	return j.epoch, nil
}

// AdoptEpoch implements journal.Journal.
func (j *Journal) AdoptEpoch(seen uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	j.epoch = (max(seen, j.epoch)>>32+1)<<32 - 1
	return nil
}

// Usage implements journal.Journal.
func (j *Journal) Usage() journal.Usage {
	j.mu.Lock()
	defer j.mu.Unlock()
	u := journal.Usage{FreeDisk: 1 << 50}
	for _, seg := range j.segs {
		u.Bytes += seg.Bytes
	}
	return u
}

// Close implements journal.Journal.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = journal.ErrClosed
		j.wakeAll()
	}
	return nil
}
