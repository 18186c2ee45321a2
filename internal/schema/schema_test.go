package schema

import (
	"testing"
	"time"
)

func noEnv(string) (string, bool) { return "", false }

// mustParse parses a config that has no fault.
func mustParse(t testing.TB, text string) *Config {
	t.Helper()
	c, faults := Parse("sluice.yaml", []byte(text), noEnv)
	if len(faults) > 0 {
		t.Fatalf("config:\n%v", faults)
	}
	return c
}

// mustSchema parses a config and gives it ids.
func mustSchema(t testing.TB, text string) *Schema {
	t.Helper()
	s, _, faults := mustParse(t, text).Resolve(nil)
	if len(faults) > 0 {
		t.Fatalf("resolve:\n%v", faults)
	}
	return s
}

// social is the schema of most tests: grouped, flat, composite, latest_by, events.
const social = `
stores: {local: "sqlite:app.db"}
tables:
  posts:
    key: {post_id: int64}
    groups:
      content:   {columns: {user_id: int64, content: text, media: "text[]", meta: json, created_at: timestamp}}
      metrics:   {columns: {likes: int64 sum, spent: decimal sum, viewers: text unique, best: int64 max, worst: int64 min, last: timestamp max}}
      analytics: {kind: events, columns: {event_type: text, at: timestamp, user_id: int64}}
  timeline:
    key: {user_id: int64, post_id: int64}
    partition_by: user_id
    columns: {added_at: timestamp}
  locations:
    key: {driver: text}
    latest_by: at
    columns: {lat: float64, lon: float64, at: timestamp}
  clicks:
    key: {page: text}
    kind: events
    columns: {at: timestamp}
`

// noon is the clock of the tests.
var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return noon }
