package pgtest_test

import (
	"os"
	"testing"

	"sluice.dev/sluice/internal/store/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestServerKeepsWhatWasCommittedThroughKill(t *testing.T) {
	c := pgtest.Start(t)
	dsn := c.NewDatabase(t)
	c.Exec(t, dsn, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
	for _, stop := range []func(){c.Kill, c.Stop} {
		stop()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if got := c.Query(t, dsn, "SELECT n, NULL FROM t"); got != "1|∅" {
			t.Fatalf("after a restart: got %q", got)
		}
	}
}

func TestSharedServerListensOnItsSocketToo(t *testing.T) {
	c := pgtest.Shared(t)
	if c != pgtest.Shared(t) {
		t.Fatal("two shared servers in one process")
	}
	if got := c.Query(t, c.SocketDSN("postgres"), "SHOW fsync"); got != "on" {
		t.Fatalf("fsync = %q", got)
	}
}

func TestServerThatWasKilledFromOutsideStartsAgain(t *testing.T) {
	if os.Getenv("SLUICE_SKIP_POSTGRES") == "1" {
		t.Skip("SLUICE_SKIP_POSTGRES=1")
	}
	dir, err := os.MkdirTemp("", "sluice-pg-")
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgtest.New(dir, "work_mem = 7MB\nmax_connections = 17")
	if err != nil {
		os.RemoveAll(dir)
		t.Fatal(err)
	}
	t.Cleanup(c.Remove)
	for range 2 {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err == nil {
			t.Fatal("a server that runs was started once more")
		}
		if got := c.Query(t, c.DSN("postgres"), "SELECT current_setting('work_mem'), current_setting('max_connections')"); got != "7MB|17" {
			t.Fatalf("settings are %s", got)
		}
		server, exited := c.Running()
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		<-exited
	}
}
