package main

import (
	"context"
	"syscall"
	"time"

	"sluice.dev/sluice/bench/measure"
)

// system is what a row is made of: all that takes part between the client and
// the place where the writes end up. Its folder is its own.
type system interface {
	// start starts all of it, also again in the same folder after a kill.
	start(context.Context) error
	// processes are the roots of what is measured, and of what kill -9 hits.
	processes() []*measure.Process
	// dial gives a client for so many callers.
	dial(callers int) (writer, error)
	// settle returns when the last place of the row has every acknowledged write,
	// and says since when.
	settle(context.Context) (time.Time, error)
	// holds counts what is there, past the system, after settle.
	holds(context.Context) (held, error)
	// copies tells for each post how often a like is there, after settle.
	copies(context.Context) (map[uint64]int64, error)
	// logs are the bytes written so far to the database's log and to the log of
	// what is in front of it; -1 where there is none to read.
	logs(context.Context) (wal, own int64, err error)
	// rows ends what writes into the database, and tells how many rows it has
	// written; -1 where there are no rows.
	rows(context.Context) (int64, error)
	// stop ends all of it.
	stop()
}

// held is what the last place of a row has. A field of -1 is not counted there.
type held struct{ likes, events int64 }

// front is a program between the client and the database.
type front struct{ *measure.Process }

func (f *front) retire(sig syscall.Signal) {
	if f.Process != nil {
		f.End(sig)
	}
}

// rival is one row. Two rows meet in the same End; a friend of one may object to
// what Differs says.
type rival struct {
	name    string
	end     string // where the writes end up
	durable string // what an acknowledgement says
	differs string // from Sluice's work in the same end; "" is the same work
	retry   string // how a retry is told from a new write; "" is not at all
	make    func(*suite, string) (system, error)
	// needs builds what the row needs, or says why it is left out.
	needs func(context.Context, *suite) error
	// killOnly rows are there for what they lose, not for their speed.
	killOnly bool
}

const (
	endPostgres = "PostgreSQL"
	endSQLite   = "SQLite"
	endRedis    = "Redis"
)

func rivals() []rival {
	build := func(name, pkg string) func(context.Context, *suite) error {
		return func(ctx context.Context, s *suite) error { return s.build(ctx, name, ".", pkg) }
	}
	module := func(name string) func(context.Context, *suite) error {
		return func(ctx context.Context, s *suite) error { return s.build(ctx, name, "bench/rivals/"+name, ".") }
	}
	sluice := build("sluice", "./cmd/sluice")
	return []rival{
		{name: "Sluice > PostgreSQL", end: endPostgres, durable: "journal fdatasync", differs: "rows follow after the answer", make: newSluicePostgres, needs: sluice},
		{name: "Sluice > PG, keyed", end: endPostgres, durable: "journal fdatasync", differs: "HTTP", retry: "Idempotency-Key", make: newSluiceKeyed, needs: sluice, killOnly: true},
		{name: "PostgreSQL, single", end: endPostgres, durable: "COMMIT", make: newDirect},
		{name: "PostgreSQL, hand-batched", end: endPostgres, durable: "COMMIT", differs: "one process that must not be copied: keys have an owner", make: newHandBatched, needs: build("pgbatch", "./bench/rivals/pgbatch")},
		{name: "NATS JetStream > PG", end: endPostgres, durable: "stream fsync", differs: "rows follow; at least once into PostgreSQL", retry: "Nats-Msg-Id, 2 min", make: newNATS, needs: module("nats")},
		{name: "Bento > PG", end: endPostgres, durable: "COMMIT", differs: "HTTP, one write a request", make: newBento, needs: module("bento")},
		{name: "Sluice > SQLite", end: endSQLite, durable: "journal fdatasync", differs: "rows follow after the answer", make: newSluiceSQLite, needs: sluice},
		{name: "SQLite, single", end: endSQLite, durable: "COMMIT, synchronous=FULL", make: newSQLite(1), needs: build("sqlite", "./bench/rivals/sqlite")},
		{name: "SQLite, hand-batched", end: endSQLite, durable: "COMMIT, synchronous=FULL", differs: "not folded: a row a write", make: newSQLite(1000), needs: build("sqlite", "./bench/rivals/sqlite")},
		{name: "Redis", end: endRedis, durable: "AOF fsync always", differs: "no SQL: all in memory", make: newRedis},
	}
}
