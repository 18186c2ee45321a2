// Package sim_test runs all of Sluice in one process, from one integer. The
// acceptor, dedup, gate, fold, journal on disk, drainers, reader, trimmer,
// ledger and schema are the real ones; only disk, clock, network and databases
// are simulated. One goroutine at a time has work to do, time stands still until
// the scheduler moves it, and every choice comes from the seed, so the same seed
// gives the same trace.
package sim_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing/synctest"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/vfs"
)

// config has every kind of merge, two groups on one store with different flush
// intervals, a store of two shards and one with asynchronous commit.
const config = `
stores:
  main: {shards: {a: "sqlite:a.db", b: "sqlite:b.db"}}
  lazy: {shards: {z: "sqlite:z.db"}, synchronous_commit: off}
tables:
  posts:
    key: {id: int64}
    groups:
      text:    {store: lazy, flush: 300ms, columns: {content: text%s}}
      metrics: {store: main, flush: 1s, columns: {likes: int64 sum, high: int64 max, low: int64 min, spent: decimal sum, viewers: text unique%s}}
      place:   {store: main, flush: 500ms, latest_by: at, columns: {spot: text, at: int64}}
      old:     {store: main, flush: 700ms, existing: {table: old_posts, missing_row: insert}, columns: {title: text, n: int64 sum}}
      clicks:  {store: lazy, kind: events, flush: 900ms, columns: {what: text}}
`

// reloads are the config at first and after each reload: one adds a column and
// drops another, the next adds one more.
var reloads = []string{
	fmt.Sprintf(config, ", tag: text", ""),
	fmt.Sprintf(config, "", ", shares: int64 sum"),
	fmt.Sprintf(config, ", note: text", ", shares: int64 sum"),
}

var shardNames = []string{"a", "b", "z"}

// world is everything outside the process, and what should be true of it.
type world struct {
	seed    uint64
	rng     *rand.Rand
	profile profile
	schema  *schema.Schema // of the first level; keys and partitions never change
	defect  *defect
	trace   []string

	disk  *vfs.Mem
	io    ioFaults
	skew  time.Duration // of the wall clock
	start time.Time
	dbs   map[string]*database

	older *vfs.Mem // a copy of the disk, made during the run
	lost  bool     // the disk is that copy now: truth is not what the journal says

	proc   *process
	stale  []*drain // of processes that are gone, still in a call
	stalls []*stall
	late   []func() // transactions whose COMMIT is still on its way

	level      int // index into reloads of the config in force
	clients    []*client
	chunks     map[string]*chunk
	sent       uint64 // attempts so far
	truth      []*commit
	unsure     bool // an append was under way when the process went
	history    history
	hugeTaken  bool // a client has the huge sum
	keysMax    int64
	partitions map[int64]uint8 // of keys
	healing    bool
	idleLoss   bool // a shard may have gone back while it was idle, at the end
	rounds     int  // in which nothing was left to do
	eras       int  // fail-overs so far
	violated   string
}

func newWorld(seed uint64, d *defect) *world {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x73696d)), defect: d, disk: vfs.NewMem(seed), start: time.Now(),
		dbs: map[string]*database{}, chunks: map[string]*chunk{}, partitions: map[int64]uint8{}}
	w.profile = newProfile(w.rng)
	if d != nil && d.profile != nil {
		d.profile(&w.profile)
	}
	w.keysMax = int64(w.profile.keys)
	s, _, err := w.schemaAt(0, nil)
	if err != nil {
		panic(err)
	}
	w.schema = s
	for _, name := range shardNames {
		w.dbs[name] = newDatabase(w, name)
	}
	for i := range w.profile.clients {
		w.clients = append(w.clients, &client{w: w, id: i, kind: clientKind(i) % clientKinds})
	}
	w.say("seed %d: %s", seed, w.profile.String())
	return w
}

// now is the time since the run began; nothing but advance moves it.
func (w *world) now() time.Duration { return time.Since(w.start) }

func (w *world) wall() time.Time { return time.Now().Round(0).Add(w.skew) }

// advance lets time pass while everything stands still.
func (w *world) advance(d time.Duration) {
	time.Sleep(d)
	w.settle()
}

// settle waits until every goroutine of the run waits for something that only
// the scheduler can give.
func (w *world) settle() { synctest.Wait() }

func (w *world) say(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9.3fs  ", w.now().Seconds())+fmt.Sprintf(format, args...))
}

// fail notes the first thing that did not hold; the run ends with the step under
// way. rule is a promise of DESIGN section 4 or a rule of PROTOCOL. It is called
// from goroutines of the run too, so it does not panic.
func (w *world) fail(rule, format string, args ...any) {
	what := rule + ": " + fmt.Sprintf(format, args...)
	w.say("VIOLATED %s", what)
	if w.violated == "" {
		w.violated = what
	}
}

func (w *world) chance(percent int) bool { return percent > 0 && w.rng.IntN(100) < percent }

// stall is a call that does not go on until the scheduler lets it.
type stall struct {
	what string
	proc *process
	free chan struct{}
}

// wait holds the calling goroutine until release.
func (w *world) wait(p *process, format string, args ...any) {
	s := &stall{what: fmt.Sprintf(format, args...), proc: p, free: make(chan struct{})}
	w.stalls = append(w.stalls, s)
	w.say("%s stalls", s.what)
	<-s.free
}

func (w *world) release(s *stall) {
	w.stalls = slices.DeleteFunc(w.stalls, func(o *stall) bool { return o == s })
	w.say("%s goes on", s.what)
	close(s.free)
	w.settle()
	w.collect()
}

// collect takes in what ended since the last step.
func (w *world) collect() {
	if w.proc != nil {
		w.proc.collect()
	}
	w.stale = slices.DeleteFunc(w.stale, func(d *drain) bool { return !d.busy && d.steps > staleStepsMax })
	for _, c := range w.clients {
		c.collect()
	}
}

// schemaAt resolves a level of the config with a catalog.
func (w *world) schemaAt(level int, cat *schema.Catalog) (*schema.Schema, *schema.Catalog, error) {
	c, faults := schema.Parse("sluice.yaml", []byte(reloads[level]), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		return nil, nil, faults
	}
	s, next, faults := c.Resolve(cat)
	if len(faults) > 0 {
		return nil, nil, faults
	}
	s.Journal.SegmentBytes = w.profile.segment
	s.Journal.BytesMax = w.profile.journal
	s.Journal.DiskReserve = 0
	s.Journal.RetainTime = w.profile.retain
	s.Journal.RetainBytes = w.profile.journal / 2
	for _, st := range s.Stores {
		st.BatchRowsMax = w.profile.batch
		st.ParkedMax = w.profile.parked
	}
	return s, next, nil
}

// group finds a group by name in a schema.
func group(s *schema.Schema, name string) *schema.Group {
	return s.Tables["posts"].Group([]byte(name))
}

func (w *world) partition(key int64) uint8 {
	p, known := w.partitions[key]
	if !known {
		p = partitionOf(w.schema, key)
		w.partitions[key] = p
	}
	return p
}

// keys are all keys that clients write.
func (w *world) keys() []int64 {
	out := []int64{hugeKey, counterKey}
	for key := range w.keysMax {
		out = append(out, key)
	}
	return out
}

func partitionOf(s *schema.Schema, key int64) uint8 {
	t := s.Tables["posts"]
	slot, err := t.SlotOfKey(keyBytes(s, key))
	if err != nil {
		panic(err)
	}
	return sluice.PartitionOf(slot)
}

func keyBytes(s *schema.Schema, key int64) []byte {
	k, err := s.Tables["posts"].AppendKey(nil, []sluice.Value{sluice.IntValue(key)})
	if err != nil {
		panic(err)
	}
	return k
}
