package disk

import (
	"encoding/binary"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
)

// decoder takes fixed-width integers off the front of a saved file; after the
// first fault it is bad and answers zeros. The files carry a checksum, so bad
// means a bug or a hand at work, not a bit.
type decoder struct {
	data []byte
	bad  bool
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || n < 0 || n > len(d.data) {
		d.bad = true
		return make([]byte, min(max(n, 0), 8))
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) u8() byte    { return d.bytes(1)[0] }
func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.bytes(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.bytes(8)) }

// count is a number of things that take at least size bytes each.
func (d *decoder) count(size int) int {
	n := int(d.u32())
	if n > len(d.data)/size {
		d.bad = true
		return 0
	}
	return n
}

func (d *decoder) stream() journal.Stream {
	return journal.Stream{Group: sluice.GroupID(d.u32()), Partition: d.u8()}
}

func (d *decoder) text() string { return string(d.bytes(d.count(1))) }

func appendU32(b []byte, n uint32) []byte { return binary.LittleEndian.AppendUint32(b, n) }
func appendU64(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

func appendText(b []byte, s string) []byte { return append(appendU32(b, uint32(len(s))), s...) }

func appendStream(b []byte, s journal.Stream) []byte {
	return append(appendU32(b, uint32(s.Group)), s.Partition)
}
