package postgres

import (
	"context"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice.dev/sluice/internal/schema"
)

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// catalog is what the database says about the tables that matter.
type catalog struct {
	schema    string // unquoted, where Sluice's tables lie
	relations map[string]*relation
	functions map[string]bool
	groups    map[*schema.Group]*relation // nil: the table is not there
}

// relation is a table as it is.
type relation struct {
	oid                             int64
	schema, name                    string
	kind                            string // of pg_class: r, p, v, m, f, S
	persistence                     string // p, u, t
	rls                             bool
	unloggedParts                   int64
	canSelect, canInsert, canUpdate bool
	canDelete                       bool
	columns                         map[string]*attribute
	uniques                         []uniqueIndex
	checked                         map[int]string // attribute number -> name of a CHECK over it
	parents                         map[string]string
	attributeNames                  map[int]string
}

type attribute struct {
	number                  int
	typ, base               string // without length; base is typ but for domains
	generated, identity     string
	deterministic, isDomain bool
	begins                  string // see readDefaults; "" when not asked for
	volatile                bool   // begins with another value each time
}

type uniqueIndex struct {
	name    string
	columns map[string]bool
}

const relationQuery = `SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relrowsecurity,
  (SELECT count(*) FROM pg_partition_tree(c.oid) pt JOIN pg_class pc ON pc.oid = pt.relid WHERE pc.relpersistence <> 'p'),
  has_any_column_privilege(c.oid, 'SELECT'), has_any_column_privilege(c.oid, 'INSERT'), has_any_column_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE `

// look reads the catalog for Sluice's own objects and for the groups' tables.
func look(ctx context.Context, q querier, db *database, groups []*schema.Group) (*catalog, error) {
	cat := &catalog{schema: db.rawSchema, relations: map[string]*relation{}, functions: map[string]bool{}, groups: map[*schema.Group]*relation{}}
	names := make([]string, 0, 8+len(groups))
	for _, o := range ownObjects(db.schema) {
		names = append(names, o.name)
	}
	for _, g := range groups {
		if g.Existing == nil {
			names = append(names, g.Physical)
		}
	}
	byOID := map[int64]*relation{}
	err := each(ctx, q, relationQuery+"n.nspname = $1 AND c.relname = ANY($2)", []any{db.rawSchema, names}, func(r pgx.Rows) error {
		rel, err := scanRelation(r)
		cat.relations[rel.name], byOID[rel.oid] = rel, rel
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if g.Existing == nil {
			cat.groups[g] = cat.relations[g.Physical]
			continue
		}
		err := each(ctx, q, relationQuery+"c.oid = to_regclass($1)", []any{quoteTable(g.Existing.Table)}, func(r pgx.Rows) error {
			rel, err := scanRelation(r)
			if known := byOID[rel.oid]; known != nil {
				rel = known
			}
			cat.groups[g], byOID[rel.oid] = rel, rel
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	err = each(ctx, q, "SELECT DISTINCT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname LIKE 'sluice\\_%' AND has_function_privilege(p.oid, 'EXECUTE')",
		[]any{db.rawSchema}, func(r pgx.Rows) error {
			var name string
			err := r.Scan(&name)
			cat.functions[name] = true
			return err
		})
	if err != nil {
		return nil, err
	}
	if err := describe(ctx, q, byOID); err != nil {
		return nil, err
	}
	return cat, readDefaults(ctx, q, byOID, cat.groups)
}

// defaultsQuery gives defaults as expressions of exactly their column's type:
// pg_get_expr leaves out the cast that the database makes on assignment, and a
// default of 1.005 is 1.01 in a numeric(9,2). The functions and operators of an
// expression stand in its tree by number.
const defaultsQuery = `SELECT a.attrelid::bigint, a.attname, coalesce('(' || e.text || ')::' || format_type(a.atttypid, a.atttypmod), ''),
  a.attidentity <> '' OR EXISTS (SELECT FROM regexp_matches(e.tree, ':(funcid|opno) (\d+)', 'g') AS m
    LEFT JOIN pg_operator o ON m[1] = 'opno' AND o.oid = m[2]::oid JOIN pg_proc p ON p.oid = coalesce(o.oprcode::oid, m[2]::oid) WHERE p.provolatile = 'v')
FROM unnest($1::bigint[], $2::text[]) AS s(relation, name) JOIN pg_attribute a ON a.attrelid = s.relation::oid AND a.attname = s.name
JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
CROSS JOIN LATERAL (SELECT coalesce(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(t.typdefaultbin, 0)) AS text, coalesce(d.adbin, t.typdefaultbin)::text AS tree) AS e`

// readDefaults fills in what the columns begin with whose value in a new row
// depends on it: the merged ones of mapped tables whose missing rows Sluice makes.
func readDefaults(ctx context.Context, q querier, byOID map[int64]*relation, groups map[*schema.Group]*relation) error {
	var oids []int64
	var names []string
	for g, rel := range groups {
		if rel == nil || !beginsRows(g) {
			continue
		}
		for _, c := range g.Columns {
			if c.Merge == schema.Sum || c.Merge == schema.Max || c.Merge == schema.Min {
				oids, names = append(oids, rel.oid), append(names, c.Physical)
			}
		}
	}
	if len(oids) == 0 {
		return nil
	}
	return each(ctx, q, defaultsQuery, []any{oids, names}, func(r pgx.Rows) error {
		var oid int64
		var name, begins string
		var volatile bool
		if err := r.Scan(&oid, &name, &begins, &volatile); err != nil {
			return err
		}
		if a := byOID[oid].columns[name]; a != nil {
			a.begins, a.volatile = begins, volatile
		}
		return nil
	})
}

// beginsRows tells whether Sluice inserts the missing rows of a mapped table.
func beginsRows(g *schema.Group) bool {
	return g.Existing != nil && !g.Events && g.Existing.MissingRow == schema.MissingInsert
}

// quoteTable quotes the parts of "schema.table".
func quoteTable(name string) string {
	return pgx.Identifier(strings.SplitN(name, ".", 2)).Sanitize()
}

func scanRelation(r pgx.Rows) (*relation, error) {
	rel := &relation{columns: map[string]*attribute{}, checked: map[int]string{}, parents: map[string]string{}, attributeNames: map[int]string{}}
	err := r.Scan(&rel.oid, &rel.schema, &rel.name, &rel.kind, &rel.persistence, &rel.rls, &rel.unloggedParts, &rel.canSelect, &rel.canInsert, &rel.canUpdate, &rel.canDelete)
	return rel, err
}

// describe fills in columns, unique indexes and constraints.
func describe(ctx context.Context, q querier, byOID map[int64]*relation) error {
	oids := make([]int64, 0, len(byOID))
	for oid := range byOID {
		oids = append(oids, oid)
	}
	err := each(ctx, q, `SELECT a.attrelid::bigint, a.attname, a.attnum::int, format_type(a.atttypid, NULL), format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), NULL),
  a.attgenerated::text, a.attidentity::text, coalesce(co.collisdeterministic, true), t.typtype = 'd'
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation co ON co.oid = a.attcollation
WHERE a.attrelid::bigint = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped`, []any{oids}, func(r pgx.Rows) error {
		var oid int64
		var name string
		a := &attribute{}
		if err := r.Scan(&oid, &name, &a.number, &a.typ, &a.base, &a.generated, &a.identity, &a.deterministic, &a.isDomain); err != nil {
			return err
		}
		byOID[oid].columns[name], byOID[oid].attributeNames[a.number] = a, name
		return nil
	})
	if err != nil {
		return err
	}
	// An index that is partial, over expressions, deferrable or still being built does not keep keys apart at once.
	err = each(ctx, q, `SELECT i.indrelid::bigint, c.relname, array_to_string(i.indkey, ' '), i.indnkeyatts::int FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid::bigint = ANY($1) AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL`, []any{oids}, func(r pgx.Rows) error {
		var oid int64
		var name, columns string
		var keys int
		if err := r.Scan(&oid, &name, &columns, &keys); err != nil {
			return err
		}
		u := uniqueIndex{name: name, columns: map[string]bool{}}
		for _, n := range numbers(columns)[:keys] {
			u.columns[byOID[oid].attributeNames[n]] = true
		}
		byOID[oid].uniques = append(byOID[oid].uniques, u)
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, q, `SELECT o.conrelid::bigint, o.conname, o.contype::text, coalesce(array_to_string(o.conkey, ' '), ''), coalesce(n.nspname || '.' || c.relname, '')
FROM pg_constraint o LEFT JOIN pg_class c ON c.oid = o.confrelid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE o.conrelid::bigint = ANY($1) AND o.contype IN ('c', 'f')`, []any{oids}, func(r pgx.Rows) error {
		var oid int64
		var name, kind, columns, parent string
		if err := r.Scan(&oid, &name, &kind, &columns, &parent); err != nil {
			return err
		}
		if kind == "f" {
			byOID[oid].parents[name] = parent
			return nil
		}
		for _, n := range numbers(columns) {
			byOID[oid].checked[n] = name
		}
		return nil
	})
}

func numbers(text string) []int {
	var out []int
	for _, word := range strings.Fields(text) {
		n, _ := strconv.Atoi(word)
		out = append(out, n)
	}
	return out
}

// each calls fn for every row of a query.
func each(ctx context.Context, q querier, sql string, args []any, fn func(pgx.Rows) error) error {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
