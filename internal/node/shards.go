package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
	"sluice.dev/sluice/internal/store/postgres"
	"sluice.dev/sluice/internal/store/sqlite"
)

// shard is one database of the config, open or not yet.
type shard struct {
	store   *schema.Store
	conf    schema.Shard
	db      store.Shard // nil until it is reached
	drained map[sluice.GroupID]*pipeline.Drainer
	err     error         // why it is not in use
	tried   chan struct{} // closed after the first try to reach it
}

const (
	shardRetry    = 2 * time.Second
	shardFirstMax = 5 * time.Second // a start waits so long for the first try of each shard
)

func openShard(o store.Options) (store.Shard, error) {
	switch o.Store.Driver {
	case "sqlite":
		return sqlite.Open(o)
	case "postgres":
		return postgres.Open(o)
	case "mem":
		return new(mem.Database).Open(o), nil
	}
	return nil, fmt.Errorf("store %s: no driver %q", o.Store.Name, o.Store.Driver)
}

// openShards makes the shards known. They are reached and drained to by
// startShards: one that is down harms nobody else.
func (n *Node) openShards(s *schema.Schema) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, st := range s.Stores {
		for _, conf := range st.Shards {
			name := shardName{st.Name, conf.Name}
			if n.shards[name] == nil {
				n.shards[name] = &shard{store: st, conf: conf, tried: make(chan struct{}), drained: map[sluice.GroupID]*pipeline.Drainer{}}
			}
		}
	}
}

// startShards starts a loop for each shard that has none: reach it, make its
// tables, drain to it.
func (n *Node) startShards() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, sh := range n.shards {
		if sh.db == nil {
			n.loops.Add(1)
			go n.reach(name, sh)
		}
	}
}

// awaitShards waits until each shard was tried once, so that a process that
// says it is ready can read where its databases are up.
func (n *Node) awaitShards() {
	limit := time.After(shardFirstMax)
	n.mu.Lock()
	shards := make([]*shard, 0, len(n.shards))
	for _, sh := range n.shards {
		shards = append(shards, sh)
	}
	n.mu.Unlock()
	for _, sh := range shards {
		select {
		case <-sh.tried:
		case <-limit:
			return
		case <-n.run.Done():
			return
		}
	}
}

func (n *Node) reach(name shardName, sh *shard) {
	defer n.loops.Done()
	said := ""
	tried := sync.OnceFunc(func() { close(sh.tried) })
	defer tried()
	for n.run.Err() == nil {
		err := n.use(name, sh)
		tried()
		if err == nil {
			return
		}
		if err.Error() != said && n.run.Err() == nil {
			said = err.Error()
			n.emit(observe.EventShardOut, "store", name.store, "shard", name.shard, "error", err)
		}
		select {
		case <-n.run.Done():
		case <-time.After(shardRetry):
		}
	}
}

// use opens the shard where needed, makes its tables and starts the drainers of
// groups that have none yet. It is called again after a reload.
func (n *Node) use(name shardName, sh *shard) (err error) {
	defer func() {
		n.mu.Lock()
		sh.err = err
		n.mu.Unlock()
	}()
	db := sh.db
	if db == nil {
		warn := func(text string) { n.log.Warn(text, "store", name.store, "shard", name.shard) }
		if db, err = openShard(store.Options{Store: sh.store, Shard: sh.conf, Warn: warn}); err != nil {
			return err
		}
	}
	groups, m := n.groupsOf(name.store)
	if err := db.Ensure(n.run, store.Identity{Journal: n.journal.ID(), Store: name.store, Shard: name.shard, MapVersion: m.Version}, groups); err != nil {
		if sh.db == nil {
			err = errors.Join(err, db.Close())
		}
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run.Err() != nil {
		return db.Close()
	}
	if sh.db == nil {
		sh.db = db
		n.listen(db)
	}
	partitions := m.Partitions(name.shard)
	for _, g := range groups {
		if d := sh.drained[g.ID]; d != nil {
			d.SetGroup(g)
			continue
		}
		n.drain(name, sh, g, partitions)
	}
	return nil
}

// drain starts a drainer; n.mu is held.
func (n *Node) drain(name shardName, sh *shard, g *schema.Group, partitions sluice.PartitionSet) {
	key := knownKey(name, g.ID)
	d := pipeline.NewDrainer(g, pipeline.DrainerOptions{
		Journal: n.journal, Shard: sh.db, Store: sh.store, ShardName: name.shard, Partitions: partitions,
		Lookup: func(id sluice.GroupID) *schema.Group { return n.acceptor.Schema().Group(id) },
		Known:  n.known[key], Remember: func() error { return n.remember(key) },
		AcceptedGap: func() uint64 { return n.acceptedGap(name, g.ID) },
		ParentsPassed: func(parent string, commit uint64) bool {
			return n.parentsPassed(name, parent, commit)
		}, Now: time.Now})
	sh.drained[g.ID] = d
	n.drains.Add(d)
	n.loops.Add(1)
	go func() {
		defer n.loops.Done()
		n.runDrainer(d)
	}()
}

// listen starts the loop in which a shard asks for flushes (sluice_wait).
func (n *Node) listen(db store.Shard) {
	l, ok := db.(interface {
		Listen(ctx context.Context, flush func(groups []sluice.GroupID)) error
	})
	if !ok {
		return
	}
	n.loops.Add(1)
	go func() {
		defer n.loops.Done()
		for n.run.Err() == nil {
			err := l.Listen(n.run, func(groups []sluice.GroupID) {
				for _, g := range groups {
					for _, d := range n.drains.Of(g) {
						d.Flush(n.journal.Head().Number)
					}
				}
			})
			if err != nil && n.run.Err() == nil {
				n.log.Debug("sluice_wait cannot ask for a flush; it waits for the flush interval", "error", err)
			}
			select {
			case <-n.run.Done():
			case <-time.After(shardRetry):
			}
		}
	}()
}

func (n *Node) groupsOf(storeName string) ([]*schema.Group, schema.ShardMap) {
	n.mu.Lock()
	defer n.mu.Unlock()
	groups := slices.DeleteFunc(n.acceptor.Schema().Groups(), func(g *schema.Group) bool { return g.Store != storeName })
	return groups, n.catalog.ShardMaps[storeName]
}

func (n *Node) shardsOpen() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, sh := range n.shards {
		if sh.db == nil {
			return false
		}
	}
	return true
}

// parentsPassed tells whether every stream of the parent table on this shard
// has durably passed the commit. A table that Sluice does not write has.
func (n *Node) parentsPassed(name shardName, parent string, commit uint64) bool {
	streams := n.journal.Streams()
	for _, d := range n.drains.All() {
		g := d.Group()
		if d.StoreName() == name.store && d.ShardName() == name.shard && writesTo(g, parent) && !d.Through(commit, streams) {
			return false
		}
	}
	return true
}

// writesTo compares a group's physical table with one as the database names it,
// with or without its schema.
func writesTo(g *schema.Group, table string) bool {
	own := g.Physical
	if g.Existing != nil {
		own = g.Existing.Table
	}
	last := func(s string) string { return s[strings.LastIndexByte(s, '.')+1:] }
	return last(own) == last(table)
}

func (n *Node) loadKnown() error {
	data, err := n.load(shardsFile)
	if err != nil || data == nil {
		return err
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("%s: %w", shardsFile, err)
	}
	for _, key := range list {
		n.known[key] = true
	}
	return nil
}

// remember keeps durably that a shard is drained to, before its first batch: a
// cursor that is missing from then on is a loss (S4).
func (n *Node) remember(key string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[key] = true
	return n.saveKnown()
}

// forgetKnown lets the next Take of a drainer go on without its cursor; n.mu is held.
func (n *Node) forgetKnown(d *pipeline.Drainer) error {
	delete(n.known, knownKey(shardName{d.StoreName(), d.ShardName()}, d.Group().ID))
	return n.saveKnown()
}

func knownKey(name shardName, g sluice.GroupID) string {
	return fmt.Sprintf("%s/%s/%d", name.store, name.shard, g)
}

func (n *Node) saveKnown() error {
	list := make([]string, 0, len(n.known))
	for k := range n.known {
		list = append(list, k)
	}
	slices.Sort(list)
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return n.journal.SaveFile(shardsFile, data)
}

// acceptedGap is the end of the gap that somebody accepted for this shard.
func (n *Node) acceptedGap(name shardName, g sluice.GroupID) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	to := uint64(0)
	for _, gap := range n.catalog.Gaps {
		if gap.Store == name.store && gap.Shard == name.shard && gap.Group == g {
			to = max(to, gap.To, 1) // accepted, even where nothing is lost
		}
	}
	return to
}

func (n *Node) lost(storeName, shardNamed string, g sluice.GroupID, commit uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, gap := range n.catalog.Gaps {
		if gap.Store == storeName && gap.Shard == shardNamed && gap.Group == g && commit >= gap.From && commit <= gap.To {
			return true
		}
	}
	return false
}
