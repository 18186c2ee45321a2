package postgres_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/pgtest"
	"sluice.dev/sluice/internal/store/postgres"
)

const benchConfig = `
stores:
  main: {shards: {a: "postgres://test"}, ddl: auto}
tables:
  counters: {key: {id: int64}, store: main, columns: {likes: int64 sum, views: int64 sum}}
  posts: {key: {id: int64}, store: main, columns: {title: text, at: timestamp}}
  logs:
    key: {id: int64}
    groups:
      clicks: {store: main, kind: events, columns: {what: text, at: timestamp, n: int64}}
`

// BenchmarkApply measures both ways on both sides of the border:
//
//	go test -run '^$' -bench Apply -benchtime 1s ./internal/store/postgres
func BenchmarkApply(b *testing.B) {
	for _, kind := range []string{"counters", "logs.clicks"} {
		for _, rows := range []int{10, 100, 300, 1000, 3000, 10000, 30000} {
			for _, way := range []string{"arrays", "copy"} {
				b.Run(fmt.Sprintf("%s/rows=%d/%s", kind, rows, way), func(b *testing.B) { benchApply(b, kind, rows, way) })
			}
		}
	}
}

func benchApply(b *testing.B, kind string, rows int, way string) {
	sch := parseB(b, benchConfig)
	dsn := pgtest.Shared(b).NewDatabase(b)
	st := *sch.Stores["main"]
	s, err := postgres.Open(store.Options{Store: &st, Shard: schema.Shard{Name: "a", URL: dsn}, Warn: func(string) {}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if way == "copy" {
		s.OnlyCopy()
	} else {
		s.OnlyArrays()
	}
	ctx := b.Context()
	if err := s.Ensure(ctx, store.Identity{Store: "main", Shard: "a"}, sch.Groups()); err != nil {
		b.Fatal(err)
	}
	var g *schema.Group
	for _, x := range sch.Groups() {
		if x.FullName() == kind {
			g = x
		}
	}
	cur, err := s.Take(ctx, g.ID, store.OwnerName, 1)
	if err != nil {
		b.Fatal(err)
	}
	batch := &store.Batch{Group: g, Prev: cur, Entries: benchEntries(b, g, rows)}
	written := 0
	for b.Loop() {
		batch.Next = batch.Prev
		batch.Next.Commit++
		for i := range batch.Entries {
			batch.Entries[i].Commit, batch.Entries[i].Ordinal = batch.Next.Commit, uint32(i)
		}
		r, err := s.Apply(ctx, batch)
		if err != nil || r.Rows != rows {
			b.Fatalf("%d rows, %v", r.Rows, err)
		}
		written += r.Rows
		batch.Prev = batch.Next
	}
	b.ReportMetric(float64(written)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(0, "ns/op")
}

func benchEntries(b *testing.B, g *schema.Group, rows int) []sluice.Entry {
	entries := make([]sluice.Entry, rows)
	for i := range entries {
		key, err := g.Table.AppendKey(nil, []sluice.Value{sluice.IntValue(int64(i * 7))})
		if err != nil {
			b.Fatal(err)
		}
		e := sluice.Entry{Group: g.ID, Key: key, Writes: 1, Slot: uint16(binary.BigEndian.Uint16(key[len(key)-2:]) % sluice.Slots)}
		for _, c := range g.Columns {
			v := sluice.IntValue(1)
			switch c.Type.Kind {
			case sluice.Text:
				v = sluice.TextValue("something that was clicked")
			case sluice.Timestamp:
				v.Kind, v.Num = sluice.Timestamp, 1700000000000000
			}
			e.Cells = append(e.Cells, sluice.Cell{Column: c.ID, Value: v})
		}
		entries[i] = e
	}
	return entries
}

func parseB(tb testing.TB, text string) *schema.Schema {
	tb.Helper()
	c, faults := schema.Parse("bench.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		tb.Fatal(faults)
	}
	s, _, faults := c.Resolve(nil)
	if len(faults) > 0 {
		tb.Fatal(faults)
	}
	return s
}
