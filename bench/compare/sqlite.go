package main

import (
	"context"
	"database/sql"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"sluice.dev/sluice/bench/measure"
)

// sqliteAlone is SQLite behind a door of its own.
type sqliteAlone struct {
	front
	s        *suite
	file     string
	together int // most writes of a transaction
	addr     string
}

func newSQLite(together int) func(*suite, string) (system, error) {
	return func(s *suite, dir string) (system, error) {
		return &sqliteAlone{s: s, file: filepath.Join(dir, "app.db"), together: together}, nil
	}
}

func (sq *sqliteAlone) start(context.Context) (err error) {
	var hello struct{ Addr string }
	sq.Process, err = measure.Start(exec.Command(sq.s.binary("sqlite"), "--file", sq.file, "--rows", strconv.Itoa(sq.together)), &hello)
	sq.addr = hello.Addr
	return err
}

func (sq *sqliteAlone) processes() []*measure.Process                    { return []*measure.Process{sq.Process} }
func (sq *sqliteAlone) dial(callers int) (writer, error)                 { return dialRESP(sq.addr, callers) }
func (sq *sqliteAlone) settle(context.Context) (time.Time, error)        { return time.Now(), nil }
func (sq *sqliteAlone) logs(context.Context) (wal, own int64, err error) { return -1, -1, nil }
func (sq *sqliteAlone) stop()                                            { sq.retire(syscall.SIGKILL) }

func (sq *sqliteAlone) holds(ctx context.Context) (held, error) {
	return sqliteHolds(ctx, sq.file, "log")
}

func (sq *sqliteAlone) copies(ctx context.Context) (map[uint64]int64, error) {
	return sqliteCopies(ctx, sq.file)
}

// rows: every statement writes one, and the file does not tell more.
func (sq *sqliteAlone) rows(context.Context) (int64, error) { return oneEach, nil }

// oneEach stands for as many rows as writes.
const oneEach = -2

func openSQLite(file string) (*sql.DB, error) {
	return sql.Open("sqlite", "file:"+file+"?mode=ro&_pragma=busy_timeout(5000)")
}

func sqliteHolds(ctx context.Context, file, log string) (h held, err error) {
	db, err := openSQLite(file)
	if err != nil {
		return h, err
	}
	defer db.Close()
	return h, db.QueryRowContext(ctx, "SELECT (SELECT coalesce(sum(likes), 0) FROM posts), (SELECT count(*) FROM "+log+")").Scan(&h.likes, &h.events)
}

func sqliteCopies(ctx context.Context, file string) (map[uint64]int64, error) {
	db, err := openSQLite(file)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id, likes FROM posts")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[uint64]int64{}
	for rows.Next() {
		var id, likes int64
		if err := rows.Scan(&id, &likes); err != nil {
			return nil, err
		}
		out[uint64(id)] = likes
	}
	return out, rows.Err()
}
