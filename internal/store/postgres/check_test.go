package postgres_test

import (
	"errors"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// mapped is a config with one table of somebody else.
func mapped(existing, rest string) string {
	return `
stores:
  main: {shards: {a: "postgres://test"}, ddl: auto}
tables:
  things:
    existing: ` + existing + `
    store: main
    ` + rest + "\n"
}

// Every table that would break a promise is refused with the cure.
func TestTablesThatAreRefused(t *testing.T) {
	shared := newBench(t, testConfig)
	const key, n = "key: {id: int64}", "\n    columns: {n: int64 sum}"
	for _, c := range []struct{ name, setup, existing, rest, reason, words string }{
		{"S6 unlogged", "CREATE UNLOGGED TABLE things (id bigint PRIMARY KEY, n bigint)", "{table: things}", key + n, "bad_table", "SET LOGGED"},
		{"S6 unlogged partition", "CREATE TABLE things (id bigint PRIMARY KEY, n bigint) PARTITION BY RANGE (id); CREATE UNLOGGED TABLE p PARTITION OF things FOR VALUES FROM (0) TO (9)", "{table: things}", key + n, "bad_table", "SET LOGGED"},
		{"S6 view", "CREATE VIEW things AS SELECT 1::bigint AS id, 1::bigint AS n", "{table: things}", key + n, "bad_table", "view"},
		{"S7 collation", "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE things (id text COLLATE ci PRIMARY KEY, n bigint)", "{table: things}", "key: {id: text}" + n, "bad_key", "collation"},
		{"S7 padded", "CREATE TABLE things (id char(9) PRIMARY KEY, n bigint)", "{table: things}", "key: {id: text}" + n, "bad_key", "equal"},
		{"S11 checked sum", "CREATE TABLE things (id bigint PRIMARY KEY, n bigint, CHECK (n >= 0))", "{table: things}", key + n, "checked_sum", "constraint"},
		{"no table", "SELECT 1", "{table: nowhere.things}", key + n, "missing_table", "nowhere.things"},
		{"no column", "CREATE TABLE things (id bigint PRIMARY KEY)", "{table: public.things}", key + n, "missing_column", "ADD COLUMN"},
		{"wrong type", "CREATE TABLE things (id bigint PRIMARY KEY, n text)", "{table: things}", key + n, "bad_column", "bigint"},
		{"generated", "CREATE TABLE things (id bigint PRIMARY KEY, n bigint GENERATED ALWAYS AS (id * 2) STORED)", "{table: things}", key + n, "bad_column", "generated"},
		{"identity column", "CREATE TABLE things (id bigint PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY)", "{table: things}", key + n, "bad_column", "IDENTITY"},
		{"identity key", "CREATE TABLE things (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n bigint)", "{table: things}", key + n, "bad_key", "missing_row: reject"},
		{"no unique index", "CREATE TABLE things (id bigint, n bigint); CREATE INDEX ON things (id); CREATE UNIQUE INDEX ON things (id) WHERE n > 0; CREATE UNIQUE INDEX ON things (id, n)", "{table: things}", key + n, "bad_key", "UNIQUE INDEX"},
		{"deferrable", "CREATE TABLE things (id bigint PRIMARY KEY DEFERRABLE, n bigint)", "{table: things}", key + n, "bad_key", "UNIQUE INDEX"},
		{"no sketch column", "CREATE TABLE things (id bigint PRIMARY KEY, n bigint)", "{table: things}", key + "\n    columns: {n: text unique}", "bad_column", "n_hll"},
		{"own name taken", "CREATE TABLE things (id bigint PRIMARY KEY, n bigint)", "", key + n, "bad_table", "existing:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shared.exec("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", c.setup)
			config := mapped(c.existing, c.rest)
			if c.existing == "" {
				config = strings.Replace(config, "    existing: \n", "", 1)
			}
			b := &bench{T: t, ctx: t.Context(), cluster: shared.cluster, dsn: shared.dsn, url: shared.dsn, sch: parseB(t, config)}
			b.open()
			b.wantStop(b.ensure(), c.reason, c.words, "store main, shard a")
		})
	}
}

func TestS6_OwnTableMadeUnlogged(t *testing.T) {
	b := newBench(t, testConfig).start()
	b.exec("ALTER TABLE counters SET UNLOGGED")
	b.wantStop(b.open().ensure(), "bad_table", "SET LOGGED")
	b.exec("ALTER TABLE counters SET LOGGED", "ALTER TABLE sluice_cursor SET UNLOGGED")
	b.wantStop(b.open().ensure(), "bad_table", "sluice_cursor")
}

// A wrong URL leaves nothing behind in the database of another shard.
func TestS6_AnotherShardsDatabaseIsLeftAlone(t *testing.T) {
	b := newBench(t, testConfig).start()
	tables := "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
	before := b.cluster.Query(t, b.dsn, tables)
	b.sch = parseB(t, strings.Replace(testConfig, "counters:", "strangers:", 1))
	id := testID
	id.Shard = "b"
	b.wantStop(b.open().shard.Ensure(b.ctx, id, b.sch.Groups()), "wrong_shard", "shard a of store main", "correct the URL")
	b.want(tables, before)
}

func TestMissingPrivilegeNamesTheGrant(t *testing.T) {
	b := newBench(t, mapped("{table: things}", "key: {id: int64}\n    columns: {n: int64 sum}"), "CREATE TABLE things (id bigint PRIMARY KEY, n bigint)",
		"DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN", "GRANT SELECT ON things TO reader", "GRANT CREATE ON SCHEMA public TO reader")
	b.url = strings.Replace(b.dsn, "postgres@", "reader@", 1)
	b.wantStop(b.open().ensure(), "no_privilege", "GRANT INSERT, UPDATE ON")
	b.exec("GRANT INSERT, UPDATE ON things TO reader")
	b.start().apply("things", `"key":1,"add":{"n":1}`)
	b.exec("REVOKE UPDATE ON things FROM reader")
	_, err := b.try(b.batch("things", `"key":1,"add":{"n":1}`))
	b.wantStop(err, "no_privilege", "permission denied", "sluice resume")
}

func TestRowLevelSecurityWarns(t *testing.T) {
	b := newBench(t, mapped("{table: things}", "key: {id: int64}\n    columns: {n: int64 sum}"),
		"CREATE TABLE things (id bigint PRIMARY KEY, n bigint)", "ALTER TABLE things ENABLE ROW LEVEL SECURITY", "CREATE POLICY odd ON things USING (true) WITH CHECK (id <> 2)",
		"DROP ROLE IF EXISTS policed", "CREATE ROLE policed LOGIN", "GRANT ALL ON things TO policed", "GRANT CREATE ON SCHEMA public TO policed")
	b.url = strings.Replace(b.dsn, "postgres@", "policed@", 1)
	b.start()
	if len(b.warned) != 1 || !strings.Contains(b.warned[0], "row level security") {
		t.Errorf("warned %q", b.warned)
	}
	// S10: a policy refuses a row, and that is a reject, not a missing privilege.
	r := b.apply("things", `"key":1,"add":{"n":1}`, `"key":2,"add":{"n":1}`, `"key":3,"add":{"n":1}`)
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "42501" || string(r.Rejected[0].Key) != "2" {
		t.Errorf("rejected %+v, want key 2 with 42501", r.Rejected)
	}
	b.want("SELECT id FROM things ORDER BY id", "1\n3")
}

func TestSchemaOptionAndSocket(t *testing.T) {
	b := newBench(t, testConfig, "CREATE SCHEMA \"My Own\"")
	b.url = b.cluster.SocketDSN(b.cluster.Query(t, b.dsn, "SELECT current_database()")) + "&schema=My%20Own"
	b.start().apply("counters", `"key":1,"add":{"n":3}`)
	b.want(`SELECT n FROM "My Own".counters`, "3")
	b.want(`SELECT "group", commit, parked FROM "My Own".sluice_lag`, "counters|1|0")
	b.want("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace", "0")
	b.url = b.dsn + "&schema=nowhere"
	if err := b.open().ensure(); err == nil {
		t.Error("Ensure made tables in a schema that does not exist")
	}
}

// ddl: print runs nothing, and what it prints is enough.
func TestPrintedStatementsAreEnough(t *testing.T) {
	b := newBench(t, testConfig)
	b.tune = func(s *schema.Store) { s.DDL = "print" }
	var missing *store.MissingError
	if err := b.open().ensure(); !errors.As(err, &missing) {
		t.Fatalf("Ensure answered %v, want a MissingError", err)
	}
	b.want("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace", "0")
	b.exec(missing.Statements...)
	b.start().apply("counters", `"key":1,"add":{"n":1}`)
	b.exec("DROP VIEW sluice_lag") // only a comfort: a sentence, no stop
	b.start()
	if len(b.warned) != 1 || !strings.Contains(b.warned[0], "sluice_lag") {
		t.Errorf("warned %q", b.warned)
	}
}

func TestBadURLIsRefusedAtOpen(t *testing.T) {
	b := newBench(t, testConfig)
	for _, url := range []string{"postgres://h:port/x", "postgres://h/x?sslmode=perhaps", "\x00"} {
		if _, err := openURL(b, url); err == nil || !strings.Contains(err.Error(), "postgres://user:password@host") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
