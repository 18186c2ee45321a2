// Package pipeline is the way of a write: accept.go from request to journal,
// drain.go from journal to database. It knows contracts (journal, store) and
// pure parts (fold, admit, dedup), never a concrete backend or a door. It starts
// no goroutine: node runs the steps.
package pipeline

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/dedup"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/hotkey"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
)

// Acceptor takes chunks, folds them into the open commit and answers when that
// commit is durable. One commit is in flight; what arrives meanwhile folds into
// the next, so one fsync carries all writes of that moment and a hot key costs
// one entry a commit.
type Acceptor struct {
	o      AcceptorOptions
	schema atomic.Pointer[schema.Schema]
	counts Counts

	mu      sync.Mutex
	open    *commit
	spare   *fold.Folder
	waiting int64 // bytes of chunks that wait for room
	failed  error // sticky: the journal is gone (J4)

	work    chan struct{} // holds a token while open is not empty
	encoder journal.Encoder
	sums    [][sluice.Partitions]uint64 // cumulative writes by group and partition; used by Step only
	added   []added                     // to sums by the commit being written
	touched []sluice.GroupID
	notes   notes
	riding  []journal.Note // in the commit being written
}

// AcceptorOptions are what an Acceptor works with.
type AcceptorOptions struct {
	Journal journal.Journal
	Dedup   *dedup.Table
	Gate    *admit.Gate
	Ledger  *Ledger
	// Clock is the journal's own time in microseconds: it grows only while the
	// process runs and never jumps (I4). Wall is the time for people.
	Clock func() int64
	Wall  func() time.Time
	// Committed is called after each commit is durable and before its receipts,
	// by Step, with the groups that the commit touches.
	Committed func(n uint64, groups []sluice.GroupID)
	// Hot is told each entry of each commit; nil: nobody watches.
	Hot *hotkey.Tracker
}

type added struct {
	stream journal.Stream
	writes uint64
}

// commit is one group commit in the making.
type commit struct {
	folder  *fold.Folder
	records []*dedup.Record
	chunks  int
	writes  int
	started time.Time
	sealed  chan struct{} // closed when no more may be added
	done    chan struct{} // closed when durable, or failed
	number  uint64        // valid after done
	err     error
}

// NewAcceptor makes an Acceptor that goes on where the journal ends.
func NewAcceptor(s *schema.Schema, o AcceptorOptions) *Acceptor {
	a := &Acceptor{o: o, work: make(chan struct{}, 1)}
	a.schema.Store(s)
	a.counts.init()
	for stream, state := range o.Journal.Streams() {
		*a.sum(stream) = state.Writes
	}
	a.encoder.Cumulate = func(s journal.Stream, writes uint64) uint64 {
		a.added = append(a.added, added{s, writes})
		sum := a.sum(s)
		*sum += writes
		return *sum
	}
	lookup := func(id sluice.GroupID) *schema.Group { return a.schema.Load().Group(id) }
	a.spare = fold.New(fold.Commit, lookup)
	a.open = a.newCommit(fold.New(fold.Commit, lookup))
	return a
}

// Schema is the schema in force.
func (a *Acceptor) Schema() *schema.Schema { return a.schema.Load() }

// SetSchema puts a reloaded schema in force. Its groups include all of the old one's.
func (a *Acceptor) SetSchema(s *schema.Schema) { a.schema.Store(s) }

// NewProducer issues a producer id (I3).
func (a *Acceptor) NewProducer(context.Context) (uint64, error) { return a.o.Dedup.IssueProducer() }

// Submit makes a chunk durable: dedup, fill (parse and validate), admit, fold,
// wait. It returns an error when nothing of the chunk was accepted, or when the
// outcome is unknown because ctx ended (code Unavailable, reason unknown).
func (a *Acceptor) Submit(ctx context.Context, c *sluice.Chunk) (sluice.Ack, error) {
	if c.Identity != nil {
		if ack, known, err := a.recognise(ctx, c); known || err != nil {
			return ack, err
		}
	}
	at, rec, err := a.place(ctx, c)
	if at == nil {
		if c.Identity != nil {
			a.o.Dedup.Abandon(*c.Identity)
		}
		return sluice.Ack{Outcomes: c.Outcomes}, err
	}
	select {
	case <-at.done:
	case <-ctx.Done():
		return sluice.Ack{}, sluice.Errorf(sluice.Unavailable, "unknown", "the request ended before its commit was durable; it may or may not count: send it again with the same identity")
	}
	if at.err != nil {
		return sluice.Ack{}, at.err
	}
	ack := sluice.Ack{Commit: at.number, Outcomes: c.Outcomes}
	if c.WantReceipt {
		if rec == nil {
			rec = &dedup.Record{Receipt: a.receipt(c)}
			rec.Receipt.Commit = at.number
		}
		ack.Receipt = rec.Receipt.String()
	}
	return ack, nil
}

// recognise answers a retry before anything else looks at it (I1, I2).
func (a *Acceptor) recognise(ctx context.Context, c *sluice.Chunk) (sluice.Ack, bool, error) {
	for {
		v, err := a.o.Dedup.Begin(*c.Identity, c.Hash)
		if err != nil {
			return sluice.Ack{}, true, sluice.Errorf(sluice.Unavailable, "identities", "look up the identity of a retry: %w", err)
		}
		switch v.Kind {
		case dedup.New:
			return sluice.Ack{}, false, nil
		case dedup.Duplicate:
			a.noteDuplicate(c, v.Record.Outcomes)
			a.counts.Duplicates.Add(1)
			ack := sluice.Ack{Commit: v.Record.Commit(), Duplicate: true, Outcomes: v.Record.Outcomes}
			if c.WantReceipt {
				ack.Receipt = v.Record.Receipt.String()
			}
			return ack, true, nil
		case dedup.InFlight:
			select {
			case <-v.Wait:
			case <-ctx.Done():
				return sluice.Ack{}, true, sluice.Errorf(sluice.Unavailable, "unknown", "the original of this retry is still being committed; send it again")
			}
		default:
			return sluice.Ack{}, true, identityError(v.Kind, c.Identity)
		}
	}
}

// noteDuplicate counts what a retry offered again, by group. The retry has the
// original's bytes, so parsing them says it; a fault (the schema may have changed)
// costs only the count.
func (a *Acceptor) noteDuplicate(c *sluice.Chunk, outcomes []sluice.Reason) {
	if c.Fill != nil && c.Fill(c) != nil {
		return
	}
	c.Outcomes = outcomes
	for i := range c.Entries {
		if line := c.Line(i); line < len(outcomes) && outcomes[line] != sluice.Accepted {
			continue
		}
		a.notes.add(c.Entries[i].Group, journal.NoteDuplicate, uint64(c.Entries[i].Writes))
	}
}

func identityError(k dedup.Kind, id *sluice.Identity) error {
	switch k {
	case dedup.Mismatch:
		return sluice.Errorf(sluice.Conflict, "identity_reused", "this identity was used for another body before; use a new Idempotency-Key (or request number) for a new request")
	case dedup.Full:
		e := sluice.Errorf(sluice.Overloaded, "idempotency_max", "no room to remember another Idempotency-Key; raise idempotency.bytes_max, shorten idempotency.window, or use a producer id")
		e.RetryAfter = time.Minute
		return e
	case dedup.Forgotten:
		return sluice.Errorf(sluice.Conflict, "producer_forgotten", "producer %d, number %d is not remembered: the id was never issued, was idle for 30 days, or the number is below the lowest that was said to be unresolved; it may have been accepted, so ask for a new producer id and check before sending it again", id.Producer, id.Chunk)
	default:
		return sluice.Errorf(sluice.Invalid, "bad_number", "producer %d, number %d, lowest %d: numbers start at 1 and at most %d are in flight at a time", id.Producer, id.Chunk, id.Lowest, sluice.ProducerInFlightMax)
	}
}

// place fills, admits and folds the chunk into the open commit. at is nil when
// nothing of it was accepted.
func (a *Acceptor) place(ctx context.Context, c *sluice.Chunk) (at *commit, rec *dedup.Record, err error) {
	if c.Fill != nil {
		if err := c.Fill(c); err != nil {
			return nil, nil, err
		}
	}
	refusal := a.admit(c)
	if !c.AnyAccepted() {
		if refusal != nil {
			return nil, nil, refusal.Error()
		}
		return nil, nil, nil
	}
	if c.Identity != nil {
		rec = &dedup.Record{Identity: *c.Identity, Hash: c.Hash, Outcomes: c.Outcomes, Receipt: a.receipt(c)}
	}
	if err := a.lockWithRoom(ctx, c); err != nil {
		return nil, nil, err
	}
	defer a.mu.Unlock()
	at = a.open
	first := at.chunks == 0
	at.chunks++
	for i := range c.Entries {
		if !c.Accepts(i) {
			continue
		}
		if err := at.folder.Add(&c.Entries[i]); err != nil {
			// Values were checked at the door, so this is a fault of ours. What was
			// folded before it stands; the process goes on.
			c.Refuse(i, sluice.BadLine)
			continue
		}
		at.writes += int(c.Entries[i].Writes)
	}
	if rec != nil {
		rec.Outcomes = c.Outcomes
		at.records = append(at.records, rec)
	}
	if first {
		at.started = a.o.Wall()
		a.signal()
	}
	return at, rec, nil
}

func (a *Acceptor) signal() {
	select {
	case a.work <- struct{}{}:
	default: // a token is there already
	}
}

// CommitNotes has Step make a commit of counts that no write came for to take
// along. Called each second, it bounds what a kill loses of them (R2), also
// while every write is refused.
func (a *Acceptor) CommitNotes() {
	if a.notes.any() {
		a.signal()
	}
}

// Finish commits the counts that are left, when Step is called no more.
func (a *Acceptor) Finish() error {
	if !a.notes.any() {
		return nil
	}
	return a.commit()
}

// admit marks what is refused. A line is refused whole: a write to several
// groups is atomic in the journal (S13).
func (a *Acceptor) admit(c *sluice.Chunk) *admit.Refusal {
	var last *admit.Refusal
	for i := range c.Entries {
		if !c.Accepts(i) {
			continue
		}
		if r := a.o.Gate.Admit(&c.Entries[i]); r != nil {
			c.Refuse(i, r.Reason)
			a.notes.add(c.Entries[i].Group, r.Reason, uint64(c.Entries[i].Writes))
			a.counts.refused(r.Reason, uint64(c.Entries[i].Writes))
			last = r
		}
	}
	return last
}

// lockWithRoom returns with mu held and an open commit that the chunk fits in.
func (a *Acceptor) lockWithRoom(ctx context.Context, c *sluice.Chunk) error {
	limits := &a.schema.Load().Limits
	size := chunkBytes(c)
	a.mu.Lock()
	for {
		if a.failed != nil {
			defer a.mu.Unlock()
			return a.failed
		}
		o := a.open
		if o.chunks == 0 || o.folder.Len()+len(c.Entries) <= limits.CommitEntriesMax &&
			o.folder.Bytes()+size <= limits.CommitBytesMax && o.writes+len(c.Entries) <= limits.CommitWritesMax {
			return nil
		}
		if a.waiting+int64(size) > limits.MemoryMax {
			a.mu.Unlock()
			r := &admit.Refusal{Reason: sluice.MemoryMax, RetryAfter: time.Second,
				Detail: "requests that wait for the journal fill limits.memory; send more slowly, or raise it"}
			return r.Error()
		}
		a.waiting += int64(size)
		a.mu.Unlock()
		var err error
		select {
		case <-o.sealed:
		case <-ctx.Done():
			err = sluice.Errorf(sluice.Unavailable, "timeout", "the request ended while it waited for room in a commit; nothing of it counts")
		}
		a.mu.Lock()
		a.waiting -= int64(size)
		if err != nil {
			a.mu.Unlock()
			return err
		}
	}
}

// Step waits for something to commit and makes one commit durable. An error
// means that the journal can no longer be trusted: stop the process (J4).
func (a *Acceptor) Step(ctx context.Context) error {
	select {
	case <-a.work:
	case <-ctx.Done():
		return ctx.Err()
	}
	// Those whom the last commit woke are about to write again. Letting them run
	// first puts their writes into this commit instead of the next: without it,
	// commits alternate between one write and all the others.
	runtime.Gosched()
	return a.commit()
}

func (a *Acceptor) commit() error {
	a.mu.Lock()
	at := a.open
	if at.chunks == 0 {
		if !a.notes.any() {
			a.mu.Unlock()
			return nil // a token of CommitNotes whose counts rode in the commit before
		}
		at.started = a.o.Wall()
	}
	a.open = a.newCommit(a.spare)
	a.spare = nil
	// A token for the new commit may come from here on.
	a.mu.Unlock()
	close(at.sealed)

	from := time.Now()
	c, err := a.o.Journal.Append(a.encode(at))
	if sluice.CodeOf(err) == sluice.Overloaded {
		a.withdraw(at, err)
		return nil
	}
	if err != nil {
		err = &sluice.Error{Code: sluice.Unavailable, Reason: "journal_failed", Err: err,
			Detail: "the journal cannot be written: " + err.Error() + "; the process stops and recovers at its next start"}
		a.fail(at, err)
		return err
	}
	a.counts.committed(at, len(c.Body), time.Since(from), a.o.Wall().Sub(at.started))
	a.o.Ledger.Add(c.Number, a.riding)
	a.o.Committed(c.Number, a.touched)
	for _, rec := range at.records {
		a.o.Dedup.Done(rec)
	}
	at.number = c.Number
	a.finish(at)
	return nil
}

func (a *Acceptor) finish(at *commit) {
	close(at.done)
	at.folder.Reset()
	a.mu.Lock()
	a.spare = at.folder
	a.mu.Unlock()
}

// withdraw takes back a commit that the journal had no room for: nothing of it
// was written, so its writes are refused and a retry is judged anew.
func (a *Acceptor) withdraw(at *commit, err error) {
	for _, x := range a.added {
		*a.sum(x.stream) -= x.writes
	}
	for _, n := range a.riding {
		a.notes.add(n.Group, n.Reason, n.Count)
	}
	for _, rec := range at.records {
		a.o.Dedup.Abandon(rec.Identity)
	}
	_ = at.folder.Each(fold.ByStream, func(e *sluice.Entry) error {
		a.notes.add(e.Group, sluice.JournalFull, uint64(e.Writes))
		return nil
	})
	a.counts.refused(sluice.JournalFull, uint64(at.writes))
	at.err = err
	a.finish(at)
}

func (a *Acceptor) encode(at *commit) []byte {
	number := a.o.Journal.Head().Number + 1
	a.riding = a.notes.take()
	h := journal.Header{Time: a.o.Clock(), Wall: a.o.Wall().UnixMicro(), Notes: a.riding}
	for _, rec := range at.records {
		rec.Receipt.Commit = number
		h.Identities = append(h.Identities, dedup.AppendRecord(nil, rec))
	}
	a.encoder.Begin(h)
	a.touched, a.added = a.touched[:0], a.added[:0]
	hot := a.o.Hot.Begin(h.Time)
	defer hot.End()
	_ = at.folder.Each(fold.ByStream, func(e *sluice.Entry) error {
		if n := len(a.touched); n == 0 || a.touched[n-1] != e.Group {
			a.touched = append(a.touched, e.Group)
		}
		a.encoder.Entry(e)
		hot.Add(e.Group, e.Key, e.Writes)
		return nil
	})
	return a.encoder.Finish()
}

// fail answers everyone who waits, now and later, with the journal's error.
func (a *Acceptor) fail(at *commit, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = err
	for _, c := range []*commit{at, a.open} {
		c.err = err
		close(c.done)
	}
	close(a.open.sealed)
	a.open = a.newCommit(nil)
}

func (a *Acceptor) newCommit(f *fold.Folder) *commit {
	return &commit{folder: f, sealed: make(chan struct{}), done: make(chan struct{})}
}

func (a *Acceptor) sum(s journal.Stream) *uint64 {
	for int(s.Group) >= len(a.sums) {
		a.sums = append(a.sums, [sluice.Partitions]uint64{})
	}
	return &a.sums[s.Group][s.Partition]
}

// Idle tells whether nothing waits to be committed.
func (a *Acceptor) Idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open.chunks == 0 && a.spare != nil && a.waiting == 0
}
