package dedup

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"sluice.dev/sluice"
)

// Table remembers identities. Begin, Done, Abandon, IssueProducer, Stats and
// Due may be called concurrently; Replay before the first Begin; Advance
// by one caller.
type Table struct {
	o   Options
	dir *dir

	mu        sync.Mutex
	inFlight  map[ident]chan struct{}
	recent    *recent // random keys done since the last checkpoint
	frozen    *recent // being written by a checkpoint, or nil
	producers producers
	now       time.Duration // journal time
	fileBytes int64
	fileKeys  uint64
	failed    error // of the first checkpoint that failed; never retried

	// filesMu is held for reading while files are looked into, and for writing
	// while the list changes, so that no file is closed under a lookup.
	filesMu sync.RWMutex
	files   []*file // newest first

	checkpoint sync.Mutex // one at a time
	manifest   manifest   // as on disk; under checkpoint, but for Through, which is also under mu

	issue sync.Mutex // one reservation at a time
}

// ident is what is in flight: the hash of a random key, or a producer's id and number.
type ident struct {
	producer bool
	key      key
}

func identOf(id *sluice.Identity) ident {
	if id.Producer == 0 {
		return ident{key: hashKey(id)}
	}
	k := producerKey(id.Producer)
	binary.BigEndian.PutUint64(k[8:], id.Chunk)
	return ident{producer: true, key: k}
}

// hashKey names a random key in 16 bytes. A weaker hash would let one client
// make a key that another client's retry is taken for. The format of chunk
// cutting stays out of it: a body that is cut in another way by a later
// version must be found to differ, not to be new (I2).
func hashKey(id *sluice.Identity) key {
	var buf [sluice.IdentityKeyBytesMax + 8]byte
	b := binary.BigEndian.AppendUint64(buf[:0], id.Chunk)
	sum := sha256.Sum256(append(b, id.Key...))
	return key(sum[:16])
}

// Begin asks whether the chunk of this identity and hash was accepted before.
// A new one is in flight from then on. An error means that the files could not
// be read: nothing is known, so the chunk must not be accepted.
func (t *Table) Begin(id sluice.Identity, hash [16]byte) (Verdict, error) {
	at := identOf(&id)
	t.mu.Lock()
	if done := t.inFlight[at]; done != nil {
		t.mu.Unlock()
		return Verdict{Kind: InFlight, Wait: done}, nil
	}
	if len(t.inFlight) >= t.o.InFlightMax {
		t.mu.Unlock()
		return Verdict{Kind: Full}, nil
	}
	if at.producer {
		defer t.mu.Unlock()
		return t.beginProducer(&id, hash)
	}
	if value := t.inMemory(&at.key); value != nil {
		t.mu.Unlock()
		return t.known(id, hash, value)
	}
	// In flight before the files are looked into, which happens without the
	// lock: else two with the same key could both be found to be new.
	t.inFlight[at] = make(chan struct{})
	full := t.bytes() >= t.o.BytesMax || t.recent.bytes() >= t.o.RecentBytesMax
	t.mu.Unlock()

	value, err := t.onDisk(&at.key)
	switch {
	case err != nil:
		t.leave(at)
		return Verdict{}, err
	case value != nil:
		t.leave(at)
		return t.known(id, hash, value)
	case full:
		t.leave(at)
		return Verdict{Kind: Full}, nil
	}
	return Verdict{Kind: New}, nil
}

// inMemory finds the value of a random key that was done since the last checkpoint.
func (t *Table) inMemory(k *key) []byte {
	if value := t.recent.get(k); value != nil {
		return value
	}
	return t.frozen.get(k)
}

// bytes is what the random keys take on disk, those in memory as they will.
func (t *Table) bytes() int64 {
	return t.fileBytes + t.recent.fileBytes() + t.frozen.fileBytes()
}

func (t *Table) onDisk(k *key) ([]byte, error) {
	t.filesMu.RLock()
	defer t.filesMu.RUnlock()
	for _, f := range t.files {
		if value, found, err := f.get(k); found || err != nil {
			return value, err
		}
	}
	return nil, nil
}

// known is the verdict over a chunk that was accepted before.
func (t *Table) known(id sluice.Identity, hash [16]byte, value []byte) (Verdict, error) {
	rec := Record{Identity: id}
	d := decoder{data: value}
	rec.Identity.Format = d.byte()
	d.answer(&rec)
	if d.bad {
		return Verdict{}, fmt.Errorf("look up an identity: %w", errRecord)
	}
	if rec.Hash != hash {
		return Verdict{Kind: Mismatch}, nil
	}
	rec.Receipt.Journal = t.o.Journal
	return Verdict{Kind: Duplicate, Record: rec}, nil
}

// appendValue is what is kept of a record beside its identity.
func appendValue(dst []byte, rec *Record) []byte {
	return appendAnswer(append(dst, rec.Identity.Format), rec)
}

// Done says that the chunk is in a durable commit. It is called for every
// record of a commit before anybody is told of it and before the next commit
// is appended.
func (t *Table) Done(rec *Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remember(rec)
	t.leaveLocked(identOf(&rec.Identity))
}

// Replay is Done for a record that was found in the journal at start. The same
// record may come twice.
func (t *Table) Replay(rec *Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rec.Commit() > t.manifest.Through {
		t.remember(rec)
	}
}

func (t *Table) remember(rec *Record) {
	if rec.Identity.Producer != 0 {
		t.producers.remember(rec, t.now)
		return
	}
	k := hashKey(&rec.Identity)
	if t.inMemory(&k) == nil {
		t.recent.put(&k, rec)
	}
}

// Abandon says that nothing of the chunk was accepted: a retry is judged anew.
func (t *Table) Abandon(id sluice.Identity) { t.leave(identOf(&id)) }

func (t *Table) leave(at ident) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveLocked(at)
}

func (t *Table) leaveLocked(at ident) {
	if done := t.inFlight[at]; done != nil {
		delete(t.inFlight, at)
		close(done)
	}
}

// Advance tells the journal's own time, which only the monotonic clock advances
// while the journal runs: a jump of the wall clock forgets nothing (I4). A time
// before the one known is ignored, so that what is remembered is never older than it seems.
func (t *Table) Advance(now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = max(t.now, now)
}

// Now is the journal's time as far as it is known here; after Open, that of the
// last checkpoint. A journal whose commits were all trimmed goes on from it.
func (t *Table) Now() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// Through is the commit up to which the files know everything: recovery replays
// the commits after it. When those do not begin at Through + 1, identities were
// lost and the table does not fit the journal.
func (t *Table) Through() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.manifest.Through
}

// Due tells that half of RecentBytesMax is used: a checkpoint makes room.
func (t *Table) Due() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.recent.bytes() > t.o.RecentBytesMax/2
}

// Stats says what the table holds.
func (t *Table) Stats() Stats {
	t.filesMu.RLock()
	defer t.filesMu.RUnlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{
		Keys:        t.fileKeys + uint64(t.recent.len()+t.frozen.len()),
		Bytes:       t.bytes(),
		MemoryBytes: t.recent.bytes() + t.frozen.bytes() + t.producers.memory(),
		Producers:   len(t.producers.byID),
		InFlight:    len(t.inFlight),
		Files:       len(t.files),
	}
	for _, f := range t.files {
		s.MemoryBytes += int64(len(f.filter) + len(f.index))
	}
	return s
}
