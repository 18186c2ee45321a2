package disk

import (
	"fmt"
	"math"
	"path/filepath"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/vfs"
)

// The index of a sealed segment spares a start from reading the segment. It
// holds nothing that a scan would not find, so a missing or damaged one costs
// time only.

const indexHeadBytes = 8 + 8 + 8 + 8 + 8 + 8

func encodeIndex(s *segment) []byte {
	b := make([]byte, 0, indexHeadBytes+8+4*len(s.blocks))
	b = appendU64(b, s.first)
	b = appendU64(b, s.before)
	b = appendU64(b, s.last)
	b = appendU64(b, s.after)
	b = appendU64(b, uint64(s.end))
	b = appendU64(b, uint64(s.sealed))
	b = appendU32(b, uint32(len(s.blocks)))
	for _, block := range s.blocks {
		b = appendU32(b, block)
	}
	return s.ends.append(b)
}

// decodeIndex fills s, which has first, before, path and bytes from its header,
// and gives the streams.
func decodeIndex(s *segment, data []byte) (*streamTable, error) {
	d := decoder{data: data}
	first, before := d.u64(), d.u64()
	s.last, s.after, s.end, s.sealed = d.u64(), d.u64(), int64(d.u64()), int64(d.u64())
	s.blocks = make([]uint32, d.count(4))
	previous := uint32(0)
	for i := range s.blocks {
		s.blocks[i] = d.u32()
		if s.blocks[i] <= previous || int64(s.blocks[i])*blockBytes >= s.end {
			d.bad = true
		}
		previous = s.blocks[i]
	}
	streams := d.streams()
	if d.bad || len(d.data) > 0 || first != s.first || before != s.before ||
		s.last+1-s.first != uint64(len(s.blocks)) || s.end > s.bytes || s.end < blockBytes {
		return nil, fmt.Errorf("index of %s does not fit it", s.path)
	}
	return streams, nil
}

// loadIndex gives a sealed segment from its index; nil when a scan is needed.
func loadIndex(fsys vfs.FS, path string, h *segmentHeader) (*segment, *streamTable, error) {
	data, err := readFile(fsys, filepath.Dir(path), indexName(h.first))
	if err != nil {
		return nil, nil, err
	}
	s := emptySegment(path, h)
	streams, err := decodeIndex(s, data)
	if err != nil {
		return nil, nil, err
	}
	s.streams, s.ends = streams.lasts(), nil
	return s, streams, nil
}

// endsIn says whether the last commit of an index stands where the index says: a
// look that costs one read, and an index of another file does not pass it.
func (s *segment) endsIn(f vfs.File, k *key) bool {
	if len(s.blocks) == 0 {
		return false
	}
	off, _ := s.bounds(s.last)
	b := make([]byte, recordHeaderBytes)
	if n, err := f.ReadAt(b, off); n < len(b) || err != nil {
		return false
	}
	r, _, bad := k.header(b)
	return bad == nil && r.number == s.last && r.chain == s.after
}

// scanSegment reads a segment from its first commit on and gives it as it
// stands, with the position behind its last commit and what is there.
func scanSegment(w *window, h *segmentHeader, each func(r record)) (*segment, position, *fault, error) {
	s := emptySegment(w.path, h)
	start := position{h.first - 1, h.before, blockBytes, w.path}
	end, bad, err := w.walk(&h.key, start, func(r record, off int64) error {
		if off/blockBytes > math.MaxUint32 {
			return corrupt(w.path, off, faultf("a smaller offset", "a segment beyond all limits"))
		}
		s.blocks = append(s.blocks, uint32(off/blockBytes))
		if each != nil {
			each(r)
		}
		return s.note(r, off)
	})
	s.last, s.after, s.end = end.number, end.chain, end.off
	return s, end, bad, err
}

// note takes the streams of a record into the segment's table.
func (s *segment) note(r record, off int64) error {
	view, err := journal.DecodeBody(r.body)
	if err == nil {
		err = view.Streams(func(st journal.Stream, writes uint64) { s.ends.touch(st, r.number, writes) })
	}
	if err != nil {
		return fmt.Errorf("%s at offset %d: commit %d has its checksum right and cannot be read: %w", s.path, off, r.number, err)
	}
	return nil
}
