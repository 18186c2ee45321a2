package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5" // the bench is the direct client, and counts with its own eyes
	"github.com/jackc/pgx/v5/pgconn"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

// benchDB is the reader's database and the schema in it that is the bench's.
type benchDB struct {
	url    *url.URL
	schema string
	conn   *pgx.Conn // counts and compares; never writes what is measured
}

const (
	benchConnectMax  = 10 * time.Second
	benchRoundTrips  = 21
	benchSettle      = 10 * time.Millisecond
	benchSettleMax   = 12 * time.Second // a server process that goes on living reports its counts within 10 s
	benchSyncFreeMax = 20               // microseconds: no disk is as quick as that
)

// openBenchDB connects. The URL must be one, since Sluice's config takes no
// keyword DSN.
func openBenchDB(ctx context.Context, f benchFlags) (*benchDB, error) {
	u, err := url.Parse(f.postgres)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, usage("--postgres: write the database as a URL: postgres://user@host:5432/database") // err would show a password
	}
	db := &benchDB{url: u, schema: f.schema}
	if db.conn, err = db.connect(ctx, f.schema+" counts"); err != nil {
		return nil, err
	}
	return db, nil
}

// connect makes a connection under a name, by which counts know when it is gone.
func (d *benchDB) connect(ctx context.Context, name string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(d.url.String())
	if err != nil {
		return nil, usage("--postgres: %v", err)
	}
	delete(config.RuntimeParams, "schema") // Sluice's own option
	config.RuntimeParams["application_name"] = name
	ctx, cancel := context.WithTimeout(ctx, benchConnectMax)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, sluice.Errorf(sluice.Unavailable, "no_database", "connect to the database: %w; `psql` with the same URL should work first", err)
	}
	return conn, nil
}

// writer makes a connection of a client that is measured.
func (d *benchDB) writer(ctx context.Context) (*pgx.Conn, error) { return d.connect(ctx, d.schema) }

// sluiceURL is the URL for Sluice, whose tables all lie in the schema.
func (d *benchDB) sluiceURL() (string, error) {
	u := *d.url
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", usage("--postgres: the options behind ? are not valid")
	}
	q.Set("schema", d.schema)
	q.Set("application_name", d.schema)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// create makes the schema. One that is there is somebody's.
func (d *benchDB) create(ctx context.Context) error {
	_, err := d.conn.Exec(ctx, "CREATE SCHEMA "+d.schema)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "42P06":
		return sluice.Errorf(sluice.Conflict, "schema_exists", "schema %s exists and stays as it is: name another with --schema, or, when an earlier bench left it behind, remove it with `DROP SCHEMA %s CASCADE`", d.schema, d.schema)
	case errors.As(err, &pg) && pg.Code == "42501":
		return sluice.Errorf(sluice.Denied, "no_right", "this role may not make a schema: `GRANT CREATE ON DATABASE ... TO ...`, or use another role: %w", err)
	case err != nil:
		return fmt.Errorf("make schema %s: %w", d.schema, err)
	}
	return nil
}

// drop removes the schema on a new connection: a signal breaks the one in use.
func (d *benchDB) drop(ctx context.Context) error {
	conn, err := d.connect(ctx, d.schema+" counts")
	if err == nil {
		_, err = conn.Exec(ctx, "DROP SCHEMA "+d.schema+" CASCADE")
		_ = conn.Close(ctx) // what counts is that the statement succeeded
	}
	if err != nil {
		return fmt.Errorf("schema %s is left behind; remove it with `DROP SCHEMA %s CASCADE`: %w", d.schema, d.schema, err)
	}
	return nil
}

func (d *benchDB) close() {
	ctx, cancel := context.WithTimeout(context.Background(), benchConnectMax)
	defer cancel()
	_ = d.conn.Close(ctx) // nothing is lost with it
}

// fill makes the tables: the same for both sides, but for the events of Sluice,
// which makes its own.
func (d *benchDB) fill(ctx context.Context, keys int) error {
	conn, err := d.writer(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, side := range []string{"direct", "sluice"} {
		table := d.schema + ".posts_" + side
		for _, sql := range []string{
			"CREATE TABLE " + table + " (id bigint PRIMARY KEY, likes bigint NOT NULL DEFAULT 0)",
			fmt.Sprintf("INSERT INTO %s SELECT g, 0 FROM generate_series(0, %d) g", table, keys-1),
			"ANALYZE " + table,
		} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("make table %s: %w", table, err)
			}
		}
	}
	events := d.schema + ".events_direct"
	for _, sql := range []string{
		"CREATE TABLE " + events + " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, post bigint NOT NULL, n bigint NOT NULL, what text NOT NULL)",
		"CREATE INDEX ON " + events + " (post)",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make table %s: %w", events, err)
		}
	}
	return nil
}

// benchFacts are what the numbers depend on.
type benchFacts struct {
	Version           string       `json:"version"`
	Fsync             string       `json:"fsync"`
	SynchronousCommit string       `json:"synchronous_commit"`
	RoundTrip         microseconds `json:"round_trip_us"`
}

func (d *benchDB) facts(ctx context.Context) (f benchFacts, err error) {
	err = d.conn.QueryRow(ctx, "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('fsync'), current_setting('synchronous_commit')").
		Scan(&f.Version, &f.Fsync, &f.SynchronousCommit)
	if err != nil {
		return f, fmt.Errorf("ask for the settings: %w", err)
	}
	var took []time.Duration
	for range benchRoundTrips {
		from := time.Now()
		if _, err := d.conn.Exec(ctx, "SELECT 1"); err != nil {
			return f, fmt.Errorf("ask for nothing: %w", err)
		}
		took = append(took, time.Since(from))
	}
	f.RoundTrip = quantile(took, 0.5)
	return f, nil
}

// rows is how many rows were changed in the schema so far. A server process
// reports its counts when it ends, so those of the writers must be gone first.
func (d *benchDB) rows(ctx context.Context) (n int64, err error) {
	until := time.Now().Add(benchSettleMax)
	for alive := 1; alive > 0 && time.Now().Before(until); {
		if err := d.conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", d.schema).Scan(&alive); err != nil {
			return 0, fmt.Errorf("look for writers: %w", err)
		}
		if alive > 0 {
			if err := pause(ctx, benchSettle); err != nil {
				return 0, err
			}
		}
	}
	err = d.conn.QueryRow(ctx, "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = $1", d.schema).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("read the counts of rows: %w", err)
	}
	return n, nil
}

// benchCheck is one side's tables beside what its clients were told.
type benchCheck struct{ Acknowledged, Present, Lost, Doubled int64 }

// compare reads the tables of a side and compares every key and every event.
func (d *benchDB) compare(ctx context.Context, side string, t *benchTally) (c benchCheck, err error) {
	rows, err := d.conn.Query(ctx, "SELECT id, likes FROM "+d.schema+".posts_"+side)
	if err != nil {
		return c, fmt.Errorf("read the likes: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, found int64
		if err := rows.Scan(&id, &found); err != nil {
			return c, fmt.Errorf("read the likes: %w", err)
		}
		if id < 0 || id >= int64(len(t.likes)) {
			return c, fmt.Errorf("posts_%s has a row %d that nobody made", side, id)
		}
		sent := t.likes[id].Load()
		c.Present += min(sent, found)
		c.Doubled += max(found-sent, 0)
	}
	if err := rows.Err(); err != nil {
		return c, fmt.Errorf("read the likes: %w", err)
	}
	table := map[string]string{"direct": "events_direct", "sluice": "log_events"}[side]
	var all, different, strange int64
	sent := t.events.Load()
	err = d.conn.QueryRow(ctx, "SELECT count(*), count(DISTINCT n) FILTER (WHERE n BETWEEN 1 AND $1), count(*) FILTER (WHERE n NOT BETWEEN 1 AND $1 OR n IS NULL) FROM "+d.schema+"."+table, sent).
		Scan(&all, &different, &strange)
	if err != nil {
		return c, fmt.Errorf("read the events: %w", err)
	}
	if strange > 0 {
		return c, fmt.Errorf("%s holds %d events that nobody sent", table, strange)
	}
	c.Present += different
	c.Doubled += all - different
	c.Acknowledged = t.acknowledged()
	c.Lost = c.Acknowledged - c.Present // also those of a row that is gone
	return c, nil
}

// minus is what came after an earlier look.
func (c benchCheck) minus(o benchCheck) benchCheck {
	return benchCheck{c.Acknowledged - o.Acknowledged, c.Present - o.Present, c.Lost - o.Lost, c.Doubled - o.Doubled}
}

// quantile is the nearest-rank quantile of times that it may sort.
func quantile(times []time.Duration, q float64) microseconds {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	at := min(int(q*float64(len(times))), len(times)-1)
	return microseconds(times[at]) / microseconds(time.Microsecond)
}

// microseconds is a latency in the JSON: fractions of them mean nothing.
type microseconds float64

func (m microseconds) span() string {
	d := time.Duration(float64(m) * float64(time.Microsecond))
	if d >= time.Millisecond && d < 10*time.Millisecond { // where whole milliseconds hide what is compared
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()*1e3), ".0") + " ms"
	}
	return console.Span(d)
}
