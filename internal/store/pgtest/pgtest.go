// Package pgtest starts a private PostgreSQL, for tests and for what measures: a
// real server with fsync on, in a folder of its own, listening on loopback and on
// a socket in that folder. It is stopped with the process that started it, and
// never touches a server that was there before.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Limits of waiting for the server.
const (
	startTimeMax = 60 * time.Second
	stopTimeMax  = 30 * time.Second
)

// Cluster is one running server.
type Cluster struct {
	Dir    string // holds data, sockets and log
	Port   int
	BinDir string              // where the server's programs are
	creds  *syscall.Credential // nil: as this process

	mu     sync.Mutex
	server *exec.Cmd     // nil: stopped
	exited chan struct{} // of server
}

var shared struct {
	once    sync.Once
	cluster *Cluster
	err     error
}

// Main runs a package's tests and stops the shared server afterwards. Call it
// as `func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }`.
func Main(m *testing.M) int {
	code := m.Run()
	if c := shared.cluster; c != nil {
		c.Remove()
	}
	return code
}

// Shared gives the one server of this test process, started at the first call.
// Tests that stop or kill a server start their own.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	skipIfAsked(t)
	shared.once.Do(func() { shared.cluster, shared.err = start(nil) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// Start gives a server of the test's own, removed with the test. Settings are
// lines of postgresql.conf.
func Start(t testing.TB, settings ...string) *Cluster {
	t.Helper()
	skipIfAsked(t)
	c, err := start(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Remove)
	return c
}

func skipIfAsked(t testing.TB) {
	t.Helper()
	if os.Getenv("SLUICE_SKIP_POSTGRES") == "1" {
		t.Skip("SLUICE_SKIP_POSTGRES=1")
	}
}

func start(settings []string) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "sluice-pg-")
	if err != nil {
		return nil, err
	}
	// A test's server does not outlive the machine, so its first files may wait in memory.
	c, err := newCluster(dir, settings, "--no-sync")
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("%w; any PostgreSQL from 15 on serves, and SLUICE_SKIP_POSTGRES=1 leaves its tests out", err)
	}
	if err := c.Start(); err != nil {
		c.Remove()
		return nil, err
	}
	return c, nil
}

// New makes the data of a server in an empty folder, and does not start it.
// Settings are lines of postgresql.conf. It is for programs that measure, and
// that choose the disk; tests call Start or Shared.
func New(dir string, settings ...string) (*Cluster, error) { return newCluster(dir, settings) }

func newCluster(dir string, settings []string, initdb ...string) (*Cluster, error) {
	binDir, err := Binaries()
	if err != nil {
		return nil, err
	}
	creds, err := credentials()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: dir, BinDir: binDir, creds: creds}
	return c, c.prepare(settings, initdb)
}

// Binaries gives the folder of the server's programs. It looks in the place of
// the Debian packages, newest version first, and then on the PATH.
func Binaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) + strings.Compare(b, a) })
	if len(found) > 0 {
		return filepath.Dir(found[0]), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", errors.New("PostgreSQL is not installed: `make deps` installs it")
}

// credentials: the server refuses to run as root, so root runs it as the user
// that the packages make.
func credentials() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root and there is no user postgres (`useradd postgres`): %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.BinDir, name), args...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	// SIGQUIT is the immediate shutdown: a test process that is killed leaves no server behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.creds, Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	return cmd
}

func (c *Cluster) prepare(settings, initdb []string) error {
	if err := os.Chmod(c.Dir, 0o755); err != nil {
		return err
	}
	if c.creds != nil {
		if err := os.Chown(c.Dir, int(c.creds.Uid), int(c.creds.Gid)); err != nil {
			return err
		}
	}
	cmd := c.command("initdb", append(initdb, "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions")...)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	c.Port = port
	conf := []string{
		"listen_addresses = '127.0.0.1'", "port = " + strconv.Itoa(port), "unix_socket_directories = '" + c.Dir + "'",
		"fsync = on", "max_connections = 60", "shared_buffers = 64MB", "max_wal_size = 1GB", "log_min_messages = warning",
	}
	conf = append(conf, settings...)
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + strings.Join(conf, "\n") + "\n")
	return errors.Join(err, f.Close())
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (c *Cluster) data() string    { return filepath.Join(c.Dir, "data") }
func (c *Cluster) logFile() string { return filepath.Join(c.Dir, "log") }

// Start starts a stopped server; again and again on the same port and data.
func (c *Cluster) Start() error {
	deadline := time.Now().Add(startTimeMax)
	for {
		err := c.startOnce(deadline)
		if err == nil {
			return nil
		}
		// Children of a killed server may hold its shared memory for a moment.
		if time.Now().After(deadline) || !strings.Contains(err.Error(), "shared memory") {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *Cluster) startOnce(deadline time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		select {
		case <-c.exited: // killed, and not by this
		default:
			return errors.New("pgtest: server runs already")
		}
	}
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	before, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	cmd := c.command("postgres", "-D", c.data())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	for {
		if c.ready() == nil {
			c.server, c.exited = cmd, exited
			return nil
		}
		select {
		case <-exited:
			text, _ := os.ReadFile(c.logFile())
			return fmt.Errorf("pgtest: postgres did not start:\n%s", text[min(int(before), len(text)):])
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			<-exited
			return fmt.Errorf("pgtest: postgres is not ready after %s; see %s", startTimeMax, c.logFile())
		}
	}
}

func (c *Cluster) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DSN("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// Stop is an orderly stop: running transactions are broken off, all is written.
func (c *Cluster) Stop() { c.signal(syscall.SIGINT) }

// StopImmediate is `pg_ctl stop -m immediate`: what was not synced is lost, as
// after a crash of the server.
func (c *Cluster) StopImmediate() { c.signal(syscall.SIGQUIT) }

// Kill kills the server's first process with -9; its children end by themselves.
func (c *Cluster) Kill() { c.signal(syscall.SIGKILL) }

func (c *Cluster) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return
	}
	_ = c.server.Process.Signal(s)
	select {
	case <-c.exited:
	case <-time.After(stopTimeMax):
		_ = c.server.Process.Kill()
		<-c.exited
	}
	c.server = nil
}

// Running gives the server's first process and what is closed when it has
// exited; nil when the server is stopped.
func (c *Cluster) Running() (*os.Process, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil, nil
	}
	return c.server.Process, c.exited
}

// Remove stops the server and deletes its folder.
func (c *Cluster) Remove() {
	c.StopImmediate()
	_ = os.RemoveAll(c.Dir)
}

// Log gives what the server wrote to its log.
func (c *Cluster) Log() string {
	text, _ := os.ReadFile(c.logFile())
	return string(text)
}

// DSN is the URL of a database of the server, over loopback TCP.
func (c *Cluster) DSN(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", c.Port, database)
}

// SocketDSN is DSN over the server's Unix socket.
func (c *Cluster) SocketDSN(database string) string {
	return fmt.Sprintf("postgres://postgres@/%s?host=%s&port=%d", database, c.Dir, c.Port)
}

var databases atomic.Int64

// NewDatabase makes an empty database and gives its DSN. It goes with the server.
func (c *Cluster) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	c.Exec(t, c.DSN("postgres"), "CREATE DATABASE "+name)
	return c.DSN(name)
}

// NewSchema makes an empty schema and gives a DSN under which it is the whole
// search path. It costs a hundredth of a database; what a test shares with
// others is the database's name, its roles and its advisory locks.
func (c *Cluster) NewSchema(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("s%d", databases.Add(1))
	c.Exec(t, c.DSN("postgres"), "CREATE SCHEMA "+name)
	return c.DSN("postgres") + "&search_path=" + name
}

// Run runs statements on a connection of their own.
func (c *Cluster) Run(ctx context.Context, dsn string, statements ...string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%w (in %q)", err, s)
		}
	}
	return nil
}

// Exec is Run, for a test.
func (c *Cluster) Exec(t testing.TB, dsn string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeMax)
	defer cancel()
	if err := c.Run(ctx, dsn, statements...); err != nil {
		t.Fatal(err)
	}
}

// Query gives the rows of a query as text, columns joined by "|" and rows by
// a line feed; NULL is "∅".
func (c *Cluster) Query(t testing.TB, dsn, query string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeMax)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	var lines []string
	for _, r := range results {
		for _, row := range r.Rows {
			cells := make([]string, len(row))
			for i, v := range row {
				if cells[i] = string(v); v == nil {
					cells[i] = "∅"
				}
			}
			lines = append(lines, strings.Join(cells, "|"))
		}
	}
	return strings.Join(lines, "\n")
}
