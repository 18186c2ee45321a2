package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/store/pgtest"
)

// benchOn gives a database and the folder of the journals, with this test
// binary as the child processes.
func benchOn(t *testing.T) (c *pgtest.Cluster, dsn, dir string) {
	t.Helper()
	c = pgtest.Shared(t)
	t.Setenv(runsMain, "1")
	return c, c.NewDatabase(t), t.TempDir()
}

// leavesNothing checks that neither schema nor folder is left.
func leavesNothing(t *testing.T, c *pgtest.Cluster, dsn, dir string) {
	t.Helper()
	if got := c.Query(t, dsn, "SELECT count(*) FROM pg_namespace WHERE nspname = 'sluice_bench'"); got != "0" {
		t.Error("the schema is left behind")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBench_RowsAndKill(t *testing.T) {
	c, dsn, dir := benchOn(t)
	r := run(t, "bench", "--postgres", dsn, "--dir", dir, "--seconds", "0.1", "--clients", "4", "--keys", "500", "--kill", "--json")
	if r.code != exitDone {
		t.Fatalf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	var got benchResult
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != len(benchRuns) || got.Database.Version == "" || got.Database.Fsync != "on" || got.JournalSync <= 0 {
		t.Errorf("%+v", got)
	}
	for _, row := range got.Rows {
		if row.Writes == 0 || row.Acked <= 0 || row.InDatabase <= 0 || row.InDatabase > row.Acked*1.001 || row.P50 <= 0 || row.P99 < row.P50 || row.Lost != 0 || row.Doubled != 0 {
			t.Errorf("%+v", row)
		}
		if row.How == "direct" && (row.Rows != row.Writes || row.Ratio != 0) {
			t.Errorf("direct changes one row a write: %+v", row)
		}
		if row.How != "direct" && (row.Rows == 0 || row.Ratio <= 0) {
			t.Errorf("%+v", row)
		}
		if row.Workload == "hot key" && row.PerRequest > 1 && row.RowsByWrite > 0.5 {
			t.Errorf("the hot key does not fold: %+v", row)
		}
		if row.Workload == "events" && row.Rows < row.Writes {
			t.Errorf("an event is a row: %+v", row)
		}
	}
	if len(got.Kill) != 2 {
		t.Fatalf("%+v", got.Kill)
	}
	for _, k := range got.Kill {
		if k.Kills != benchKills || k.Acknowledged == 0 || k.Lost != 0 || k.Present != k.Acknowledged || k.Back <= 0 || k.Side == "sluice" && k.Doubled != 0 {
			t.Errorf("%+v", k)
		}
	}
	leavesNothing(t, c, dsn, dir)
}

func TestBench_RefusesASchemaThatIsThere(t *testing.T) {
	c, dsn, dir := benchOn(t)
	c.Exec(t, dsn, "CREATE SCHEMA mine", "CREATE TABLE mine.precious (n int)")
	run(t, "bench", "--postgres", dsn, "--dir", dir, "--schema", "mine").wants(t, exitFailed, "schema mine exists and stays as it is", "--schema", "DROP SCHEMA mine CASCADE")
	if got := c.Query(t, dsn, "SELECT count(*) FROM mine.precious"); got != "0" {
		t.Errorf("it does not stay as it is: %s", got)
	}
}

// ctrl-C in the middle leaves nothing behind, on the direct side, on Sluice's
// and during the kills.
func TestBench_InterruptedLeavesNothing(t *testing.T) {
	for _, at := range []string{"clients, 10 posts", "one idle like  sluice", "kill -9        direct"} {
		t.Run(at, func(t *testing.T) {
			c, dsn, dir := benchOn(t)
			ctx, cancel := contextOf(t)
			out := &cancelling{on: func(text string) {
				if strings.Contains(text, at) {
					cancel()
				}
			}}
			seconds := "0.3"
			if strings.HasPrefix(at, "kill") {
				seconds = "0.1"
			}
			var errs bytes.Buffer
			m := &Main{Stdin: strings.NewReader(""), Stdout: out, Stderr: &errs, Env: noEnv}
			code := m.Run(ctx, []string{"bench", "--postgres", dsn, "--dir", dir, "--seconds", seconds, "--clients", "2", "--keys", "10", "--kill"})
			if code != exitInterrupted || !strings.Contains(errs.String(), "interrupted") {
				t.Errorf("exit code %d\n%s%s", code, out, &errs)
			}
			leavesNothing(t, c, dsn, dir)
		})
	}
}

func TestBench_FaultsOfTheDatabase(t *testing.T) {
	c, dsn, dir := benchOn(t)
	c.Exec(t, dsn, "CREATE ROLE bench_guest LOGIN")
	guest := strings.Replace(dsn, "postgres@", "bench_guest@", 1)
	run(t, "bench", "--postgres", guest, "--dir", dir).wants(t, exitFailed, "may not make a schema", "GRANT CREATE ON DATABASE")
	run(t, "bench", "--postgres", "postgres://u:secret@127.0.0.1:1/x").wants(t, exitLater, "connect to the database", "psql")
	run(t, "bench", "--postgres", dsn, "--dir", filepath.Join(dir, "none")).wants(t, exitFailed, "--dir", "no such file")
	leavesNothing(t, c, dsn, dir)
	for _, bad := range []string{"postgres://u:secret@127.0.0.1:1/x", "postgres://u:secret@host:port/x", "host=db password=secret"} {
		if r := run(t, "bench", "--postgres", bad); strings.Contains(r.out+r.err, "secret") || r.code == exitDone {
			t.Errorf("%s shows its password, or works: %s%s", bad, r.out, r.err)
		}
	}
}

// What is compared must differ when the tables do.
func TestBench_NoticesEveryDifference(t *testing.T) {
	c, dsn, _ := benchOn(t)
	for _, test := range []struct {
		name, defect  string
		lost, doubled int64
	}{
		{name: "nothing", defect: "SELECT 1"},
		{name: "a like is lost", defect: "UPDATE sluice_bench.posts_direct SET likes = likes - 1 WHERE id = 3", lost: 1},
		{name: "a like is doubled", defect: "UPDATE sluice_bench.posts_direct SET likes = likes + 2 WHERE id = 3", doubled: 2},
		{name: "both in one sum", defect: "UPDATE sluice_bench.posts_direct SET likes = likes + CASE id WHEN 1 THEN 1 ELSE -1 END WHERE id IN (1, 2)", lost: 1, doubled: 1},
		{name: "a row is gone", defect: "DELETE FROM sluice_bench.posts_direct WHERE id = 4", lost: 4},
		{name: "an event is lost", defect: "DELETE FROM sluice_bench.events_direct WHERE n = 2", lost: 1},
		{name: "an event is doubled", defect: "INSERT INTO sluice_bench.events_direct (post, n, what) VALUES (1, 5, ''), (1, 5, '')", doubled: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			db, err := openBenchDB(ctx, benchFlags{postgres: dsn, schema: "sluice_bench"})
			if err != nil {
				t.Fatal(err)
			}
			defer db.close()
			if err := errors.Join(db.create(ctx), db.fill(ctx, 5)); err != nil {
				t.Fatal(err)
			}
			defer db.drop(context.WithoutCancel(ctx))
			tally := newBenchTally(5)
			for i := range tally.likes {
				tally.likes[i].Store(int64(i))
			}
			tally.events.Store(5)
			c.Exec(t, dsn, "UPDATE sluice_bench.posts_direct SET likes = id", "INSERT INTO sluice_bench.events_direct (post, n, what) SELECT 0, g, '' FROM generate_series(1, 5) g", test.defect)
			got, err := db.compare(ctx, "direct", tally)
			if want := (benchCheck{15, 15 - test.lost, test.lost, test.doubled}); err != nil || got != want {
				t.Errorf("got %+v, want %+v, %v", got, want, err)
			}
		})
	}
}

// A write whose answer did not come counts twice on the direct side: the next
// process gets it again. Without that, --kill would show nothing.
func TestBench_DirectClientRetriesWhatWasNotAnswered(t *testing.T) {
	c, dsn, _ := benchOn(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	db, err := openBenchDB(ctx, benchFlags{postgres: dsn, schema: "sluice_bench"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	if err := errors.Join(db.create(ctx), db.fill(ctx, 1)); err != nil {
		t.Fatal(err)
	}
	defer db.drop(context.WithoutCancel(ctx))
	// The statement waits after it has done its work, so that the answer cannot come in time.
	c.Exec(t, dsn, "CREATE FUNCTION sluice_bench.wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NULL; END'",
		"CREATE TRIGGER wait AFTER UPDATE ON sluice_bench.posts_direct FOR EACH ROW EXECUTE FUNCTION sluice_bench.wait()")
	if _, err := db.conn.Exec(ctx, "SELECT pg_advisory_lock(77)"); err != nil {
		t.Fatal(err)
	}
	url, err := db.sluiceURL()
	if err != nil {
		t.Fatal(err)
	}
	app := newDirectApp(url, 1)
	if err := app.start(ctx); err != nil {
		t.Fatal(err)
	}
	defer app.stop()
	answered := make(chan error, 1)
	go func() { answered <- app.write(ctx, directWrite{}) }()
	for c.Query(t, dsn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") != "1" {
		if err := pause(ctx, benchSettle); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.conn.Exec(ctx, "SELECT pg_advisory_unlock(77)"); err != nil {
		t.Fatal(err)
	}
	if err := app.start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	app.stop()
	if _, err := db.rows(ctx); err != nil {
		t.Fatal(err)
	}
	if got := c.Query(t, dsn, "SELECT likes FROM sluice_bench.posts_direct"); got != "2" {
		t.Errorf("%s likes, want 2: one was committed unseen, one retried", got)
	}
}

func TestBench_DirectClientThatEndsByItselfIsAnError(t *testing.T) {
	c, dsn, _ := benchOn(t)
	c.Exec(t, dsn, "CREATE SCHEMA sluice_bench")
	db, err := openBenchDB(t.Context(), benchFlags{postgres: dsn, schema: "sluice_bench"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	url, err := db.sluiceURL()
	if err != nil {
		t.Fatal(err)
	}
	app := newDirectApp(url, 2)
	if err := app.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer app.stop()
	err = app.write(t.Context(), directWrite{})
	if err == nil || !strings.Contains(err.Error(), "ended by itself") || !strings.Contains(err.Error(), "posts_direct") {
		t.Errorf("got %v", err)
	}
}

func TestBench_UsageAndHelp(t *testing.T) {
	for line, want := range map[string]string{
		"bench":                              "say which database",
		"bench --postgres x":                 "as a URL",
		"bench --postgres mysql://x":         "as a URL",
		"bench --postgres x --seconds 0":     "--seconds must be above 0",
		"bench --postgres x --seconds NaN":   "--seconds must be above 0",
		"bench --postgres x --clients 65":    "--clients must be 1 to 64",
		"bench --postgres x --keys 0":        "--keys must be 1 to 1,000,000",
		"bench --postgres x --schema a.b":    "use lower-case letters",
		"bench --postgres postgres://x more": "takes no arguments",
		"bench --direct-child":               "is for the bench itself",
	} {
		run(t, strings.Fields(line)...).wants(t, exitUsage, want)
	}
}

func TestBench_Quantile(t *testing.T) {
	times := []time.Duration{5 * time.Millisecond, 1 * time.Millisecond, 3 * time.Millisecond, 2 * time.Millisecond}
	for q, want := range map[float64]microseconds{0: 1000, 0.5: 3000, 0.99: 5000, 1: 5000} {
		if got := quantile(times, q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
	for m, want := range map[microseconds]string{0: "0 s", 90: "90 µs", 1500: "1.5 ms", 2000: "2 ms", 12_300: "12 ms"} {
		if got := m.span(); got != want {
			t.Errorf("%v: %q, want %q", float64(m), got, want)
		}
	}
}
