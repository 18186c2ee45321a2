package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// postgresServer is a PostgreSQL of this program's own: fsync on, and what a
// small server would be given.
type postgresServer struct {
	*process
	bin  string
	port int
}

const postgresSettings = `
listen_addresses = '127.0.0.1'
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 60
shared_buffers = 512MB
max_wal_size = 4GB
log_min_messages = warning
`

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

func (s *suite) servePostgres(ctx context.Context) (*postgresServer, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	who, err := postgresUser()
	if err != nil {
		return nil, err
	}
	dir, err := s.newDir()
	if err != nil {
		return nil, err
	}
	if who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			return nil, err
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C", "TZ=UTC")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	p := &postgresServer{bin: bin}
	if p.port, err = freePort(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, "%sport = %d\nunix_socket_directories = '%s'\n", postgresSettings, p.port, dir)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if p.process, err = startProcess(command("postgres", "-D", data)); err != nil {
		return nil, err
	}
	err = p.poll(ctx, func(ctx context.Context) error { return p.exec(ctx, "SELECT 1") })
	if err != nil {
		p.stop()
	}
	return p, err
}

// stop is an immediate stop: the folder goes anyway.
func (p *postgresServer) stop() { p.end(syscall.SIGQUIT) }

func (p *postgresServer) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", p.port)
}

func (p *postgresServer) exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, p.url())
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

// inSchema asks Sluice's tables for a number.
func (p *postgresServer) inSchema(ctx context.Context, query string) (n int64, err error) {
	conn, err := pgx.Connect(ctx, p.url()+"&search_path=sluice_bench")
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return n, conn.QueryRow(ctx, query).Scan(&n)
}

var tpsLine = regexp.MustCompile(`(?m)^tps = ([\d.]+) \(without initial connection time\)`)

// pgbench runs a script with 16 clients that use prepared statements and commit
// each by itself, and gives the transactions per second. pgbench takes less of
// the cores than a client in Go, which is to the rival's good.
func (p *postgresServer) pgbench(ctx context.Context, script string, seconds int) (float64, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "pgbench"), "-h", "127.0.0.1", "-p", strconv.Itoa(p.port), "-U", "postgres",
		"-n", "-M", "prepared", "-c", strconv.Itoa(directClients), "-j", "2", "-T", strconv.Itoa(seconds), "-f", "/dev/stdin", "postgres")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	m := tpsLine.FindSubmatch(out)
	if err != nil || m == nil {
		return 0, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
