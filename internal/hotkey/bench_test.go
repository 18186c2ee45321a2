package hotkey

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// BenchmarkAdd is the cost of one entry at a million a second. Events are one
// entry a write, so this is the cost of a write at worst; folded writes share it.
func BenchmarkAdd(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(rnd, 1.1, 1, 1e6)
	for name, next := range map[string]func(i int) (uint64, uint32){
		"one key":           func(int) (uint64, uint32) { return 1, 1 },
		"zipf 1.1":          func(int) (uint64, uint32) { return zipf.Uint64(), 1 },
		"uniform":           func(int) (uint64, uint32) { return rnd.Uint64N(1e6), 1 },
		"all new":           func(i int) (uint64, uint32) { return uint64(i), 1 },
		"all new, weighted": func(i int) (uint64, uint32) { return uint64(i), uint32(1 << rnd.IntN(16)) },
	} {
		b.Run(name, func(b *testing.B) {
			const n, commit = 1 << 18, 256 // distinct entries, entries of a commit
			keys, weights := make([]byte, 8*n), make([]uint32, n)
			for i := range n {
				key, w := next(i)
				binary.BigEndian.PutUint64(keys[8*i:], key)
				weights[i] = w
			}
			track := New()
			b.ReportAllocs()
			b.ResetTimer()
			for from := 0; from < b.N; from += commit {
				batch := track.Begin(int64(from))
				for i := from; i < min(from+commit, b.N); i++ {
					at := i % n
					batch.Add(theGroup, keys[8*at:8*at+8], weights[at])
				}
				batch.End()
			}
		})
	}
}
