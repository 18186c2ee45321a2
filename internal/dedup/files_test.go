package dedup

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/vfs"
)

func TestFilterFindsAllAndFewOthers(t *testing.T) {
	const n = 50_000
	f := newFilter(n)
	k := func(i int) key { return hashKey(&sluice.Identity{Key: fmt.Sprint(i)}) }
	for i := range n {
		at := k(i)
		f.add(&at)
	}
	others := 0
	for i := range n {
		in, out := k(i), k(n+i)
		if !f.mayHave(&in) {
			t.Fatalf("key %d was added and is not found", i)
		}
		if f.mayHave(&out) {
			others++
		}
	}
	if others > n/80 {
		t.Fatalf("%d of %d absent keys pass", others, n)
	}
}

func TestMergeRun(t *testing.T) {
	files := func(pairs ...int) (out []*file) { // bytes, hour of the newest key
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, &file{fileInfo: fileInfo{Bytes: int64(pairs[i]), Newest: time.Duration(pairs[i+1]) * time.Hour}})
		}
		return out
	}
	for _, c := range []struct {
		name     string
		files    []*file
		from, to int
	}{
		{"nothing", nil, 0, 0},
		{"three alike stay", files(5, 2, 5, 2, 5, 1), 0, 0},
		{"four alike become one", files(5, 2, 5, 2, 5, 1, 5, 1), 0, 4},
		{"a much larger one stays apart", files(5, 2, 5, 2, 5, 2, 5, 2, 500, 0), 0, 4},
		{"a run behind a small one", files(1, 2, 50, 2, 50, 2, 50, 2, 50, 2), 1, 5},
		{"a part that is over becomes one", files(5, 4, 5, 2, 5, 1), 1, 3},
		{"whatever the sizes", files(5, 4, 5, 2, 5000, 1), 1, 3},
		{"one file of an older part stays", files(5, 4, 5, 2), 0, 0},
		{"parts never merge with each other", files(5, 10, 5, 7, 5, 4, 5, 1), 0, 0},
	} {
		if from, to := mergeRun(c.files, 3*time.Hour); from != c.from || to != c.to {
			t.Errorf("%s: %d to %d, want %d to %d", c.name, from, to, c.from, c.to)
		}
	}
}

func TestFilesStayFew(t *testing.T) {
	table := openTable(t, Options{FS: vfs.NewMem(1), Window: 24 * time.Hour})
	most, keys := 0, 0
	for i := range 500 { // one checkpoint every ten minutes for three and a half days
		for range 1 + i%7 {
			accept(t, table, keyID(fmt.Sprint(keys), 0), "body", uint64(i+1))
			keys++
		}
		table.Advance(time.Duration(i) * 10 * time.Minute)
		checkpoint(t, table, uint64(i+1))
		most = max(most, table.Stats().Files)
	}
	if most > 25 {
		t.Fatalf("up to %d files", most)
	}
	s := table.Stats()
	if perDay := uint64(4 * 6 * 24); s.Keys < perDay || s.Keys > perDay*5/4 {
		t.Fatalf("%d keys are remembered, want those of a day, about %d", s.Keys, perDay)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var data []byte
	var want []Record
	for i := range 200 {
		id := keyID(string(make([]byte, i)), uint64(i))
		if i%2 == 0 {
			id = producerID(uint64(i+1), rng.Uint64(), rng.Uint64())
		}
		rec := recordOf(id, "body", rng.Uint64())
		rec.Receipt.Journal = 0 // a record does not hold it
		rec.Receipt.Groups = nil
		for range rng.IntN(4) {
			g := sluice.ReceiptGroup{Group: sluice.GroupID(rng.Uint32()), Partitions: sluice.AllPartitions}
			if rng.IntN(2) == 0 {
				g.Partitions = sluice.PartitionSet{rng.Uint64() & rng.Uint64(), 1}
			}
			rec.Receipt.Groups = append(rec.Receipt.Groups, g)
		}
		if lines := rng.IntN(50); lines > 0 {
			rec.Outcomes = make([]sluice.Reason, lines)
			rec.Outcomes[lines-1] = sluice.BadLine
			rec.Outcomes[rng.IntN(lines)] = sluice.IdempotencyMax
		}
		want = append(want, *rec)
		data = AppendRecord(data, rec)
	}
	for i := range want {
		got, rest, err := DecodeRecord(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Fatalf("record %d (-want +got):\n%s", i, diff)
		}
		data = rest
	}
}

func FuzzDecodeRecord(f *testing.F) {
	rec := recordOf(keyID("key", 3), "body", 7)
	rec.Outcomes = []sluice.Reason{0, 1, 2}
	f.Add(AppendRecord(nil, rec))
	f.Add(AppendRecord(nil, recordOf(producerID(1, 2, 1), "body", 7)))
	f.Add([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, _, err := DecodeRecord(data)
		if err != nil {
			return
		}
		once := AppendRecord(nil, &rec)
		again, rest, err := DecodeRecord(once)
		if err != nil || len(rest) != 0 {
			t.Fatalf("decoded once, not twice: %v, %d bytes left", err, len(rest))
		}
		if twice := AppendRecord(nil, &again); !bytes.Equal(once, twice) {
			t.Fatalf("encoded as %x, then as %x", once, twice)
		}
	})
}

// benchKey gives distinct keys of 36 bytes, as UUIDs are.
func benchKey(dst *[36]byte, i int) string {
	copy(dst[:], "00000000-0000-4000-8000-000000000000")
	binary.LittleEndian.PutUint64(dst[28:], uint64(i))
	return string(dst[:])
}

// BenchmarkBegin is the cost of one new key: Begin and Done. It reports what a
// key takes on disk and, of the filters and indexes, in memory.
func BenchmarkBegin(b *testing.B) {
	for _, stored := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("stored=%d", stored), func(b *testing.B) {
			table := openTable(b, Options{RecentBytesMax: 1 << 30})
			var buf [36]byte
			put := func(i int) {
				id := keyID(benchKey(&buf, i), 0)
				if v, err := table.Begin(id, hashOf("x")); err != nil || v.Kind != New {
					b.Fatal(v.Kind, err)
				}
				table.Done(recordOf(id, "x", uint64(1_000_000+i)))
			}
			for i := range stored {
				put(i)
				if i%100_000 == 99_999 {
					checkpoint(b, table, 1)
				}
			}
			if s := table.Stats(); s.Keys > 0 {
				b.Logf("%d files, %.1f disk bytes/key, %.2f memory bytes/key", s.Files, float64(s.Bytes)/float64(s.Keys), float64(s.MemoryBytes)/float64(s.Keys))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				put(stored + i)
			}
		})
	}
}

func BenchmarkDuplicate(b *testing.B) {
	table := openTable(b, Options{})
	var buf [36]byte
	for i := range 100_000 {
		accept(b, table, keyID(benchKey(&buf, i), 0), "x", 1)
	}
	for _, where := range []string{"memory", "file"} {
		b.Run(where, func(b *testing.B) {
			for i := range b.N {
				begin(b, table, keyID(benchKey(&buf, i%100_000), 0), "x", Duplicate)
			}
		})
		checkpoint(b, table, 1)
	}
}
