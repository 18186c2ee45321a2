// Package storetest is the suite that every shard passes. A case is named by
// the rule of the protocol that it holds. It knows no database: what differs
// between databases is in Options, and what a database cannot do is nil there
// and skips the cases that need it.
package storetest

import (
	"os"
	"strconv"
	"testing"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Options say how to get at a kind of database.
type Options struct {
	// URL is one that the config takes for this driver. The suite opens nothing
	// with it: New knows where the database is.
	URL string
	// New makes a fresh, empty database for one test and removes it at the test's end.
	New func(t *testing.T) Database
	// Mapped: the database refuses what breaks a constraint of MappedSQL.
	Mapped bool
	// Rounds of the randomized test; 0: a default that takes about a second.
	Rounds int
}

// Database is one database that a test has for itself.
type Database struct {
	// Open gives a new Shard on the database. Earlier ones may still be open.
	// The suite closes it; a second Open after that is what a restart does.
	Open func(t *testing.T, o store.Options) store.Shard
	// Exec runs SQL as another program would. nil: no SQL, cases that need it are skipped.
	Exec func(t *testing.T, statements ...string)
	// Query runs SQL that answers one row with one column, and gives it as text ("" for NULL).
	Query func(t *testing.T, query string) string
	// Lock takes the row of people with this id as another transaction would
	// and holds it until unlock is called. nil: rows cannot be locked singly.
	Lock func(t *testing.T, id int64) (unlock func())
	// CountRows counts the rows of the group's physical table.
	CountRows func(t *testing.T, g *schema.Group) int
}

// MappedSQL makes the tables that the mapped groups of the suite's config write
// into. Each database the suite runs on takes it as it is.
var MappedSQL = []string{
	`CREATE TABLE people (id bigint PRIMARY KEY, name text NOT NULL CHECK (length(name) <= 10), email text UNIQUE, visits bigint, best bigint, note text)`,
	`CREATE TABLE pages (id bigint PRIMARY KEY, title text DEFAULT 'untitled', hits bigint NOT NULL DEFAULT 7, owner text)`,
	`CREATE TABLE members (id bigint PRIMARY KEY, points bigint)`,
	`CREATE TABLE bins (id bigint PRIMARY KEY, n bigint)`,
	`CREATE TABLE pets (id bigint PRIMARY KEY, owner_id bigint REFERENCES people(id), name text)`,
	`CREATE TABLE starts (id bigint PRIMARY KEY, title text NOT NULL DEFAULT 'untitled' CHECK (length(title) < 9), n bigint NOT NULL DEFAULT 7, small smallint DEFAULT 3,
		hi bigint DEFAULT 50, top integer DEFAULT '50', lo bigint DEFAULT 0, least bigint DEFAULT 1, plain bigint, x double precision DEFAULT 2.5, f double precision DEFAULT (2 + 0.5),
		at timestamptz DEFAULT '2027-01-15T08:00:00Z', day date, who bigint NOT NULL DEFAULT 0, who_hll bytea)`,
}

const config = `
stores:
  main: {shards: {a: "URL"}, ddl: DDL}
tables:
  counters:
    key: {id: int64}
    store: main
    columns: {n: int64 sum, d: decimal sum, hi: int64 max, lo: int64 min, last: timestamp max, low: decimal min, name: text, seen: text unique}
  kinds:
    key: {id: int64}
    store: main
    columns: {i: int64, f: float64, d: decimal, b: bool, ts: timestamp, dt: date, t: text, u: uuid, j: json, raw: bytes, ta: "text[]"}
  extremes:
    key: {id: int64}
    store: main
    columns: {f: float64 max, dt: date min, x: {type: float64, merge: sum, inexact: true}, ids: int64 unique}
  keys:
    key: {t: text, i: int64, u: uuid, ts: timestamp, dt: date}
    store: main
    columns: {v: text}
  pairs:
    key: {user_id: text, post_id: int64}
    partition_by: user_id
    store: main
    columns: {n: int64 sum, note: text}
  places:
    key: {driver: text}
    store: main
    latest_by: at
    columns: {lat: float64, lon: float64, at: timestamp}
  prices:
    key: {sku: int64}
    store: main
    latest_by: version
    columns: {price: decimal, version: int64}
  logs:
    key: {id: int64}
    groups:
      clicks: {store: main, kind: events, columns: {what: text, at: timestamp, n: int64, meta: json}}
MAPPED`

const mapped = `
  people:
    existing: {table: people, other_writers: true}
    key: {id: int64}
    store: main
    columns: {name: text, email: text, visits: int64 sum, best: int64 max, note: text}
  pages:
    existing: {table: pages}
    key: {id: int64}
    store: main
    columns: {title: text, hits: int64 sum}
  members:
    existing: {table: members, missing_row: reject}
    key: {id: int64}
    store: main
    columns: {points: int64 sum}
  bins:
    existing: {table: bins, delete: row}
    key: {id: int64}
    store: main
    columns: {n: int64 sum}
  pets:
    existing: {table: pets}
    key: {id: int64}
    store: main
    columns: {owner_id: int64, name: text}
  starts:
    existing: {table: starts}
    key: {id: int64}
    store: main
    columns: {title: text, n: int64 sum, small: int64 sum, hi: int64 max, top: int64 max, lo: int64 min, least: int64 min, plain: int64 sum,
      x: {type: float64, merge: sum, inexact: true}, f: float64 max, at: timestamp max, day: date min, who: text unique}
`

// Run runs the suite.
func Run(t *testing.T, o Options) {
	cases := []struct {
		name string
		run  func(*fixture)
	}{
		{"S1_OneCursorPerGroupAndOwner", testCursorPerGroupAndOwner},
		{"S1_ExceptionsRoundTrip", testExceptions},
		{"S2_GuardRefusesAnotherEpoch", testGuardEpoch},
		{"S2_GuardRefusesAnotherPosition", testGuardPosition},
		{"S2_AllOrNothing", testAllOrNothing},
		{"S3_TakeFencesTheEarlierEpoch", testTakeFences},
		{"S3_TakeTellsTheOutcome", testTakeTells},
		{"S5_ConfirmIsGuarded", testConfirm},
		{"S6_IdentityMismatchRefuses", testIdentity},
		{"S6_MapVersion", testMapVersion},
		{"EnsureIsIdempotentAndAdds", testEnsureAdds},
		{"EnsurePrintsWhatIsMissing", testEnsurePrints},
		{"EveryTypeRoundTrips", testTypes},
		{"EveryKeyTypeRoundTrips", testKeyTypes},
		{"S9_PartialRows", testPartialRows},
		{"S9_SumsAreRelative", testSums},
		{"S9_MaxMinCoalesced", testMaxMin},
		{"S9_EntriesOfOneKeyInOrder", testSameKey},
		{"S11_DecimalsAreExact", testDecimals},
		{"S11_Int64AtItsLimits", testInt64Limits},
		{"S12_LatestBy", testLatestBy},
		{"S12_Reset", testReset},
		{"EventsAreAppended", testEvents},
		{"UniqueEstimate", testUnique},
		{"ReadKeepsOrderAndSnapshot", testRead},
		{"ManyRowsInOneBatch", testManyRows},
		{"S9_MappedNullAndMissing", testMappedNull},
		{"S9_MissingRowReject", testMissingRow},
		{"S10_RejectsAmongGoodRows", testRejects},
		{"S10_RejectIsUnfolded", testUnfold},
		{"S10_EntriesOfAKeyStandTogether", testStandTogether},
		{"S10_OnceMoreBehindTheRest", testOnceMore},
		{"S10_ReplayMarksTheReject", testReplay},
		{"S10_OverflowIsRejected", testOverflow},
		{"S10_RejectsMax", testRejectsMax},
		{"S10_MassRejectsStop", testMassRejects},
		{"S10_ForeignKeyWaitsForItsParent", testForeignKey},
		{"S10_ForeignKeyFinal", testForeignKeyFinal},
		{"S11_AMissingRowBeginsWithItsDefaults", testMissingRowBegins},
		{"S11_ADeletedRowBeginsWithItsDefaults", testMissingRowAfterDelete},
		{"S12_MappedDeleteSetsDefaults", testMappedDelete},
		{"S12_MappedDeleteRow", testMappedDeleteRow},
		{"S8_LockedRowIsParked", testParked},
		{"S8_ParkedMax", testParkedMax},
		{"RandomAgainstModel", testRandom},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(newFixture(t, o)) })
	}
}

// rounds of the randomized test.
func (o *Options) rounds() int {
	if n, err := strconv.Atoi(os.Getenv("STORETEST_ROUNDS")); err == nil {
		return n
	}
	if o.Rounds > 0 {
		return o.Rounds
	}
	return 40
}
