package dedup

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
)

// A sorted file is immutable: blocks of entries in the order of their keys,
// then a filter and an index of the blocks, which are held in memory while the
// file is open, and a footer. Integers are little-endian, checksums CRC-32C.
//
//	file   = magic(8) blocks filter index footer
//	block  = length(4) checksum(4) { key(16) length(uvarint) value }
//	index  = { first key of the block(16) offset(8) }
//	footer = version(4) blocks(4) entries(8) filter offset(8) index offset(8)
//	         checksum of filter and index(4) checksum of the footer before it(4) magic(8)
const (
	sortedMagic   = "sluicedd"
	sortedVersion = 1
	blockBytes    = 4096 // a block ends with the entry that reaches this
	footerBytes   = 48
	indexBytes    = 24
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// key names an entry of a sorted file: the hash of an idempotency key and its
// chunk, or a producer's id.
type key [16]byte

// DamagedError says where a file of the table does not hold what was written.
type DamagedError struct {
	File      string
	Offset    int64
	Got, Want string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("remembered identities are damaged: %s at offset %d: got %s, want %s; restore the file from a copy, or start with the "+
		"folder moved away: retries of what was accepted before then count as new", e.File, e.Offset, e.Got, e.Want)
}

// sortedWriter writes one sorted file. Keys are added in ascending order.
type sortedWriter struct {
	w       *bufio.Writer
	offset  int64
	block   []byte // with room for its head
	first   key
	index   []byte
	filter  filter // nil: the file is only ever read whole
	entries uint64
}

func newSortedWriter(w io.Writer, f filter) (*sortedWriter, error) {
	s := &sortedWriter{w: bufio.NewWriterSize(w, 256<<10), filter: f, block: make([]byte, 8, blockBytes+4096)}
	s.offset = int64(len(sortedMagic))
	_, err := s.w.WriteString(sortedMagic)
	return s, err
}

func (s *sortedWriter) add(k *key, value []byte) error {
	if len(s.block) == 8 {
		s.first = *k
	}
	s.block = append(s.block, k[:]...)
	s.block = binary.AppendUvarint(s.block, uint64(len(value)))
	s.block = append(s.block, value...)
	s.entries++
	if s.filter != nil {
		s.filter.add(k)
	}
	if len(s.block) < blockBytes {
		return nil
	}
	return s.flush()
}

func (s *sortedWriter) flush() error {
	if len(s.block) == 8 {
		return nil
	}
	binary.LittleEndian.PutUint32(s.block, uint32(len(s.block)-8))
	binary.LittleEndian.PutUint32(s.block[4:], crc32.Checksum(s.block[8:], castagnoli))
	s.index = append(s.index, s.first[:]...)
	s.index = binary.LittleEndian.AppendUint64(s.index, uint64(s.offset))
	s.offset += int64(len(s.block))
	_, err := s.w.Write(s.block)
	s.block = s.block[:8]
	return err
}

// finish writes what is left and gives the size of the file, which is not yet synced.
func (s *sortedWriter) finish() (int64, error) {
	if err := s.flush(); err != nil {
		return 0, err
	}
	sum := crc32.Update(crc32.Checksum(s.filter, castagnoli), castagnoli, s.index)
	foot := binary.LittleEndian.AppendUint32(nil, sortedVersion)
	foot = binary.LittleEndian.AppendUint32(foot, uint32(len(s.index)/indexBytes))
	foot = binary.LittleEndian.AppendUint64(foot, s.entries)
	foot = binary.LittleEndian.AppendUint64(foot, uint64(s.offset))
	foot = binary.LittleEndian.AppendUint64(foot, uint64(s.offset)+uint64(len(s.filter)))
	foot = binary.LittleEndian.AppendUint32(foot, sum)
	foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(foot, castagnoli))
	foot = append(foot, sortedMagic...)
	for _, part := range [][]byte{s.filter, s.index, foot} {
		if _, err := s.w.Write(part); err != nil {
			return 0, err
		}
	}
	return s.offset + int64(len(s.filter)+len(s.index)+len(foot)), s.w.Flush()
}

// sorted reads one sorted file. It is safe for concurrent use.
type sorted struct {
	name    string
	r       io.ReaderAt
	filter  filter
	index   []byte
	blocks  int
	entries uint64
	end     int64 // of the blocks
}

func openSorted(name string, r io.ReaderAt, size int64) (*sorted, error) {
	s := &sorted{name: name, r: r}
	at := size - footerBytes
	if at < int64(len(sortedMagic)) {
		return nil, s.damaged(0, fmt.Sprintf("%d bytes", size), "a whole file")
	}
	foot := make([]byte, footerBytes)
	if _, err := r.ReadAt(foot, at); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if magic := foot[40:]; string(magic) != sortedMagic {
		return nil, s.damaged(at+40, fmt.Sprintf("%q", magic), fmt.Sprintf("%q", sortedMagic))
	}
	if got, want := crc32.Checksum(foot[:36], castagnoli), binary.LittleEndian.Uint32(foot[36:]); got != want {
		return nil, s.damaged(at, hex32(got), hex32(want))
	}
	if v := binary.LittleEndian.Uint32(foot); v > sortedVersion {
		return nil, fmt.Errorf("%s has version %d: %w", name, v, ErrNewerFormat)
	}
	s.blocks = int(binary.LittleEndian.Uint32(foot[4:]))
	s.entries = binary.LittleEndian.Uint64(foot[8:])
	s.end = int64(binary.LittleEndian.Uint64(foot[16:]))
	indexAt := int64(binary.LittleEndian.Uint64(foot[24:]))
	if s.end > indexAt || indexAt+int64(s.blocks)*indexBytes != at {
		return nil, s.damaged(at+16, fmt.Sprintf("filter at %d, index at %d", s.end, indexAt), "offsets within the file")
	}
	tail := make([]byte, at-s.end)
	if _, err := r.ReadAt(tail, s.end); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if got, want := crc32.Checksum(tail, castagnoli), binary.LittleEndian.Uint32(foot[32:]); got != want {
		return nil, s.damaged(s.end, hex32(got), hex32(want))
	}
	s.filter, s.index = filter(tail[:indexAt-s.end]), tail[indexAt-s.end:]
	return s, nil
}

func hex32(n uint32) string { return fmt.Sprintf("checksum %08x", n) }

func (s *sorted) damaged(offset int64, got, want string) error {
	return &DamagedError{File: s.name, Offset: offset, Got: got, Want: want}
}

// get finds a key. The value is the caller's to keep.
func (s *sorted) get(k *key) ([]byte, bool, error) {
	if len(s.filter) > 0 && !s.filter.mayHave(k) {
		return nil, false, nil
	}
	n := sort.Search(s.blocks, func(i int) bool { return bytes.Compare(s.firstKey(i), k[:]) > 0 })
	if n == 0 {
		return nil, false, nil
	}
	block, err := s.block(n - 1)
	if err != nil {
		return nil, false, err
	}
	for len(block) > 0 {
		var at key
		var value []byte
		if at, value, block, err = s.entry(n-1, block); err != nil {
			return nil, false, err
		}
		if at == *k {
			return value, true, nil
		}
	}
	return nil, false, nil
}

func (s *sorted) firstKey(i int) []byte { return s.index[i*indexBytes:][:16] }

func (s *sorted) offset(i int) int64 {
	if i == s.blocks {
		return s.end
	}
	return int64(binary.LittleEndian.Uint64(s.index[i*indexBytes+16:]))
}

// block reads and checks block i. Blocks are not cached: a lookup that passes
// the filter is a retry, and those are rare.
func (s *sorted) block(i int) ([]byte, error) {
	at, end := s.offset(i), s.offset(i+1)
	if at < int64(len(sortedMagic)) || end < at+8 || end > s.end {
		return nil, s.damaged(at, fmt.Sprintf("a block from %d to %d", at, end), "a block within the file")
	}
	buf := make([]byte, end-at)
	if _, err := s.r.ReadAt(buf, at); err != nil {
		return nil, fmt.Errorf("read %s at %d: %w", s.name, at, err)
	}
	if n := binary.LittleEndian.Uint32(buf); int(n) != len(buf)-8 {
		return nil, s.damaged(at, fmt.Sprintf("a block of %d bytes", n), fmt.Sprintf("%d bytes", len(buf)-8))
	}
	if got, want := crc32.Checksum(buf[8:], castagnoli), binary.LittleEndian.Uint32(buf[4:]); got != want {
		return nil, s.damaged(at, hex32(got), hex32(want))
	}
	return buf[8:], nil
}

func (s *sorted) entry(i int, block []byte) (k key, value, rest []byte, err error) {
	if len(block) >= len(k) {
		copy(k[:], block)
		n, size := binary.Uvarint(block[len(k):])
		head := len(k) + size
		if size > 0 && n <= uint64(len(block)-head) {
			return k, block[head : head+int(n)], block[head+int(n):], nil
		}
	}
	return k, nil, nil, s.damaged(s.offset(i), "an entry that does not end", "whole entries")
}

// walk goes through a file in the order of its keys.
type walk struct {
	file  *sorted
	next  int    // block to read
	block []byte // what is left of the one before
	key   key
	value []byte
}

// step goes to the next entry; false after the last.
func (w *walk) step() (bool, error) {
	for len(w.block) == 0 {
		if w.next == w.file.blocks {
			return false, nil
		}
		var err error
		if w.block, err = w.file.block(w.next); err != nil {
			return false, err
		}
		w.next++
	}
	var err error
	w.key, w.value, w.block, err = w.file.entry(w.next-1, w.block)
	return err == nil, err
}
