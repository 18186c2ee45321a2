package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/postgres"
)

func pgApplyScenario(ctx context.Context, s *suite) error {
	pg, err := s.servePostgres()
	if err != nil {
		return err
	}
	defer pg.stop()
	sch, err := parseSchema(fmt.Sprintf(applyConfig, pg.url()))
	if err != nil {
		return err
	}
	st := sch.Stores["main"]
	shard, err := postgres.Open(store.Options{Store: st, Shard: st.Shards[0], Warn: func(w string) { s.Progress("  %s", w) }})
	if err != nil {
		return err
	}
	defer shard.Close()
	if err := shard.Ensure(ctx, store.Identity{Store: "main", Shard: "a"}, sch.Groups()); err != nil {
		return err
	}
	// The rivals write tables of the same columns and indexes.
	fill := fmt.Sprintf("INSERT INTO counters (id, likes, sluice_slot) SELECT g, 0, 0 FROM generate_series(0, %d) g", applyKeys-1)
	if err := pg.exec(ctx, fill, "CREATE TABLE raw_counters (LIKE counters INCLUDING ALL)", "INSERT INTO raw_counters SELECT * FROM counters",
		"CREATE TABLE raw_clicks (LIKE log_clicks INCLUDING ALL)", "VACUUM ANALYZE", "CHECKPOINT"); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, pg.url())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "CREATE TEMP TABLE stage (id bigint, sluice_slot smallint, likes bigint) ON COMMIT DELETE ROWS"); err != nil {
		return err
	}
	for _, g := range sch.Groups() {
		b, err := takeShard(ctx, sch, shard, g)
		if err != nil {
			return err
		}
		for _, rows := range applySizes() {
			if err := pgApply(ctx, s, conn, pgSize{b, g, rows}); err != nil {
				return err
			}
		}
	}
	return nil
}

type pgSize struct {
	b     *shardBatches
	group *schema.Group
	rows  int
}

func pgApply(ctx context.Context, s *suite, conn *pgx.Conn, at pgSize) error {
	raw := &rawBatch{conn: conn, rows: at.rows, at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	ours := method{"sluice", func() error { return at.b.prepare(randomKeys(at.rows, applyKeys)) }, at.b.apply}
	m := match{what: "counters", rows: at.rows, goal: ratioAtLeast(0.9), methods: []method{ours,
		{"upsert unnest", raw.prepare, raw.countersUnnest},
		{"multi-row upsert", raw.prepare, raw.countersValues},
		{"COPY and MERGE", raw.prepare, raw.countersMerge}}}
	if at.group.Events {
		m.what, m.methods = "events", []method{ours,
			{"INSERT unnest", raw.prepare, raw.eventsUnnest},
			{"multi-row INSERT", raw.prepare, raw.eventsValues},
			{"COPY", raw.prepare, raw.eventsCopy}}
	}
	return m.play(ctx, s)
}

// randomKeys gives n different keys below limit, rising: in that order a
// database takes them quickest.
func randomKeys(n int, limit int64) []int64 {
	seen := make(map[int64]bool, n)
	out := make([]int64, 0, n)
	for len(out) < n {
		if k := rand.Int64N(limit); !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// rawBatch is what somebody would write who needs only this one table: no
// guard, no cursor, no rejects. Each batch is one transaction, with as few round
// trips as its statement allows.
type rawBatch struct {
	conn   *pgx.Conn
	rows   int
	at     time.Time
	commit int64

	ids      []int64
	slots    []int16
	ones     []int64
	commits  []int64
	ordinals []int32
	texts    []string
	times    []time.Time
	flat     []any // for statements of many rows, row by row
}

func (r *rawBatch) prepare() error {
	if r.commit == 0 {
		r.commit = rand.Int64N(1 << 60) // the sizes share the table
	}
	r.commit++
	r.ids = randomKeys(r.rows, applyKeys)
	r.slots, r.ones, r.commits, r.ordinals, r.texts, r.times = nil, nil, nil, nil, nil, nil
	for i := range r.rows {
		r.slots, r.ones = append(r.slots, int16(i)), append(r.ones, 1)
		r.commits, r.ordinals = append(r.commits, r.commit), append(r.ordinals, int32(i))
		r.texts, r.times = append(r.texts, clickText), append(r.times, r.at)
	}
	return nil
}

const onConflict = " ON CONFLICT (id) DO UPDATE SET likes = t.likes + excluded.likes"

func (r *rawBatch) countersUnnest(ctx context.Context) error {
	_, err := r.conn.Exec(ctx, "INSERT INTO raw_counters AS t (id, sluice_slot, likes) SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bigint[])"+onConflict, r.ids, r.slots, r.ones)
	return err
}

func (r *rawBatch) countersValues(ctx context.Context) error {
	r.flat = r.flat[:0]
	for i := range r.ids {
		r.flat = append(r.flat, r.ids[i], r.slots[i], r.ones[i])
	}
	return r.values(ctx, 3, "INSERT INTO raw_counters AS t (id, sluice_slot, likes) VALUES ", onConflict)
}

func (r *rawBatch) countersMerge(ctx context.Context) error {
	tx, err := r.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"stage"}, []string{"id", "sluice_slot", "likes"}, pgx.CopyFromSlice(r.rows, func(i int) ([]any, error) {
		return []any{r.ids[i], r.slots[i], r.ones[i]}, nil
	})); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "MERGE INTO raw_counters t USING stage s ON t.id = s.id WHEN MATCHED THEN UPDATE SET likes = t.likes + s.likes WHEN NOT MATCHED THEN INSERT (id, sluice_slot, likes) VALUES (s.id, s.sluice_slot, s.likes)"); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

const clickColumns = "(sluice_commit, sluice_ordinal, sluice_slot, id, what, at, n)"

func (r *rawBatch) eventsUnnest(ctx context.Context) error {
	_, err := r.conn.Exec(ctx, "INSERT INTO raw_clicks "+clickColumns+" SELECT * FROM unnest($1::bigint[], $2::integer[], $3::smallint[], $4::bigint[], $5::text[], $6::timestamptz[], $7::bigint[])",
		r.commits, r.ordinals, r.slots, r.ids, r.texts, r.times, r.ones)
	return err
}

func (r *rawBatch) eventsValues(ctx context.Context) error {
	r.flat = r.flat[:0]
	for i := range r.ids {
		r.flat = append(r.flat, r.commits[i], r.ordinals[i], r.slots[i], r.ids[i], r.texts[i], r.times[i], r.ones[i])
	}
	return r.values(ctx, 7, "INSERT INTO raw_clicks "+clickColumns+" VALUES ", "")
}

func (r *rawBatch) eventsCopy(ctx context.Context) error {
	_, err := r.conn.CopyFrom(ctx, pgx.Identifier{"raw_clicks"}, strings.Split(strings.Trim(clickColumns, "()"), ", "), pgx.CopyFromSlice(r.rows, func(i int) ([]any, error) {
		return []any{r.commits[i], r.ordinals[i], r.slots[i], r.ids[i], r.texts[i], r.times[i], r.ones[i]}, nil
	}))
	return err
}

// paramsMax is what the protocol lets one statement have.
const paramsMax = 65535

// values runs a statement of many rows, or several in one transaction.
func (r *rawBatch) values(ctx context.Context, width int, head, tail string) error {
	most := paramsMax / width * width
	if len(r.flat) <= most {
		_, err := r.conn.Exec(ctx, head+placeholders(len(r.flat)/width, width)+tail, r.flat...)
		return err
	}
	tx, err := r.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	for part := range slices.Chunk(r.flat, most) {
		if _, err := tx.Exec(ctx, head+placeholders(len(part)/width, width)+tail, part...); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

// placeholders is ($1,$2),($3,$4) ...
func placeholders(rows, width int) string {
	var b strings.Builder
	for i := range rows * width {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%width == 0:
			b.WriteString("),(")
		default:
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	b.WriteByte(')')
	return b.String()
}
