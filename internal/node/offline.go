package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/journal/disk"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// MigrateOptions say what Migrate does.
type MigrateOptions struct {
	Down  bool         // take Sluice's own tables away, with what is in them
	Apply bool         // run the statements, else only give them
	Warn  func(string) // sentences for people; nil: dropped
}

// ShardPlan is what one shard's database lacks, as statements in order.
type ShardPlan struct {
	Store, Shard string
	Statements   []string
}

// Migrate gives the statements that each shard of the config needs, and runs
// them when asked. All shards are planned before the first is changed. It needs
// no journal, so that it works beside a server and before the first start.
func Migrate(ctx context.Context, config *schema.Config, o MigrateOptions) ([]ShardPlan, error) {
	s, _, faults := config.Resolve(nil)
	if len(faults) > 0 {
		return nil, faults
	}
	var plans []ShardPlan
	err := eachShard(config, o.Warn, func(st *schema.Store, conf schema.Shard, db store.Shard) error {
		m, ok := db.(store.Migrator)
		if !ok {
			return nil
		}
		groups := slices.DeleteFunc(s.Groups(), func(g *schema.Group) bool { return g.Store != st.Name })
		statements, err := m.Plan(ctx, groups, o.Down)
		plans = append(plans, ShardPlan{st.Name, conf.Name, statements})
		return err
	})
	if err != nil || !o.Apply {
		return plans, err
	}
	next := 0
	return plans, eachShard(config, o.Warn, func(_ *schema.Store, _ schema.Shard, db store.Shard) error {
		m, ok := db.(store.Migrator)
		if !ok {
			return nil
		}
		plan := &plans[next]
		next++
		if len(plan.Statements) == 0 {
			return nil
		}
		return m.Run(ctx, plan.Statements)
	})
}

// eachShard opens the shards one after the other, in the order of their names.
func eachShard(config *schema.Config, warn func(string), fn func(*schema.Store, schema.Shard, store.Shard) error) error {
	if warn == nil {
		warn = func(string) {}
	}
	stores := make([]*schema.Store, 0, len(config.Stores))
	for _, st := range config.Stores {
		stores = append(stores, st)
	}
	slices.SortFunc(stores, func(a, b *schema.Store) int { return strings.Compare(a.Name, b.Name) })
	for _, st := range stores {
		for _, conf := range st.Shards {
			db, err := openShard(store.Options{Store: st, Shard: conf, Warn: warn})
			if err == nil {
				err = errors.Join(fn(st, conf, db), db.Close())
			}
			if err != nil {
				return fmt.Errorf("store %s, shard %s: %w", st.Name, conf.Name, err)
			}
		}
	}
	return nil
}

// Seen asks every shard for the highest commit and epoch that it has, for
// `journal adopt`: a shard ahead of the journal shows a loss that the journal
// itself cannot. A shard that cannot be asked is an error, since its rows may be
// the only trace of that loss.
func Seen(ctx context.Context, config *schema.Config) (disk.Seen, error) {
	var seen disk.Seen
	err := eachShard(config, nil, func(_ *schema.Store, _ schema.Shard, db store.Shard) error {
		there, err := drainedTo(ctx, db)
		if err != nil || !there {
			return err
		}
		cursors, err := db.Cursors(ctx)
		for i := range cursors {
			seen.Commit = max(seen.Commit, cursors[i].Highest())
			seen.Epoch = max(seen.Epoch, cursors[i].Epoch)
		}
		return err
	})
	return seen, err
}

// drainedTo tells whether the shard has a table of cursors: what a plan to take
// everything away would take.
func drainedTo(ctx context.Context, db store.Shard) (bool, error) {
	m, ok := db.(store.Migrator)
	if !ok {
		return true, nil
	}
	drops, err := m.Plan(ctx, nil, true)
	return slices.ContainsFunc(drops, func(sql string) bool { return strings.Contains(sql, "sluice_cursor") }), err
}
