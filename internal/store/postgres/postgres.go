// Package postgres is a store.Shard kept in a PostgreSQL database, 15 or newer.
// It writes rows, rejects, parked entries and cursor in one transaction whose
// first statement is the guard (S2). It never folds, never routes, and decides
// nothing about when to apply.
//
// # The URL
//
// Everything that libpq knows (host, sslmode, sslrootcert, target_session_attrs
// with several hosts ...) and, of pgxpool, pool_max_conn_lifetime and friends.
// Two options more:
//
//   - schema=NAME: where Sluice's tables lie; default is the first schema of the
//     search path.
//   - default_query_exec_mode: cache_statement uses named prepared statements,
//     exec uses none. Without it the shard finds out: a server process id that
//     differs from the one announced at connect means that a pooler is between.
//
// # PgBouncer
//
// Session and transaction mode both work: no state outlives a transaction
// (settings are local to it, temporary tables are dropped with it), and behind
// a pooler no prepared statement has a name. Statement mode cannot work, since
// it has no transactions.
//
// # Files
//
// guard.go is the cursor and its guard, apply.go the quick way of a batch,
// careful.go the slow way after the database refused or a lock was in the way,
// statement.go the texts of the statements, rows.go the values in them.
package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Named limits.
const (
	connsDefault       = 4
	connectTimeMax     = 10 * time.Second
	takeLockTimeMax    = 30 * time.Second // how long Take waits for the transaction of an earlier epoch
	idleInTxTimeMax    = 30 * time.Second // after it the server breaks off a transaction whose client is gone
	lockTimeoutDefault = 200 * time.Millisecond
	versionMin         = 150000
)

// The border between the two ways of sending rows: arrays as parameters below,
// COPY from there on. Measured by BenchmarkApply on two cores with the server on
// the same ones, in thousand rows a second, arrays against COPY.
const (
	// copyStagedMin is for rows that go by COPY into a temporary table and from
	// there, by the same statement, into theirs: 25 to 19 with 100 rows, 71 to 26
	// with 1,000, 186 to 143 with 10,000, 169 to 198 with 30,000.
	copyStagedMin = 20000
	// copyEventsMin is for events that go by COPY straight into their table: 83 to
	// 42 with 100 rows, 66 to 46 with 300, 72 to 94 with 1,000, 69 to 138 with 30,000.
	copyEventsMin = 1000
)

// Shard is one PostgreSQL database.
type Shard struct {
	opt    store.Options
	schema string // schema= of the URL, or ""
	named  atomic.Bool
	fixed  bool // the URL says whether statements may have names
	pool   *pgxpool.Pool

	copyStagedMin, copyEventsMin int // the border; benchmarks move it

	mu     sync.Mutex
	db     *database // nil until Ensure
	parks  map[sluice.GroupID]*park
	serial atomic.Uint64 // numbers the names of prepared statements ...
	// ... up to serialMax; Ensure, which lets go of all connections, raises it.
	serialMax atomic.Uint64
}

// database is what Ensure found; it is replaced whole and never changed.
type database struct {
	schema    string // quoted
	rawSchema string
	guard     bool // sluice_guard is there
	flush     bool // sluice_flush is there
	targets   map[sluice.GroupID]*target
	texts     texts
}

// Open reads the URL and makes the pool; it connects to nothing, so that a
// database that is down stops only its own drainers.
func Open(opt store.Options) (*Shard, error) {
	cfg, err := pgxpool.ParseConfig(opt.Shard.URL)
	if err != nil {
		return nil, sluice.Errorf(sluice.Invalid, "bad_url", "store %s, shard %s: the URL is not one that PostgreSQL understands: %w; write postgres://user:password@host:5432/database?sslmode=verify-full",
			opt.Store.Name, opt.Shard.Name, err)
	}
	s := &Shard{opt: opt, parks: map[sluice.GroupID]*park{}, copyStagedMin: copyStagedMin, copyEventsMin: copyEventsMin}
	conn := cfg.ConnConfig
	s.schema = conn.RuntimeParams["schema"]
	delete(conn.RuntimeParams, "schema")
	s.fixed = strings.Contains(opt.Shard.URL, "default_query_exec_mode")
	mode := conn.DefaultQueryExecMode
	s.named.Store(mode == pgx.QueryExecModeCacheStatement || mode == pgx.QueryExecModeCacheDescribe)
	// What does not go through tx is rare and must work behind any pooler.
	conn.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn.StatementCacheCapacity, conn.DescriptionCacheCapacity = 0, 0
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeMax
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "sluice"
	}
	if cfg.MaxConns = int32(opt.Store.ConnsMax); cfg.MaxConns <= 0 {
		cfg.MaxConns = connsDefault
	}
	if s.pool, err = pgxpool.NewWithConfig(context.Background(), cfg); err != nil {
		return nil, fmt.Errorf("store %s, shard %s: %w", opt.Store.Name, opt.Shard.Name, err)
	}
	return s, nil
}

// Close waits for the connections in use and closes all.
func (s *Shard) Close() error {
	s.pool.Close()
	return nil
}

// Exactness: rows and cursor commit together.
func (s *Shard) Exactness() store.Exactness { return store.Transaction }

// SyncApply tells whether Apply's commit is durable when it returns.
func (s *Shard) SyncApply() bool { return s.opt.Store.SynchronousCommit }

// inspect connects for the first time: version, schema, pooler.
func (s *Shard) inspect(ctx context.Context) (*database, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, s.wrap("connect", err)
	}
	defer conn.Release()
	var version, pid int
	var name *string
	var fsync, defaultSync string
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_backend_pid(), current_schema(), current_setting('fsync'), current_setting('synchronous_commit')`).
		Scan(&version, &pid, &name, &fsync, &defaultSync)
	if err != nil {
		return nil, s.wrap("ask for the version", err)
	}
	if version < versionMin {
		return nil, &store.StopError{Reason: "old_server", Detail: fmt.Sprintf("%s: PostgreSQL %d is too old, Sluice needs 15 or newer; upgrade the server or name another in the shard's URL", s.where(), version/10000)}
	}
	if fsync == "off" {
		s.opt.Warn(s.where() + ": the server runs with fsync = off: a crash of its machine loses what Sluice takes for durable; set fsync = on")
	}
	if s.opt.Store.SynchronousCommit && defaultSync == "off" {
		s.opt.Warn(s.where() + ": the server's synchronous_commit is off; Sluice turns it on for its transactions, since the store does not say `synchronous_commit: off`")
	}
	if !s.fixed {
		s.named.Store(uint32(pid) == conn.Conn().PgConn().PID())
	}
	if s.schema != "" {
		name = &s.schema
	}
	if name == nil {
		return nil, &store.StopError{Reason: "no_schema", Detail: s.where() + ": no schema of the search path exists; add ?schema=NAME to the shard's URL or create the schema"}
	}
	return &database{schema: quote(*name), rawSchema: *name, targets: map[sluice.GroupID]*target{}}, nil
}

// ready gives what Ensure found.
func (s *Shard) ready() (*database, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil, sluice.Errorf(sluice.Unavailable, "not_ready", "%s: not checked yet; it is at the next connect", s.where())
	}
	return s.db, nil
}

func (s *Shard) target(g *schema.Group) (*database, *target, error) {
	db, err := s.ready()
	if err != nil {
		return nil, nil, err
	}
	t := db.targets[g.ID]
	if t == nil {
		return nil, nil, sluice.Errorf(sluice.Unavailable, "not_ready", "%s: group %s is not checked yet; it is at the next connect", s.where(), g.FullName())
	}
	return db, t, nil
}

func (s *Shard) where() string {
	return "store " + s.opt.Store.Name + ", shard " + s.opt.Shard.Name
}

func (s *Shard) wrap(verb string, err error) error {
	return fmt.Errorf("%s: %s: %w", s.where(), verb, err)
}

// quote makes an identifier out of a name that the schema has checked.
func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes text for a place where no parameter can stand.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
