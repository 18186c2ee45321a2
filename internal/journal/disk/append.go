package disk

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/vfs"
)

// Append implements journal.Journal: one write, one sync, then the mark. Only
// after all three is the commit readable and acknowledged.
func (j *Journal) Append(body []byte) (journal.Commit, error) {
	j.appending.Lock()
	defer j.appending.Unlock()
	if err := j.failure(); err != nil {
		return journal.Commit{}, err
	}
	if err := j.look(body); err != nil {
		return journal.Commit{}, err
	}
	size := int64(recordBytes(len(body)))
	if size > j.opts.SegmentBytes-blockBytes {
		return journal.Commit{}, sluice.Errorf(sluice.TooLarge, "commit_too_large",
			"a commit of %d bytes does not fit a segment of %d: lower commit_max or raise segment_bytes", len(body), j.opts.SegmentBytes)
	}
	if j.offset+size > j.openSegment().bytes {
		if err := j.roll(); err != nil {
			return journal.Commit{}, err
		}
	}
	seg := j.openSegment()
	r := record{number: seg.last + 1, prev: seg.after, time: j.opts.Now().UnixNano(), body: body}
	if err := j.write(&r); err != nil {
		return journal.Commit{}, j.poison(fmt.Errorf("commit %d to %s at offset %d: %w", r.number, seg.path, j.offset, err))
	}
	c := journal.Commit{Number: r.number, Chain: r.chain, Body: bytes.Clone(body)}
	j.publish(seg, c, size)
	return c, nil
}

// look refuses a body that could not be read again, and remembers its streams.
func (j *Journal) look(body []byte) error {
	view, err := journal.DecodeBody(body)
	if err == nil {
		j.touched = j.touched[:0]
		err = view.Streams(func(s journal.Stream, writes uint64) {
			j.touched = append(j.touched, touch{s, writes})
		})
	}
	if err != nil {
		return sluice.Errorf(sluice.Internal, "bad_commit", "a commit that cannot be read is not written: %w", err)
	}
	return nil
}

// write puts a record at offset and makes it durable.
func (j *Journal) write(r *record) error {
	if n := recordBytes(len(r.body)); cap(j.buf) < n {
		j.buf = make([]byte, n+n/4)
	}
	if _, err := j.file.WriteAt(j.key.encode(j.buf, r), j.offset); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	return j.mark.write(&j.key, r.number, r.chain)
}

// publish makes a durable commit readable.
func (j *Journal) publish(seg *segment, c journal.Commit, size int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	seg.blocks = append(seg.blocks, uint32(j.offset/blockBytes))
	j.offset += size
	seg.last, seg.after, seg.end = c.Number, c.Chain, j.offset
	for _, t := range j.touched {
		j.streams.touch(t.stream, c.Number, t.writes)
		seg.ends.touch(t.stream, c.Number, t.writes)
	}
	j.head = journal.Commit{Number: c.Number, Chain: c.Chain}
	j.recent.add(c)
	j.wakeAll()
}

// openSegment is the one that is appended to. Only holders of appending call it
// or change what it gives.
func (j *Journal) openSegment() *segment {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.segs[len(j.segs)-1]
}

// roll goes on to a new segment. The index of the old one is left to Prepare:
// it only makes the next start quicker.
func (j *Journal) roll() error {
	old := j.openSegment()
	seg, file, err := j.newSegment(old.last+1, old.after)
	if err != nil {
		return err
	}
	if err := j.file.Close(); err != nil {
		return errors.Join(j.poison(err), file.Close())
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if old.last < old.first {
		// It was too small for this commit, and the new one has its name.
		j.segs = slices.Clone(j.segs[:len(j.segs)-1])
		j.bytes -= old.bytes
	} else {
		j.seal(old)
	}
	j.segs = append(j.segs, seg)
	j.file, j.offset = file, blockBytes
	return nil
}

// seal closes the books of a segment. The caller holds mu.
func (j *Journal) seal(s *segment) {
	s.sealed = j.opts.Now().Unix()
	s.streams = s.ends.lasts()
}

// newSegment makes a segment durable under its name before anything is
// acknowledged in it.
func (j *Journal) newSegment(first, before uint64) (*segment, vfs.File, error) {
	file, temp, err := j.takeSpare()
	if err != nil {
		return nil, nil, err
	}
	defer j.taken()
	h := segmentHeader{key: j.key, first: first, before: before, created: j.opts.Now(), bytes: j.opts.SegmentBytes}
	path := j.path(segmentName(first))
	_, err = file.WriteAt(h.encode(), 0)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = j.opts.FS.Rename(temp, path)
	}
	if err == nil {
		err = j.opts.FS.SyncDir(j.opts.Dir)
	}
	if err != nil {
		j.mu.Lock()
		j.bytes -= j.opts.SegmentBytes
		j.mu.Unlock()
		return nil, nil, j.scrap(file, filepath.Base(temp), err)
	}
	return emptySegment(path, &h), file, nil
}

func emptySegment(path string, h *segmentHeader) *segment {
	return &segment{
		first: h.first, before: h.before, last: h.first - 1, after: h.before,
		path: path, bytes: h.bytes, end: blockBytes, ends: newStreamTable(),
	}
}
