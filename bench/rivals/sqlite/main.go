// Command sqlite is SQLite alone, behind a small door so that it is reached as
// the servers are. One connection writes, as SQLite wants it. README.md gives
// the reason for each setting.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"

	_ "modernc.org/sqlite"

	"sluice.dev/sluice/bench/rivals/batch"
	"sluice.dev/sluice/bench/rivals/door"
)

const settings = "?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(5000)&_txlock=immediate"

// Tables: as PostgreSQL's, with SQLite's own way of numbering rows.
var tables = []string{
	"CREATE TABLE IF NOT EXISTS posts (id INTEGER PRIMARY KEY, likes INTEGER NOT NULL)",
	"CREATE TABLE IF NOT EXISTS drivers (id INTEGER PRIMARY KEY, place TEXT)",
	"CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, what TEXT, n INTEGER)",
	"CREATE INDEX IF NOT EXISTS log_id ON log (id)",
}

func main() {
	file := flag.String("file", "", "the database")
	rows := flag.Int("rows", 1, "most writes of a transaction; 1: each commits alone")
	flag.Parse()
	// It serves until it is ended, so whatever comes back is an error.
	fmt.Fprintln(os.Stderr, "sqlite:", run(context.Background(), *file, *rows))
	os.Exit(1)
}

func run(ctx context.Context, file string, rows int) error {
	db, err := sql.Open("sqlite", "file:"+file+settings)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	for _, q := range tables {
		if _, err := db.Exec(q); err != nil {
			return err
		}
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	w := &writer{conn: conn, queue: make(chan *door.Pending, 4096), rows: rows}
	for kind, query := range map[batch.Kind]string{batch.Like: batch.LikeSQL, batch.Event: batch.EventSQL, batch.Place: batch.PlaceSQL} {
		if w.statements[kind], err = conn.PrepareContext(ctx, query); err != nil {
			return err
		}
	}
	go w.work(ctx)
	return door.Serve(func(p *door.Pending) { w.queue <- p })
}

type writer struct {
	conn       *sql.Conn
	statements [128]*sql.Stmt // by Kind
	queue      chan *door.Pending
	rows       int
}

func (w *writer) work(ctx context.Context) {
	var waiting []*door.Pending
	for {
		waiting = append(waiting[:0], <-w.queue)
		for len(waiting) < w.rows && len(w.queue) > 0 {
			waiting = append(waiting, <-w.queue)
		}
		err := w.commit(ctx, waiting)
		for _, p := range waiting {
			p.Done <- err
		}
	}
}

func (w *writer) commit(ctx context.Context, writes []*door.Pending) error {
	if len(writes) == 1 {
		return w.apply(ctx, writes[0])
	}
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, p := range writes {
		if err := w.apply(ctx, p); err != nil {
			_, rerr := w.conn.ExecContext(ctx, "ROLLBACK")
			return errors.Join(err, rerr)
		}
	}
	_, err := w.conn.ExecContext(ctx, "COMMIT")
	return err
}

func (w *writer) apply(ctx context.Context, p *door.Pending) error {
	args := []any{int64(p.Key)}
	switch p.Kind {
	case batch.Event:
		args = append(args, batch.What, int64(p.N))
	case batch.Place:
		args = append(args, batch.Where(p.N))
	}
	_, err := w.statements[p.Kind].ExecContext(ctx, args...)
	return err
}
