package postgres

import (
	"fmt"
	"strings"

	"sluice.dev/sluice/internal/schema"
)

// object is one thing that Sluice makes in a database.
type object struct {
	name     string   // unqualified
	kind     string   // table, view, sequence, function
	required bool     // without it nothing works; without the others something is less good
	up       []string // statements that make it
	down     string
}

// ownObjects are Sluice's own. sluice_cursor holds one small row a group that
// every batch updates: its pages are left almost empty, so that the new
// version finds room on the same page and no index is touched (S1).
func ownObjects(schema string) []object {
	q := func(format string) string { return strings.ReplaceAll(format, "SCHEMA", schema) }
	table := func(name, body string, more ...string) object {
		up := []string{q("CREATE TABLE SCHEMA." + name + " " + body)}
		for _, m := range more {
			up = append(up, q(m))
		}
		return object{name: name, kind: "table", required: true, up: up, down: q("DROP TABLE IF EXISTS SCHEMA." + name)}
	}
	return []object{
		table("sluice_meta", `(one boolean PRIMARY KEY DEFAULT true CHECK (one), journal bytea NOT NULL, store text NOT NULL, shard text NOT NULL, map_version bigint NOT NULL, format integer NOT NULL DEFAULT 1, made timestamptz NOT NULL DEFAULT now())`),
		table("sluice_cursor", `(group_id integer NOT NULL, owner text NOT NULL, name text NOT NULL DEFAULT '', epoch bigint NOT NULL, commit bigint NOT NULL DEFAULT 0, chain bigint NOT NULL DEFAULT 0, exceptions bytea NOT NULL DEFAULT '', complete boolean NOT NULL DEFAULT false, at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (group_id, owner)) WITH (fillfactor = 10)`),
		table("sluice_rejects", `(group_id integer NOT NULL, commit bigint NOT NULL, ordinal bigint NOT NULL, partition smallint NOT NULL, key_hash bigint NOT NULL, key bytea NOT NULL, writes bigint NOT NULL, sqlstate text NOT NULL, reason text NOT NULL, state text NOT NULL DEFAULT 'open', at timestamptz NOT NULL DEFAULT clock_timestamp(), entry bytea NOT NULL, PRIMARY KEY (group_id, commit, ordinal))`,
			`CREATE INDEX sluice_rejects_open ON SCHEMA.sluice_rejects (group_id, partition) WHERE state = 'open'`),
		table("sluice_parked", `(group_id integer NOT NULL, seq bigint GENERATED ALWAYS AS IDENTITY, partition smallint NOT NULL, key_hash bigint NOT NULL, key bytea NOT NULL, commit bigint NOT NULL, ordinal bigint NOT NULL, writes bigint NOT NULL, entry bytea NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), tried timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (group_id, seq))`),
		{name: "sluice_flush", kind: "sequence", up: []string{q("CREATE SEQUENCE SCHEMA.sluice_flush")}, down: q("DROP SEQUENCE IF EXISTS SCHEMA.sluice_flush")},
		{name: "sluice_guard", kind: "function", up: []string{q(guardFunction)}, down: q("DROP FUNCTION IF EXISTS SCHEMA.sluice_guard")},
		{name: "sluice_wait", kind: "function", up: []string{q(waitFunction)}, down: q("DROP FUNCTION IF EXISTS SCHEMA.sluice_wait")},
		{name: "sluice_lag", kind: "view", up: []string{q(lagView)}, down: q("DROP VIEW IF EXISTS SCHEMA.sluice_lag")},
	}
}

var guardFunction = `CREATE FUNCTION SCHEMA.sluice_guard(grp integer, own text, ep bigint, prev_commit bigint, prev_exceptions bytea, next_commit bigint, next_chain bigint, next_exceptions bytea)
RETURNS void LANGUAGE plpgsql AS $sluice$
BEGIN
  ` + guardBody("SCHEMA", "grp", "own", "ep", "prev_commit", "prev_exceptions", "next_commit", "next_chain", "next_exceptions") + `
END $sluice$`

// lagView: age is how long ago the cursor moved or was confirmed, which is at
// most seconds while Sluice runs.
const lagView = `CREATE VIEW SCHEMA.sluice_lag AS
SELECT c.group_id, c.name AS "group", c.commit, clock_timestamp() - c.at AS age,
  (SELECT count(*) FROM SCHEMA.sluice_parked p WHERE p.group_id = c.group_id) AS parked
FROM SCHEMA.sluice_cursor c WHERE c.owner = 'owner'`

// waitFunction returns true once this database shows what the receipt stands
// for, false when the time is over. It promises visibility to statements that
// begin later, so it is a statement of its own before the SELECT (R1).
//
// It is VOLATILE and loops: in READ COMMITTED each query of it then sees what
// was committed meanwhile. Under a snapshot that stands still it would wait in
// vain, so it refuses that.
//
// It asks Sluice to flush at once without committing: a NOTIFY would be
// delivered only when the waiting is over. A sequence moves outside of
// transactions, and an advisory lock on the group says what is waited for;
// Listen looks at both.
const waitFunction = `CREATE FUNCTION SCHEMA.sluice_wait(receipt text, timeout interval DEFAULT '2s')
RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $sluice$
DECLARE
  raw bytea; at integer; want bigint; i integer; j integer; n integer; id bigint;
  ids integer[] := '{}'; sets bytea[] := '{}'; bits bytea; hashes bigint[] := '{}';
  until timestamptz := clock_timestamp() + timeout;
  here integer; held integer; exc bytea; behind boolean; have bigint; pause float8 := 0.001; part integer;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'sluice_wait needs READ COMMITTED: under % it can see no later commit', current_setting('transaction_isolation') USING ERRCODE = '25001';
  END IF;
  BEGIN
    raw := decode(translate(receipt, '-_', '+/') || repeat('=', (4 - length(receipt) % 4) % 4), 'base64');
    IF length(raw) < 19 OR get_byte(raw, 0) <> 1 THEN RAISE EXCEPTION 'cut'; END IF;
    IF NOT EXISTS (SELECT FROM SCHEMA.sluice_meta m WHERE substring(m.journal FROM 1 FOR 8) = substring(raw FROM 2 FOR 8)) THEN
      RAISE EXCEPTION 'another journal' USING ERRCODE = 'SL003';
    END IF;
    want := ('x' || encode(substring(raw FROM 10 FOR 8), 'hex'))::bit(64)::bigint;
    at := 18;
    FOR i IN 1..get_byte(raw, 17) LOOP
      id := ('x' || encode(substring(raw FROM at + 1 FOR 4), 'hex'))::bit(32)::bigint;
      n := get_byte(raw, at + 4);
      at := at + 5;
      IF n = 0 THEN
        bits := substring(raw FROM at + 1 FOR 32);
        at := at + 32;
      ELSE
        bits := decode(repeat('00', 32), 'hex');
        FOR j IN 0..n - 1 LOOP bits := set_bit(bits, get_byte(raw, at + j), 1); END LOOP;
        at := at + n;
      END IF;
      ids := ids || id::integer;
      sets := sets || bits;
    END LOOP;
    FOR i IN 0..get_byte(raw, at) - 1 LOOP
      hashes := hashes || ('x' || encode(substring(raw FROM at + 2 + 8 * i FOR 8), 'hex'))::bit(64)::bigint;
    END LOOP;
  EXCEPTION
    WHEN SQLSTATE 'SL003' THEN RAISE EXCEPTION 'the receipt is of another journal than the one that writes to this database' USING ERRCODE = '22023';
    WHEN OTHERS THEN RAISE EXCEPTION 'not a receipt of Sluice: %', left(receipt, 40) USING ERRCODE = '22023', HINT = 'Use it as it was answered.';
  END;
  LOOP
    behind := false;
    here := 0;
    FOR i IN 1..coalesce(array_length(ids, 1), 0) LOOP
      SELECT c.commit, c.exceptions INTO have, exc FROM SCHEMA.sluice_cursor c WHERE c.group_id = ids[i] AND c.owner = 'owner';
      CONTINUE WHEN NOT FOUND;
      here := here + 1;
      FOR part IN 0..255 LOOP
        CONTINUE WHEN get_bit(sets[i], part) = 0;
        behind := behind OR coalesce((SELECT ('x' || encode(substring(exc FROM 9 * e + 2 FOR 8), 'hex'))::bit(64)::bigint
          FROM generate_series(0, length(exc) / 9 - 1) e WHERE get_byte(exc, 9 * e) = part), have) < want;
      END LOOP;
      behind := behind OR EXISTS (SELECT FROM SCHEMA.sluice_parked p WHERE p.group_id = ids[i] AND p.commit <= want
        AND get_bit(sets[i], p.partition) = 1 AND (p.key_hash = ANY(hashes) OR hashes = '{}'));
    END LOOP;
    IF here = 0 THEN
      RAISE EXCEPTION 'nothing of this receipt is kept in this database' USING ERRCODE = '22023', HINT = 'Ask the shard that holds the row.';
    END IF;
    IF NOT behind THEN RETURN true; END IF;
    IF clock_timestamp() >= until THEN RETURN false; END IF;
    IF pause = 0.001 THEN
      FOR i IN 1..array_length(ids, 1) LOOP
        PERFORM pg_try_advisory_xact_lock_shared('SCHEMA.sluice_cursor'::regclass::oid::bigint::bit(32)::integer, ids[i]);
      END LOOP;
      PERFORM nextval('SCHEMA.sluice_flush');
    END IF;
    PERFORM pg_sleep(least(pause, greatest(0, extract(epoch FROM until - clock_timestamp()))));
    pause := least(pause * 2, 0.02);
  END LOOP;
END $sluice$`

// ownTable is the table of a group.
func ownTable(schemaName string, g *schema.Group) object {
	t := newTarget(g)
	var parts []string
	var keys []string
	if g.Events {
		parts = append(parts, "sluice_commit bigint NOT NULL", "sluice_ordinal integer NOT NULL")
	}
	for i := range t.keys {
		parts = append(parts, t.keys[i].name+" "+t.keys[i].typ+collate(&t.keys[i])+" NOT NULL")
		keys = append(keys, t.keys[i].name)
	}
	for i, c := range g.Columns {
		if !c.Dropped {
			parts = append(parts, columnDefs(&t.columns[i])...)
		}
	}
	parts = append(parts, "sluice_slot smallint NOT NULL")
	full := schemaName + "." + quote(g.Physical)
	var more []string
	if g.Events {
		parts = append(parts, "PRIMARY KEY (sluice_commit, sluice_ordinal)")
		more = append(more, "CREATE INDEX ON "+full+" ("+strings.Join(keys, ", ")+")")
	} else {
		parts = append(parts, "PRIMARY KEY ("+strings.Join(keys, ", ")+")")
	}
	return object{
		name: g.Physical, kind: "table", required: true, down: "DROP TABLE IF EXISTS " + full,
		up: append([]string{fmt.Sprintf("CREATE TABLE %s (%s)", full, strings.Join(parts, ", "))}, more...),
	}
}

// columnDefs: a sum begins at 0, since NULL + 3 is NULL and people read these
// tables with their own SQL. Everything else may be missing in a row.
func columnDefs(f *field) []string {
	def := f.name + " " + f.typ
	switch {
	case f.hll != nil:
		return []string{def + " NOT NULL DEFAULT 0", f.hll.name + " bytea"}
	case f.merge == schema.Sum:
		def += " NOT NULL DEFAULT 0"
	case f.merge == schema.Max || f.merge == schema.Min:
		def += collate(f)
	}
	return []string{def}
}

// collate: keys and extremes of text are ordered by bytes, in Go and in SQL alike (M3).
func collate(f *field) string {
	if f.typ == "text" {
		return ` COLLATE "C"`
	}
	return ""
}
