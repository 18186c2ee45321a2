package sqlite

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// formatVersion of Sluice's own tables. A file with a higher one is refused.
const formatVersion = 1

// ownTables are Sluice's own. A number over 2^63, as a chain may be, is stored
// as the negative integer of the same bits.
var ownTables = []struct{ name, ddl string }{
	{"sluice_meta", `CREATE TABLE sluice_meta (one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, journal TEXT NOT NULL, store TEXT NOT NULL, shard TEXT NOT NULL, map_version INTEGER NOT NULL) STRICT`},
	{"sluice_cursor", `CREATE TABLE sluice_cursor (group_id INTEGER NOT NULL, owner TEXT NOT NULL, epoch INTEGER NOT NULL, commit_id INTEGER NOT NULL, chain INTEGER NOT NULL, except_for TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (group_id, owner)) STRICT, WITHOUT ROWID`},
	{"sluice_rejects", `CREATE TABLE sluice_rejects (group_id INTEGER NOT NULL, commit_id INTEGER NOT NULL, ordinal INTEGER NOT NULL, partition INTEGER NOT NULL, key_hash INTEGER NOT NULL, table_name TEXT NOT NULL, group_name TEXT NOT NULL, key TEXT NOT NULL, change TEXT NOT NULL, sqlstate TEXT NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, at TEXT NOT NULL, writes INTEGER NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (group_id, commit_id, ordinal)) STRICT`},
	{"sluice_rejects_stream", `CREATE INDEX sluice_rejects_stream ON sluice_rejects (group_id, partition, state, writes)`},
	{"sluice_rejects_key", `CREATE INDEX sluice_rejects_key ON sluice_rejects (key_hash)`},
	{"sluice_parked", `CREATE TABLE sluice_parked (group_id INTEGER NOT NULL, commit_id INTEGER NOT NULL, ordinal INTEGER NOT NULL, partition INTEGER NOT NULL, key_hash INTEGER NOT NULL, key BLOB NOT NULL, writes INTEGER NOT NULL, since TEXT NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (group_id, commit_id, ordinal)) STRICT`},
	{"sluice_parked_key", `CREATE INDEX sluice_parked_key ON sluice_parked (group_id, key, commit_id, ordinal)`},
	{"sluice_parked_stream", `CREATE INDEX sluice_parked_stream ON sluice_parked (group_id, partition, writes)`},
}

// Ensure implements store.Shard. The identity is looked at before anything is
// made: another's file stays as it is.
func (s *Shard) Ensure(ctx context.Context, id store.Identity, groups []*schema.Group) error {
	defer s.forgetLayouts()
	return s.write(ctx, true, func(w *conn) error {
		if err := s.checkIdentity(w, &id); err != nil {
			return err
		}
		plan, err := s.plan(w, groups)
		if err != nil {
			return err
		}
		if len(plan) > 0 && s.o.Store.DDL != "auto" {
			return &store.MissingError{Store: s.o.Store.Name, Shard: s.o.Shard.Name, Statements: plan}
		}
		if err := w.run(plan...); err != nil {
			return err
		}
		for _, g := range groups {
			if g.Existing != nil {
				if _, err := s.inspect(w, g); err != nil {
					return err
				}
				if err := s.warnOf(w, g); err != nil {
					return err
				}
			}
		}
		_, err = w.exec(`INSERT INTO sluice_meta (one, format, journal, store, shard, map_version) VALUES (1, ?, ?, ?, ?, ?)
			ON CONFLICT (one) DO UPDATE SET map_version = excluded.map_version`,
			int64(formatVersion), hex.EncodeToString(id.Journal[:]), id.Store, id.Shard, int64(id.MapVersion))
		return err
	})
}

// checkIdentity refuses another's database (S6).
func (s *Shard) checkIdentity(w *conn, id *store.Identity) error {
	there, err := columnsOf(w, "sluice_meta")
	if err != nil || len(there) == 0 {
		return err
	}
	row, err := w.row("SELECT format, journal, store, shard, map_version FROM sluice_meta")
	if err != nil || row == nil {
		return err
	}
	journal := hex.EncodeToString(id.Journal[:])
	switch {
	case integer(row[0]) > formatVersion:
		return &store.StopError{Reason: "newer_format", Detail: fmt.Sprintf("%s was written by a newer Sluice (format %d, this one knows %d); use that one", s.where(), integer(row[0]), formatVersion)}
	case text(row[1]) != journal || text(row[2]) != id.Store || text(row[3]) != id.Shard:
		return &store.StopError{Reason: "wrong_shard", Detail: fmt.Sprintf("%s belongs to journal %s, store %s, shard %s, not to journal %s, store %s, shard %s; give each shard a file of its own, or start with the journal that this one belongs to",
			s.where(), text(row[1]), text(row[2]), text(row[3]), journal, id.Store, id.Shard)}
	case integer(row[4]) > int64(id.MapVersion):
		return &store.StopError{Reason: "newer_map", Detail: fmt.Sprintf("%s has shard map version %d, newer than %d of this journal's catalog; start with the newer catalog, or accept what is there with `sluice journal adopt`", s.where(), integer(row[4]), id.MapVersion)}
	}
	return nil
}

// Plan implements store.Migrator.
func (s *Shard) Plan(ctx context.Context, groups []*schema.Group, down bool) (plan []string, err error) {
	err = s.read(ctx, func(r *conn) error {
		if down {
			plan, err = planDown(r, groups)
		} else {
			plan, err = s.plan(r, groups)
		}
		return err
	})
	return plan, err
}

// Run implements store.Migrator: all statements or none.
func (s *Shard) Run(ctx context.Context, statements []string) error {
	defer s.forgetLayouts()
	return s.write(ctx, true, func(w *conn) error { return w.run(statements...) })
}

// plan gives what is missing.
func (s *Shard) plan(c *conn, groups []*schema.Group) (plan []string, err error) {
	names, err := c.texts("SELECT lower(name) FROM sqlite_schema")
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, n := range names {
		there[n] = true
	}
	for _, t := range ownTables {
		if !there[t.name] {
			plan = append(plan, t.ddl)
		}
	}
	for _, g := range groups {
		switch {
		case g.Existing != nil:
		case !there[strings.ToLower(g.Physical)]:
			plan = append(plan, createTable(g)...)
		default:
			more, err := s.addColumns(c, g)
			if err != nil {
				return nil, err
			}
			plan = append(plan, more...)
		}
	}
	return plan, nil
}

func planDown(c *conn, groups []*schema.Group) (plan []string, err error) {
	for _, g := range groups {
		cols, err := columnsOf(c, g.Physical)
		if err != nil {
			return nil, err
		}
		if g.Existing == nil && len(cols) > 0 {
			plan = append(plan, "DROP TABLE "+quote(g.Physical))
		}
	}
	for _, t := range ownTables {
		cols, err := columnsOf(c, t.name)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(t.ddl, "CREATE TABLE") && len(cols) > 0 {
			plan = append(plan, "DROP TABLE "+quote(t.name))
		}
	}
	return plan, nil
}

// createTable makes an own table. STRICT, so that an int64 sum that overflows is
// refused instead of becoming a float.
func createTable(g *schema.Group) []string {
	var cols, key []string
	single := len(g.Table.Key) == 1 && g.Table.Key[0].Type.Kind == sluice.Int64 && !g.Events
	if g.Events {
		cols = append(cols, `"sluice_commit" INTEGER NOT NULL`, `"sluice_ordinal" INTEGER NOT NULL`)
	}
	for _, k := range g.Table.Key {
		key = append(key, quote(k.Physical))
		if single {
			cols = append(cols, quote(k.Physical)+" INTEGER PRIMARY KEY") // the row's own address: no second tree
		} else {
			cols = append(cols, quote(k.Physical)+" "+declared(k.Type)+" NOT NULL")
		}
	}
	cols = append(cols, `"sluice_slot" INTEGER NOT NULL`)
	small := true
	for _, d := range definitions(g) {
		cols = append(cols, quote(d.name)+" "+d.ddl)
		small = small && d.small
	}
	options := " STRICT"
	switch {
	case g.Events:
		cols = append(cols, `PRIMARY KEY ("sluice_commit", "sluice_ordinal")`)
		options = " STRICT, WITHOUT ROWID" // appended in the order of its key
	case !single:
		cols = append(cols, "PRIMARY KEY ("+strings.Join(key, ", ")+")")
		if small { // long rows would make the tree deep
			options = " STRICT, WITHOUT ROWID"
		}
	}
	out := []string{"CREATE TABLE " + quote(g.Physical) + " (" + strings.Join(cols, ", ") + ")" + options}
	if g.Events {
		out = append(out, "CREATE INDEX "+quote(g.Physical+"_key")+" ON "+quote(g.Physical)+" ("+strings.Join(key, ", ")+")")
	}
	return out
}

// definition is one physical column of an own table.
type definition struct {
	name, typ, ddl string
	small          bool
}

// definitions lists the physical columns. A dropped column stays while old
// commits may name it, but for one whose name another column has taken.
func definitions(g *schema.Group) (out []definition) {
	taken := map[string]bool{}
	for _, c := range g.Columns {
		if taken[c.Physical] {
			continue
		}
		taken[c.Physical] = true
		t := declared(c.Type)
		switch {
		case c.Merge == schema.Unique:
			out = append(out, definition{c.Physical, "INTEGER", "INTEGER NOT NULL DEFAULT 0", true},
				definition{c.Physical + "_hll", "BLOB", "BLOB", false})
		case c.Merge == schema.Sum && t == "TEXT":
			out = append(out, definition{c.Physical, t, "TEXT NOT NULL DEFAULT '0'", true})
		case c.Merge == schema.Sum:
			out = append(out, definition{c.Physical, t, t + " NOT NULL DEFAULT 0", true})
		default:
			out = append(out, definition{c.Physical, t, t, isSmall(c.Type.Kind)})
		}
	}
	return out
}

func isSmall(k sluice.Kind) bool {
	switch k {
	case sluice.Text, sluice.JSON, sluice.Bytes, sluice.TextArray, sluice.Native:
		return false
	}
	return true
}

// declared is the type of a column in an own table.
func declared(t schema.Type) string {
	switch t.Kind {
	case sluice.Int64, sluice.Bool:
		return "INTEGER"
	case sluice.Float64:
		return "REAL"
	case sluice.Bytes:
		return "BLOB"
	case sluice.Native:
		switch n := strings.ToUpper(t.Native); n {
		case "INT", "INTEGER", "REAL", "BLOB", "TEXT":
			return n
		}
		return "ANY"
	}
	return "TEXT"
}

// addColumns gives what an own table lacks, and refuses one that is not ours.
func (s *Shard) addColumns(c *conn, g *schema.Group) (plan []string, err error) {
	there, err := columnsOf(c, g.Physical)
	if err != nil {
		return nil, err
	}
	if there["sluice_slot"] == nil {
		return nil, &store.StopError{Reason: "name_taken", Detail: fmt.Sprintf("%s: table %s is there already and is not Sluice's; say `existing: {table: %s}` to write into it, or rename table %s in the config",
			s.where(), g.Physical, g.Physical, g.Table.Name)}
	}
	for _, d := range definitions(g) {
		have := there[strings.ToLower(d.name)]
		switch {
		case have == nil:
			plan = append(plan, "ALTER TABLE "+quote(g.Physical)+" ADD COLUMN "+quote(d.name)+" "+d.ddl)
		case !strings.EqualFold(have.declared, d.typ):
			return nil, &store.StopError{Reason: "type_changed", Detail: fmt.Sprintf("%s: column %s of table %s is %s, the config needs %s; give the column another name, or change the table by hand",
				s.where(), d.name, g.Physical, have.declared, d.typ)}
		}
	}
	return plan, nil
}

// quote makes an identifier safe. The schema has checked its letters already.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
