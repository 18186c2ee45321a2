package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// ddlLock keeps two processes from making the same tables at once. An ALTER
// TABLE that waits long for its lock makes everybody else wait behind it.
const ddlLock = "SELECT set_config('lock_timeout', '5s', true), pg_advisory_xact_lock(hashtextextended('sluice ddl', 0))"

// Ensure checks the shard's identity before it makes anything, so that a wrong
// URL does not leave tables in somebody else's database (S6).
func (s *Shard) Ensure(ctx context.Context, id store.Identity, groups []*schema.Group) error {
	db, err := s.inspect(ctx)
	if err != nil {
		return s.outcome("check the database", err)
	}
	groups = s.mine(groups)
	cat, err := look(ctx, s.pool, db, groups)
	if err != nil {
		return s.outcome("read the catalog", err)
	}
	if cat.relations["sluice_meta"] != nil {
		if err := s.checkIdentity(ctx, db, id); err != nil {
			return s.outcome("check the shard's identity", err)
		}
	}
	steps := s.plan(cat, db, groups)
	if len(steps) > 0 {
		if cat, err = s.make(ctx, db, groups, steps); err != nil {
			return s.outcome("make tables", err)
		}
	}
	if err := s.writeIdentity(ctx, db, id); err != nil {
		return s.outcome("write the shard's identity", err)
	}
	if err := s.connectTargets(cat, db, groups); err != nil {
		return err
	}
	db.guard = cat.functions["sluice_guard"]
	db.flush = cat.relations["sluice_flush"] != nil
	s.serialMax.Store(s.serial.Load() + namedStatementsMax)
	db.texts = makeTexts(s, db.schema)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != nil {
		for id, t := range s.db.targets { // of groups that were not named this time
			if db.targets[id] == nil {
				db.targets[id] = t
			}
		}
	}
	s.db = db
	// Prepared statements of the connections so far name older shapes of the tables.
	s.pool.Reset()
	return nil
}

// mine are the groups of this store.
func (s *Shard) mine(groups []*schema.Group) []*schema.Group {
	var out []*schema.Group
	for _, g := range groups {
		if g.Store == s.opt.Store.Name {
			out = append(out, g)
		}
	}
	return out
}

// make runs the plan or, where the store's ddl is not auto, says what is missing.
func (s *Shard) make(ctx context.Context, db *database, groups []*schema.Group, steps []step) (*catalog, error) {
	if s.opt.Store.DDL == "auto" {
		if err := s.runSteps(ctx, db, groups); err != nil {
			return nil, err
		}
		return look(ctx, s.pool, db, groups)
	}
	missing := &store.MissingError{Store: s.opt.Store.Name, Shard: s.opt.Shard.Name}
	required := false
	for _, st := range steps {
		missing.Statements = append(missing.Statements, st.statements...)
		required = required || st.object.required
	}
	if required {
		return nil, missing
	}
	for _, st := range steps {
		s.warnWithout(st.object.name)
	}
	return look(ctx, s.pool, db, groups)
}

func (s *Shard) warnWithout(object string) {
	s.opt.Warn(s.where() + ": " + object + " is not there and could not be made; batches go on, slower or with less comfort; `sluice migrate --print` shows its statement")
}

// runSteps plans again under a lock and runs the plan in one transaction. What
// is not required may fail for want of a privilege.
func (s *Shard) runSteps(ctx context.Context, db *database, groups []*schema.Group) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, ddlLock); err != nil {
			return err
		}
		cat, err := look(ctx, tx, db, groups)
		if err != nil {
			return err
		}
		for _, st := range s.plan(cat, db, groups) {
			err := pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
				for _, sql := range st.statements {
					if _, err := inner.Exec(ctx, sql); err != nil {
						return err
					}
				}
				return nil
			})
			var pg *pgconn.PgError
			if !st.object.required && errors.As(err, &pg) && pg.Code == "42501" {
				s.warnWithout(st.object.name)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
}

// step is the part of a plan that one object needs.
type step struct {
	object     object
	statements []string
}

// plan lists what is missing, in the order in which it can be made.
func (s *Shard) plan(cat *catalog, db *database, groups []*schema.Group) []step {
	var out []step
	for _, o := range ownObjects(db.schema) {
		if there := cat.relations[o.name] != nil || cat.functions[o.name]; !there {
			out = append(out, step{o, o.up})
		}
	}
	for _, g := range groups {
		if g.Existing != nil {
			continue
		}
		o, rel := ownTable(db.schema, g), cat.groups[g]
		switch {
		case rel == nil && !g.Dropped:
			out = append(out, step{o, o.up})
		case rel != nil && (rel.columns["sluice_slot"] != nil || g.Dropped):
			if add := addColumns(db.schema, g, rel); len(add) > 0 {
				out = append(out, step{o, add})
			}
		}
	}
	return out
}

func addColumns(schemaName string, g *schema.Group, rel *relation) []string {
	var out []string
	t := newTarget(g)
	for i, c := range g.Columns {
		if c.Dropped {
			continue
		}
		names := []string{c.Physical, c.Physical + "_hll"}
		for k, def := range columnDefs(&t.columns[i]) {
			if rel.columns[names[k]] == nil {
				out = append(out, "ALTER TABLE "+schemaName+"."+quote(g.Physical)+" ADD COLUMN "+def)
			}
		}
	}
	return out
}

// Plan gives the statements that Ensure would run, or those that take away all
// that is Sluice's.
func (s *Shard) Plan(ctx context.Context, groups []*schema.Group, down bool) ([]string, error) {
	db, err := s.inspect(ctx)
	if err != nil {
		return nil, s.outcome("check the database", err)
	}
	groups = s.mine(groups)
	cat, err := look(ctx, s.pool, db, groups)
	if err != nil {
		return nil, s.outcome("read the catalog", err)
	}
	var out []string
	if !down {
		for _, st := range s.plan(cat, db, groups) {
			out = append(out, st.statements...)
		}
		return out, nil
	}
	for _, g := range groups {
		if rel := cat.groups[g]; g.Existing == nil && rel != nil && rel.columns["sluice_slot"] != nil {
			out = append(out, ownTable(db.schema, g).down)
		}
	}
	for _, o := range slices.Backward(ownObjects(db.schema)) {
		if cat.relations[o.name] != nil || cat.functions[o.name] {
			out = append(out, o.down)
		}
	}
	return out, nil
}

// Run executes statements of a plan in one transaction.
func (s *Shard) Run(ctx context.Context, statements []string) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, ddlLock); err != nil {
			return err
		}
		for _, sql := range statements {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%.60s: %w", sql, err)
			}
		}
		return nil
	})
	return s.outcome("run the statements of `sluice migrate`", err)
}

// checkIdentity compares what the database says it is with what it should be.
func (s *Shard) checkIdentity(ctx context.Context, db *database, id store.Identity) error {
	var journal []byte
	var storeName, shard string
	var version int64
	var format int
	err := s.pool.QueryRow(ctx, "SELECT journal, store, shard, map_version, format FROM "+db.schema+".sluice_meta").Scan(&journal, &storeName, &shard, &version, &format)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	case string(journal) != string(id.Journal[:]):
		return s.wrongShard(fmt.Sprintf("it belongs to another journal (%x, this one is %x)", journal, id.Journal))
	case storeName != id.Store || shard != id.Shard:
		return s.wrongShard(fmt.Sprintf("it is shard %s of store %s", shard, storeName))
	case format > 1:
		return &store.StopError{Reason: "newer_format", Detail: fmt.Sprintf("%s: its tables have format %d, this build knows 1: written by a newer Sluice; start that one", s.where(), format)}
	case uint64(version) > id.MapVersion:
		return &store.StopError{Reason: "newer_map", Detail: fmt.Sprintf("%s: it knows shard map version %d, the catalog beside the journal only %d: the catalog is older than the database; bring the newer catalog back, or go on with this one by `sluice journal adopt`", s.where(), version, id.MapVersion)}
	}
	return nil
}

func (s *Shard) wrongShard(why string) error {
	return &store.StopError{Reason: "wrong_shard", Detail: s.where() + ": the URL leads to a database that is not this shard's: " + why +
		"; correct the URL, or, if that database is to start anew, remove its Sluice tables by `sluice migrate --down`"}
}

// writeIdentity writes the identity of a new shard and brings an older map version up.
func (s *Shard) writeIdentity(ctx context.Context, db *database, id store.Identity) error {
	_, err := s.pool.Exec(ctx, "INSERT INTO "+db.schema+".sluice_meta (journal, store, shard, map_version) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		id.Journal[:], id.Store, id.Shard, int64(id.MapVersion))
	if err != nil {
		return err
	}
	if err := s.checkIdentity(ctx, db, id); err != nil { // another process may have been first
		return err
	}
	_, err = s.pool.Exec(ctx, "UPDATE "+db.schema+".sluice_meta SET map_version = $1 WHERE map_version < $1", int64(id.MapVersion))
	return err
}

// connectTargets checks the tables and learns their columns' types.
func (s *Shard) connectTargets(cat *catalog, db *database, groups []*schema.Group) error {
	for _, name := range slices.Sorted(maps.Keys(cat.relations)) {
		if err := s.checkPersistence(cat.relations[name]); err != nil {
			return err
		}
	}
	for _, g := range groups {
		rel := cat.groups[g]
		if rel == nil && g.Dropped && g.Existing == nil {
			continue
		}
		t, err := s.connectTarget(g, rel)
		if err != nil {
			return err
		}
		db.targets[g.ID] = t
	}
	return nil
}
