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
