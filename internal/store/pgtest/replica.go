package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Replica makes an asynchronous streaming replica of the server, on a port and
// data of its own, removed with the test. It reaches its primary through
// primaryPort: give the port of something that can be cut, and the replica falls
// behind.
func (c *Cluster) Replica(t testing.TB, primaryPort int) *Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-pg-")
	if err != nil {
		t.Fatal(err)
	}
	r := &Cluster{Dir: dir, BinDir: c.BinDir, creds: c.creds}
	t.Cleanup(r.Remove)
	if err := r.follow(c, primaryPort); err != nil {
		t.Fatal(err)
	}
	return r
}

func (c *Cluster) follow(primary *Cluster, primaryPort int) error {
	if err := os.Chmod(c.Dir, 0o755); err != nil {
		return err
	}
	if c.creds != nil {
		if err := os.Chown(c.Dir, int(c.creds.Uid), int(c.creds.Gid)); err != nil {
			return err
		}
	}
	backup := c.command("pg_basebackup", "-D", c.data(), "-h", "127.0.0.1", "-p", strconv.Itoa(primary.Port), "-U", "postgres", "-X", "stream", "--no-sync", "-c", "fast")
	backup.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if out, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	var err error
	if c.Port, err = freePort(); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(f, "port = %d\nunix_socket_directories = '%s'\nprimary_conninfo = 'host=127.0.0.1 port=%d user=postgres'\n", c.Port, c.Dir, primaryPort)
	if err := f.Close(); err != nil {
		return err
	}
	signal := filepath.Join(c.data(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return err
	}
	if c.creds != nil {
		if err := os.Chown(signal, int(c.creds.Uid), int(c.creds.Gid)); err != nil {
			return err
		}
	}
	return c.Start()
}

// Promote makes a replica a primary, with what it has.
func (c *Cluster) Promote(t testing.TB) {
	t.Helper()
	if got := c.Query(t, c.DSN("postgres"), "SELECT pg_promote(true, 30)"); got != "t" {
		t.Fatalf("pg_promote says %s", got)
	}
}
