package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sluice.dev/sluice/internal/store"
)

// namedStatementsMax bounds the prepared statements of a connection; a group
// whose writes name ever other sets of columns would fill the server's memory.
const namedStatementsMax = 256

// statement is one text. Name is "" for one that is always parsed anew.
type statement struct {
	sql  string
	name string
}

// binaryFormat asks for parameters and results in binary form.
var binaryFormat = []int16{1}

// tx is a transaction whose statements are collected and sent in one piece:
// the server skips all that follow a failed one up to the end of the piece, so
// a COMMIT in the same piece is never reached after a guard that raised (S2).
type tx struct {
	s      *Shard
	conn   *pgxpool.Conn
	batch  pgconn.Batch
	queued []queued
	counts bool  // a queued statement has a count that must be right before COMMIT
	rows   int   // written so far
	bytes  int64 // of parameters sent
	stages int   // temporary tables made
	done   bool
}

// queued says what a statement is for, and how many rows it must touch (-1: any number).
type queued struct {
	step string
	want int
}

// failure is an error of one statement of a piece.
type failure struct {
	step string // what it was for: "guard", "rows", "commit" ...
	err  error
}

func (f *failure) Error() string { return f.step + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// begin takes a connection and queues BEGIN and the settings.
func (s *Shard) begin(ctx context.Context, settings *statement) (*tx, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, s.wrap("connect", err)
	}
	x := &tx{s: s, conn: conn}
	// The role's defaults may say serializable or read only.
	x.add("begin", &statement{sql: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"})
	settings = s.unnamedBehindPooler(settings)
	// It names no table, so preparing it here, outside the transaction, waits for no lock.
	if err := x.prepare(ctx, settings); err != nil {
		x.end(ctx)
		return nil, s.wrap("prepare", err)
	}
	x.add("settings", settings)
	return x, nil
}

// settings are the local ones of a transaction. synchronous: it must be
// durable when it returns; the administrator's remote_apply or local stays.
func (s *Shard) settings(synchronous bool, lockTimeoutMS int64) string {
	commit := "'off'"
	if synchronous {
		commit = "CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END"
	}
	// Without enable_seqscan = off a plan made while the table was empty reads the whole
	// table for every batch once it is not; all our statements go by a unique key.
	return "SELECT set_config('synchronous_commit', " + commit + ", true)" +
		", set_config('lock_timeout', '" + strconv.FormatInt(lockTimeoutMS, 10) + "', true)" +
		", set_config('idle_in_transaction_session_timeout', '" + strconv.FormatInt(idleInTxTimeMax.Milliseconds(), 10) + "', true)" +
		", set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)"
}

func (s *Shard) lockTimeoutMS() int64 {
	if s.opt.Store.LockTimeout > 0 {
		return max(1, s.opt.Store.LockTimeout.Milliseconds())
	}
	return lockTimeoutDefault.Milliseconds()
}

// add queues a statement with binary parameters. They are copied.
func (x *tx) add(step string, st *statement, params ...[]byte) {
	x.addCounted(step, -1, st, params...)
}

// addCounted queues a statement that must touch so many rows; -1: any number.
func (x *tx) addCounted(step string, want int, st *statement, params ...[]byte) {
	x.queued = append(x.queued, queued{step, want})
	x.counts = x.counts || want >= 0
	for _, p := range params {
		x.bytes += int64(len(p))
	}
	if st.name != "" {
		x.batch.ExecPrepared(st.name, params, binaryFormat, binaryFormat)
		return
	}
	x.batch.ExecParams(st.sql, params, nil, binaryFormat, binaryFormat)
}

// prepare makes sure that this connection knows the statement by its name. It
// first sends what is queued: parsing takes a lock on the table, and only
// behind BEGIN and the settings does lock_timeout end the wait for it.
func (x *tx) prepare(ctx context.Context, st *statement) error {
	custom := x.conn.Conn().PgConn().CustomData()
	known, _ := custom["sluice"].(map[string]bool)
	if st.name == "" || known[st.name] {
		return nil
	}
	if _, err := x.send(ctx); err != nil {
		return err
	}
	if _, err := x.conn.Conn().Prepare(ctx, st.name, st.sql); err != nil {
		return &failure{"prepare", err}
	}
	if known == nil {
		known = map[string]bool{}
		custom["sluice"] = known
	}
	known[st.name] = true
	return nil
}

// send sends what is queued and gives the results.
func (x *tx) send(ctx context.Context) ([]*pgconn.Result, error) {
	if len(x.queued) == 0 {
		return nil, nil
	}
	batch, steps := x.batch, x.queued
	x.batch, x.queued, x.counts = pgconn.Batch{}, nil, false
	results, err := x.conn.Conn().PgConn().ExecBatch(ctx, &batch).ReadAll()
	good := 0
	for good < min(len(results), len(steps)) && results[good].Err == nil {
		touched := int(results[good].CommandTag.RowsAffected())
		if want := steps[good].want; want >= 0 && want != touched {
			return results, &failure{steps[good].step, errMissingRow}
		}
		if steps[good].step == "rows" {
			x.rows += touched
		}
		good++
	}
	if err == nil {
		return results, nil
	}
	step := "send"
	if good < len(steps) {
		step = steps[good].step
	}
	return results, &failure{step, err}
}

// commit queues COMMIT and sends all. An error without an answer of the server
// leaves the outcome open (S3).
func (x *tx) commit(ctx context.Context) ([]*pgconn.Result, error) {
	if x.counts {
		if _, err := x.send(ctx); err != nil {
			return nil, err
		}
	}
	x.add("commit", &statement{sql: "COMMIT"})
	results, err := x.send(ctx)
	if err != nil {
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || isFatal(refused) {
			x.abandon()
			return nil, fmt.Errorf("%w: %w", store.ErrUnknown, err)
		}
		return results, err
	}
	x.done = true
	if tag := results[len(results)-1].CommandTag.String(); tag != "COMMIT" {
		return nil, fmt.Errorf("commit: the server answered %q", tag)
	}
	return results, nil
}

// isFatal: the server ended the session with this error, so what it did with
// the statements that it did not answer is not known.
func isFatal(e *pgconn.PgError) bool {
	return e.SeverityUnlocalized == "FATAL" || e.SeverityUnlocalized == "PANIC"
}

// abandon gives up the connection: nobody knows what state it is in.
func (x *tx) abandon() {
	x.done = true
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // closes at once, says no goodbye
	_ = x.conn.Conn().Close(ctx)
}

// end rolls back what was not committed and gives the connection back. A
// connection that cannot roll back is closed.
func (x *tx) end(ctx context.Context) {
	if !x.done {
		pg := x.conn.Conn().PgConn()
		switch {
		case pg.IsClosed() || ctx.Err() != nil:
			x.abandon()
		case pg.TxStatus() != 'I':
			if _, err := pg.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
				x.abandon()
			}
		}
	}
	x.conn.Release()
}
