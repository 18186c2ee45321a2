package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/vfs"
)

const lockFile = "LOCK"

// Open opens the journal in a directory, or makes one. When it returns, all
// that can be read is durable. Damage is a *journal.CorruptError and changes
// nothing.
func Open(opts Options) (*Journal, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := makeDir(opts); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock, err := takeLock(opts)
	if err != nil {
		return nil, err
	}
	j := &Journal{opts: opts, lock: lock, recent: recent{max: opts.RecentBytesMax}}
	if err := j.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal in %s: %w", opts.Dir, err), j.abandon())
	}
	return j, nil
}

func makeDir(opts Options) error {
	if _, err := opts.FS.List(opts.Dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := opts.FS.MkdirAll(opts.Dir); err != nil {
		return err
	}
	return opts.FS.SyncDir(filepath.Dir(opts.Dir))
}

func takeLock(opts Options) (io.Closer, error) {
	lock, err := opts.FS.Lock(filepath.Join(opts.Dir, lockFile))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("journal in %s is in use by another process: stop that one, or give this one its own directory (%w)", opts.Dir, err)
	}
	return lock, err
}

// abandon lets go of what start had opened.
func (j *Journal) abandon() error {
	var errs []error
	for _, f := range []vfs.File{j.file, j.mark.file} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(append(errs, j.lock.Close())...)
}

// start brings the journal into the state that the disk proves.
func (j *Journal) start() error {
	names, err := j.opts.FS.List(j.opts.Dir)
	if err != nil {
		return err
	}
	if err := j.clean(names); err != nil {
		return err
	}
	firsts := segmentFirsts(names)
	if err := j.identify(len(firsts) > 0); err != nil {
		return err
	}
	state, err := loadCheckpoint(j.opts.FS, j.opts.Dir)
	if err != nil {
		return err
	}
	j.holes, j.streams = state.holes, state.streams
	if j.epochMax, err = loadEpochMax(j.opts.FS, j.opts.Dir); err != nil {
		return err
	}
	j.epoch = j.epochMax
	if j.vouch, err = readMark(j.opts.FS, j.opts.Dir, &j.key); err != nil {
		return err
	}
	if j.mark.file, err = openMark(j.opts.FS, j.opts.Dir); err != nil {
		return err
	}
	j.mark.slot = j.vouch.slot
	end, err := j.loadSegments(firsts)
	if err != nil {
		return err
	}
	return j.resume(end)
}

// clean removes what a crash left behind: files that never became part of the
// journal, and indexes of segments that are gone.
func (j *Journal) clean(names []string) error {
	for _, name := range names {
		of, isIndex := strings.CutSuffix(name, indexSuffix)
		if strings.HasSuffix(name, tempSuffix) || isIndex && !slices.Contains(names, of+segmentSuffix) {
			if err := j.opts.FS.Remove(j.path(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func segmentFirsts(names []string) []uint64 {
	var firsts []uint64
	for _, name := range names {
		if first, ok := segmentFirst(name); ok {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts
}

// identify reads who this journal is, or decides it for a new one.
func (j *Journal) identify(segments bool) error {
	k, err := loadIdentity(j.opts.FS, j.opts.Dir)
	if !errors.Is(err, fs.ErrNotExist) {
		j.key = k
		return err
	}
	if segments {
		return corrupt(j.path(identityFile), 0, faultf("the identity of the segments beside it", "no file"))
	}
	var b [24]byte
	if _, err := io.ReadFull(j.opts.Random, b[:]); err != nil {
		return err
	}
	copy(j.key.id[:], b[:])
	j.key.salt = binary.LittleEndian.Uint64(b[16:])
	return j.save(identityFile, appendU64(b[:], uint64(j.opts.Now().UnixNano())))
}

func loadIdentity(fsys vfs.FS, dir string) (key, error) {
	var k key
	data, err := readFile(fsys, dir, identityFile)
	if err != nil {
		return k, err
	}
	d := decoder{data: data}
	copy(k.id[:], d.bytes(16))
	k.salt = d.u64()
	if d.bad {
		return k, corrupt(filepath.Join(dir, identityFile), savedHeaderBytes, faultf("an identity", "%d bytes", len(data)))
	}
	return k, nil
}

// ending is where the newest segment ends.
type ending struct {
	position
	last     int64 // offset of the last commit; 0: the segment is empty
	lastSize int64
}

// loadSegments takes in the segments, oldest first. Each has to continue the
// one before, or a hole that the checkpoint names.
func (j *Journal) loadSegments(firsts []uint64) (ending, error) {
	var end ending
	for i, first := range firsts {
		if covers(j.holes, first, first) {
			if err := removeSegment(j.opts.FS, j.opts.Dir, first); err != nil {
				return end, err
			}
			continue
		}
		var s *segment
		var err error
		if i < len(firsts)-1 {
			s, err = j.loadSealed(first)
		} else {
			s, end, err = j.loadNewest(first)
		}
		if err != nil {
			return end, err
		}
		if err := j.join(s); err != nil {
			return end, err
		}
	}
	end.position = follow(j.holes, j.reached(), math.MaxUint64)
	return end, j.checkMark(end)
}

// reached is where the segments taken in so far end.
func (j *Journal) reached() position {
	if n := len(j.segs); n > 0 {
		s := j.segs[n-1]
		return position{s.last, s.after, s.end, s.path}
	}
	return position{path: j.path(segmentName(1))}
}

// join adds a segment that continues the history so far.
func (j *Journal) join(s *segment) error {
	p := follow(j.holes, j.reached(), s.first)
	switch {
	case p.number+1 != s.first && len(j.segs) == 0:
		return corrupt(j.path(segmentName(p.number+1)), 0, faultf(fmt.Sprintf("commits %d to %d", p.number+1, s.first-1), "no file"))
	case p.number+1 < s.first:
		return corrupt(p.path, p.off, faultf(fmt.Sprintf("commits %d to %d, here or in the next file", p.number+1, s.first-1), "commit %d in %s next", s.first, s.path))
	case p.number+1 > s.first:
		return corrupt(s.path, 0, faultf(fmt.Sprintf("commit %d", p.number+1), "commit %d, which %s holds too", s.first, p.path))
	case p.chain != s.before:
		return corrupt(s.path, 0, faultf(fmt.Sprintf("chain %016x before commit %d", p.chain, s.first), "chain %016x", s.before))
	}
	j.segs = append(j.segs, s)
	j.bytes += s.bytes
	return nil
}

// checkMark compares the end of the journal with what the mark vouches for.
func (j *Journal) checkMark(end ending) error {
	vouch := j.vouch
	if vouch.number > end.number {
		return corrupt(end.path, end.off, faultf(fmt.Sprintf("commit %d: the mark says that %d was acknowledged", end.number+1, vouch.number), "the end of the journal"))
	}
	if vouch.number > 0 && vouch.number == end.number && vouch.chain != end.chain && !lostAt(j.holes, end.number) {
		return corrupt(end.path, end.last, faultf(fmt.Sprintf("commit %d with the chain %016x that the mark says", vouch.number, vouch.chain), "chain %016x", end.chain))
	}
	return nil
}

func lostAt(holes []Hole, n uint64) bool {
	return slices.ContainsFunc(holes, func(h Hole) bool { return h.Lost && h.First <= n && n <= h.Last })
}

// openSegmentFile opens a segment and checks its header.
func (j *Journal) openSegmentFile(first uint64) (vfs.File, segmentHeader, error) {
	path := j.path(segmentName(first))
	f, err := j.opts.FS.OpenRW(path)
	if err != nil {
		return nil, segmentHeader{}, err
	}
	h, bad, err := readSegmentHeader(f, j.key, first)
	if bad != nil {
		err = corrupt(path, 0, bad)
	}
	if err != nil {
		return nil, h, errors.Join(err, f.Close())
	}
	return f, h, nil
}

// loadSealed takes a segment from its index, or reads it when that is missing
// or does not fit.
func (j *Journal) loadSealed(first uint64) (*segment, error) {
	f, h, err := j.openSegmentFile(first)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	path := j.path(segmentName(first))
	if s, streams, err := loadIndex(j.opts.FS, path, &h); err == nil && s.endsIn(f, &j.key) {
		j.streams.merge(streams)
		return s, nil
	}
	w, err := newWindow(f, path)
	if err != nil {
		return nil, err
	}
	s, end, bad, err := scanSegment(w, &h, nil)
	if err != nil {
		return nil, err
	}
	if bad != nil {
		return nil, corrupt(path, end.off, bad)
	}
	j.streams.merge(s.ends)
	j.seal(s)
	return s, nil
}

// loadNewest reads the newest segment, leaves it open for writing, and judges
// what stands behind its last commit (J3).
func (j *Journal) loadNewest(first uint64) (*segment, ending, error) {
	var end ending
	f, h, err := j.openSegmentFile(first)
	if err != nil {
		return nil, end, err
	}
	j.file = f
	w, err := newWindow(f, j.path(segmentName(first)))
	if err != nil {
		return nil, end, err
	}
	var wrong *fault
	s, p, bad, err := scanSegment(w, &h, func(r record) {
		if r.number == j.vouch.number && r.chain != j.vouch.chain {
			wrong = faultf(fmt.Sprintf("commit %d with the chain %016x that the mark says", r.number, j.vouch.chain), "chain %016x", r.chain)
		}
	})
	if err != nil {
		return nil, end, err
	}
	if wrong != nil {
		return nil, end, corrupt(w.path, 0, wrong)
	}
	j.streams.merge(s.ends)
	end.position = p
	if n := len(s.blocks); n > 0 {
		end.last = int64(s.blocks[n-1]) * blockBytes
		end.lastSize = s.end - end.last
	}
	return s, end, j.judge(w, p, bad)
}

// judge decides whether what stands behind the last valid commit may be cut:
// only what nobody can have been told of.
func (j *Journal) judge(w *window, p position, bad *fault) error {
	if bad == nil {
		bad = faultf(fmt.Sprintf("commit %d", p.number+1), "zeros")
	}
	if n := j.vouch.number; n > p.number && !lostAt(j.holes, n) {
		bad.want += fmt.Sprintf(": the mark says that commit %d was acknowledged", n)
		return corrupt(w.path, p.off, bad)
	}
	later, at, found, err := w.after(&j.key, p.off, p.number)
	if err != nil {
		return err
	}
	if found {
		bad.want += fmt.Sprintf(": commit %d behind it is whole, at offset %d", later.number, at)
		return corrupt(w.path, p.off, bad)
	}
	return nil
}

// resume makes the end of the journal durable and ready for the next commit.
func (j *Journal) resume(end ending) error {
	if err := j.settle(end); err != nil {
		return err
	}
	n := len(j.segs)
	if n == 0 || j.segs[n-1].last != end.number {
		if err := j.startSegment(end.position); err != nil {
			return err
		}
	}
	seg := j.segs[len(j.segs)-1]
	j.offset = seg.end
	for i := len(j.segs) - 1; i >= 0 && j.head.Number == 0; i-- {
		if s := j.segs[i]; s.last >= s.first {
			j.head = journal.Commit{Number: s.last, Chain: s.after}
		}
	}
	if j.head.Number == 0 {
		j.head = journal.Commit{Number: seg.last, Chain: seg.after}
	}
	if j.vouch.number == j.head.Number || j.head.Number == 0 {
		return nil
	}
	return j.mark.write(&j.key, j.head.Number, j.head.Chain)
}

// settle writes the last commit again in place and zeros what is behind it
// (J2). Reading it proves nothing: it may stand in the page cache only, and
// after a failed sync a second sync alone would not write it.
func (j *Journal) settle(end ending) error {
	if j.file == nil {
		return nil
	}
	seg := j.segs[len(j.segs)-1]
	changed, err := j.zeroTail(seg)
	if err != nil {
		return err
	}
	if end.last > 0 && j.vouch.number != seg.last {
		b := make([]byte, end.lastSize)
		if n, err := j.file.ReadAt(b, end.last); err != nil && !(errors.Is(err, io.EOF) && n > 0) {
			return err
		}
		if _, err := j.file.WriteAt(b, end.last); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return j.file.Sync()
}

// zeroTail clears what a torn commit left, so that nothing but zeros is ever
// behind the last commit.
func (j *Journal) zeroTail(seg *segment) (changed bool, err error) {
	w, err := newWindow(j.file, seg.path)
	if err != nil {
		return false, err
	}
	for off := seg.end; off < w.size; off += zeroBytes {
		n := min(zeroBytes, w.size-off)
		clean, err := w.zeros(off, off+n)
		if err != nil {
			return changed, err
		}
		if clean {
			continue
		}
		if _, err := j.file.WriteAt(make([]byte, n), off); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// startSegment makes the first segment, or the one behind a hole at the end.
func (j *Journal) startSegment(p position) error {
	if err := j.makeSpare(min(firstZeroBytes, j.opts.SegmentBytes)); err != nil {
		return err
	}
	seg, file, err := j.newSegment(p.number+1, p.chain)
	if err != nil {
		return err
	}
	if j.file != nil {
		if err := j.file.Close(); err != nil {
			return errors.Join(err, file.Close())
		}
		j.seal(j.segs[len(j.segs)-1])
	}
	j.file, j.segs = file, append(j.segs, seg)
	return nil
}
