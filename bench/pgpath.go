package main

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

const (
	directClients = 16
	pgPathConfig  = `
stores: {main: {shards: {a: "%s"}, ddl: auto}}
journal: {dir: "%%DIR%%/journal"}
tables:
  posts: {key: {id: int64}, columns: {likes: int64 sum}}
  log:
    key: {id: int64}
    groups:
      clicks: {kind: events, columns: {what: text, at: timestamp, n: int64}}
`
)

// pathDuel is one kind of write, by both ways into the same PostgreSQL.
type pathDuel struct {
	what    string
	direct  string // pgbench script of the rival
	against string
	spec    loadSpec // of Sluice's clients
	total   string   // query that says how many writes the database holds
	goal    Goal
}

func pgPathScenario(ctx context.Context, s *suite) error {
	pg, err := s.servePostgres(ctx)
	if err != nil {
		return err
	}
	defer pg.stop()
	if err := pg.exec(ctx, "CREATE TABLE direct_posts (id bigint PRIMARY KEY, likes bigint NOT NULL DEFAULT 0)",
		fmt.Sprintf("INSERT INTO direct_posts SELECT g, 0 FROM generate_series(0, %d) g", manyKeys-1),
		"CREATE TABLE direct_log (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bigint NOT NULL, what text, at timestamptz, n bigint)",
		"CREATE INDEX ON direct_log (id)", "VACUUM ANALYZE"); err != nil {
		return err
	}
	duels := []pathDuel{
		{"one hot key", "UPDATE direct_posts SET likes = likes + 1 WHERE id = 7;", "16 clients, UPDATE",
			loadSpec{Door: "resp", Conns: 64, Batch: 256, Write: "increment", Keys: 1, Time: pick(s, 10*time.Second, time.Second)},
			sumPosts, ratioAtLeast(300)},
		{"counters over 1M keys", fmt.Sprintf("\\set id random(0, %d)\nUPDATE direct_posts SET likes = likes + 1 WHERE id = :id;", manyKeys-1), "16 clients, UPDATE",
			loadSpec{Door: "resp", Conns: 16, Batch: 256, Write: "increment", Keys: manyKeys, Writes: pick[uint64](s, 2_000_000, 100_000), Time: 2 * time.Minute},
			sumPosts, ratioAtLeast(4)},
		{"events", fmt.Sprintf("\\set id random(0, %d)\nINSERT INTO direct_log (id, what, at, n) VALUES (:id, '%s', '%s', 7);", manyKeys-1, clickText, clickAt), "16 clients, single-row INSERT",
			loadSpec{Door: "ndjson", Conns: 4, Batch: 10_000, Write: "event", Keys: manyKeys, Writes: pick[uint64](s, 2_000_000, 100_000), Time: 2 * time.Minute},
			"SELECT count(*) FROM log_clicks", ratioAtLeast(10)},
	}
	for _, d := range duels {
		if err := d.fight(ctx, s, pg); err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
	}
	return nil
}

// fight measures the rival, then Sluice on an empty journal. Sluice's figure
// counts the time until the database has everything: from the first write sent
// to the end of the drain.
func (d *pathDuel) fight(ctx context.Context, s *suite, pg *postgresServer) error {
	if err := pg.exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	theirs, err := pg.pgbench(ctx, d.direct, pick(s, 10, 2))
	if err != nil {
		return err
	}
	// Another journal's tables would be refused.
	if err := pg.exec(ctx, "DROP SCHEMA IF EXISTS sluice_bench CASCADE", "CREATE SCHEMA sluice_bench"); err != nil {
		return err
	}
	sv, err := s.serve(ctx, fmt.Sprintf(pgPathConfig, pg.url()+"&schema=sluice_bench"))
	if err != nil {
		return err
	}
	defer sv.end(syscall.SIGKILL)
	if err := sv.drain(ctx); err != nil { // the tables are there then
		return err
	}
	if err := pg.exec(ctx, "SET search_path = sluice_bench", fmt.Sprintf("INSERT INTO posts (id, likes, sluice_slot) SELECT g, 0, 0 FROM generate_series(0, %d) g", manyKeys-1),
		"VACUUM ANALYZE posts", "CHECKPOINT"); err != nil {
		return err
	}
	d.spec.Addr = sv.resp
	if d.spec.Door != "resp" {
		d.spec.Addr = sv.http
	}
	r, err := s.load(ctx, d.spec)
	if err != nil {
		return err
	}
	from := time.Now()
	if err := sv.drain(ctx); err != nil {
		return err
	}
	took := r.Seconds + time.Since(from).Seconds()
	total, err := pg.inSchema(ctx, d.total)
	if err != nil {
		return err
	}
	if err := wantTotal(d.what, total, int64(r.Writes)); err != nil {
		return err
	}
	s.add(Row{What: d.what + ", in the database", Unit: "writes/s", Sluice: []float64{float64(r.Writes) / took}, Rival: []float64{theirs}, Against: d.against,
		Durable: "in PostgreSQL", RivalDurable: "in PostgreSQL", Goal: d.goal,
		Note: fmt.Sprintf("acknowledged %s/s, sent for %.1f s, drained %.1f s later", number(r.perSecond()), r.Seconds, took-r.Seconds)})
	s.addMemory(d.what, sv.stop())
	return nil
}
