package dedup

import (
	"encoding/binary"
	"math/bits"
)

// filter is a blocked Bloom filter: all bits of one key lie in one cache line,
// so that a key which is not in a file, the common case, costs one miss of the
// cache and no read of the disk. The keys are cryptographic hashes already, so
// the filter takes its bits from them as they are.
type filter []byte

const (
	filterBlockBytes = 64
	filterBitsPerKey = 12 // one in about 240 lookups of an absent key reads the file in vain
	filterProbes     = 7  // 9 bits of the hash each, so at most 7
)

func newFilter(keys int) filter {
	blocks := (keys*filterBitsPerKey + 8*filterBlockBytes - 1) / (8 * filterBlockBytes)
	return make(filter, max(blocks, 1)*filterBlockBytes)
}

func (f filter) add(key *key) {
	block, probes := f.locate(key)
	for range filterProbes {
		block[probes>>3&63] |= 1 << (probes & 7)
		probes >>= 9
	}
}

func (f filter) mayHave(key *key) bool {
	block, probes := f.locate(key)
	for range filterProbes {
		if block[probes>>3&63]&(1<<(probes&7)) == 0 {
			return false
		}
		probes >>= 9
	}
	return true
}

func (f filter) locate(key *key) (block []byte, probes uint64) {
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(key[:8]), uint64(len(f)/filterBlockBytes))
	return f[hi*filterBlockBytes:][:filterBlockBytes], binary.LittleEndian.Uint64(key[8:])
}
