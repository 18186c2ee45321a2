package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Migration is what one shard needs to hold the config's tables, or to be rid
// of them.
type Migration struct {
	Store      string   `json:"store"`
	Shard      string   `json:"shard"`
	Statements []string `json:"statements"` // in order; empty: nothing to do
}

// Migrations asks every shard what it lacks (or, down, what of Sluice it has).
// Statements name tables and columns only, so no journal is needed, and a
// running server may keep its own.
func Migrations(ctx context.Context, config *schema.Config, down bool) ([]Migration, error) {
	var out []Migration
	err := eachShard(config, func(st *schema.Store, conf schema.Shard, m store.Migrator, groups []*schema.Group) error {
		statements, err := m.Plan(ctx, groups, down)
		if err != nil {
			return err
		}
		out = append(out, Migration{Store: st.Name, Shard: conf.Name, Statements: statements})
		return nil
	})
	return out, err
}

// Migrate runs migrations, telling each statement before it runs.
func Migrate(ctx context.Context, config *schema.Config, migrations []Migration, tell func(Migration, string)) error {
	return eachShard(config, func(st *schema.Store, conf schema.Shard, m store.Migrator, _ []*schema.Group) error {
		at := slices.IndexFunc(migrations, func(x Migration) bool { return x.Store == st.Name && x.Shard == conf.Name })
		if at < 0 {
			return nil
		}
		for _, statement := range migrations[at].Statements {
			tell(migrations[at], statement)
			if err := m.Run(ctx, []string{statement}); err != nil {
				return err
			}
		}
		return nil
	})
}

func eachShard(config *schema.Config, fn func(*schema.Store, schema.Shard, store.Migrator, []*schema.Group) error) error {
	s, _, faults := config.Resolve(nil)
	if len(faults) > 0 {
		return faults
	}
	names := make([]string, 0, len(s.Stores))
	for name := range s.Stores {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		st := s.Stores[name]
		groups := slices.DeleteFunc(s.Groups(), func(g *schema.Group) bool { return g.Store != name })
		for _, conf := range st.Shards {
			if err := onShard(st, conf, groups, fn); err != nil {
				return fmt.Errorf("store %s, shard %s: %w", name, conf.Name, err)
			}
		}
	}
	return nil
}

func onShard(st *schema.Store, conf schema.Shard, groups []*schema.Group, fn func(*schema.Store, schema.Shard, store.Migrator, []*schema.Group) error) (err error) {
	db, err := openShard(store.Options{Store: st, Shard: conf, Warn: func(string) {}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	m, ok := db.(store.Migrator)
	if !ok {
		return nil
	}
	return fn(st, conf, m, groups)
}
