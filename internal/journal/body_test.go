package journal_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
)

// sortedEntries makes random entries in the order in which an Encoder takes them.
func sortedEntries(r *rand.Rand) []sluice.Entry {
	kinds := []sluice.Kind{sluice.Null, sluice.Int64, sluice.Float64, sluice.Decimal, sluice.Bool, sluice.Timestamp, sluice.Date,
		sluice.Text, sluice.UUID, sluice.JSON, sluice.Bytes, sluice.TextArray, sluice.Native, sluice.Hashes, sluice.Sketch}
	var out []sluice.Entry
	for range r.IntN(60) {
		e := sluice.Entry{Group: sluice.GroupID(1 + r.IntN(3)), Slot: uint16(r.IntN(sluice.Slots)), Key: []byte{byte(r.IntN(9)), 0, 255},
			Reset: r.IntN(5) == 0, Writes: uint32(1 + r.IntN(3)), Cells: []sluice.Cell{}}
		if r.IntN(7) == 0 {
			e.Replay, e.Writes = 1+r.Uint64N(1<<60), 0
		}
		for c := range r.IntN(4) {
			v := sluice.Value{Kind: kinds[r.IntN(len(kinds))]}
			switch v.Kind {
			case sluice.Null:
			case sluice.Int64, sluice.Timestamp, sluice.Date, sluice.Float64:
				v.Num = int64(r.Uint64())
			case sluice.Bool:
				v.Num = int64(r.IntN(2))
			default:
				v.Bytes = bytes.Repeat([]byte{byte(r.IntN(256))}, r.IntN(20))
			}
			e.Cells = append(e.Cells, sluice.Cell{Column: sluice.ColumnID(c), Value: v})
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b sluice.Entry) int {
		return (int(a.Group)-int(b.Group))*1000 + int(a.Partition()) - int(b.Partition())
	})
	return out
}

func encode(h journal.Header, entries []sluice.Entry, cumulate func(journal.Stream, uint64) uint64) []byte {
	enc := journal.Encoder{Cumulate: cumulate}
	enc.Begin(h)
	for i := range entries {
		enc.Entry(&entries[i])
	}
	return enc.Finish()
}

func TestJ1_BodyGivesBackWhatWasEncoded(t *testing.T) {
	for seed := range uint64(300) {
		entries := sortedEntries(rand.New(rand.NewPCG(seed, 1)))
		sums := map[journal.Stream]uint64{}
		h := journal.Header{Time: 5, Wall: 1 << 50, Identities: [][]byte{[]byte("one"), {}}, Notes: []journal.Note{{Group: 2, Reason: sluice.JournalFull, Count: 9}}}
		body, err := journal.DecodeBody(encode(h, entries, func(s journal.Stream, n uint64) uint64 { sums[s] += n; return sums[s] + 100 }))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var got []sluice.Entry
		if err := body.Each(func(e *sluice.Entry) error {
			kept := *e
			kept.Cells = append([]sluice.Cell{}, e.Cells...)
			if int(e.Ordinal) != len(got) {
				t.Fatalf("seed %d: ordinal %d at place %d", seed, e.Ordinal, len(got))
			}
			kept.Ordinal = 0
			got = append(got, kept)
			return nil
		}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		normalize := cmp.Transformer("empty", func(b []byte) string { return string(b) })
		if d := cmp.Diff(entries, got, normalize); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
		seen := map[journal.Stream]uint64{}
		if err := body.Streams(func(s journal.Stream, cumulative uint64) { seen[s] = cumulative - 100 }); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(sums, seen); d != "" {
			t.Fatalf("seed %d: counts %s", seed, d)
		}
		if d := cmp.Diff(h.Notes, body.Notes()); d != "" || body.Time != h.Time || body.Wall != h.Wall {
			t.Fatalf("seed %d: head %s", seed, d)
		}
	}
}

func TestJ1_EntriesOfOneGroupAndItsPartitionsOnly(t *testing.T) {
	entries := []sluice.Entry{
		{Group: 1, Slot: 0, Key: []byte("a"), Writes: 1}, {Group: 1, Slot: 64, Key: []byte("b"), Writes: 1},
		{Group: 2, Slot: 64, Key: []byte("c"), Writes: 1}, {Group: 2, Slot: 128, Key: []byte("d"), Writes: 1},
	}
	body, err := journal.DecodeBody(encode(journal.Header{}, entries, func(_ journal.Stream, n uint64) uint64 { return n }))
	if err != nil {
		t.Fatal(err)
	}
	var set sluice.PartitionSet
	set.Add(2)
	var keys []string
	if err := body.Entries(2, &set, func(e *sluice.Entry) error {
		keys = append(keys, string(e.Key))
		if e.Ordinal != 3 {
			t.Errorf("ordinal %d, want 3: it counts the commit's entries, not the group's", e.Ordinal)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"d"}, keys); d != "" {
		t.Error(d)
	}
}

func TestJ1_NewerBodyIsRefusedByName(t *testing.T) {
	for _, decode := range []func([]byte) error{
		func(b []byte) error { _, err := journal.DecodeBody(b); return err },
		func(b []byte) error { _, err := journal.DecodeEntry(b); return err },
	} {
		err := decode([]byte{journal.BodyFormat + 1, 0, 0, 0, 0, 0, 0, 0, 0})
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte("newer Sluice")) {
			t.Errorf("got %v", err)
		}
	}
}

func FuzzDecodeBody(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(bytes.Clone(encode(journal.Header{Identities: [][]byte{{1}}}, sortedEntries(rand.New(rand.NewPCG(seed, 2))), func(_ journal.Stream, n uint64) uint64 { return n })))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := journal.DecodeBody(data)
		if err != nil {
			return
		}
		body.Identities(func([]byte) {})
		body.Notes()
		_ = body.Streams(func(journal.Stream, uint64) {})
		_ = body.Each(func(e *sluice.Entry) error {
			again, err := journal.DecodeEntry(journal.AppendEntry(nil, e))
			if err != nil || !bytes.Equal(again.Key, e.Key) || len(again.Cells) != len(e.Cells) {
				t.Fatalf("entry does not survive: %v", err)
			}
			return nil
		})
	})
}
