// Package sqlite is a shard in one SQLite file, in pure Go. Writes go through one
// connection, reads through others that never wait for it (WAL). It starts no
// goroutine and knows nothing of the journal but how an entry is encoded.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/store"
)

const (
	readersMax = 8
	// walPages is when a commit also moves the log into the database: 32 MiB, so
	// that a batch of 10,000 rows in random places does it once, not eight times.
	walPages = 8192
	// walBytesMax is what the log's file is cut to afterwards.
	walBytesMax = 64 << 20
	// cacheKiB of the writer and of each reader.
	writerCacheKiB, readerCacheKiB = 64 << 10, 4 << 10
)

// Shard implements store.Shard and store.Migrator.
type Shard struct {
	o    store.Options
	path string
	// writer holds the one write connection; receiving it is the lock. Waiting
	// receivers are served in turn, so no group starves another, and a context
	// ends the wait.
	writer  chan *conn
	readers chan *conn // nil: a slot whose connection is not open
	broken  atomic.Pointer[error]

	mu      sync.Mutex // guards the two below
	layouts map[sluice.GroupID]*layout
	closed  bool
}

var (
	_ store.Shard    = (*Shard)(nil)
	_ store.Migrator = (*Shard)(nil)
)

// Open opens or makes the file. The URL is sqlite:PATH.
func Open(o store.Options) (*Shard, error) {
	path, err := pathOf(o.Shard.URL)
	if err != nil {
		return nil, err
	}
	s := &Shard{o: o, path: path, writer: make(chan *conn, 1), layouts: map[sluice.GroupID]*layout{}}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("%s: cannot make the folder: %w", s.where(), err)
	}
	w, err := openConn(path, s.busy(), "journal_mode=WAL", "synchronous="+s.synchronous(), "foreign_keys=ON",
		fmt.Sprintf("cache_size=-%d", writerCacheKiB), fmt.Sprintf("wal_autocheckpoint=%d", walPages), fmt.Sprintf("journal_size_limit=%d", walBytesMax))
	if err != nil {
		return nil, s.failure(err)
	}
	if mode, err := w.texts("PRAGMA journal_mode"); err != nil || len(mode) != 1 || mode[0] != "wal" {
		w.close()
		return nil, fmt.Errorf("%s: journal mode is %v, not wal (%v); the folder must be on a local disk that can be written", s.where(), mode, err)
	}
	s.writer <- w
	n := min(max(o.Store.ConnsMax-1, 1), readersMax)
	s.readers = make(chan *conn, n)
	for range n {
		s.readers <- nil
	}
	return s, nil
}

func pathOf(url string) (string, error) {
	path, ok := strings.CutPrefix(url, "sqlite:")
	path = strings.TrimPrefix(path, "//")
	if !ok || path == "" || strings.ContainsAny(path, "?#") || strings.HasPrefix(path, "file:") || strings.Contains(path, ":memory:") {
		return "", sluice.Errorf(sluice.Invalid, "bad_url", "%q is no SQLite file; write sqlite:PATH, without options", url)
	}
	return path, nil
}

// busy is how long a statement waits for another process. No longer: who waits here holds the writer.
func (s *Shard) busy() string {
	return fmt.Sprintf("busy_timeout=%d", max(s.o.Store.LockTimeout, time.Millisecond).Milliseconds())
}

func (s *Shard) synchronous() string {
	if s.o.Store.SynchronousCommit {
		return "FULL"
	}
	return "NORMAL"
}

// errClosed answers calls after Close.
var errClosed = errors.New("store: shard is closed")

// lockWriter gives the write connection to the caller, who calls unlock.
func (s *Shard) lockWriter(ctx context.Context) (w *conn, unlock func(), err error) {
	if broken := s.broken.Load(); broken != nil {
		return nil, nil, *broken
	}
	select {
	case w, open := <-s.writer:
		if !open {
			return nil, nil, errClosed
		}
		return w, func() { s.writer <- w }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// write runs f in one transaction. durable: its commit is synchronous whatever
// the store's setting, and so is then everything before it, since the log is one
// file that is synced from its beginning.
func (s *Shard) write(ctx context.Context, durable bool, f func(w *conn) error) error {
	w, unlock, err := s.lockWriter(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if durable && !s.SyncApply() {
		if _, err := w.exec("PRAGMA synchronous=FULL"); err != nil {
			return s.failure(err)
		}
		defer w.exec("PRAGMA synchronous=NORMAL")
	}
	if _, err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return s.failure(err)
	}
	if err = f(w); err == nil {
		err = ctx.Err()
	}
	if err == nil {
		if _, err = w.exec("COMMIT"); err == nil {
			return nil
		}
	}
	// Where SQLite has rolled back by itself this says "no transaction", which is what is wanted.
	w.exec("ROLLBACK")
	return s.failure(err)
}

// read runs f on a reader in one snapshot.
func (s *Shard) read(ctx context.Context, f func(r *conn) error) error {
	if broken := s.broken.Load(); broken != nil {
		return *broken
	}
	var r *conn
	select {
	case c, open := <-s.readers:
		if !open {
			return errClosed
		}
		r = c
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.readers <- r }()
	if r == nil {
		c, err := openConn(s.path, s.busy(), "query_only=ON", fmt.Sprintf("cache_size=-%d", readerCacheKiB))
		if err != nil {
			return s.failure(err)
		}
		r = c
	}
	if _, err := r.exec("BEGIN"); err != nil {
		return s.failure(err)
	}
	err := f(r)
	r.exec("ROLLBACK") // nothing was written; the snapshot is given back
	return s.failure(err)
}

// Exactness implements store.Shard.
func (s *Shard) Exactness() store.Exactness { return store.Transaction }

// SyncApply implements store.Shard.
func (s *Shard) SyncApply() bool { return s.o.Store.SynchronousCommit }

// Close implements store.Shard. It waits for what is under way.
func (s *Shard) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	var errs []error
	for range cap(s.readers) {
		if r := <-s.readers; r != nil {
			errs = append(errs, r.close())
		}
	}
	close(s.readers)
	w := <-s.writer
	close(s.writer)
	return errors.Join(append(errs, w.close())...)
}
