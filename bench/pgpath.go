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
	pg, err := s.servePostgres()
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
			loadSpec{Door: "resp", Conns: 64, Batch: 256, Write: "increment", Keys: 1, Time: pick(s, 4*time.Second, time.Second)},
			sumPosts, ratioAtLeast(300)},
		{"counters over 1M keys", fmt.Sprintf("\\set id random(0, %d)\nUPDATE direct_posts SET likes = likes + 1 WHERE id = :id;", manyKeys-1), "16 clients, UPDATE",
			loadSpec{Door: "resp", Conns: 16, Batch: 256, Write: "increment", Keys: manyKeys, Writes: pick[uint64](s, 700_000, 100_000), Time: 2 * time.Minute},
			sumPosts, ratioAtLeast(4)},
		{"events", fmt.Sprintf("\\set id random(0, %d)\nINSERT INTO direct_log (id, what, at, n) VALUES (:id, '%s', '%s', 7);", manyKeys-1, clickText, clickAt), "16 clients, single-row INSERT",
			loadSpec{Door: "ndjson", Conns: 4, Batch: 10_000, Write: "event", Keys: manyKeys, Writes: pick[uint64](s, 700_000, 100_000), Time: 2 * time.Minute},
			"SELECT count(*) FROM log_clicks", ratioAtLeast(10)},
	}
	for _, d := range duels {
		if err := d.fight(ctx, s, pg); err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
	}
	return nil
}

// fight lets both sides run in turns. Sluice's figure counts the time until the
// database has everything: from the first write sent to the end of the drain.
func (d *pathDuel) fight(ctx context.Context, s *suite, pg *postgresServer) error {
	sv, err := d.serve(ctx, s, pg)
	if err != nil {
		return err
	}
	defer sv.End(syscall.SIGKILL)
	var theirs []float64
	var writes uint64
	var sent, took float64
	for range pick(s, 3, 1) {
		if err := pg.exec(ctx, "CHECKPOINT"); err != nil {
			return err
		}
		rate, err := pg.pgbench(ctx, d.direct, pick(s, 6, 2))
		if err != nil {
			return err
		}
		theirs = append(theirs, rate)
		if err := pg.exec(ctx, "CHECKPOINT"); err != nil {
			return err
		}
		from := time.Now()
		r, err := s.load(ctx, d.spec)
		if err != nil {
			return err
		}
		if err := sv.drain(ctx); err != nil {
			return err
		}
		writes, sent, took = writes+r.Writes, sent+r.Seconds, took+time.Since(from).Seconds()
	}
	total, err := pg.inSchema(ctx, d.total)
	if err != nil {
		return err
	}
	if err := wantTotal(d.what, total, int64(writes)); err != nil {
		return err
	}
	s.add(Row{What: d.what + ", in the database", Unit: "writes/s", Sluice: []float64{float64(writes) / took}, Rival: []float64{median(theirs)}, Against: d.against,
		Durable: "in PostgreSQL", RivalDurable: "in PostgreSQL", Goal: d.goal,
		Note: fmt.Sprintf("acknowledged %s/s", number(float64(writes)/sent))})
	s.addMemory(d.what, sv.stop())
	return nil
}

// serve starts Sluice with an empty journal, and gives the rows to its table
// that the rival's has.
func (d *pathDuel) serve(ctx context.Context, s *suite, pg *postgresServer) (*server, error) {
	// Tables of another journal would be refused.
	if err := pg.exec(ctx, "DROP SCHEMA IF EXISTS sluice_bench CASCADE", "CREATE SCHEMA sluice_bench"); err != nil {
		return nil, err
	}
	sv, err := s.serve(ctx, fmt.Sprintf(pgPathConfig, pg.url()+"&schema=sluice_bench"))
	if err != nil {
		return nil, err
	}
	d.spec.Addr = sv.resp
	if d.spec.Door != "resp" {
		d.spec.Addr = sv.http
	}
	err = sv.drain(ctx) // the tables are there then
	if err == nil {
		err = pg.exec(ctx, "SET search_path = sluice_bench",
			fmt.Sprintf("INSERT INTO posts (id, likes, sluice_slot) SELECT g, 0, 0 FROM generate_series(0, %d) g", manyKeys-1), "VACUUM ANALYZE posts")
	}
	if err != nil {
		sv.End(syscall.SIGKILL)
		return nil, err
	}
	return sv, nil
}
