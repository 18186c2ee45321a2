package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/console"
)

const benchHelp = `Measures your own PostgreSQL with and without Sluice, in a schema of its own
that is removed at the end, also after ctrl-C. It refuses a schema that exists.

Each workload runs direct, with one prepared statement a write, and through a
Sluice started for it on loopback, with one write and with 100 a request (as the
Go client sends them). Both write tables of the same shape.
  one idle like    one client, a pause after each write: what a single like costs
  hot key          all clients like the same post
  uniform keys     likes spread evenly over --keys posts
  events           inserts

ACKED/S is what clients were answered, IN DB/S counts until the database has all
of it. RATIO compares IN DB/S with direct, and p50 where it says one idle like.
DB ROWS is what PostgreSQL itself counted as inserted, updated and deleted. After
each run every total is compared; lost or doubled writes make it fail.

Sluice acknowledges from its journal in --dir: put that on the disk you would use.
The numbers are for this machine as the client and Sluice's host. A password may
come from PGPASSWORD or ~/.pgpass instead of the DSN. The database gets real load.`

const benchExample = `  sluice bench --postgres 'postgres://me@db.example/app?sslmode=verify-full'
  sluice bench --postgres "$DATABASE_URL" --seconds 10 --clients 64
  sluice bench --postgres "$DATABASE_URL" --kill          # and kill -9 of both sides
  sluice bench --postgres "$DATABASE_URL" --json > mine.json`

type benchFlags struct {
	postgres string
	schema   string
	dir      string
	seconds  float64
	clients  int
	keys     int
	kill     bool
	child    bool // this process is the direct client that --kill kills
}

// The limits of a bench.
const (
	benchSecondsMax = 60
	benchClientsMax = 64
	benchKeysMax    = 1_000_000
	benchWritesMax  = 500_000 // in one run: somebody else's disk is not ours to fill
	benchStopMax    = 30 * time.Second
	benchDrainMax   = 2 * time.Minute
)

func (p *program) bench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{Use: "bench", Short: "Measure your own PostgreSQL with and without Sluice", Long: benchHelp, Example: benchExample, Args: p.noArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.child {
				return p.runBenchChild(cmd.Context())
			}
			if err := f.check(); err != nil {
				return err
			}
			return p.runBench(cmd.Context(), f)
		}}
	flags := cmd.Flags()
	flags.StringVar(&f.postgres, "postgres", "", "the database, as a URL: postgres://user@host:5432/database")
	flags.StringVar(&f.schema, "schema", "sluice_bench", "schema to make and to remove")
	flags.StringVar(&f.dir, "dir", "", "folder on the disk that the journal is to use (default the system's temporary folder)")
	flags.Float64Var(&f.seconds, "seconds", 5, "how long each run sends")
	flags.IntVar(&f.clients, "clients", 16, "how many clients write at once")
	flags.IntVar(&f.keys, "keys", 100_000, "how many posts there are")
	flags.BoolVar(&f.kill, "kill", false, "then kill both sides with kill -9 under load, and count what is lost and doubled")
	flags.BoolVar(&f.child, "direct-child", false, "be the direct client")
	_ = flags.MarkHidden("direct-child")
	return cmd
}

// schemaName is what needs no quotes anywhere, in SQL, URL and YAML.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func (f *benchFlags) check() error {
	switch {
	case f.postgres == "":
		return usage("say which database: --postgres postgres://user@host:5432/database")
	case !schemaName.MatchString(f.schema):
		return usage("--schema %q: use lower-case letters, digits and _", f.schema)
	case math.IsNaN(f.seconds) || f.seconds <= 0 || f.seconds > benchSecondsMax:
		return usage("--seconds must be above 0 and at most %d", benchSecondsMax)
	case f.clients < 1 || f.clients > benchClientsMax:
		return usage("--clients must be 1 to %d", benchClientsMax)
	case f.keys < 1 || f.keys > benchKeysMax:
		return usage("--keys must be 1 to %s", console.Count(benchKeysMax))
	}
	return nil
}

// bench is one run of the command.
type bench struct {
	p      *program
	f      benchFlags
	db     *benchDB
	server demoServer
	screen *console.Screen
	result benchResult

	direct, sluice *benchTally
}

func (p *program) runBench(ctx context.Context, f benchFlags) (err error) {
	b := &bench{p: p, f: f, screen: p.out.Screen()}
	b.direct, b.sluice = newBenchTally(f.keys), newBenchTally(f.keys)
	if b.db, err = openBenchDB(ctx, f); err != nil {
		return err
	}
	if err := b.db.create(ctx); err != nil {
		b.db.close()
		return err
	}
	dir, err := os.MkdirTemp(f.dir, "sluice-bench-")
	defer func() {
		err = errors.Join(err, b.cleanUp(ctx, dir))
		if ctx.Err() != nil && err != nil {
			// What broke because of the signal is not worth a word.
			err = ctx.Err()
		}
	}()
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if err := b.prepare(ctx, dir); err != nil {
		return err
	}
	b.head()
	for i := range benchRuns {
		if err := b.run(ctx, &benchRuns[i]); err != nil {
			return fmt.Errorf("%s, %s: %w", benchRuns[i].Workload, benchRuns[i].How, err)
		}
	}
	if f.kill {
		if err := b.killBoth(ctx); err != nil {
			return fmt.Errorf("kill -9: %w", err)
		}
	}
	return b.report()
}

const benchConfig = `listen: {http: %q, resp: off}
journal: {dir: journal, bytes_max: 4GiB, disk_reserve: 64MiB}
stores:
  main: {url: "${` + benchDSNVariable + `}", ddl: auto}
tables:
  posts:
    existing: {table: %s.posts_sluice, missing_row: reject}
    key: {id: int64}
    store: main
    flush: 1s
    columns: {likes: int64 sum}
  log:
    key: {post: int64}
    groups:
      events: {kind: events, store: main, columns: {n: int64, what: text}}
`

// benchDSNVariable carries the database's URL to the children: a password must
// be in no file and on no command line.
const benchDSNVariable = "SLUICE_BENCH_DSN"

func (b *bench) prepare(ctx context.Context, dir string) error {
	addr, err := freePort()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, benchConfig, addr, b.f.schema), 0o600); err != nil {
		return err
	}
	c, err := client.New(client.Options{URL: "http://" + addr, RetryBudget: demoBudget})
	if err != nil {
		return err
	}
	url, err := b.db.sluiceURL()
	if err != nil {
		return err
	}
	b.server = demoServer{config: file, dir: dir, c: c, env: []string{benchDSNVariable + "=" + url}}
	if b.result.JournalSync, err = syncTime(dir); err != nil {
		return err
	}
	if err := b.db.fill(ctx, b.f.keys); err != nil {
		return err
	}
	b.result.Database, err = b.db.facts(ctx)
	b.result.Schema, b.result.Seconds, b.result.Clients, b.result.Keys = b.f.schema, b.f.seconds, b.f.clients, b.f.keys
	return err
}

// syncTime is what a commit costs at least in a folder: the median of some
// writes with fsync.
func syncTime(dir string) (microseconds, error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	var took []time.Duration
	for range 21 {
		if _, err := f.WriteAt(block, 0); err != nil {
			return 0, err
		}
		from := time.Now()
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(from))
	}
	return quantile(took, 0.5), nil
}

// cleanUp ends the server, and removes schema and folder although ctx may have
// ended. A journal whose database goes away needs no orderly stop.
func (b *bench) cleanUp(ctx context.Context, dir string) error {
	if b.server.exited != nil {
		_ = b.server.kill() // gone already is as good
	}
	if b.server.c != nil {
		b.server.c.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchStopMax)
	defer cancel()
	err := b.db.drop(ctx)
	b.db.close()
	if dir != "" {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
