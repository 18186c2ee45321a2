package oracle_test

import (
	"fmt"
	"slices"
	"strings"

	"sluice.dev/sluice"
)

// config is what Sluice is told. The specs below say the same again by hand, so
// that a misreading of the config shows too.
const config = `
  posts:
    key: {id: int64}
    groups:
      content: {store: main, flush: 30ms, columns: {title: text, doc: json, tags: "text[]", at: timestamp, day: date, ref: uuid, ok: bool, score: float64, raw: bytes}}
      metrics: {store: main, flush: 80ms, columns: {likes: int64 sum, cost: decimal sum, high: int64 max, low: decimal min, seen: timestamp max, viewers: text unique}}
      clicks:  {store: main, kind: events, flush: 50ms, columns: {what: text, n: int64}}
  timeline:
    key: {user_id: int64, post: text}
    partition_by: user_id
    store: main
    flush: 40ms
    columns: {note: text, hits: int64 sum}
  cars:
    key: {id: text}
    store: main
    latest_by: at
    flush: 40ms
    columns: {place: text, speed: int64, at: int64}
  old:
    existing: {table: old_posts, missing_row: insert}
    key: {id: int64}
    store: main
    flush: 60ms
    columns: {title: text, code: text, likes: {type: int64, merge: sum, column: like_count}, high: int64 max}
  stock:
    existing: {table: stock, missing_row: reject}
    key: {id: int64}
    store: main
    flush: 60ms
    columns: {label: text, sold: int64 sum}
  boxes:
    existing: {table: boxes, missing_row: insert, delete: row}
    key: {id: int64}
    store: main
    flush: 60ms
    columns: {name: text, n: int64 sum}
  orders:
    existing: {table: orders, missing_row: insert}
    key: {id: int64}
    store: main
    flush: 60ms
    columns: {state: text, items: int64 sum}
`

// existing makes the tables that were there before. What a write is refused for
// does not depend on other keys: a value too long, a NULL, a code that is taken
// for ever, a row that is not there or cannot be made.
var existing = []string{
	`CREATE TABLE old_posts (id bigint PRIMARY KEY, title text NOT NULL DEFAULT 'untitled' CHECK (length(title) < 9), code text UNIQUE, like_count bigint NOT NULL DEFAULT 0, high bigint, owner text NOT NULL DEFAULT 'me')`,
	`INSERT INTO old_posts (id, code) VALUES (-1, 'taken1'), (-2, 'taken2')`,
	`INSERT INTO old_posts (id, title, like_count) VALUES (0, 'zero', 100), (3, 'three', 0)`,
	`CREATE TABLE stock (id bigint PRIMARY KEY, label text CHECK (label <> 'bad'), sold bigint)`,
	`INSERT INTO stock (id) VALUES (0), (2), (4), (6), (8), (10), (12), (14), (16), (18)`,
	`CREATE TABLE boxes (id bigint PRIMARY KEY, name text, n bigint)`,
	`CREATE TABLE orders (id bigint PRIMARY KEY, state text, items bigint, buyer text NOT NULL)`,
	`INSERT INTO orders (id, buyer) VALUES (0, 'b'), (3, 'b'), (6, 'b'), (9, 'b'), (12, 'b'), (15, 'b'), (18, 'b')`,
}

// column is one column of a spec.
type column struct {
	name     string // as writes say it
	physical string // "" as name
	typ      string // of PostgreSQL
	merge    string // set, sum, max, min, unique
}

func (c *column) sql() string {
	if c.physical != "" {
		return c.physical
	}
	return c.name
}

// group is one physical table.
type group struct {
	table, name string // of the config
	physical    string
	keys        []column
	columns     []column
	events      bool
	latest      string
	mapped      bool
	reject      bool // missing_row: reject
	deleteRow   bool
}

var (
	intKey = []column{{name: "id", typ: "bigint"}}
	specs  = []*group{
		{table: "posts", name: "content", physical: "posts_content", keys: intKey, columns: []column{
			{name: "title", typ: "text"}, {name: "doc", typ: "jsonb"}, {name: "tags", typ: "text[]"}, {name: "at", typ: "timestamptz"}, {name: "day", typ: "date"},
			{name: "ref", typ: "uuid"}, {name: "ok", typ: "boolean"}, {name: "score", typ: "double precision"}, {name: "raw", typ: "bytea"}}},
		{table: "posts", name: "metrics", physical: "posts_metrics", keys: intKey, columns: []column{
			{name: "likes", typ: "bigint", merge: "sum"}, {name: "cost", typ: "numeric", merge: "sum"}, {name: "high", typ: "bigint", merge: "max"},
			{name: "low", typ: "numeric", merge: "min"}, {name: "seen", typ: "timestamptz", merge: "max"}, {name: "viewers", merge: "unique"}}},
		{table: "posts", name: "clicks", physical: "posts_clicks", keys: intKey, events: true, columns: []column{{name: "what", typ: "text"}, {name: "n", typ: "bigint"}}},
		{table: "timeline", physical: "timeline", keys: []column{{name: "user_id", typ: "bigint"}, {name: "post", typ: "text"}}, columns: []column{
			{name: "note", typ: "text"}, {name: "hits", typ: "bigint", merge: "sum"}}},
		{table: "cars", physical: "cars", keys: []column{{name: "id", typ: "text"}}, latest: "at", columns: []column{
			{name: "place", typ: "text"}, {name: "speed", typ: "bigint"}, {name: "at", typ: "bigint"}}},
		{table: "old", physical: "old_posts", keys: intKey, mapped: true, columns: []column{
			{name: "title", typ: "text"}, {name: "code", typ: "text"}, {name: "likes", physical: "like_count", typ: "bigint", merge: "sum"}, {name: "high", typ: "bigint", merge: "max"}}},
		{table: "stock", physical: "stock", keys: intKey, mapped: true, reject: true, columns: []column{
			{name: "label", typ: "text"}, {name: "sold", typ: "bigint", merge: "sum"}}},
		{table: "boxes", physical: "boxes", keys: intKey, mapped: true, deleteRow: true, columns: []column{
			{name: "name", typ: "text"}, {name: "n", typ: "bigint", merge: "sum"}}},
		{table: "orders", physical: "orders", keys: intKey, mapped: true, columns: []column{
			{name: "state", typ: "text"}, {name: "items", typ: "bigint", merge: "sum"}}},
	}
)

// statement is one plain SQL statement. With orElse, that one follows when no
// row was met.
type statement struct {
	group  *group
	sql    string
	args   []any
	orElse *statement
	must   bool // to meet no row is a refusal
}

// change gives the values that a write has for a group, by column; nil when it
// does not touch the group.
func change(g *group, w *sluice.Write) map[string]any {
	if w.Table != g.table {
		return nil
	}
	if g.events {
		return w.Append[g.name]
	}
	out := map[string]any{}
	for _, part := range []map[string]any{w.Set, w.Add, w.Max, w.Min, w.Unique} {
		for name, v := range part {
			if slices.ContainsFunc(g.columns, func(c column) bool { return c.name == name }) {
				out[name] = v
			}
		}
	}
	return out
}

// statements is what an application without Sluice would run for a write: one
// statement a table.
func statements(w *sluice.Write) []statement {
	var out []statement
	for _, g := range specs {
		values := change(g, w)
		switch {
		case w.Table != g.table:
		case w.Delete && !g.events:
			out = append(out, g.remove(w.Key))
		case len(values) == 0:
		case g.mapped:
			out = append(out, g.update(w.Key, values))
		default:
			out = append(out, g.upsert(w.Key, values))
		}
	}
	return out
}

// params gathers the arguments of a statement.
type params struct{ args []any }

func (p *params) add(typ string, v any) string {
	p.args = append(p.args, asText(v))
	return fmt.Sprintf("$%d::text::%s", len(p.args), typ)
}

func (g *group) keyValues(key any) []any {
	if m, ok := key.(map[string]any); ok {
		var out []any
		for _, k := range g.keys {
			out = append(out, m[k.name])
		}
		return out
	}
	return []any{key}
}

func (g *group) where(p *params, key any) string {
	var parts []string
	for i, v := range g.keyValues(key) {
		parts = append(parts, g.keys[i].name+" = "+p.add(g.keys[i].typ, v))
	}
	return strings.Join(parts, " AND ")
}

// upsert is for own tables, and for events without the conflict.
func (g *group) upsert(key any, values map[string]any) statement {
	p := &params{}
	names, places, sets := []string{"sluice_slot"}, []string{"0"}, []string{"sluice_slot = 0"}
	if g.events {
		names, places = append(names, "sluice_commit", "sluice_ordinal"), append(places, "nextval('events')", "0")
	}
	for i, v := range g.keyValues(key) {
		names, places = append(names, g.keys[i].name), append(places, p.add(g.keys[i].typ, v))
	}
	for i := range g.columns {
		c := &g.columns[i]
		v, there := values[c.name]
		if c.merge == "unique" || !there && g.latest == "" {
			continue
		}
		names, places = append(names, c.sql()), append(places, p.add(c.typ, v))
		sets = append(sets, c.sql()+" = "+merged(c, "t."+c.sql(), "excluded."+c.sql()))
	}
	sql := fmt.Sprintf("INSERT INTO %s AS t (%s) VALUES (%s)", g.physical, strings.Join(names, ", "), strings.Join(places, ", "))
	if !g.events {
		sql += fmt.Sprintf(" ON CONFLICT (%s) DO UPDATE SET %s", strings.Join(g.keyNames(), ", "), strings.Join(sets, ", "))
	}
	if g.latest != "" {
		sql += fmt.Sprintf(" WHERE t.%s <= excluded.%s", g.latest, g.latest)
	}
	return statement{group: g, sql: sql, args: p.args}
}

func (g *group) keyNames() []string {
	var out []string
	for _, k := range g.keys {
		out = append(out, k.name)
	}
	return out
}

func merged(c *column, old, v string) string {
	switch c.merge {
	case "sum":
		return fmt.Sprintf("coalesce(%s, 0) + %s", old, v)
	case "max":
		return fmt.Sprintf("greatest(%s, %s)", old, v)
	case "min":
		return fmt.Sprintf("least(%s, %s)", old, v)
	}
	return v
}

// update is for tables that were there before: they may have columns that only
// the application fills in.
func (g *group) update(key any, values map[string]any) statement {
	p, q := &params{}, &params{}
	var sets, names, places []string
	for i, v := range g.keyValues(key) {
		names, places = append(names, g.keys[i].name), append(places, q.add(g.keys[i].typ, v))
	}
	for i := range g.columns {
		c := &g.columns[i]
		if v, there := values[c.name]; there {
			sets = append(sets, c.sql()+" = "+merged(c, c.sql(), p.add(c.typ, v)))
			names, places = append(names, c.sql()), append(places, q.add(c.typ, v))
		}
	}
	s := statement{group: g, sql: fmt.Sprintf("UPDATE %s SET %s", g.physical, strings.Join(sets, ", "))}
	s.sql += " WHERE " + g.where(p, key)
	s.args, s.must = p.args, g.reject
	if !g.reject {
		s.orElse = &statement{group: g, sql: fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", g.physical, strings.Join(names, ", "), strings.Join(places, ", ")), args: q.args}
	}
	return s
}

func (g *group) remove(key any) statement {
	p := &params{}
	sql := "DELETE FROM " + g.physical
	if g.mapped && !g.deleteRow {
		var sets []string
		for i := range g.columns {
			sets = append(sets, g.columns[i].sql()+" = DEFAULT")
		}
		sql = fmt.Sprintf("UPDATE %s SET %s", g.physical, strings.Join(sets, ", "))
	}
	sql += " WHERE " + g.where(p, key)
	return statement{group: g, sql: sql, args: p.args}
}
