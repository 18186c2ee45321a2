package postgres_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/pgtest"
)

// The guard must raise: in one pipeline a COMMIT behind a statement that
// merely matches no row goes through.
func TestS2_GuardRaisesInThePipeline(t *testing.T) {
	b := newBench(t, testConfig).start()
	b.apply("counters", `"key":1,"add":{"n":1}`)
	conn, err := pgx.Connect(b.ctx, b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	batch := &pgconn.Batch{}
	for _, sql := range []string{"BEGIN", `SELECT sluice_guard(1, 'owner', 99, 1, '', 2, 0, '')`, "UPDATE counters SET n = 100", "COMMIT"} {
		batch.ExecParams(sql, nil, nil, nil, nil)
	}
	_, err = conn.PgConn().ExecBatch(b.ctx, batch).ReadAll()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != store.SQLStateGuard {
		t.Fatalf("the pipeline answered %v, want SQLSTATE %s", err, store.SQLStateGuard)
	}
	b.want("SELECT n FROM counters", "1")

	stale := b.batch("counters", `"key":1,"add":{"n":7}`)
	b.take(stale.Group)
	if _, err := b.shard.Apply(b.ctx, stale); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("a batch of an earlier epoch answered %v", err)
	}
	b.want("SELECT n FROM counters", "1")
}

// Where functions are not granted, a DO block is the guard.
func TestS2_GuardWithoutTheFunction(t *testing.T) {
	b := newBench(t, testConfig)
	b.start()
	b.exec("DROP FUNCTION sluice_guard", "DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO plain", "REVOKE CREATE ON SCHEMA public FROM PUBLIC, plain")
	b.url = strings.Replace(b.dsn, "postgres@", "plain@", 1)
	b.start()
	if len(b.warned) != 1 || !strings.Contains(b.warned[0], "sluice_guard") {
		t.Errorf("warned %q, want one sentence about sluice_guard", b.warned)
	}
	b.apply("counters", `"key":1,"add":{"n":1}`)
	stale := b.batch("counters", `"key":1,"add":{"n":7}`)
	stale.Prev.Except = map[uint8]uint64{3: 9}
	if _, err := b.shard.Apply(b.ctx, stale); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("a batch at another position answered %v", err)
	}
	last := b.batch("counters", `"key":1,"add":{"n":1}`)
	last.Next.Chain, last.Next.Except = 1<<63, map[uint8]uint64{200: 1}
	if _, err := b.try(last); err != nil {
		t.Fatal(err)
	}
	b.want("SELECT n FROM counters", "2")
	if cur := b.take(last.Group); cur.Chain != 1<<63 || cur.Except[200] != 1 {
		t.Errorf("cursor came back as %+v", cur)
	}
}

// cutter stands between shard and server. Once deaf, it delivers what the
// client says but no answer.
type cutter struct {
	addr  string
	deaf  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func newCutter(t *testing.T, to string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{addr: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, client, server)
			c.mu.Unlock()
			all.Go(func() { _, _ = io.Copy(server, client) })
			all.Go(func() { c.answers(client, server) })
		}
	})
	t.Cleanup(func() { l.Close(); c.cut(); all.Wait() })
	return c
}

func (c *cutter) answers(client, server net.Conn) {
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if err != nil {
			client.Close()
			return
		}
		if !c.deaf.Load() {
			_, _ = client.Write(buf[:n])
		}
	}
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// The answer to COMMIT is lost after the server has committed.
func TestS3_LostAnswer(t *testing.T) {
	b := newBench(t, testConfig)
	b.start()
	host := strings.Split(strings.Split(b.dsn, "@")[1], "/")[0]
	c := newCutter(t, host)
	b.url = strings.Replace(b.dsn, host, c.addr, 1)
	b.start()
	b.apply("counters", `"key":1,"add":{"n":1}`)
	batch := b.batch("counters", `"key":1,"add":{"n":5}`)
	c.deaf.Store(true)
	done := make(chan error, 1)
	go func() { _, err := b.shard.Apply(b.ctx, batch); done <- err }()
	b.until("SELECT n FROM counters", "6")
	c.cut()
	if err := <-done; !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("Apply answered %v, want ErrUnknown", err)
	}
	c.deaf.Store(false)
	if cur := b.take(batch.Group); cur.Commit != batch.Next.Commit {
		t.Errorf("Take says commit %d, the database has %d", cur.Commit, batch.Next.Commit)
	}
	b.apply("counters", `"key":1,"add":{"n":1}`)
	b.want("SELECT n FROM counters", "7")
}

const slowCommit = `CREATE TABLE pages (id bigint PRIMARY KEY, hits bigint);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON pages DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`

const pagesConfig = `
stores:
  main: {shards: {a: "postgres://test"}, ddl: auto}
tables:
  pages: {existing: {table: pages}, key: {id: int64}, store: main, columns: {hits: int64 sum}}
`

// The backend is killed in the middle of COMMIT, where a deferred trigger waits.
func TestS3_BackendKilledInCommit(t *testing.T) {
	b := newBench(t, pagesConfig, slowCommit)
	b.tune = func(s *schema.Store) { s.LockTimeout = time.Minute }
	b.start()
	batch := b.batch("pages", `"key":1,"add":{"hits":5}`)
	unlock := lock(t, b.dsn, "SELECT pg_advisory_xact_lock(4711)")
	done := make(chan error, 1)
	go func() { _, err := b.shard.Apply(b.ctx, batch); done <- err }()
	waiting := "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory' AND query = 'COMMIT'"
	b.until("SELECT count(*) "+waiting, "1")
	b.want("SELECT pg_terminate_backend(pid) "+waiting, "t")
	if err := <-done; !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("Apply answered %v, want ErrUnknown", err)
	}
	unlock()
	if cur := b.take(batch.Group); cur.Commit != 0 {
		t.Fatalf("Take says commit %d, nothing was committed", cur.Commit)
	}
	b.apply("pages", `"key":1,"add":{"hits":5}`)
	b.want("SELECT hits FROM pages", "5")
}

// Take waits for the transaction of the earlier epoch, so what it answers is final.
func TestS3_TakeWaitsForTheEarlierTransaction(t *testing.T) {
	b := newBench(t, pagesConfig, slowCommit)
	b.tune = func(s *schema.Store) { s.LockTimeout = time.Minute }
	b.start()
	batch := b.batch("pages", `"key":1,"add":{"hits":5}`)
	unlock := lock(t, b.dsn, "SELECT pg_advisory_xact_lock(4711)")
	applied, taken := make(chan error, 1), make(chan store.Cursor, 1)
	go func() { _, err := b.shard.Apply(b.ctx, batch); applied <- err }()
	b.until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'", "1")
	go func() {
		cur, err := b.shard.Take(b.ctx, batch.Group.ID, store.OwnerName, 2)
		if err != nil {
			t.Error(err)
		}
		taken <- cur
	}()
	b.until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'", "1")
	unlock()
	if err := <-applied; err != nil {
		t.Fatal(err)
	}
	if cur := <-taken; cur.Commit != 1 || cur.Epoch != 2 || !cur.Found {
		t.Errorf("Take answered %+v, want commit 1 under epoch 2", cur)
	}
}

// Asynchronous commits are lost by a crash of the server, rows and cursor
// together; what was confirmed is not.
func TestS5_CrashWithAsynchronousCommit(t *testing.T) {
	// The writer of the log sleeps long, so that what nobody waits for is surely lost.
	c := pgtest.Start(t, "wal_writer_delay = 10s", "wal_writer_flush_after = 1GB")
	b := newBenchOn(t, c, testConfig)
	b.tune = func(s *schema.Store) { s.SynchronousCommit = false }
	b.start()
	if b.shard.SyncApply() {
		t.Error("SyncApply says yes with synchronous_commit off")
	}
	for range 20 {
		b.apply("counters", `"key":1,"add":{"n":1}`)
	}
	g := b.group("counters")
	if err := b.shard.Confirm(b.ctx, b.cursors[g.ID]); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		b.apply("counters", `"key":1,"add":{"n":1}`)
	}
	c.StopImmediate()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	b.start()
	cur := b.take(g)
	if cur.Commit < 20 || cur.Commit >= 40 {
		t.Errorf("the cursor is at %d: want what was confirmed (20) and not all that was not (40)", cur.Commit)
	}
	rows, _, err := b.shard.Read(b.ctx, g, [][]byte{b.batch("counters", `"key":1,"add":{"n":1}`).Entries[0].Key})
	if err != nil || uint64(rows[0].Values[0].Num) != cur.Commit {
		t.Errorf("the row says %+v, the cursor %d, %v", rows, cur.Commit, err)
	}
}

// With synchronous_commit on, nothing that Apply answered is lost.
func TestS5_CrashWithSynchronousCommit(t *testing.T) {
	c := pgtest.Start(t, "wal_writer_delay = 10s", "synchronous_commit = off")
	b := newBenchOn(t, c, testConfig).start()
	if len(b.warned) != 1 || !strings.Contains(b.warned[0], "synchronous_commit") {
		t.Errorf("warned %q", b.warned)
	}
	b.apply("counters", `"key":1,"add":{"n":1}`)
	c.StopImmediate()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	b.want("SELECT n FROM counters", "1")
	b.start()
	if cur := b.take(b.group("counters")); cur.Commit != 1 {
		t.Errorf("the cursor is at %d", cur.Commit)
	}
}
