package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/dedup"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/disk"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// process is one run of the program, put together as node does it, with every
// loop's step taken by the scheduler.
type process struct {
	w    *world
	gone bool // killed or failed: nothing of it is heard of any more

	disk    *disk.Journal
	journal journal.Journal // disk, or a defect around it
	dedup   *dedup.Table
	gate    admit.Gate
	ledger  pipeline.Ledger
	drains  pipeline.Drains

	acceptor *pipeline.Acceptor
	reader   *pipeline.Reader
	trimmer  *pipeline.Trimmer
	catalog  *schema.Catalog
	known    map[string]bool
	list     []*drain
	behind   map[string]bool // shards in use whose tables lack a reload

	base  int64 // journal time at the start, microseconds
	since time.Time

	ctx    context.Context // of the acceptor's loop
	cancel context.CancelFunc

	committing bool
	commitErr  error
}

// drain is one drainer with the goroutine of its step.
type drain struct {
	*pipeline.Drainer
	p     *process
	link  *link
	busy  bool
	wait  time.Duration
	err   error
	steps int // since its process is gone
	era   int // of the database, as the drainer knows it
}

func (d *drain) name() string { return d.Group().Name + "@" + d.ShardName() }

func (p *process) clock() int64 { return p.base + time.Since(p.since).Microseconds() }

// open is what node.Open does.
func (w *world) open() (*process, error) {
	p := &process{w: w, known: map[string]bool{}, behind: map[string]bool{}}
	p.ctx, p.cancel = context.WithCancel(background)
	if err := p.open(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *process) open() error {
	w := p.w
	var err error
	options := disk.Options{Dir: "journal", FS: w.disk, SegmentBytes: w.profile.segment, BytesMax: w.profile.journal, Now: w.wall, Random: randomness{w.rng}}
	tail := w.tail()
	if p.disk, err = disk.Open(options); err != nil {
		return err
	}
	p.journal = &watched{Journal: p.disk, w: w}
	if w.defect != nil && w.defect.journal != nil {
		p.journal = w.defect.journal(p)
	}
	if w.defect != nil && w.defect.opened != nil {
		w.defect.opened(p, tail)
	}
	s, err := p.resolve()
	if err != nil {
		return err
	}
	if p.dedup, err = dedup.Open(dedup.Options{Dir: "identities", FS: w.disk, Journal: pipeline.JournalNumber(p.journal.ID()), RecentBytesMax: 1 << 20}); err != nil {
		return err
	}
	if err := p.recover(); err != nil {
		return err
	}
	p.acceptor = pipeline.NewAcceptor(s, pipeline.AcceptorOptions{Journal: p.journal, Dedup: p.dedup, Gate: &p.gate, Ledger: &p.ledger,
		Clock: p.clock, Wall: w.wall, Committed: p.drains.Committed})
	p.reader = pipeline.NewReader(pipeline.ReaderOptions{Schema: p.acceptor.Schema, Journal: p.journal, Drains: &p.drains, Now: w.wall,
		Lost: func(string, string, sluice.GroupID, uint64) bool { return false }})
	p.trimmer = &pipeline.Trimmer{Journal: p.journal, Dedup: p.dedup, Drains: &p.drains, Gate: &p.gate, Config: p.acceptor.Schema, Now: time.Now, Before: p.saveLedger}
	return nil
}

type randomness struct{ rng interface{ Uint64() uint64 } }

func (r randomness) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.rng.Uint64())
	}
	return len(b), nil
}

func (p *process) load(name string, into any) error {
	data, err := p.disk.LoadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	return err
}

func (p *process) save(name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return p.disk.SaveFile(name, data)
}

func (p *process) resolve() (*schema.Schema, error) {
	var old *schema.Catalog
	if data, err := p.disk.LoadFile("catalog"); err == nil {
		if old, err = schema.ReadCatalog(data); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return p.adopt(p.w.level, old)
}

// adopt gives a config its ids and keeps the catalog before anything uses it (J6).
func (p *process) adopt(level int, old *schema.Catalog) (*schema.Schema, error) {
	s, catalog, err := p.w.schemaAt(level, old)
	if err != nil {
		return nil, err
	}
	data, err := catalog.Marshal()
	if err != nil {
		return nil, err
	}
	p.catalog = catalog
	return s, p.disk.SaveFile("catalog", data)
}

type savedLedger struct {
	Through uint64
	Notes   []journal.Note
}

func (p *process) saveLedger() error {
	var saved savedLedger
	saved.Through, saved.Notes = p.ledger.Snapshot()
	return p.save("ledger", saved)
}

// recover replays what the tables in memory need of the retained commits.
func (p *process) recover() error {
	var saved savedLedger
	var known []string
	if err := errors.Join(p.load("ledger", &saved), p.load("shards", &known)); err != nil {
		return err
	}
	p.ledger.Add(saved.Through, saved.Notes)
	for _, k := range known {
		p.known[k] = true
	}
	forgetful := p.w.defect != nil && p.w.defect.forgetful
	for at := min(p.dedup.Through(), saved.Through) + 1; at <= p.journal.Head().Number; at++ {
		c, err := p.journal.Read(at)
		if err != nil {
			return fmt.Errorf("recover commit %d: %w", at, err)
		}
		body, err := journal.DecodeBody(c.Body)
		if err != nil {
			return err
		}
		p.base = body.Time
		p.ledger.Add(at, body.Notes())
		body.Identities(func(record []byte) {
			rec, _, derr := dedup.DecodeRecord(record)
			if derr != nil {
				err = derr
			} else if !forgetful {
				p.dedup.Replay(&rec)
			}
		})
		if err != nil {
			return err
		}
	}
	p.base = max(p.base, p.dedup.Now().Microseconds())
	p.since = time.Now()
	return nil
}

func (p *process) close() {
	if p.dedup != nil {
		_ = p.dedup.Close()
	}
	if p.disk != nil {
		_ = p.disk.Close()
	}
}

// use is what node does with a shard that is reached, and after a reload.
func (p *process) use(st *schema.Store, conf schema.Shard) error {
	db := p.w.dbs[conf.Name]
	l := &link{db: db, p: p, era: map[sluice.GroupID]int{}, o: store.Options{Store: st, Shard: conf, Warn: func(string) {}}}
	groups := slices.DeleteFunc(p.acceptor.Schema().Groups(), func(g *schema.Group) bool { return g.Store != st.Name })
	m := p.catalog.ShardMaps[st.Name]
	if err := l.Ensure(context.Background(), store.Identity{Journal: p.journal.ID(), Store: st.Name, Shard: conf.Name, MapVersion: m.Version}, groups); err != nil {
		return err
	}
	for _, g := range groups {
		at := slices.IndexFunc(p.list, func(d *drain) bool { return d.Group().ID == g.ID && d.ShardName() == conf.Name })
		if at >= 0 {
			p.list[at].SetGroup(g)
			continue
		}
		var shard store.Shard = l
		if d := p.w.defect; d != nil && d.shard != nil {
			shard = d.shard(p, l)
		}
		var j journal.Journal = p.journal
		if d := p.w.defect; d != nil && d.drain != nil {
			j = d.drain(p, l, g)
		}
		key := fmt.Sprintf("%s/%s/%d", st.Name, conf.Name, g.ID)
		d := &drain{p: p, link: l, Drainer: pipeline.NewDrainer(g, pipeline.DrainerOptions{
			Journal: j, Shard: shard, Store: st, ShardName: conf.Name, Partitions: m.Partitions(conf.Name),
			Lookup: func(id sluice.GroupID) *schema.Group { return p.acceptor.Schema().Group(id) },
			Known:  p.known[key], Remember: func() error { return p.remember(key) },
			AcceptedGap:   func() uint64 { return 0 },
			ParentsPassed: func(string, uint64) bool { return true }, Now: time.Now})}
		p.list = append(p.list, d)
		p.drains.Add(d.Drainer)
	}
	return nil
}

func (p *process) remember(key string) error {
	p.known[key] = true
	var list []string
	for k := range p.known {
		list = append(list, k)
	}
	slices.Sort(list)
	return p.save("shards", list)
}

// reach uses every shard that can be reached and is not in use.
func (p *process) reach() {
	for _, name := range []string{"main", "lazy"} {
		st := p.acceptor.Schema().Stores[name]
		for _, conf := range st.Shards {
			if p.w.dbs[conf.Name].down {
				continue
			}
			used := slices.ContainsFunc(p.list, func(d *drain) bool { return d.ShardName() == conf.Name })
			if used && !p.behind[conf.Name] {
				continue
			}
			if err := p.use(st, conf); err != nil {
				p.w.say("shard %s is not in use: %v", conf.Name, err)
				continue
			}
			p.behind[conf.Name] = false
		}
	}
}

// reload puts the next level of the config in force, as node.Reload does.
func (p *process) reload() {
	w := p.w
	if w.level+1 >= len(reloads) {
		return
	}
	w.level++ // the file is the new one, whatever becomes of the reload
	s, err := p.adopt(w.level, p.catalog)
	if err != nil {
		w.say("reload failed: %v", err)
		w.crashAfter(err)
		return
	}
	w.say("reload of level %d", w.level)
	p.acceptor.SetSchema(s)
	for _, name := range []string{"main", "lazy"} {
		for _, conf := range s.Stores[name].Shards {
			if slices.ContainsFunc(p.list, func(d *drain) bool { return d.ShardName() == conf.Name }) {
				if err := p.use(s.Stores[name], conf); err != nil {
					w.say("shard %s does not know the reload yet: %v", conf.Name, err)
					p.behind[conf.Name] = true
				}
			}
		}
	}
}

// commit takes one step of the acceptor. It may stall in the disk.
func (p *process) commit() {
	if p.committing || p.gone || p.acceptor.Idle() {
		return
	}
	p.committing = true
	go func() {
		if err := p.acceptor.Step(p.ctx); p.ctx.Err() == nil {
			p.commitErr = err
		}
		p.committing = false
	}()
	p.w.settle()
	p.w.collect()
}

// step takes one step of a drainer. It may stall in the database.
func (d *drain) step() {
	if d.busy {
		return
	}
	d.busy = true
	if d.p.gone {
		d.steps++
	}
	go func() {
		if d.wait, d.err = d.Step(context.Background()); d.err == nil {
			d.era = d.link.era[d.Group().ID]
		}
		d.busy = false
	}()
	d.p.w.settle()
	d.p.w.collect()
	if !d.busy {
		d.p.w.stepped(d)
	}
}

// collect looks whether the commit under way ended, and how.
func (p *process) collect() {
	if err := p.commitErr; err != nil && !p.gone {
		p.commitErr = nil
		p.w.say("acceptor stops: %v", err)
		p.w.crashAfter(err)
	}
}

// watched notes what becomes durable; it changes nothing.
type watched struct {
	journal.Journal
	w *world
}

func (j *watched) Append(body []byte) (journal.Commit, error) {
	j.w.unsure = true
	c, err := j.Journal.Append(body)
	if err == nil {
		j.w.unsure = false
		j.w.durable(c)
	}
	return c, err
}

// ioFaults are what the disk is told to do.
type ioFaults struct {
	syncErr  bool // the next sync of a segment fails
	slowSync bool // the next sync of a segment stalls
	full     bool // there is little room
	skipSync bool // a planted defect leaves syncs out
}

var errIO = errors.New("input/output error")

// staleStepsMax is how many steps a drainer takes that does not know that its
// process was replaced.
const staleStepsMax = 4

func (p *process) schemaNow() *schema.Schema { return p.acceptor.Schema() }

// wentBack tells that the shard failed over since the drainer took it, which no
// process can know before it asks again.
func (d *drain) wentBack() bool { return d.era != d.link.db.era }

// has tells whether the drainer has the partition.
func (d *drain) has(p uint8) bool {
	owned := d.link.owned()
	return owned.Has(p)
}
