package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice/bench/rivals/batch"
)

// cluster is one PostgreSQL data folder of the run. Each row starts the server
// anew, so that memory and processor time are its own, in an empty database.
type cluster struct {
	bin, dir  string
	who       *syscall.Credential
	databases int
}

// postgresBin looks where Debian's packages put it, newest version first, and
// then on the PATH.
func postgresBin() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) + strings.Compare(b, a) })
	if len(found) > 0 {
		return filepath.Dir(found[0]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("PostgreSQL is not installed: `make deps` installs it")
	}
	return filepath.Dir(path), nil
}

// postgresUser: the server refuses to run as root, so root runs it as the user
// that the packages make.
func postgresUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root: %w", err)
	}
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(uerr, gerr)
}

// newCluster runs initdb and takes the settings of bench/rivals/postgres.
func newCluster(dir, settings string) (*cluster, error) {
	c := &cluster{dir: dir}
	var err error
	if c.bin, err = postgresBin(); err != nil {
		return nil, err
	}
	if c.who, err = postgresUser(); err != nil {
		return nil, err
	}
	if c.who != nil {
		if err := os.Chown(dir, int(c.who.Uid), int(c.who.Gid)); err != nil {
			return nil, err
		}
	}
	if out, err := c.command("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	text, err := os.ReadFile(settings)
	if err != nil {
		return nil, err
	}
	return c, os.WriteFile(filepath.Join(dir, "data", "postgresql.auto.conf"), text, 0o600)
}

func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.who, Setpgid: true}
	return cmd
}

// postgres is the server of one row, and what all rows that end in PostgreSQL
// have in common.
type postgres struct {
	*process
	cluster  *cluster
	port     int
	database string
}

// start starts the server; the first time in a new database with the rivals' tables or without.
func (p *postgres) start(ctx context.Context, tables bool) error {
	var err error
	if p.port == 0 {
		if p.port, err = freePort(); err != nil {
			return err
		}
	}
	cmd := p.cluster.command("postgres", "-D", "data", "-p", strconv.Itoa(p.port), "-c", "unix_socket_directories="+p.cluster.dir)
	if p.process, err = startProcess(cmd, nil); err != nil {
		return err
	}
	if p.database != "" {
		return p.poll(ctx, func(ctx context.Context) error { return p.exec(ctx, p.database, "SELECT 1") })
	}
	if err := p.poll(ctx, func(ctx context.Context) error { return p.exec(ctx, "postgres", "SELECT 1") }); err != nil {
		return err
	}
	p.cluster.databases++
	p.database = fmt.Sprintf("row%d", p.cluster.databases)
	if err := p.exec(ctx, "postgres", "CREATE DATABASE "+p.database); err != nil || !tables {
		return err
	}
	return p.exec(ctx, p.database, batch.Tables...)
}

func (p *postgres) url(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", p.port, database)
}

func (p *postgres) here() string { return p.url(p.database) }

func (p *postgres) exec(ctx context.Context, database string, statements ...string) error {
	conn, err := pgx.Connect(ctx, p.url(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, q := range statements {
		if _, err := conn.Exec(ctx, q); err != nil {
			return fmt.Errorf("%w (in %q)", err, q)
		}
	}
	return nil
}

func (p *postgres) number(ctx context.Context, query string) (n int64, err error) {
	conn, err := pgx.Connect(ctx, p.here())
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return n, conn.QueryRow(ctx, query).Scan(&n)
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
func (p *postgres) stop() {
	if p.process != nil {
		p.end(syscall.SIGQUIT)
	}
}

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
