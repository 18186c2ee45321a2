// Package disk is the journal on one disk: one sequence of preallocated
// segments, one write and one fdatasync per commit. docs/journal-format.md is
// its format. It starts no goroutine (Prepare and SyncMark are steps for the
// owner's loops), never repairs damage by itself, and knows of a body only
// which streams it touches.
package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/vfs"
)

// Limits and their defaults.
const (
	DefaultSegmentBytes   = 64 << 20
	DefaultRecentBytesMax = 64 << 20
	DefaultBytesMax       = 16 << 30

	segmentBytesMin = 4 * blockBytes
	segmentBytesMax = 4 << 30

	// fullRetryAfter is what a refused writer is told to wait for space.
	fullRetryAfter = time.Second
)

// Options of a journal. A zero field takes its default.
type Options struct {
	Dir            string
	FS             vfs.FS           // vfs.OS
	SegmentBytes   int64            // size of a segment file; also bounds one commit
	RecentBytesMax int64            // memory for the newest commits' bodies
	BytesMax       int64            // of all segment files together
	Now            func() time.Time // time.Now; stamps records, decides nothing
	Random         io.Reader        // crypto/rand; for the identity of a new journal
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("journal: no directory given")
	}
	o.Dir = filepath.Clean(o.Dir)
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.RecentBytesMax == 0 {
		o.RecentBytesMax = DefaultRecentBytesMax
	}
	if o.BytesMax == 0 {
		o.BytesMax = DefaultBytesMax
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.SegmentBytes < segmentBytesMin || o.SegmentBytes > segmentBytesMax {
		return o, fmt.Errorf("journal: segments of %d bytes: use %d to %d", o.SegmentBytes, segmentBytesMin, int64(segmentBytesMax))
	}
	o.SegmentBytes = (o.SegmentBytes + blockBytes - 1) / blockBytes * blockBytes
	if o.BytesMax < 2*o.SegmentBytes {
		return o, fmt.Errorf("journal: bytes_max %d holds less than two segments of %d bytes: raise it", o.BytesMax, o.SegmentBytes)
	}
	return o, nil
}

// Journal is an open journal. It is the journal.Journal of one disk.
//
// Locks are taken in this order: appending, preparing, removing, epochs,
// saving, mu. Nothing is written or synced under mu, so readers never wait for
// the disk's cache.
type Journal struct {
	opts Options
	key  key
	lock io.Closer

	appending sync.Mutex // held by Append and Close; guards the six below
	file      vfs.File   // the open segment
	offset    int64      // where the next commit goes
	buf       []byte     // one commit with its header, as written
	touched   []touch    // streams of the commit under way
	mark      mark
	vouch     vouched // what the mark said at the start

	preparing sync.Mutex // held while a spare segment is made
	removing  sync.Mutex // held while a segment is forgotten
	saving    sync.Mutex // held while a small file is replaced
	epochs    sync.Mutex // guards the two below
	epoch     uint64     // last one given
	epochMax  uint64     // numbers up to here are reserved on the disk

	mu      sync.RWMutex // guards all below
	err     error        // the first failure, for ever
	head    journal.Commit
	segs    []*segment // by first; the last is open
	holes   []Hole     // by First
	streams *streamTable
	recent  recent
	wake    chan struct{} // closed at the next commit; nil when nobody waits
	spare   vfs.File      // a zeroed file, ready to become a segment
	taking  bool          // Append makes a segment of what lies under the spare's name
	bytes   int64         // of all segment files and the spare
}

// touch is one stream of a commit and its count of writes after it.
type touch struct {
	stream journal.Stream
	writes uint64
}

var _ journal.Journal = (*Journal)(nil)

// ID implements journal.Journal.
func (j *Journal) ID() [16]byte { return j.key.id }

// Head implements journal.Journal.
func (j *Journal) Head() journal.Commit {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.head
}

// Streams implements journal.Journal.
func (j *Journal) Streams() map[journal.Stream]journal.StreamState {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.streams.all()
}

// Stream implements journal.Journal.
func (j *Journal) Stream(s journal.Stream) journal.StreamState {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.streams.get(s)
}

// Segments implements journal.Journal.
func (j *Journal) Segments() []journal.Segment {
	j.mu.RLock()
	defer j.mu.RUnlock()
	out := make([]journal.Segment, 0, len(j.segs))
	for _, s := range j.segs {
		out = append(out, journal.Segment{First: s.first, Last: s.last, Bytes: s.bytes, SealedAt: s.sealed, Streams: s.streams})
	}
	return out
}

// Holes lists what was trimmed and what was accepted as lost.
func (j *Journal) Holes() []Hole {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return slices.Clone(j.holes)
}

// Usage implements journal.Journal. FreeDisk is 0 when the disk does not say.
func (j *Journal) Usage() journal.Usage {
	j.mu.RLock()
	used := j.bytes
	j.mu.RUnlock()
	free, err := j.opts.FS.Free(j.opts.Dir)
	if err != nil {
		free = 0
	}
	return journal.Usage{Bytes: used, FreeDisk: free}
}

// Close implements journal.Journal. After a failure it lets go without writing.
func (j *Journal) Close() error {
	j.appending.Lock()
	defer j.appending.Unlock()
	j.preparing.Lock()
	defer j.preparing.Unlock()
	j.removing.Lock()
	defer j.removing.Unlock()
	failed := j.failure()
	if errors.Is(failed, journal.ErrClosed) {
		return nil
	}
	var errs []error
	if failed == nil {
		errs = append(errs, j.writeIndexes(), j.SyncMark())
	}
	segs, spare := j.shut()
	for _, s := range segs {
		errs = append(errs, s.drop())
	}
	if spare != nil {
		errs = append(errs, spare.Close(), j.opts.FS.Remove(j.path(spareFile)))
	}
	errs = append(errs, j.file.Close(), j.mark.file.Close(), j.lock.Close())
	if failed != nil {
		return failed
	}
	return errors.Join(errs...)
}

// shut lets every later call answer ErrClosed. It waits for a file that is
// being saved: the next owner of the directory may not find us writing.
func (j *Journal) shut() ([]*segment, vfs.File) {
	j.saving.Lock()
	defer j.saving.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = journal.ErrClosed
	j.wakeAll()
	spare := j.spare
	j.spare = nil
	return j.segs, spare
}

// failure is the sticky error (J4).
func (j *Journal) failure() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.err
}

// poison makes err the answer of every later call (J4). What the disk holds is
// not known after a failed write or sync; only a restart can read it.
func (j *Journal) poison(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = sluice.Errorf(sluice.Unavailable, "journal_failed",
			"journal in %s: %w; nothing is written any more: look at the disk, then start again", j.opts.Dir, err)
		j.wakeAll()
	}
	return j.err
}

// broken is poison for work on a file that holds no commit yet. Lack of space
// or of descriptors harms nothing there, so it is a refusal, and draining goes
// on to make room.
func (j *Journal) broken(err error) error {
	for _, passing := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, passing) {
			return j.refuse("disk_full", "journal in %s has no room: %w; free space on its disk, or wait until more is drained", j.opts.Dir, err)
		}
	}
	return j.poison(err)
}

func (j *Journal) refuse(reason, format string, args ...any) error {
	e := sluice.Errorf(sluice.Overloaded, reason, format, args...)
	e.RetryAfter = fullRetryAfter
	return e
}

// wakeAll lets waiters look again. The caller holds mu.
func (j *Journal) wakeAll() {
	if j.wake != nil {
		close(j.wake)
		j.wake = nil
	}
}
