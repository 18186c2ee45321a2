package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"

	"sluice.dev/sluice/internal/journal"
)

// recent keeps the newest commits in memory: followers that keep up never
// touch the disk. It is a ring of consecutive numbers.
type recent struct {
	ring  []journal.Commit
	start int
	count int
	bytes int64
	max   int64
}

// commitBytes is what a kept commit costs besides its body.
const commitBytes = 48

func (r *recent) at(i int) *journal.Commit { return &r.ring[(r.start+i)%len(r.ring)] }

// add keeps c and lets the oldest go until the limit holds. The newest stays
// whatever its size: it is about to be read.
func (r *recent) add(c journal.Commit) {
	if r.count == len(r.ring) {
		ring := make([]journal.Commit, max(64, 2*len(r.ring)))
		for i := range r.count {
			ring[i] = *r.at(i)
		}
		r.ring, r.start = ring, 0
	}
	*r.at(r.count) = c
	r.count++
	r.bytes += int64(cap(c.Body)) + commitBytes
	for r.bytes > r.max && r.count > 1 {
		oldest := r.at(0)
		r.bytes -= int64(cap(oldest.Body)) + commitBytes
		*oldest = journal.Commit{}
		r.start = (r.start + 1) % len(r.ring)
		r.count--
	}
}

func (r *recent) get(n uint64) (journal.Commit, bool) {
	if r.count == 0 || n < r.at(0).Number || n > r.at(r.count-1).Number {
		return journal.Commit{}, false
	}
	return *r.at(int(n - r.at(0).Number)), true
}

// place is where a commit stands in a file.
type place struct {
	seg      *segment
	off, end int64
}

// Read implements journal.Journal.
func (j *Journal) Read(n uint64) (journal.Commit, error) {
	for {
		c, at, err := j.find(n)
		if err != nil || at.seg == nil {
			return c, err
		}
		c, err = j.readAt(n, at)
		if errors.Is(err, errGone) || errors.Is(err, fs.ErrClosed) {
			continue // removed meanwhile, or the journal was closed: find says which
		}
		return c, err
	}
}

// find gives commit n from memory, or the place to read it from.
func (j *Journal) find(n uint64) (journal.Commit, place, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.err != nil {
		return journal.Commit{}, place{}, j.err
	}
	seg := j.segs[max(0, sort.Search(len(j.segs), func(i int) bool { return j.segs[i].first > n })-1)]
	if n < seg.first || n > seg.last {
		return journal.Commit{}, place{}, j.missing(n)
	}
	if c, ok := j.recent.get(n); ok {
		return c, place{}, nil
	}
	off, end := seg.bounds(n)
	return journal.Commit{}, place{seg, off, end}, nil
}

// missing says why no segment holds n. The caller holds mu.
func (j *Journal) missing(n uint64) error {
	if n > j.segs[len(j.segs)-1].last {
		return journal.ErrNotYet
	}
	hole := &journal.HoleError{Number: n}
	next := j.segs[sort.Search(len(j.segs), func(i int) bool { return j.segs[i].first > n })]
	hole.Next = next.first
	if next.first == n+1 {
		hole.Chain = next.before
	}
	for _, h := range j.holes {
		if h.First <= n && n <= h.Last {
			hole.Lost = h.Lost
		}
	}
	return hole
}

// readAt reads a commit from its segment and proves it.
func (j *Journal) readAt(n uint64, at place) (journal.Commit, error) {
	file, err := at.seg.open(j.opts.FS)
	if err != nil {
		return journal.Commit{}, readError(n, at, err)
	}
	b := make([]byte, at.end-at.off)
	read, err := file.ReadAt(b, at.off)
	if err != nil && !errors.Is(err, io.EOF) {
		return journal.Commit{}, readError(n, at, err)
	}
	b = b[:read]
	r, size, bad := j.key.header(b)
	if bad == nil && len(b) < recordHeaderBytes+size {
		bad = faultf(fmt.Sprintf("commit %d", n), "a commit of %d bytes where %d are", size, len(b))
	}
	if bad == nil {
		bad = j.key.verify(&r, b[:recordHeaderBytes], b[recordHeaderBytes:recordHeaderBytes+size])
	}
	if bad == nil && r.number != n {
		bad = faultf(fmt.Sprintf("commit %d", n), "commit %d", r.number)
	}
	if bad != nil {
		return journal.Commit{}, corrupt(at.seg.path, at.off, bad)
	}
	return journal.Commit{Number: n, Chain: r.chain, Body: r.body[:len(r.body):len(r.body)]}, nil
}

func readError(n uint64, at place, err error) error {
	return fmt.Errorf("read commit %d in %s at offset %d: %w", n, at.seg.path, at.off, err)
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
