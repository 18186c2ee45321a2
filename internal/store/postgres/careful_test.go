package postgres_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

const thingsTable = "CREATE TABLE things (id bigint PRIMARY KEY, n bigint, name text)"

func things(t *testing.T, setup ...string) *bench {
	t.Helper()
	return newBench(t, mapped("{table: things, other_writers: true}", "key: {id: int64}\n    columns: {n: int64 sum, name: text}"), append([]string{thingsTable}, setup...)...)
}

// A lock on the whole table holds up every row: the stream waits, nothing is parked.
func TestS8_LockedTableParksNothing(t *testing.T) {
	b := things(t).start()
	unlock := lock(t, b.dsn, "LOCK TABLE things IN SHARE MODE")
	batch := b.batch("things", `"key":1,"add":{"n":1}`)
	_, err := b.try(batch)
	var stop *store.StopError
	if err == nil || errors.As(err, &stop) || errors.Is(err, store.ErrFenced) {
		t.Fatalf("Apply answered %v, want an error that a retry cures", err)
	}
	b.want("SELECT count(*) FROM sluice_parked", "0")
	unlock()
	if _, err := b.try(batch); err != nil {
		t.Fatal(err)
	}
	b.want("SELECT n FROM things", "1")
}

// A row that another transaction has inserted and not committed is locked too,
// though nobody can see it.
func TestS8_UncommittedRowIsParked(t *testing.T) {
	b := things(t).start()
	unlock := lock(t, b.dsn, "INSERT INTO things (id, n) VALUES (2, 100)")
	r := b.apply("things", `"key":1,"add":{"n":1}`, `"key":2,"add":{"n":1}`, `"key":3,"add":{"n":1}`)
	if len(r.Parked) != 1 || r.Parked[0].Ordinal != 1 {
		t.Fatalf("parked %+v, want the entry of key 2", r.Parked)
	}
	b.want("SELECT id FROM things ORDER BY id", "1\n3")
	unlock() // rolled back
	b.until("SELECT count(*) FROM pg_locks WHERE relation = 'things'::regclass", "0")
	if r = b.unpark("things", 10); len(r.Unparked) != 1 {
		t.Errorf("unparked %+v", r.Unparked)
	}
	b.want("SELECT id, n FROM things ORDER BY id", "1|1\n2|1\n3|1")
}

// Keys that stay locked do not keep those behind them waiting for ever.
func TestS8_UnparkTakesTurns(t *testing.T) {
	b := things(t, "INSERT INTO things VALUES (1, 0), (2, 0), (3, 0)").start()
	unlock := lock(t, b.dsn, "SELECT FROM things FOR UPDATE")
	r := b.apply("things", `"key":1,"add":{"n":1}`, `"key":2,"add":{"n":1}`, `"key":3,"add":{"n":1}`)
	if len(r.Parked) != 3 {
		t.Fatalf("parked %+v", r.Parked)
	}
	unlock()
	b.until("SELECT count(*) FROM pg_locks WHERE relation = 'things'::regclass", "0")
	defer lock(t, b.dsn, "SELECT FROM things WHERE id = 1 FOR UPDATE")()
	left := 0
	for range 3 {
		left += len(b.unpark("things", 1).Unparked)
	}
	if left != 2 {
		t.Errorf("%d left the park in three turns of one key, want the two that are free", left)
	}
	b.want("SELECT id, n FROM things ORDER BY id", "1|0\n2|1\n3|1")
	b.apply("things", `"key":2,"add":{"n":1}`) // key 2 is not parked any more
	b.want("SELECT n FROM things WHERE id = 2", "2")
}

// The key's own index is hit when another writer inserts between our look and our insert.
func TestS10_OwnKeyConflictIsAppliedAgain(t *testing.T) {
	b := things(t)
	b.tune = func(s *schema.Store) { s.LockTimeout = time.Minute }
	b.start()
	batch := b.batch("things", `"key":1,"add":{"n":1}`, `"key":2,"add":{"n":1}`)
	ctx := b.ctx
	conn := connect(t, b.dsn)
	for _, sql := range []string{"BEGIN", "INSERT INTO things (id, n) VALUES (2, 100)"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan store.Result, 1)
	go func() {
		r, err := b.try(batch)
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	b.until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'", "1")
	if _, err := conn.Exec(ctx, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if r := <-done; len(r.Rejected)+len(r.Parked) != 0 {
		t.Errorf("rejected %+v, parked %+v", r.Rejected, r.Parked)
	}
	b.want("SELECT id, n FROM things ORDER BY id", "1|1\n2|101")
}

// A constraint that is checked at COMMIT refuses the row, not the batch.
func TestS10_DeferredConstraint(t *testing.T) {
	b := things(t, "CREATE TABLE names (name text PRIMARY KEY)", "INSERT INTO names VALUES ('good')",
		"ALTER TABLE things ADD FOREIGN KEY (name) REFERENCES names DEFERRABLE INITIALLY DEFERRED").start()
	r := b.apply("things", `"key":1,"set":{"name":"good"}`, `"key":2,"set":{"name":"bad"}`, `"key":3,"set":{"name":"good"}`)
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "23503" {
		t.Errorf("rejected %+v, want key 2 with 23503", r.Rejected)
	}
	b.want("SELECT id FROM things ORDER BY id", "1\n3")
}

// A parent is asked for by the database's name, also when Sluice calls the table otherwise.
func TestS10_ParentByTheDatabasesName(t *testing.T) {
	b := newBench(t, strings.Replace(mapped("{table: things}", "key: {id: int64}\n    columns: {n: int64}"), "tables:", "tables:\n  owners: {existing: {table: people}, key: {id: int64}, store: main, columns: {name: text}}", 1),
		"CREATE TABLE people (id bigint PRIMARY KEY, name text)", "CREATE TABLE things (id bigint PRIMARY KEY, n bigint REFERENCES people)").start()
	batch := b.batch("things", `"key":1,"set":{"n":7}`)
	var asked []string
	batch.ParentsPassed = func(parent string, commit uint64) bool {
		asked = append(asked, fmt.Sprint(parent, " ", commit))
		return false
	}
	r, err := b.try(batch)
	if err != nil || len(r.Parked) != 1 || !slices.Equal(asked, []string{"public.people 1"}) {
		t.Errorf("parked %+v, %v, asked for %q", r.Parked, err, asked)
	}
	b.apply("owners", `"key":7,"set":{"name":"seven"}`)
	if r := b.unpark("things", 10); len(r.Unparked) != 1 || len(r.Rejected) != 0 {
		t.Errorf("unparked %+v, rejected %+v", r.Unparked, r.Rejected)
	}
	b.want("SELECT id, n FROM things", "1|7")
}

func TestS10_TriggerRefusesRows(t *testing.T) {
	b := things(t, `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.name = 'bad' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$`,
		"CREATE TRIGGER no BEFORE INSERT OR UPDATE ON things FOR EACH ROW EXECUTE FUNCTION no()").start()
	r := b.apply("things", `"key":1,"set":{"name":"good"}`, `"key":2,"set":{"name":"bad"}`)
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "P0001" || r.Rejected[0].Reason != "not this one" {
		t.Errorf("rejected %+v, want key 2 with P0001 and the trigger's words", r.Rejected)
	}
	b.want("SELECT id FROM things", "1")
}

// Many refused rows among good ones are found one by one, and each keeps its reason.
func TestS10_ManyRejectsAmongMany(t *testing.T) {
	b := things(t, "ALTER TABLE things ADD CHECK (name <> 'bad')").start()
	var writes []string
	for i := range 500 {
		name := "good"
		if i%25 == 7 {
			name = "bad"
		}
		writes = append(writes, fmt.Sprintf(`"key":%d,"set":{"name":%q}`, i, name))
	}
	if r := b.apply("things", writes...); len(r.Rejected) != 20 || r.Rows != 480 {
		t.Errorf("%d rejected, %d rows; want 20, 480", len(r.Rejected), r.Rows)
	}
	b.want("SELECT count(*) FROM things", "480")
	b.want("SELECT count(*), min(sqlstate), min(state) FROM sluice_rejects", "20|23514|open")
}

func TestS10_MassRejectsStop(t *testing.T) {
	b := things(t, "ALTER TABLE things ADD COLUMN must text NOT NULL")
	b.tune = func(s *schema.Store) { s.RejectsMax = 1000 }
	b.start()
	var writes []string
	for i := range 120 {
		writes = append(writes, fmt.Sprintf(`"key":%d,"add":{"n":1}`, i))
	}
	_, err := b.try(b.batch("things", writes...))
	b.wantStop(err, "mass_rejects", "must", "sluice resume")
	b.want("SELECT count(*) FROM sluice_rejects", "0")
}

func TestS10_StatementTimeoutShrinks(t *testing.T) {
	b := things(t)
	b.url = b.dsn + "&statement_timeout=100"
	b.start()
	b.exec(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(5); RETURN NEW; END $$`,
		"CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON things FOR EACH ROW EXECUTE FUNCTION slow()")
	if _, err := b.try(b.batch("things", `"key":1,"add":{"n":1}`)); !errors.Is(err, store.ErrShrink) {
		t.Errorf("Apply answered %v, want ErrShrink", err)
	}
}

func TestS10_DroppedTableStops(t *testing.T) {
	b := things(t).start()
	b.exec("DROP TABLE things")
	_, err := b.try(b.batch("things", `"key":1,"add":{"n":1}`))
	b.wantStop(err, "missing_table", "sluice migrate", "sluice resume --shard a")
}

// A cast to varchar(3) cuts silently; the assignment must refuse. So for every
// type that is narrower than what is sent.
func TestS9_NarrowColumnsRefuseInsteadOfCutting(t *testing.T) {
	b := newBench(t, mapped("{table: things}", `key: {id: int64, part: text}
    columns: {name: text, small: int64 sum, hi: int64 max, price: decimal, at: timestamp, doc: json, raw: bytes, tags: "text[]", mood: native(mood), f: float64, u: uuid, d: date, b: bool}`),
		"CREATE TYPE mood AS ENUM ('sad', 'happy')",
		`CREATE TABLE things (id smallint, part varchar(20), name varchar(3), small smallint, hi integer, price numeric(10,2), at timestamp, doc json, raw bytea, tags varchar[], mood mood, f real, u uuid, d date, b boolean, PRIMARY KEY (part, id))`).start()
	r := b.apply("things",
		`"key":{"id":1,"part":"a"},"set":{"name":"abc","price":"12.5","at":"2024-05-06T07:08:09.123456Z","doc":{"b":1,"a":[1,2]},"raw":"AAEC","tags":["x \"y\" \\","","NULL"],"mood":"happy","f":1.5,"u":"00112233-4455-6677-8899-aabbccddeeff","d":"1969-12-31","b":true},"add":{"small":3},"max":{"hi":7}`,
		`"key":{"id":2,"part":"a"},"set":{"name":"toolong"}`,
		`"key":{"id":3,"part":"a"},"add":{"small":40000}`,
		`"key":{"id":4,"part":"a"},"set":{"mood":"angry"}`,
		`"key":{"id":40000,"part":"a"},"set":{"name":"x"}`)
	var states []string
	for _, x := range r.Rejected {
		states = append(states, x.SQLState)
	}
	slices.Sort(states)
	if want := "22001 22003 22003 22P02"; strings.Join(states, " ") != want {
		t.Errorf("rejected with %v, want %s", states, want)
	}
	b.want(`SELECT id, part, name, small, hi, price, at, doc, raw, tags, mood, f, u, d, b FROM things`,
		`1|a|abc|3|7|12.50|2024-05-06 07:08:09.123456|{"b":1,"a":[1,2]}|\x000102|{"x \"y\" \\","","NULL"}|happy|1.5|00112233-4455-6677-8899-aabbccddeeff|1969-12-31|t`)
	b.apply("things", `"key":{"id":1,"part":"a"},"add":{"small":-2},"max":{"hi":3}`)
	g := b.group("things")
	rows, _, err := b.shard.Read(b.ctx, g, [][]byte{b.batch("things", `"key":{"id":1,"part":"a"},"add":{"small":1}`).Entries[0].Key})
	if err != nil || !rows[0].Found {
		t.Fatalf("%+v, %v", rows, err)
	}
	var out []string
	for i, c := range g.Columns {
		out = append(out, c.Name+"="+string(schema.AppendJSON(nil, c.Type, rows[0].Values[i])))
	}
	slices.Sort(out)
	want := `at="2024-05-06T07:08:09.123456Z" b=true d="1969-12-31" doc={"b":1,"a":[1,2]} f=1.5 hi=7 mood="happy" name="abc" price=12.5 raw="AAEC" small=1 tags=["x \"y\" \\","","NULL"] u="00112233-4455-6677-8899-aabbccddeeff"`
	if got := strings.Join(out, " "); got != want {
		t.Errorf("read\n%s\nwant\n%s", got, want)
	}
}

// latest_by on a mapped table whose rows must be there: an older row changes
// nothing and is still no missing one.
func TestS12_LatestOnMappedTables(t *testing.T) {
	for _, missing := range []string{"insert", "reject"} {
		t.Run(missing, func(t *testing.T) {
			b := newBench(t, mapped("{table: things, missing_row: "+missing+"}", "key: {id: int64}\n    latest_by: n\n    columns: {n: int64, name: text}"), thingsTable,
				"INSERT INTO things VALUES (1, NULL, 'old')").start()
			b.apply("things", `"key":1,"set":{"n":5,"name":"five"}`)
			b.apply("things", `"key":1,"set":{"n":4,"name":"four"}`)
			b.want("SELECT n, name FROM things", "5|five")
			b.apply("things", `"key":1,"set":{"n":5}`) // ties go to the later, and the whole row is replaced
			b.want("SELECT n, name FROM things", "5|∅")
			r := b.apply("things", `"key":2,"set":{"n":1}`)
			if got := len(r.Rejected); got != map[string]int{"insert": 0, "reject": 1}[missing] {
				t.Errorf("%d rejected", got)
			}
		})
	}
}

// Both ways of sending rows lead to the same tables.
func TestS9_CopyAndArraysAgree(t *testing.T) {
	config := strings.Replace(benchConfig, "columns: {title: text, at: timestamp}", `columns: {title: text, at: timestamp, d: decimal sum, tags: "text[]", doc: json, raw: bytes, seen: text unique, u: uuid, f: float64, ok: bool, day: date max}`, 1)
	config = strings.Replace(config, "columns: {what: text, at: timestamp, n: int64}", `columns: {what: text, at: timestamp, n: int64, d: decimal, tags: "text[]", doc: json}`, 1) + `
  things: {existing: {table: things, missing_row: reject}, key: {id: int64}, store: main, columns: {n: int64 sum, name: text}}
`
	var dumps []string
	for _, way := range []string{"arrays", "copy"} {
		b := newBench(t, config, strings.Replace(thingsTable, "n bigint", "n integer", 1), "INSERT INTO things SELECT i, 0 FROM generate_series(0, 29) i").start()
		if way == "copy" {
			b.shard.OnlyCopy()
		} else {
			b.shard.OnlyArrays()
		}
		for round := range 2 {
			var posts, clicks, rows []string
			for i := range 30 {
				posts = append(posts, fmt.Sprintf(`"key":%d,"set":{"title":"t%d","tags":["a","b %d"],"doc":{"x":%d},"raw":"AAE=","u":"00112233-4455-6677-8899-aabbccddeeff","f":-0.5,"ok":true},"add":{"d":"-%d.%05d"},"unique":{"seen":"u%d"},"max":{"day":"2000-01-%02d"}`, i, i+round, i, i, i*12345, i, round, 1+i))
				clicks = append(clicks, fmt.Sprintf(`"key":%d,"append":{"clicks":{"what":"w%d","n":%d,"d":"0.00%d","at":"1960-01-01T00:00:00Z","tags":[],"doc":[null]}}`, i%3, i, i, i))
				rows = append(rows, fmt.Sprintf(`"key":%d,"add":{"n":%d}`, i, i))
			}
			b.apply("posts", posts...)
			b.apply("logs.clicks", clicks...)
			b.apply("things", rows...)
		}
		r := b.apply("things", `"key":1,"add":{"n":1}`, `"key":99,"add":{"n":1}`)
		if len(r.Rejected) != 1 {
			t.Errorf("%s: rejected %+v, want the missing row", way, r.Rejected)
		}
		dumps = append(dumps, b.cluster.Query(t, b.dsn, "SELECT to_jsonb(p) FROM posts p ORDER BY id; SELECT to_jsonb(c) FROM logs_clicks c ORDER BY sluice_commit, sluice_ordinal; SELECT * FROM things ORDER BY id"))
	}
	if dumps[0] != dumps[1] || len(strings.Split(dumps[0], "\n")) != 30+60+30 {
		t.Errorf("the tables differ:\narrays\n%s\ncopy\n%s", dumps[0], dumps[1])
	}
	if !strings.Contains(dumps[0], `"d": -716010.00058`) {
		t.Errorf("the decimal sum is wrong: %s", dumps[0])
	}
}

// A large batch goes by several statements, none with parameters over a few MiB.
func TestLargeParametersAreCut(t *testing.T) {
	b := newBench(t, testConfig).start()
	big := strings.Repeat("x", 900<<10)
	var writes []string
	for i := range 12 {
		writes = append(writes, fmt.Sprintf(`"key":%d,"set":{"v":%q}`, i, big))
	}
	r := b.apply("other", writes...)
	if r.Rows != 12 || r.Bytes < 12*900<<10 {
		t.Errorf("%d rows, %d bytes", r.Rows, r.Bytes)
	}
	b.want("SELECT count(*), sum(length(v)) FROM other", fmt.Sprintf("12|%d", 12*900<<10))
}

// Rows commute over waves: entries of one key that did not fold keep their order,
// also with a delete and a sketch between them.
func TestS9_WavesKeepOrder(t *testing.T) {
	b := newBench(t, strings.Replace(testConfig, "{n: int64 sum}", "{n: int64 sum, name: text, seen: text unique}", 1)).start()
	batch := b.batch("counters", `"key":1,"add":{"n":1},"unique":{"seen":"a"},"set":{"name":"x"}`, `"key":1,"unique":{"seen":["a","b"]}`, `"key":2,"add":{"n":4}`)
	b.take(batch.Group)
	batch = b.batch("counters", `"key":1,"add":{"n":1},"unique":{"seen":"a"},"set":{"name":"x"}`, `"key":1,"unique":{"seen":["a","b"]}`, `"key":1,"delete":true`, `"key":1,"add":{"n":5},"unique":{"seen":"c"}`, `"key":2,"add":{"n":4}`)
	if _, err := b.try(batch); err != nil {
		t.Fatal(err)
	}
	b.want("SELECT id, n, name, seen FROM counters ORDER BY id", "1|5|∅|1\n2|4|∅|0")
	b.apply("counters", `"key":1,"unique":{"seen":["c","d","e"]}`)
	b.want("SELECT seen, seen_hll IS NOT NULL FROM counters WHERE id = 1", "3|t")
}
