package main

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/bench/rivals/batch"
)

// cluster is one PostgreSQL data folder of the run. Each row starts the server
// anew, so that memory and processor time are its own, in an empty database.
type cluster struct {
	*measure.Postgres
	databases int
}

// newCluster takes the settings of bench/rivals/postgres.
func newCluster(dir, settings string) (*cluster, error) {
	text, err := os.ReadFile(settings)
	if err != nil {
		return nil, err
	}
	pg, err := measure.NewPostgres(dir, string(text))
	if err != nil {
		return nil, err
	}
	return &cluster{Postgres: pg}, nil
}

// postgres is the server of one row, and what all rows that end in PostgreSQL
// have in common.
type postgres struct {
	*measure.Process
	cluster  *cluster
	database string
}

// start starts the server; the first time in a new database with the rivals' tables or without.
func (p *postgres) start(ctx context.Context, tables bool) error {
	if err := p.cluster.Start(); err != nil {
		return err
	}
	p.Process = p.cluster.Process()
	if p.database != "" {
		return nil
	}
	p.cluster.databases++
	p.database = fmt.Sprintf("row%d", p.cluster.databases)
	if err := p.cluster.Run(ctx, p.cluster.DSN("postgres"), "CREATE DATABASE "+p.database); err != nil || !tables {
		return err
	}
	return p.cluster.Run(ctx, p.here(), batch.Tables...)
}

func (p *postgres) here() string { return p.cluster.DSN(p.database) }

func (p *postgres) number(ctx context.Context, query string) (int64, error) {
	return p.cluster.Number(ctx, p.here(), query)
}

func (p *postgres) lsn(ctx context.Context) (int64, error) {
	return p.number(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
}

// rows is how many rows were inserted, updated and deleted in all tables of the
// database. Whoever wrote them must have gone: a backend counts late, but before it ends.
func (p *postgres) rows(ctx context.Context) (int64, error) {
	return p.number(ctx, "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables")
}

func (p *postgres) holds(ctx context.Context, log string) (h held, err error) {
	conn, err := pgx.Connect(ctx, p.here())
	if err != nil {
		return h, err
	}
	defer conn.Close(ctx)
	return h, conn.QueryRow(ctx, "SELECT (SELECT coalesce(sum(likes), 0)::bigint FROM posts), (SELECT count(*) FROM "+log+")").Scan(&h.likes, &h.events)
}

func (p *postgres) copies(ctx context.Context) (map[uint64]int64, error) {
	conn, err := pgx.Connect(ctx, p.here())
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT id, likes FROM posts")
	if err != nil {
		return nil, err
	}
	out := map[uint64]int64{}
	var id, likes int64
	_, err = pgx.ForEachRow(rows, []any{&id, &likes}, func() error {
		out[uint64(id)] = likes
		return nil
	})
	return out, err
}

// stop is an immediate stop. The database goes with the run's folder.
func (p *postgres) stop() { p.cluster.StopImmediate() }

// directWriter is an application with a pool of connections: a caller takes
// one, writes one statement that commits by itself, and gives it back.
type directWriter struct {
	conns chan *pgx.Conn
	all   []*pgx.Conn
}

const directConns = 16

func dialDirect(url string, callers int) (*directWriter, error) {
	n := min(directConns, callers)
	w := &directWriter{conns: make(chan *pgx.Conn, n)}
	for range n {
		conn, err := pgx.Connect(context.Background(), url)
		if err != nil {
			w.close()
			return nil, err
		}
		w.all = append(w.all, conn)
		w.conns <- conn
	}
	return w, nil
}

func (w *directWriter) write(_ int, o op) (err error) {
	conn := <-w.conns
	defer func() { w.conns <- conn }()
	ctx := context.Background()
	switch o.Kind {
	case batch.Like:
		_, err = conn.Exec(ctx, batch.LikeSQL, int64(o.Key))
	case batch.Event:
		_, err = conn.Exec(ctx, batch.EventSQL, int64(o.Key), batch.What, int64(o.N))
	case batch.Place:
		_, err = conn.Exec(ctx, batch.PlaceSQL, int64(o.Key), batch.Where(o.N))
	}
	return err
}

func (w *directWriter) close() {
	for _, c := range w.all {
		_ = c.Close(context.Background())
	}
}
