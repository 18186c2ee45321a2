package sluice

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"math/bits"
)

// Receipt says which commit, streams and keys to look at to learn what became
// of a write (R1). Clients see it as opaque text.
//
// Layout before base64url without padding, integers big-endian so that
// PostgreSQL's get_byte can read it: version 1 (1 byte), journal (8), commit
// (8), number of groups (1), then for each group its id (4), n (1) and n
// partitions (1 each), or n = 0 and a bitmap of 32 bytes; number of keys (1),
// then 8 bytes for each key's hash.
type Receipt struct {
	Journal uint64 // first 8 bytes of the journal's id
	Commit  uint64
	Groups  []ReceiptGroup
	Keys    []uint64 // KeyHash of each key when there were at most ReceiptKeysMax, else nil
}

// ReceiptGroup names the streams of one group.
type ReceiptGroup struct {
	Group      GroupID
	Partitions PartitionSet
}

// ReceiptKeysMax is the most keys a receipt names one by one.
const ReceiptKeysMax = 16

const receiptVersion = 1

// PartitionSet is a set of partitions.
type PartitionSet [Partitions / 64]uint64

// AllPartitions holds every partition.
var AllPartitions = PartitionSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}

// Add puts p into the set.
func (s *PartitionSet) Add(p uint8) { s[p>>6] |= 1 << (p & 63) }

// Remove takes p out of the set.
func (s *PartitionSet) Remove(p uint8) { s[p>>6] &^= 1 << (p & 63) }

// Has tells whether p is in the set.
func (s *PartitionSet) Has(p uint8) bool { return s[p>>6]&(1<<(p&63)) != 0 }

// Len counts the set.
func (s *PartitionSet) Len() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// List gives the set's partitions in order.
func (s *PartitionSet) List() []uint8 {
	out := make([]uint8, 0, s.Len())
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			out = append(out, uint8(i*64+bits.TrailingZeros64(w)))
		}
	}
	return out
}

// KeyHash is how a receipt and a store name a key of a group in 8 bytes.
func KeyHash(group GroupID, key []byte) uint64 {
	h := fnv.New64a()
	var g [4]byte
	binary.BigEndian.PutUint32(g[:], uint32(group))
	h.Write(g[:])
	h.Write(key)
	return h.Sum64()
}

// String encodes the receipt.
func (r *Receipt) String() string {
	b := make([]byte, 0, 64)
	b = append(b, receiptVersion)
	b = binary.BigEndian.AppendUint64(b, r.Journal)
	b = binary.BigEndian.AppendUint64(b, r.Commit)
	b = append(b, byte(len(r.Groups)))
	for _, g := range r.Groups {
		b = binary.BigEndian.AppendUint32(b, uint32(g.Group))
		if list := g.Partitions.List(); len(list) < 32 {
			b = append(b, byte(len(list)))
			b = append(b, list...)
			continue
		}
		b = append(b, 0)
		for p := range Partitions / 8 {
			b = append(b, byte(g.Partitions[p/8]>>(8*(p%8))))
		}
	}
	b = append(b, byte(len(r.Keys)))
	for _, k := range r.Keys {
		b = binary.BigEndian.AppendUint64(b, k)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseReceipt decodes a receipt; the error is an Error with code Invalid.
func ParseReceipt(text string) (*Receipt, error) {
	bad := func(what string) (*Receipt, error) {
		return nil, Errorf(Invalid, "bad_receipt", "receipt %.40q: %s; use it as it was answered", text, what)
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < 19 {
		return bad("not a receipt")
	}
	if b[0] != receiptVersion {
		return bad("made by another version of Sluice")
	}
	r := &Receipt{Journal: binary.BigEndian.Uint64(b[1:]), Commit: binary.BigEndian.Uint64(b[9:])}
	groups := int(b[17])
	b = b[18:]
	for range groups {
		if len(b) < 5 {
			return bad("cut short")
		}
		g := ReceiptGroup{Group: GroupID(binary.BigEndian.Uint32(b))}
		n := int(b[4])
		b = b[5:]
		switch {
		case n == 0 && len(b) >= Partitions/8:
			for i, x := range b[:Partitions/8] {
				g.Partitions[i/8] |= uint64(x) << (8 * (i % 8))
			}
			b = b[Partitions/8:]
		case n > 0 && len(b) >= n:
			for _, p := range b[:n] {
				g.Partitions.Add(p)
			}
			b = b[n:]
		default:
			return bad("cut short")
		}
		r.Groups = append(r.Groups, g)
	}
	if len(b) < 1 || len(b) != 1+8*int(b[0]) {
		return bad("cut short")
	}
	for b = b[1:]; len(b) > 0; b = b[8:] {
		r.Keys = append(r.Keys, binary.BigEndian.Uint64(b))
	}
	return r, nil
}
