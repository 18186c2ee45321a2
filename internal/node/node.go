// Package node builds one Sluice process from its parts, starts and stops it in
// order, and is the only package that knows concrete backends. It decides
// nothing about writes.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/dedup"
	"sluice.dev/sluice/internal/hotkey"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/disk"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/vfs"
)

// Version is what `sluice version` and status say.
const Version = "0.1.0"

// Options of a process.
type Options struct {
	File   string         // of the config; read again at a reload
	Config *schema.Config // instead of File, for tests and embedding
	Log    *slog.Logger   // nil: discards
	Getenv func(string) (string, bool)
}

// Node is one Sluice process.
//
//	HTTP, RESP, embedded          viewers of status and metrics
//	       |                                |
//	   Acceptor ---> journal ---> Drainers ---> shards
//	       |            |             |            |
//	     dedup       Trimmer       Drains  <---  Reader
type Node struct {
	o       Options
	log     *slog.Logger
	started time.Time

	journal  *disk.Journal
	dedup    *dedup.Table
	gate     admit.Gate
	acceptor *pipeline.Acceptor
	drains   pipeline.Drains
	reader   *pipeline.Reader
	trimmer  *pipeline.Trimmer
	ledger   pipeline.Ledger
	doors    doors
	clock    clock
	rates    rates
	hot      *hotkey.Tracker

	mu       sync.Mutex // guards catalog, shards, known and reloaded; held over reloads
	catalog  *schema.Catalog
	shards   map[shardName]*shard
	known    map[string]bool
	reloaded time.Time // when the schema last changed
	ready    atomic.Bool

	loops   sync.WaitGroup
	run     context.Context // of drains and house-keeping; ends after the deadline of a stop
	stop    context.CancelFunc
	fatal   chan error // the first error that ends the process
	closing sync.Once
}

type shardName struct{ store, shard string }

// clock is the journal's own time: where the last commit left it, plus what the
// monotonic clock advanced since (I4: a jump of the wall clock forgets nothing).
type clock struct {
	base  int64 // microseconds
	since time.Time
}

func (c *clock) now() int64 { return c.base + time.Since(c.since).Microseconds() }

// Open recovers the journal and builds the process. Nothing listens and nothing
// is drained before Run.
func Open(ctx context.Context, o Options) (*Node, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Getenv == nil {
		o.Getenv = os.LookupEnv
	}
	n := &Node{o: o, log: o.Log, started: time.Now(), shards: map[shardName]*shard{}, known: map[string]bool{}, fatal: make(chan error, 1)}
	n.run, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	config, err := n.config()
	if err != nil {
		return nil, err
	}
	if err := n.open(config); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) config() (*schema.Config, error) {
	if n.o.File == "" {
		return n.o.Config, nil
	}
	config, faults := schema.Load(n.o.File, n.o.Getenv)
	if len(faults) > 0 {
		return nil, faults
	}
	return config, nil
}

func (n *Node) open(config *schema.Config) error {
	j := config.Journal
	var err error
	n.journal, err = disk.Open(disk.Options{Dir: j.Dir, SegmentBytes: j.SegmentBytes, BytesMax: j.BytesMax})
	if err != nil {
		return err
	}
	s, err := n.resolve(config)
	if err != nil {
		return err
	}
	if n.dedup, err = dedup.Open(dedup.Options{Dir: filepath.Join(j.Dir, "identities"), FS: vfs.OS{}, Journal: pipeline.JournalNumber(n.journal.ID()),
		Window: s.Idempotency.Window, BytesMax: s.Idempotency.BytesMax}); err != nil {
		return err
	}
	if err := n.recover(); err != nil {
		return err
	}
	n.hot = hotkey.New()
	n.acceptor = pipeline.NewAcceptor(s, pipeline.AcceptorOptions{Journal: n.journal, Dedup: n.dedup, Gate: &n.gate, Ledger: &n.ledger,
		Clock: n.clock.now, Wall: time.Now, Committed: n.drains.Committed, Hot: n.hot})
	n.reader = pipeline.NewReader(pipeline.ReaderOptions{Schema: n.acceptor.Schema, Journal: n.journal, Drains: &n.drains, Lost: n.lost, Now: time.Now})
	n.trimmer = &pipeline.Trimmer{Journal: n.journal, Dedup: n.dedup, Drains: &n.drains, Gate: &n.gate, Config: n.acceptor.Schema, Now: time.Now, Before: n.saveLedger}
	n.openShards(s)
	return n.doors.open(n, s)
}

// resolve gives the config its ids and keeps the catalog before anything uses it (J6).
func (n *Node) resolve(config *schema.Config) (*schema.Schema, error) {
	data, err := n.load(catalogFile)
	if err != nil {
		return nil, err
	}
	var old *schema.Catalog
	if data != nil {
		if old, err = schema.ReadCatalog(data); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(config.Journal.Dir, catalogFile), err)
		}
		old.Forget(n.neverWritten)
	}
	s, catalog, faults := config.Resolve(old)
	if len(faults) > 0 {
		return nil, faults
	}
	n.catalog = catalog
	return s, n.saveCatalog()
}

// Files kept beside the journal's segments.
const (
	catalogFile = "catalog"
	shardsFile  = "shards" // which shards were ever drained to (S4)
	ledgerFile  = "ledger"
)

// load reads a file kept beside the segments; nil when it was never saved.
func (n *Node) load(name string) ([]byte, error) {
	data, err := n.journal.LoadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (n *Node) saveCatalog() error {
	data, err := n.catalog.Marshal()
	if err != nil {
		return err
	}
	return n.journal.SaveFile(catalogFile, data)
}

// recover replays what the tables in memory need of the retained commits.
func (n *Node) recover() error {
	if err := n.loadLedger(); err != nil {
		return err
	}
	if err := n.loadKnown(); err != nil {
		return err
	}
	head := n.journal.Head().Number
	for at := min(n.dedup.Through(), n.ledgerThrough()) + 1; at <= head; at++ {
		c, err := n.journal.Read(at)
		var hole *journal.HoleError
		if errors.As(err, &hole) {
			return fmt.Errorf("recover: commit %d was trimmed before its identities were kept (they are, through %d): a retry of it would count twice; "+
				"restore the folder \"identities\" beside the journal", at, n.dedup.Through())
		}
		if err != nil {
			return fmt.Errorf("recover commit %d: %w", at, err)
		}
		if err := n.replay(&c); err != nil {
			return fmt.Errorf("recover commit %d: %w", at, err)
		}
	}
	// With nothing to replay the last commit's time is not known here; dedup's is.
	n.clock.base = max(n.clock.base, n.dedup.Now().Microseconds())
	n.clock.since = time.Now()
	return nil
}

func (n *Node) replay(c *journal.Commit) error {
	body, err := journal.DecodeBody(c.Body)
	if err != nil {
		return err
	}
	n.clock.base = body.Time
	n.ledger.Add(c.Number, body.Notes())
	body.Identities(func(record []byte) {
		rec, _, derr := dedup.DecodeRecord(record)
		if derr != nil {
			err = derr
			return
		}
		n.dedup.Replay(&rec)
	})
	return err
}

// HTTPAddr and RESPAddr say where the doors listen; "" when closed.
func (n *Node) HTTPAddr() string { return n.doors.httpAddr() }

// RESPAddr is HTTPAddr for RESP.
func (n *Node) RESPAddr() string { return n.doors.respAddr() }

// Acceptor and Reader are the two ways for programs that embed Sluice.
func (n *Node) Acceptor() *pipeline.Acceptor { return n.acceptor }

// Reader is the way out.
func (n *Node) Reader() *pipeline.Reader { return n.reader }

// Close releases everything without draining. Calling it again does nothing.
func (n *Node) Close() error {
	var errs []error
	n.closing.Do(func() {
		n.stop()
		n.doors.close()
		n.loops.Wait()
		n.mu.Lock()
		for _, sh := range n.shards {
			if sh.db != nil {
				errs = append(errs, sh.db.Close())
			}
		}
		n.mu.Unlock()
		if n.dedup != nil {
			errs = append(errs, n.dedup.Close())
		}
		if n.journal != nil {
			errs = append(errs, n.journal.Close())
		}
	})
	return errors.Join(errs...)
}
