package node

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/api"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Status is the state of the process.
func (n *Node) Status() sluice.Status {
	counts := n.acceptor.Counts()
	s := n.acceptor.Schema()
	segments := n.journal.Segments()
	usage := n.journal.Usage()
	up := time.Since(n.started).Seconds()
	out := sluice.Status{Version: Version, Ready: n.ready.Load(), Uptime: up, Memory: memory()}
	id := n.journal.ID()
	out.Journal = sluice.JournalStatus{ID: fmt.Sprintf("%x", id), Head: n.journal.Head().Number, Bytes: usage.Bytes, BytesMax: s.Journal.BytesMax,
		Segments: len(segments), Accepted: counts.Writes.Load(), Commits: counts.Commits.Load(), PerSecond: n.rates.of(""),
		RetainNote: n.trimmer.Note()}
	if len(segments) > 0 {
		out.Journal.First = segments[0].First
	}
	if r := n.gate.Refusing(); r != nil {
		out.Journal.Refusing = r.Detail
	}
	out.Streams = n.streamStatus(s)
	return out
}

func (n *Node) streamStatus(s *schema.Schema) []sluice.StreamStatus {
	streams := n.journal.Streams()
	var out []sluice.StreamStatus
	for _, d := range n.drains.All() {
		g, pos := d.Group(), d.Position()
		st := sluice.StreamStatus{Table: g.Table.Name, Group: g.Name, Store: d.StoreName(), Shard: d.ShardName(), State: pos.State, Commit: pos.Applied,
			Durable: pos.Durable, Queued: d.Queued(streams), Rejected: pos.Rejected, Applied: pos.Counts.Writes, Rows: pos.Counts.Rows,
			RowsPerS: n.rates.of(rateOf(d)), AgeSec: n.age(d, &pos, streams)}
		for _, k := range pos.Parked {
			st.Parked += uint64(k.Writes)
		}
		if st.State == pipeline.StateDraining && st.Queued == 0 {
			st.State = pipeline.StateIdle
		}
		if pos.Err != nil {
			st.Error = pos.Err.Error()
		}
		if pos.Counts.Rows > 0 {
			st.FoldRatio = float64(pos.Counts.Writes) / float64(pos.Counts.Rows)
		}
		out = append(out, st)
	}
	return append(out, n.unreached(s)...)
}

// unreached gives the groups of shards that are not in use, with the reason.
func (n *Node) unreached(s *schema.Schema) []sluice.StreamStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []sluice.StreamStatus
	for name, sh := range n.shards {
		if sh.err == nil {
			continue
		}
		for _, g := range s.Groups() {
			if g.Store == name.store && sh.drained[g.ID] == nil {
				out = append(out, sluice.StreamStatus{Table: g.Table.Name, Group: g.Name, Store: name.store, Shard: name.shard,
					State: pipeline.StateStopped, Error: sh.err.Error()})
			}
		}
	}
	return out
}

// age is how long the oldest write waits that the drainer has not applied.
func (n *Node) age(d *pipeline.Drainer, pos *pipeline.Position, streams map[journal.Stream]journal.StreamState) float64 {
	if d.Queued(streams) == 0 {
		return 0
	}
	wall, err := pipeline.WallOf(n.journal, pos.Applied+1)
	if err != nil {
		return 0
	}
	return max(0, time.Since(wall).Seconds())
}

func memory() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64() - sample[1].Value.Uint64()
}

// Ledger says what was offered and what became of it (R2).
func (n *Node) Ledger() []sluice.LedgerRow {
	return n.ledger.Rows(n.acceptor.Schema(), n.journal, &n.drains)
}

func (n *Node) ledgerThrough() uint64 {
	through, _ := n.ledger.Snapshot()
	return through
}

type ledgerSaved struct {
	Through uint64         `json:"through"`
	Notes   []journal.Note `json:"notes"`
	Passed  []passedSaved  `json:"passed"`
}

type passedSaved struct {
	Stream journal.Stream `json:"stream"`
	Writes uint64         `json:"writes"`
}

func (n *Node) loadLedger() error {
	data, err := n.load(ledgerFile)
	if err != nil || data == nil {
		return err
	}
	var saved ledgerSaved
	if err := json.Unmarshal(data, &saved); err != nil {
		return fmt.Errorf("%s: %w", ledgerFile, err)
	}
	n.ledger.Add(saved.Through, saved.Notes)
	passed := make(map[journal.Stream]uint64, len(saved.Passed))
	for _, p := range saved.Passed {
		passed[p.Stream] = p.Writes
	}
	n.ledger.SetPassed(passed)
	return nil
}

// saveLedger keeps the counts that ride in commits before these are trimmed.
func (n *Node) saveLedger() error {
	var saved ledgerSaved
	saved.Through, saved.Notes = n.ledger.Snapshot()
	for s, writes := range n.ledger.Passed(&n.drains) {
		saved.Passed = append(saved.Passed, passedSaved{s, writes})
	}
	data, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	return n.journal.SaveFile(ledgerFile, data)
}

// Rejects lists rejects of all shards, newest first.
func (n *Node) Rejects(ctx context.Context, q api.RejectsQuery) ([]sluice.Reject, error) {
	var out []sluice.Reject
	for _, d := range n.drains.All() {
		g := d.Group()
		if q.Table != "" && g.Table.Name != q.Table || q.Group != "" && g.Name != q.Group {
			continue
		}
		list, err := d.Shard().Rejects(ctx, store.RejectQuery{Group: &g.ID, State: q.State, Max: q.Max})
		if err != nil {
			return nil, sluice.Errorf(sluice.Unavailable, "store_down", "read rejects of shard %s of store %s: %w", d.ShardName(), d.StoreName(), err)
		}
		out = append(out, list...)
	}
	slices.SortFunc(out, func(a, b sluice.Reject) int { return b.At.Compare(a.At) })
	if q.Max > 0 && len(out) > q.Max {
		out = out[:q.Max]
	}
	return out, nil
}

// DecideReject replays a reject through the journal, or discards it (S10).
func (n *Node) DecideReject(ctx context.Context, id, decision string) error {
	commit, ordinal, err := parseRejectID(id)
	if err != nil {
		return err
	}
	for _, d := range n.drains.All() {
		g := d.Group()
		list, err := d.Shard().Rejects(ctx, store.RejectQuery{Group: &g.ID, Commit: commit, Max: 10_000})
		if err != nil {
			return sluice.Errorf(sluice.Unavailable, "store_down", "read rejects of shard %s of store %s: %w", d.ShardName(), d.StoreName(), err)
		}
		for i := range list {
			if list[i].Ordinal == ordinal {
				return n.decide(ctx, d, &list[i], decision)
			}
		}
	}
	return sluice.Errorf(sluice.NotFound, "no_reject", "no reject has id %s; `sluice rejects ls` lists them", id)
}

func parseRejectID(id string) (commit uint64, ordinal uint32, err error) {
	left, right, _ := strings.Cut(id, ".")
	commit, err1 := strconv.ParseUint(left, 10, 64)
	n, err2 := strconv.ParseUint(right, 10, 32)
	if err1 != nil || err2 != nil {
		return 0, 0, sluice.Errorf(sluice.Invalid, "bad_id", "%q is no id of a reject; one looks like 1042.7, see `sluice rejects ls`", id)
	}
	return commit, uint32(n), nil
}

func (n *Node) decide(ctx context.Context, d *pipeline.Drainer, r *sluice.Reject, decision string) error {
	if r.State != "open" {
		return sluice.Errorf(sluice.Conflict, "decided", "reject %s is %s already", r.ID, r.State)
	}
	switch decision {
	case "discard":
		return d.Shard().SetRejectState(ctx, d.Group().ID, r.Commit, r.Ordinal, "discarded")
	case "replay":
		e, err := journal.DecodeEntry(r.Entry)
		if err != nil {
			return fmt.Errorf("reject %s: %w", r.ID, err)
		}
		e.Replay = store.ReplayNumber(r.Commit, r.Ordinal)
		_, err = n.acceptor.Submit(ctx, &sluice.Chunk{Entries: []sluice.Entry{e}})
		return err
	}
	return sluice.Errorf(sluice.Invalid, "bad_decision", "%q: a reject is replayed or discarded", decision)
}

// Reload reads the config again and puts what was added in force. Doors follow
// the config, drainers the catalog, so the catalog is kept first (J6).
func (n *Node) Reload(ctx context.Context) error {
	config, err := n.config()
	if err != nil {
		return sluice.Errorf(sluice.Invalid, "bad_config", "the config was not reloaded, the old one stays in force: %w", err)
	}
	head := n.journal.Head().Number
	n.finishDropped(ctx)
	n.mu.Lock()
	n.catalog.Forget(n.drained(head))
	old := n.acceptor.Schema()
	s, catalog, faults := config.Resolve(n.catalog)
	if len(faults) > 0 {
		n.mu.Unlock()
		return sluice.Errorf(sluice.Conflict, "bad_reload", "the config was not reloaded, the old one stays in force: %w", faults)
	}
	was := n.catalog
	n.catalog = catalog
	if err := n.saveCatalog(); err != nil {
		n.catalog = was
		n.mu.Unlock()
		return err
	}
	n.acceptor.SetSchema(s)
	n.reloaded = time.Now()
	n.mu.Unlock()
	n.openShards(s)
	for _, line := range schema.ReloadDiff(old, s) {
		n.emit(observe.EventReloaded, "change", line)
	}
	n.reuse()
	n.startShards()
	return nil
}

// reuse makes the tables of added groups on shards that are in use.
func (n *Node) reuse() {
	n.mu.Lock()
	shards := make(map[shardName]*shard, len(n.shards))
	for name, sh := range n.shards {
		if sh.db != nil {
			shards[name] = sh
		}
	}
	n.mu.Unlock()
	for name, sh := range shards {
		if err := n.use(name, sh); err != nil {
			n.emit(observe.EventShardOut, "store", name.store, "shard", name.shard, "error", err)
			n.mu.Lock()
			sh.tried = make(chan struct{})
			n.mu.Unlock()
			n.loops.Add(1)
			go n.reach(name, sh)
		}
	}
}

// Resume makes stopped streams of a store try again at once (shard "": of all
// its shards). acceptGap lets those go on whose history is missing, and keeps the
// gap in the catalog: receipts in it say "lost" (S4).
func (n *Node) Resume(_ context.Context, storeName, shardNamed string, acceptGap bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	head := n.journal.Head().Number
	found, accepted := 0, 0
	for _, d := range n.drains.All() {
		if d.StoreName() != storeName || shardNamed != "" && d.ShardName() != shardNamed {
			continue
		}
		found++
		if from, to, missing := d.Gap(head); missing && acceptGap {
			if err := n.forgetKnown(d); err != nil {
				return err
			}
			d.AcceptMissing()
			n.catalog.Gaps = append(n.catalog.Gaps, schema.Gap{Store: storeName, Shard: d.ShardName(), Group: d.Group().ID, From: from, To: to, At: time.Now().UTC()})
			accepted++
		}
	}
	switch {
	case found == 0:
		return sluice.Errorf(sluice.NotFound, "no_store", "no shard %q of a store %q is in use; `sluice status` lists them", shardNamed, storeName)
	case acceptGap && accepted == 0:
		return sluice.Errorf(sluice.Conflict, "no_gap", "no stream there is stopped for missing history; `sluice status` shows what stops it")
	case accepted > 0:
		if err := n.saveCatalog(); err != nil {
			return err
		}
	}
	for _, d := range n.drains.All() {
		if d.StoreName() == storeName && (shardNamed == "" || d.ShardName() == shardNamed) {
			d.Flush(head)
		}
	}
	return nil
}
