package dedup

import (
	"bytes"
	"slices"
)

// recent holds random keys in memory, in the order they came, until a
// checkpoint writes them. Values lie in a few large slabs, so that a million
// of them are one map without pointers to the garbage collector.
type recent struct {
	at    map[key]uint32 // slab<<slabBits | offset
	slabs [][]byte       // { length(3 bytes) value }
	size  int64          // of the slabs
}

const (
	slabBits     = 18 // a slab is 256 KiB, but for a value that needs one of its own
	slabBytes    = 1 << slabBits
	lengthBytes  = 3
	recentPerKey = 46 // of the map, at most, measured (docs/dedup.md)
)

func newRecent() *recent { return &recent{at: make(map[key]uint32)} }

func (r *recent) len() int {
	if r == nil {
		return 0
	}
	return len(r.at)
}

// bytes is the memory that r takes, about.
func (r *recent) bytes() int64 {
	if r == nil {
		return 0
	}
	return int64(len(r.at))*recentPerKey + r.size
}

// fileBytes is about what r will take in a file.
func (r *recent) fileBytes() int64 {
	if r == nil {
		return 0
	}
	return int64(len(r.at))*int64(len(key{})) + r.size
}

// get gives the value of a key, which never changes; nil when it is not there.
func (r *recent) get(k *key) []byte {
	if r == nil {
		return nil
	}
	at, ok := r.at[*k]
	if !ok {
		return nil
	}
	return r.value(at)
}

func (r *recent) value(at uint32) []byte {
	b := r.slabs[at>>slabBits][at&(slabBytes-1):]
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	return b[lengthBytes : lengthBytes+n]
}

func (r *recent) put(k *key, rec *Record) {
	var buf [256]byte
	value := appendValue(buf[:0], rec)
	need := lengthBytes + len(value)
	last := len(r.slabs) - 1
	if last < 0 || len(r.slabs[last])+need > slabBytes {
		r.slabs = append(r.slabs, make([]byte, 0, max(slabBytes, need)))
		last++
	}
	slab := r.slabs[last]
	r.at[*k] = uint32(last)<<slabBits | uint32(len(slab))
	slab = append(slab, byte(len(value)>>16), byte(len(value)>>8), byte(len(value)))
	r.slabs[last] = append(slab, value...)
	r.size += int64(need)
}

// sortedKeys gives the keys in the order of a sorted file.
func (r *recent) sortedKeys() []key {
	keys := make([]key, 0, len(r.at))
	for k := range r.at {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return bytes.Compare(a[:], b[:]) })
	return keys
}
