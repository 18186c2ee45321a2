package disk

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
)

// Sizes and marks fixed by format 1 (docs/journal-format.md has the pictures).
const (
	// Format is the newest format of a journal that this build writes and reads.
	Format = 1

	// blockBytes is what records are padded to. A commit never shares a block
	// with another, so writing one never puts an acknowledged one at risk, and
	// the page cache never has to read a block before it can be written.
	blockBytes = 4096

	recordHeaderBytes = 64
	chainAt           = 56 // the checksum stands last, over all before it and the body
	recordMagic       = "SLcm"
)

// key is what ties records to one journal. The salt is secret: nothing that a
// client sends can look like a record, wherever in a file it comes to lie.
type key struct {
	id   [16]byte
	salt uint64
}

// record is one commit as it stands in a file.
type record struct {
	number uint64
	time   int64  // when it was written, unix nanoseconds
	prev   uint64 // chain of the commit before
	chain  uint64
	body   []byte
}

// fault says what stands where a record, a header or a file should stand.
type fault struct {
	got, want string
}

func faultf(want, got string, args ...any) *fault {
	return &fault{got: fmt.Sprintf(got, args...), want: want}
}

// recordBytes is what a body of n bytes takes in a segment.
func recordBytes(n int) int {
	return (recordHeaderBytes + n + blockBytes - 1) / blockBytes * blockBytes
}

// encode writes a record into buf, zeros up to the next block behind it, and
// returns the filled part. It sets r.chain.
func (k *key) encode(buf []byte, r *record) []byte {
	buf = buf[:recordBytes(len(r.body))]
	copy(buf, recordMagic)
	binary.LittleEndian.PutUint16(buf[4:], Format)
	binary.LittleEndian.PutUint16(buf[6:], 0)
	copy(buf[8:], k.id[:])
	binary.LittleEndian.PutUint64(buf[24:], r.number)
	binary.LittleEndian.PutUint64(buf[32:], uint64(r.time))
	binary.LittleEndian.PutUint64(buf[40:], r.prev)
	binary.LittleEndian.PutUint32(buf[48:], uint32(len(r.body)))
	binary.LittleEndian.PutUint32(buf[52:], 0)
	r.chain = k.checksum(buf[:chainAt], r.body)
	binary.LittleEndian.PutUint64(buf[chainAt:], r.chain)
	n := recordHeaderBytes + copy(buf[recordHeaderBytes:], r.body)
	clear(buf[n:])
	return buf
}

func (k *key) checksum(header, body []byte) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(k.salt)
	d.Write(header)
	d.Write(body)
	return d.Sum64()
}

// header reads a record's header; how long the body is, is not yet proved.
func (k *key) header(b []byte) (r record, bodyBytes int, bad *fault) {
	const want = "the header of a commit"
	switch {
	case len(b) < recordHeaderBytes:
		return r, 0, faultf(want, "%d bytes", len(b))
	case string(b[:4]) != recordMagic:
		return r, 0, faultf(want, "bytes %x", b[:4])
	case binary.LittleEndian.Uint16(b[4:]) > Format:
		return r, 0, faultf(fmt.Sprintf("format up to %d", Format), "format %d", binary.LittleEndian.Uint16(b[4:]))
	case string(b[8:24]) != string(k.id[:]):
		return r, 0, faultf(fmt.Sprintf("journal %x", k.id), "journal %x", b[8:24])
	}
	r.number = binary.LittleEndian.Uint64(b[24:])
	r.time = int64(binary.LittleEndian.Uint64(b[32:]))
	r.prev = binary.LittleEndian.Uint64(b[40:])
	r.chain = binary.LittleEndian.Uint64(b[chainAt:])
	n := binary.LittleEndian.Uint32(b[48:])
	if n > math.MaxInt32 {
		return r, 0, faultf("a body", "a body of %d bytes", n)
	}
	return r, int(n), nil
}

// verify completes a record from its header and the bytes that follow.
func (k *key) verify(r *record, header, body []byte) *fault {
	if sum := k.checksum(header[:chainAt], body); sum != r.chain {
		return faultf(fmt.Sprintf("checksum %016x", r.chain), "checksum %016x over commit %d", sum, r.number)
	}
	r.body = body
	return nil
}

// continues says whether r is commit number with the chain before it.
func (r *record) continues(number, prev uint64) *fault {
	if r.number != number || r.prev != prev {
		return faultf(fmt.Sprintf("commit %d after chain %016x", number, prev), "commit %d after chain %016x", r.number, r.prev)
	}
	return nil
}
