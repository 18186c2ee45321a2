package dedup

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sluice.dev/sluice"
)

// The format of a record, in the identity lists of commits and, without its
// identity, in the files of this package. All integers but the hashes are
// uvarints.
//
//	record   = version(1 byte, 1) identity answer
//	identity = 0 key-length key chunk format(1 byte)              a random key
//	         | 1 producer number lowest format(1 byte)            a producer
//	answer   = hash(16 bytes) commit groups keys outcomes
//	groups   = count { id n(1 byte) n*partition(1 byte) | id 0 bitmap(32 bytes) }
//	keys     = count { hash(8 bytes, little-endian) }
//	outcomes = reasons { lines reason(1 byte) bitmap(lines/8 bytes, rounded up) }
//
// outcomes holds one bitmap of lines for each reason that occurs; a line that
// is in none was accepted. All bitmaps of a record have the same lines.
const recordVersion = 1

const (
	identityKey      = 0
	identityProducer = 1
	linesMax         = 1 << 20 // far above ChunkLinesMax: bounds what a damaged record can ask for
)

// ErrNewerFormat answers a record or file written by a newer Sluice.
var ErrNewerFormat = errors.New("dedup: written in a newer format than this Sluice reads; start the newer Sluice again")

var errRecord = errors.New("dedup: record is damaged")

// AppendRecord appends the record as a commit keeps it.
func AppendRecord(dst []byte, r *Record) []byte {
	id := &r.Identity
	dst = append(dst, recordVersion)
	if id.Producer != 0 {
		dst = append(dst, identityProducer)
		dst = binary.AppendUvarint(dst, id.Producer)
		dst = binary.AppendUvarint(dst, id.Chunk)
		dst = binary.AppendUvarint(dst, id.Lowest)
	} else {
		dst = append(dst, identityKey)
		dst = binary.AppendUvarint(dst, uint64(len(id.Key)))
		dst = append(dst, id.Key...)
		dst = binary.AppendUvarint(dst, id.Chunk)
	}
	dst = append(dst, id.Format)
	return appendAnswer(dst, r)
}

// DecodeRecord reads one record and gives what follows it. The record shares no
// memory with data. Its Receipt has no Journal.
func DecodeRecord(data []byte) (rec Record, rest []byte, err error) {
	d := decoder{data: data}
	if v := d.byte(); v > recordVersion {
		return Record{}, nil, fmt.Errorf("record version %d: %w", v, ErrNewerFormat)
	}
	switch d.byte() {
	case identityProducer:
		rec.Identity.Producer = d.uvarint()
		rec.Identity.Chunk = d.uvarint()
		rec.Identity.Lowest = d.uvarint()
		d.bad = d.bad || rec.Identity.Producer == 0
	case identityKey:
		rec.Identity.Key = string(d.bytes(d.count(sluice.IdentityKeyBytesMax)))
		rec.Identity.Chunk = d.uvarint()
	default:
		d.bad = true
	}
	rec.Identity.Format = d.byte()
	d.answer(&rec)
	if d.bad {
		return Record{}, nil, errRecord
	}
	return rec, d.data, nil
}

func appendAnswer(dst []byte, r *Record) []byte {
	dst = append(dst, r.Hash[:]...)
	dst = binary.AppendUvarint(dst, r.Receipt.Commit)
	dst = binary.AppendUvarint(dst, uint64(len(r.Receipt.Groups)))
	for i := range r.Receipt.Groups {
		g := &r.Receipt.Groups[i]
		dst = binary.AppendUvarint(dst, uint64(g.Group))
		if n := g.Partitions.Len(); n > 0 && n < 32 {
			dst = append(dst, byte(n))
			dst = append(dst, g.Partitions.List()...)
			continue
		}
		dst = append(dst, 0)
		for _, w := range g.Partitions {
			dst = binary.LittleEndian.AppendUint64(dst, w)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Receipt.Keys)))
	for _, k := range r.Receipt.Keys {
		dst = binary.LittleEndian.AppendUint64(dst, k)
	}
	return appendOutcomes(dst, r.Outcomes)
}

func appendOutcomes(dst []byte, outcomes []sluice.Reason) []byte {
	var seen [256]bool
	reasons := 0
	for _, o := range outcomes {
		if o != sluice.Accepted && !seen[o] {
			seen[o] = true
			reasons++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(reasons))
	for reason := 1; reasons > 0; reason++ {
		if !seen[reason] {
			continue
		}
		reasons--
		dst = binary.AppendUvarint(dst, uint64(len(outcomes)))
		dst = append(dst, byte(reason))
		start := len(dst)
		dst = append(dst, make([]byte, (len(outcomes)+7)/8)...)
		for line, o := range outcomes {
			if int(o) == reason {
				dst[start+line/8] |= 1 << (line % 8)
			}
		}
	}
	return dst
}

// decoder reads a record; once something did not fit, bad stays true and every
// answer is zero.
type decoder struct {
	data []byte
	bad  bool
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || n > len(d.data) {
		d.bad = true
		return nil
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.data)
	if d.bad || size <= 0 {
		d.bad = true
		return 0
	}
	d.data = d.data[size:]
	return n
}

func (d *decoder) count(most int) int {
	n := d.uvarint()
	if n > uint64(most) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) answer(r *Record) {
	copy(r.Hash[:], d.bytes(len(r.Hash)))
	r.Receipt.Commit = d.uvarint()
	for range d.count(len(d.data)) {
		if d.bad {
			return
		}
		g := sluice.ReceiptGroup{Group: sluice.GroupID(d.count(1<<32 - 1))}
		if n := int(d.byte()); n > 0 {
			for _, p := range d.bytes(n) {
				g.Partitions.Add(p)
			}
		} else if bitmap := d.bytes(sluice.Partitions / 8); bitmap != nil {
			for i := range g.Partitions {
				g.Partitions[i] = binary.LittleEndian.Uint64(bitmap[8*i:])
			}
		}
		r.Receipt.Groups = append(r.Receipt.Groups, g)
	}
	if n := d.count(len(d.data) / 8); n > 0 {
		keys := d.bytes(8 * n)
		for ; len(keys) >= 8; keys = keys[8:] {
			r.Receipt.Keys = append(r.Receipt.Keys, binary.LittleEndian.Uint64(keys))
		}
	}
	d.outcomes(r)
}

func (d *decoder) outcomes(r *Record) {
	for range d.count(255) {
		lines := d.count(linesMax)
		reason := sluice.Reason(d.byte())
		bitmap := d.bytes((lines + 7) / 8)
		if r.Outcomes == nil && !d.bad {
			r.Outcomes = make([]sluice.Reason, lines)
		}
		if d.bad || lines == 0 || reason == sluice.Accepted || len(r.Outcomes) != lines {
			d.bad = true
			return
		}
		for line := range lines {
			if bitmap[line/8]&(1<<(line%8)) != 0 {
				r.Outcomes[line] = reason
			}
		}
	}
}
