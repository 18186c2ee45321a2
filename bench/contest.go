package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// method is one way to bring a batch into a database. Only apply is timed.
type method struct {
	name    string
	prepare func() error
	apply   func(context.Context) error
}

// contest runs methods in turns and gives each one's batches per second: the
// median of the rounds, since now and then a checkpoint falls into one.
func contest(ctx context.Context, s *suite, methods []method) ([]float64, error) {
	rounds, span := pick(s, 7, 3), pick(s, 400*time.Millisecond, 40*time.Millisecond)
	rates := make([][]float64, len(methods))
	for range rounds {
		for i, m := range methods {
			var took time.Duration
			batches := 0
			for ; took < span; batches++ {
				if err := m.prepare(); err != nil {
					return nil, fmt.Errorf("%s: %w", m.name, err)
				}
				from := time.Now()
				if err := m.apply(ctx); err != nil {
					return nil, fmt.Errorf("%s: %w", m.name, err)
				}
				took += time.Since(from)
			}
			rates[i] = append(rates[i], float64(batches)/took.Seconds())
		}
	}
	out := make([]float64, len(methods))
	for i, r := range rates {
		out[i] = median(r)
	}
	return out, nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// match is Sluice, the first method, against the best of the others.
type match struct {
	what    string
	rows    int // of a batch
	goal    Goal
	methods []method
}

func (m *match) play(ctx context.Context, s *suite) error {
	rows, methods := m.rows, m.methods
	rates, err := contest(ctx, s, methods)
	if err != nil {
		return fmt.Errorf("%s: %w", m.what, err)
	}
	best := 1
	var others []string
	for i := 1; i < len(methods); i++ {
		if rates[i] > rates[best] {
			best = i
		}
		others = append(others, methods[i].name+" "+number(rates[i]*float64(rows)))
	}
	s.add(Row{What: fmt.Sprintf("%s, %s rows a batch", m.what, number(float64(rows))), Unit: "rows/s", Sluice: []float64{rates[0] * float64(rows)}, Rival: []float64{rates[best] * float64(rows)},
		Against: methods[best].name, Durable: "commit", RivalDurable: "commit", Goal: m.goal, Note: strings.Join(others, ", ")})
	return nil
}

const (
	applyKeys   = 100_000 // counters are of so many rows, all there before
	applyConfig = `
stores: {main: {shards: {a: "%s"}, ddl: auto}}
tables:
  counters: {key: {id: int64}, columns: {likes: int64 sum}}
  log:
    key: {id: int64}
    groups:
      clicks: {kind: events, columns: {what: text, at: timestamp, n: int64}}
`
	clickText = "a button that was clicked"
	clickAt   = "2026-01-02T03:04:05Z"
)

func applySizes() []int { return []int{10, 100, 1000, 10000} }

// shardBatches feeds a shard one batch after the other, as a drainer does.
type shardBatches struct {
	sch     *schema.Schema
	shard   store.Shard
	group   *schema.Group
	cursor  store.Cursor
	builder *schema.Builder
	batch   store.Batch
}

func takeShard(ctx context.Context, sch *schema.Schema, shard store.Shard, g *schema.Group) (*shardBatches, error) {
	cur, err := shard.Take(ctx, g.ID, store.OwnerName, 1)
	if err != nil {
		return nil, err
	}
	return &shardBatches{sch: sch, shard: shard, group: g, cursor: cur, builder: schema.NewBuilder(sch, time.Now)}, nil
}

// prepare makes the entries of the next batch for these keys, which rise.
func (b *shardBatches) prepare(keys []int64) error {
	b.builder.Reset(b.sch)
	next := b.cursor
	next.Commit++
	var line []byte
	for _, k := range keys {
		if b.group.Events {
			line = fmt.Appendf(line[:0], `{"table":"log","key":%d,"append":{"clicks":{"what":%q,"at":%q,"n":7}}}`, k, clickText, clickAt)
		} else {
			line = fmt.Appendf(line[:0], `{"table":"counters","key":%d,"add":{"likes":1}}`, k)
		}
		if err := b.builder.AddJSON(line); err != nil {
			return err
		}
	}
	entries := b.builder.Entries()
	for i := range entries {
		entries[i].Commit, entries[i].Ordinal = next.Commit, uint32(i)
	}
	b.batch = store.Batch{Group: b.group, Prev: b.cursor, Next: next, Entries: entries,
		Unfold: func(key []byte) []sluice.Entry { return nil }}
	return nil
}

func (b *shardBatches) apply(ctx context.Context) error {
	r, err := b.shard.Apply(ctx, &b.batch)
	if err != nil {
		return err
	}
	if r.Rows != len(b.batch.Entries) || len(r.Rejected)+len(r.Parked) > 0 {
		return fmt.Errorf("%d rows of %d applied", r.Rows, len(b.batch.Entries))
	}
	b.cursor = b.batch.Next
	return nil
}
