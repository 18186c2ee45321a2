package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/vfs"
)

const (
	segmentMagic    = "SLUICESG"
	segmentSuffix   = ".seg"
	indexSuffix     = ".idx"
	segmentSumAt    = 72
	segmentSumBytes = segmentSumAt + 8
)

// segment is one file of commits. What changes is guarded by Journal.mu.
type segment struct {
	first   uint64
	before  uint64 // chain of the commit before first
	last    uint64 // first-1 while it is empty
	after   uint64 // chain of last
	path    string
	bytes   int64
	blocks  []uint32 // block where each commit starts, from first on
	end     int64    // offset behind the last commit
	sealed  int64    // unix seconds; 0 while it is open
	streams map[journal.Stream]uint64
	// ends is what the index file will say of the streams; nil once it stands.
	ends *streamTable

	files sync.Mutex
	file  vfs.File // opened by the first reader
	gone  bool     // removed: do not open again
}

// segmentHeader is the first block of a segment.
type segmentHeader struct {
	key
	first   uint64
	before  uint64
	created time.Time
	bytes   int64
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

func indexName(first uint64) string { return fmt.Sprintf("%020d%s", first, indexSuffix) }

// segmentFirst reads the first commit number out of a file's name.
func segmentFirst(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, blockBytes)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], Format)
	binary.LittleEndian.PutUint32(b[12:], blockBytes)
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], h.salt)
	binary.LittleEndian.PutUint64(b[40:], h.first)
	binary.LittleEndian.PutUint64(b[48:], h.before)
	binary.LittleEndian.PutUint64(b[56:], uint64(h.created.UnixNano()))
	binary.LittleEndian.PutUint64(b[64:], uint64(h.bytes))
	binary.LittleEndian.PutUint64(b[segmentSumAt:], xxhash.Sum64(b[:segmentSumAt]))
	return b
}

// decodeSegmentHeader tells damage from a format of the future: the checksum
// stands at the same place in every format.
func decodeSegmentHeader(b []byte) (segmentHeader, *fault, error) {
	var h segmentHeader
	const want = "the header of a segment"
	if len(b) < segmentSumBytes {
		return h, faultf(want, "%d bytes", len(b)), nil
	}
	if string(b[:8]) != segmentMagic {
		return h, faultf(want, "bytes %x", b[:8]), nil
	}
	if sum, stands := xxhash.Sum64(b[:segmentSumAt]), binary.LittleEndian.Uint64(b[segmentSumAt:]); sum != stands {
		return h, faultf(fmt.Sprintf("checksum %016x", stands), "checksum %016x over the header", sum), nil
	}
	if f := binary.LittleEndian.Uint32(b[8:]); f > Format {
		return h, nil, newerFormat("segment", f)
	}
	if n := binary.LittleEndian.Uint32(b[12:]); n != blockBytes {
		return h, faultf(fmt.Sprintf("blocks of %d bytes", blockBytes), "blocks of %d bytes", n), nil
	}
	copy(h.id[:], b[16:])
	h.salt = binary.LittleEndian.Uint64(b[32:])
	h.first = binary.LittleEndian.Uint64(b[40:])
	h.before = binary.LittleEndian.Uint64(b[48:])
	h.created = time.Unix(0, int64(binary.LittleEndian.Uint64(b[56:])))
	h.bytes = int64(binary.LittleEndian.Uint64(b[64:]))
	return h, nil, nil
}

// newerFormat refuses what a later version wrote.
func newerFormat(what string, format uint32) error {
	return fmt.Errorf("this %s has format %d and this build of Sluice reads formats up to %d: start the newer Sluice that wrote it", what, format, Format)
}

// readSegmentHeader reads and checks the first block of a segment file.
func readSegmentHeader(f vfs.File, k key, first uint64) (segmentHeader, *fault, error) {
	b := make([]byte, segmentSumBytes)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return segmentHeader{}, nil, err
	}
	h, bad, err := decodeSegmentHeader(b[:n])
	switch {
	case bad != nil || err != nil:
		return h, bad, err
	case h.key != k:
		return h, faultf(fmt.Sprintf("journal %x", k.id), "journal %x", h.id), nil
	case h.first != first:
		return h, faultf(fmt.Sprintf("first commit %d", first), "first commit %d", h.first), nil
	}
	return h, nil, nil
}

// bounds gives where commit n stands. The caller holds Journal.mu.
func (s *segment) bounds(n uint64) (off, end int64) {
	i := int(n - s.first)
	off, end = int64(s.blocks[i])*blockBytes, s.end
	if i+1 < len(s.blocks) {
		end = int64(s.blocks[i+1]) * blockBytes
	}
	return off, end
}

// open gives the file for reading; one descriptor serves all readers. It
// answers errGone after drop.
func (s *segment) open(fsys vfs.FS) (vfs.File, error) {
	s.files.Lock()
	defer s.files.Unlock()
	if s.gone {
		return nil, errGone
	}
	if s.file == nil {
		f, err := fsys.Open(s.path)
		if err != nil {
			return nil, err
		}
		s.file = f
	}
	return s.file, nil
}

const errGone = vfs.Error("segment was removed")

// drop closes the file; a reader in the middle of it gets an error and asks again.
func (s *segment) drop() error {
	s.files.Lock()
	defer s.files.Unlock()
	s.gone = true
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

func (j *Journal) path(name string) string { return filepath.Join(j.opts.Dir, name) }
