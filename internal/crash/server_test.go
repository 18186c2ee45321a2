package crash_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/store/pgtest"
)

// server is the real binary as a process.
type server struct {
	bin, file, url string
	cmd            *exec.Cmd
	exited         chan error
	log            *lockedBuffer
}

func newServer(t *testing.T, db database) *server {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	addr := freeAddr(t)
	s := &server{bin: bin, file: filepath.Join(dir, "sluice.yaml"), url: "http://" + addr, log: &lockedBuffer{}}
	config := fmt.Sprintf("listen: {http: %q, resp: \"off\"}\njournal: {dir: %q, segment_bytes: 4MiB, disk_reserve: 8MiB, bytes_max: 64MiB, retain: {time: 10s, bytes: 32MiB}}\nstores:\n  main: %s\ntables:%s",
		addr, filepath.Join(dir, "journal"), db.config(), tables)
	if err := os.WriteFile(s.file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			_ = s.cmd.Process.Kill()
			<-s.exited
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log.tail(6000))
		}
	})
	return s
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *server) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command(s.bin, "serve", "-c", s.file)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited, cmd := make(chan error, 1), s.cmd
	s.exited = exited
	go func() { exited <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for c := s.client(t); c.Ready(ctx) != nil; {
		select {
		case err := <-exited:
			t.Fatalf("the server ended while it started: %v\n%s", err, s.log.tail(4000))
		case <-ctx.Done():
			t.Fatalf("the server is not ready after 30 s\n%s", s.log.tail(4000))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// startAndFail starts it and gives what it said when it ended by itself.
func (s *server) startAndFail(t *testing.T) (text string, ended bool) {
	t.Helper()
	cmd := exec.Command(s.bin, "serve", "-c", s.file)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		select {
		case err := <-exited:
			return out.tail(4000), err != nil
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
			if s.client(t).Ready(ctx) != nil {
				continue
			}
		}
		_ = cmd.Process.Kill()
		<-exited
		return out.tail(4000), false
	}
}

func (s *server) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: s.url, RetryBudget: -1, AttemptTimeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.exited
}

// stop ends it with SIGTERM, which must end it well.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := <-s.exited
	s.exited <- err
	if err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, s.log.tail(3000))
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.b.String()
	return text[max(0, len(text)-n):]
}

type sqliteDB struct{ file string }

func (d *sqliteDB) config() string { return fmt.Sprintf("%q", "sqlite:"+d.file) }

func (d *sqliteDB) kill(*testing.T, *rand.Rand) {}

func (d *sqliteDB) prepare(t *testing.T) {
	t.Helper()
	db := d.open(t)
	defer db.Close()
	if _, err := db.Exec(oldPosts); err != nil {
		t.Fatal(err)
	}
}

const oldPosts = `CREATE TABLE old_posts (id bigint PRIMARY KEY, title text, like_count bigint NOT NULL DEFAULT 0)`

func (d *sqliteDB) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+d.file+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func (d *sqliteDB) query(t *testing.T, query string) string {
	t.Helper()
	db := d.open(t)
	defer db.Close()
	var got sql.NullString
	if err := db.QueryRow(query).Scan(&got); err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatalf("%s: %v", query, err)
	}
	return got.String
}

// postgresDB is two shards: two databases of one server.
type postgresDB struct {
	cluster *pgtest.Cluster
	shards  []string
	proxied []string // what the binary is told instead of shards; nil: the same
	async   bool
}

func newPostgres(t *testing.T, async bool) *postgresDB {
	t.Helper()
	d := &postgresDB{cluster: pgtest.Start(t), async: async}
	d.shards = []string{d.cluster.NewDatabase(t), d.cluster.NewDatabase(t)}
	return d
}

func (d *postgresDB) config() string {
	commit := "on"
	if d.async {
		commit = "off"
	}
	urls := d.shards
	if d.proxied != nil {
		urls = d.proxied
	}
	return fmt.Sprintf("{shards: {a: %q, b: %q}, ddl: auto, synchronous_commit: %s}", urls[0], urls[1], commit)
}

func (d *postgresDB) prepare(t *testing.T) {
	t.Helper()
	for _, dsn := range d.shards {
		d.cluster.Exec(t, dsn, oldPosts)
	}
}

func (d *postgresDB) kill(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	if rnd.IntN(2) == 0 {
		d.cluster.StopImmediate()
	} else {
		d.cluster.Kill()
	}
	if err := d.cluster.Start(); err != nil {
		t.Fatal(err)
	}
}

// query adds up over both shards: a key lives on one of them, counts on both.
func (d *postgresDB) query(t *testing.T, query string) string {
	t.Helper()
	var texts []string
	sum, numbers := int64(0), true
	for _, dsn := range d.shards {
		text := d.cluster.Query(t, dsn, query)
		if text == "" {
			continue
		}
		texts = append(texts, text)
		var n int64
		if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
			numbers = false
		}
		sum += n
	}
	switch {
	case len(texts) == 1:
		return texts[0]
	case numbers && len(texts) == 2:
		return fmt.Sprint(sum)
	}
	return fmt.Sprint(texts)
}
