package postgres_test

import (
	"fmt"
	"strings"
	"testing"
)

// startsTable has defaults that the database changes on assignment, that come
// from a domain, that are NULL or call a function; `serial` is no merged column.
const startsTable = `CREATE FUNCTION seven() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 7::bigint';
CREATE DOMAIN score AS integer DEFAULT 40;
CREATE TABLE things (id bigint PRIMARY KEY, title text CHECK (title <> 'bad'), serial bigserial, n bigint DEFAULT seven(), small smallint DEFAULT 2.6,
  price numeric(9,2) DEFAULT 1.005, best score, worst score DEFAULT NULL, at timestamp DEFAULT '2027-01-15 08:00', "Day" date DEFAULT '2026-01-01 23:59+00'::timestamptz)`

// Every way into the table begins a missing row alike: arrays and COPY, entries
// that folded or did not, and beside a row that is refused.
func TestS11_EveryWayBeginsWithTheDefaults(t *testing.T) {
	const columns = "key: {id: int64}\n    columns: {title: text, serial: int64, n: int64 sum, small: int64 sum, price: decimal sum, best: int64 max, worst: int64 min, at: timestamp max, day: {column: Day, type: date, merge: min}}"
	const rest = `"add":{"n":3,"small":1,"price":"0.115"},"max":{"best":9,"at":"2026-05-05T00:00:00Z"},"min":{"worst":4,"day":"2026-02-02"}`
	for _, way := range []string{"arrays", "copy"} {
		b := newBench(t, mapped("{table: things}", columns), startsTable).start()
		if b.shard.OnlyArrays(); way == "copy" {
			b.shard.OnlyCopy()
		}
		b.apply("things", `"key":1,"set":{"title":"x"}`)
		b.apply("things", `"key":1,`+rest)
		b.apply("things", `"key":2,"set":{"title":"x"},`+rest)
		b.apply("things", `"key":3,"set":{"title":"x"}`, `"key":3,`+rest)
		b.apply("things", `"key":4,`+rest, `"key":4,"set":{"title":"x"}`)
		if r := b.apply("things", `"key":5,"set":{"title":"x"},`+rest, `"key":6,"set":{"title":"bad"},`+rest); len(r.Rejected) != 1 {
			t.Errorf("rejected %+v, want key 6", r.Rejected)
		}
		var want []string
		for id := range 5 {
			want = append(want, fmt.Sprintf("%d|x|10|4|1.13|40|4|2027-01-15 08:00:00|2026-01-01", id+1))
		}
		b.want(`SELECT id, title, n, small, price, best, worst, at, "Day" FROM things ORDER BY id`, strings.Join(want, "\n"))
	}
}

// A default that no missing row can meet is nobody's business.
func TestS11_VolatileDefaultsThatAreNotMet(t *testing.T) {
	b := newBench(t, mapped("{table: things, missing_row: reject}", "key: {id: int64}\n    columns: {n: int64 sum}"),
		"CREATE TABLE things (id bigint PRIMARY KEY, n bigserial)", "INSERT INTO things VALUES (1, 5)").start()
	b.apply("things", `"key":1,"add":{"n":2}`)
	b.want("SELECT n FROM things", "7")
}
