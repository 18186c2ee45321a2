package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Drainer brings one group's entries of a set of partitions from the journal
// into one shard. It resumes from the shard's own cursor, folds the commits that
// the shard has not applied, and commits rows and cursor together. Nothing else
// remembers where it was, so a shard that comes back with an older cursor is
// simply led on from there: nothing is lost and nothing counts twice.
//
// Step is called by one goroutine; Position, Flush and Wake by any.
type Drainer struct {
	o      DrainerOptions
	group  atomic.Pointer[schema.Group]
	folder *fold.Folder
	wake   chan struct{}

	// Owned by Step.
	taken bool
	// epoch was given by the journal and not yet taken by the shard; 0: none. A
	// refused one is tried again as it is: counting on would in time pass the
	// shard's epoch, and an older journal would go on as if nothing were lost (J7).
	epoch       uint64
	cursor      store.Cursor
	rowsMax     int // shrinks when the database is slow, grows back
	pending     time.Time
	lastTry     time.Time // of parked entries
	tryKeys     int       // how many of them are tried at a time
	lastRelease time.Time // a held partition was looked at
	confirmed   time.Time
	passed      [sluice.Partitions]uint64 // cumulative writes up to the cursor, by partition
	ahead       [sluice.Partitions]uint64 // the same after the batch in the making

	flushTo atomic.Uint64 // a waiter wants everything up to this commit at once
	head    atomic.Uint64 // last commit known to touch the group
	known   atomic.Bool   // the shard was drained to before: its cursor must be there
	idle    atomic.Bool   // Step has nothing to do: the next Notify wakes it
	pos     position
}

// DrainerOptions are what a Drainer works with.
type DrainerOptions struct {
	Journal    journal.Journal
	Shard      store.Shard
	Store      *schema.Store
	ShardName  string
	Partitions sluice.PartitionSet
	Lookup     func(sluice.GroupID) *schema.Group
	// Known tells whether this shard was drained to before, durably; Remember
	// makes it so (S4: a cursor that is missing though it was there is a loss).
	Known    bool
	Remember func() error
	// AcceptedGap is the end of a gap that somebody accepted: up to this commit,
	// missing history is no error. 0: none.
	AcceptedGap func() uint64
	// ParentsPassed: see store.Batch.
	ParentsPassed func(parent string, commit uint64) bool
	Now           func() time.Time
}

// Named waits of the drain.
const (
	confirmEvery     = time.Second     // while an asynchronous commit is not covered (S5)
	confirmIdleEvery = 5 * time.Second // else: notices a shard that went back (S4)
	parkedEvery      = time.Second     // parked entries are tried again
	parkedTryMin     = 256             // keys a try; doubled while none of them can go
	parkedTryMax     = 1 << 17
	retryMin         = 50 * time.Millisecond
	retryMax         = 5 * time.Second
	catchUpCommits   = 4096 // commits folded into one batch at the most
)

// NewDrainer makes a Drainer for a group on a shard.
func NewDrainer(g *schema.Group, o DrainerOptions) *Drainer {
	d := &Drainer{o: o, wake: make(chan struct{}, 1), rowsMax: o.Store.BatchRowsMax}
	d.group.Store(g)
	d.known.Store(o.Known)
	d.folder = fold.New(fold.Drain, o.Lookup)
	d.head.Store(o.Journal.Head().Number)
	d.pos.init()
	return d
}

// Step does one piece of work and says how long nothing is to be done unless
// Wake is signalled. After an error the shard is taken anew at the next Step,
// which node calls after Backoff.
func (d *Drainer) Step(ctx context.Context) (time.Duration, error) {
	wait, err := d.step(ctx)
	if err != nil {
		d.taken = false
		if errors.Is(err, store.ErrShrink) {
			d.rowsMax = max(1, d.rowsMax/2)
		}
		return 0, d.pos.failed(err, fmt.Errorf("drain %s to shard %s of store %s: %w", d.group.Load().FullName(), d.o.ShardName, d.o.Store.Name, err))
	}
	return wait, nil
}

func (d *Drainer) step(ctx context.Context) (time.Duration, error) {
	if !d.taken {
		if err := d.take(ctx); err != nil {
			return 0, err
		}
	}
	if err := d.tryParked(ctx); err != nil {
		return 0, err
	}
	if busy, err := d.release(ctx); busy || err != nil {
		return 0, err
	}
	wait, due := d.due()
	if !due {
		return wait, d.confirm(ctx)
	}
	last, err := d.collect()
	if err != nil {
		return 0, err
	}
	if err := d.apply(ctx, last); err != nil {
		return 0, err
	}
	return 0, d.confirm(ctx)
}

// take makes this drainer the only one whose batches pass the guard and learns
// where the shard is. It waits for a transaction of an earlier epoch, so a lost
// answer to COMMIT is settled here too (S3).
func (d *Drainer) take(ctx context.Context) error {
	group := d.group.Load()
	if err := d.checkFound(ctx, group.ID); err != nil {
		return err
	}
	if d.epoch == 0 {
		epoch, err := d.o.Journal.NextEpoch()
		if err != nil {
			return err
		}
		d.epoch = epoch
	}
	cur, err := d.o.Shard.Take(ctx, group.ID, store.OwnerName, d.epoch)
	if errors.Is(err, store.ErrFenced) && cur.Epoch > d.epoch {
		return &store.StopError{Reason: "epoch_ahead", Detail: fmt.Sprintf("shard %s has epoch %d, the journal's counter gave %d: the journal is older than the shard; "+
			"if another Sluice runs on this shard stop one of them, else `sluice journal adopt` goes on from here", d.o.ShardName, cur.Epoch, d.epoch)}
	}
	d.epoch = 0
	if err != nil {
		return err
	}
	d.pos.saw(cur.Commit)
	if err := d.checkCursor(&cur); err != nil {
		return err
	}
	if !d.known.Load() {
		if err := d.o.Remember(); err != nil {
			return err
		}
		d.known.Store(true)
	}
	counts, err := d.o.Shard.Counts(ctx, group.ID)
	if err != nil {
		return err
	}
	parked, err := d.o.Shard.ParkedKeys(ctx, group.ID)
	if err != nil {
		return err
	}
	if err := d.count(&cur); err != nil {
		return err
	}
	now := d.o.Now()
	d.taken, d.cursor, d.pending, d.confirmed = true, cur, now, now
	d.pos.took(now, cur, counts, parked, &d.passed)
	return nil
}

// checkFound stops at a shard that was drained to and has no cursor now: a
// restored or emptied database. It looks before Take does, since Take makes the
// cursor that is missing, and the next try would take it for an old one.
func (d *Drainer) checkFound(ctx context.Context, group sluice.GroupID) error {
	if !d.known.Load() {
		return nil
	}
	cursors, err := d.o.Shard.Cursors(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(cursors, func(c store.Cursor) bool { return c.Group == group && c.Owner == store.OwnerName }) {
		return d.missing("cursor_missing", "it was drained to before, and has no cursor now: a restored or emptied database")
	}
	return nil
}

func (d *Drainer) missing(reason, format string, args ...any) error {
	return &store.StopError{Reason: reason, Detail: fmt.Sprintf("shard %s, %s: ", d.o.ShardName, d.group.Load().FullName()) + fmt.Sprintf(format, args...) +
		fmt.Sprintf("; `sluice resume --store %s --shard %s --accept-gap` goes on and keeps the gap in the catalog", d.o.Store.Name, d.o.ShardName)}
}

// checkCursor compares the shard's cursor with the journal (S4).
func (d *Drainer) checkCursor(cur *store.Cursor) error {
	highest, head := cur.Highest(), d.o.Journal.Head().Number
	accepted := d.o.AcceptedGap()
	if highest > head {
		return &store.StopError{Reason: "beyond_journal", Detail: fmt.Sprintf("shard %s, %s: its cursor is at commit %d, the journal ends at %d: the journal lost its end; "+
			"`sluice journal adopt` goes on from here", d.o.ShardName, d.group.Load().FullName(), highest, head)}
	}
	if highest > 0 {
		c, err := d.o.Journal.Read(highest)
		var hole *journal.HoleError
		switch {
		case errors.As(err, &hole): // trimmed, so it was durably applied once; the chain cannot be compared any more
		case err != nil:
			return err
		case c.Chain != cur.Chain && accepted < highest:
			return d.missing("chain_differs", "its cursor at commit %d was made for another history (chain %x, the journal has %x): another journal or a restored one", highest, cur.Chain, c.Chain)
		}
	}
	for _, p := range d.o.Partitions.List() {
		st := d.o.Journal.Stream(journal.Stream{Group: cur.Group, Partition: p})
		if st.Removed > max(cur.Applied(p), accepted) {
			return d.missing("history_trimmed", "partition %d has applied through commit %d, and the journal was trimmed through %d: the shard went back further than what is retained", p, cur.Applied(p), st.Removed)
		}
	}
	return nil
}

// Gap tells which commits are missing for this drainer, when missing history
// stops it: what Resume would accept. to may be below from: the journal still has
// everything, and nothing is lost.
func (d *Drainer) Gap(head uint64) (from, to uint64, missing bool) {
	var stop *store.StopError
	pos := d.Position()
	if !errors.As(pos.Err, &stop) {
		return 0, 0, false
	}
	switch stop.Reason {
	case "cursor_missing", "history_trimmed":
		for _, p := range d.o.Partitions.List() {
			to = max(to, d.o.Journal.Stream(journal.Stream{Group: d.Group().ID, Partition: p}).Removed)
		}
		return pos.Seen + 1, to, true
	case "chain_differs":
		return pos.Seen + 1, head, true
	}
	return 0, 0, false
}

// count learns how many writes of each stream the cursor stands for, for the
// ledger: the cumulative count before the first section beyond the cursor.
func (d *Drainer) count(cur *store.Cursor) error {
	d.passed = [sluice.Partitions]uint64{}
	unknown := sluice.PartitionSet{}
	for _, p := range d.o.Partitions.List() {
		if st := d.o.Journal.Stream(journal.Stream{Group: cur.Group, Partition: p}); st.Last <= cur.Applied(p) {
			d.passed[p] = st.Writes
		} else {
			unknown.Add(p)
		}
	}
	lowest := cur.Commit
	for _, n := range cur.Except {
		lowest = min(lowest, n)
	}
	for n := lowest + 1; unknown.Len() > 0; n++ {
		body, c, err := readBody(d.o.Journal, n)
		if errors.Is(err, journal.ErrNotYet) {
			return nil
		}
		if err != nil {
			return err
		}
		n = c.Number
		inCommit := map[uint8]uint64{}
		if err := body.Entries(cur.Group, &unknown, func(e *sluice.Entry) error {
			inCommit[e.Partition()] += uint64(e.Writes)
			return nil
		}); err != nil {
			return err
		}
		if err := body.Streams(func(s journal.Stream, cumulative uint64) {
			if s.Group == cur.Group && unknown.Has(s.Partition) && n > cur.Applied(s.Partition) {
				d.passed[s.Partition] = cumulative - inCommit[s.Partition]
				unknown.Remove(s.Partition)
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// Wake is signalled when a Step is due although the wait of the last is not over.
func (d *Drainer) Wake() <-chan struct{} { return d.wake }

// Notify tells that commit n touches the group. It wakes an idle drainer only:
// one that waits for its window's end sees n by itself.
func (d *Drainer) Notify(n uint64) {
	d.head.Store(n)
	if d.idle.CompareAndSwap(true, false) {
		d.signal()
	}
}

// Flush asks for everything up to commit n at once, without waiting for it.
func (d *Drainer) Flush(n uint64) {
	for {
		was := d.flushTo.Load()
		if was >= n || d.flushTo.CompareAndSwap(was, n) {
			d.signal()
			return
		}
	}
}

func (d *Drainer) signal() {
	select {
	case d.wake <- struct{}{}:
	default: // it is signalled already
	}
}

// SetGroup puts the group of a reloaded schema in force from the next Step on.
func (d *Drainer) SetGroup(g *schema.Group) { d.group.Store(g) }

// ShardName and StoreName say where it drains to.
func (d *Drainer) ShardName() string { return d.o.ShardName }

// StoreName: see ShardName.
func (d *Drainer) StoreName() string { return d.o.Store.Name }

// Shard is the database that it drains to.
func (d *Drainer) Shard() store.Shard { return d.o.Shard }

// AcceptMissing lets the shard go on without the cursor that it had, once: from
// the next Take on it must be there again (S4).
func (d *Drainer) AcceptMissing() { d.known.Store(false) }

// Group is the group in force.
func (d *Drainer) Group() *schema.Group { return d.group.Load() }

// due tells whether a batch is to be applied now, else how long to wait. A
// window opens with the first write after the last apply and lasts the group's
// flush interval; a waiter or a full batch ends it early.
func (d *Drainer) due() (time.Duration, bool) {
	head := d.head.Load()
	if head <= d.cursor.Commit {
		d.pending = time.Time{}
		d.idle.Store(true)
		if d.head.Load() == head {
			return d.idleWait(), false
		}
	}
	if d.flushTo.Load() > d.cursor.Commit {
		return 0, true
	}
	now := d.o.Now()
	if d.pending.IsZero() {
		d.pending = now
	}
	if left := d.group.Load().Flush - now.Sub(d.pending); left > 0 && head-d.cursor.Commit < catchUpCommits {
		return min(left, d.idleWait()), false
	}
	return 0, true
}

// collect folds the commits beyond the cursor.
func (d *Drainer) collect() (journal.Commit, error) {
	last, err := d.fold(d.active(), d.cursor.Commit, ^uint64(0))
	if last.Number == d.cursor.Commit {
		last.Chain = d.cursor.Chain
	}
	return last, err
}

// fold folds what the commits after from, through to, hold for partitions,
// until the batch is full, and gives the last of them. Commits are taken whole
// (S1), so a batch may be larger than its limit by what one commit holds.
func (d *Drainer) fold(partitions sluice.PartitionSet, from, to uint64) (last journal.Commit, err error) {
	d.folder.Reset()
	d.ahead = d.passed
	group := d.group.Load()
	last.Number = from
	for i := 0; i < catchUpCommits && last.Number < to; i++ {
		body, c, err := readBody(d.o.Journal, last.Number+1)
		if errors.Is(err, journal.ErrNotYet) {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		if c.Number > to { // a hole reached beyond
			last.Number = to
			return last, nil
		}
		err = body.Entries(group.ID, &partitions, func(e *sluice.Entry) error {
			e.Commit = c.Number
			return d.folder.Add(e)
		})
		if err != nil {
			return last, fmt.Errorf("fold commit %d: %w", c.Number, err)
		}
		if err := body.Streams(func(s journal.Stream, cumulative uint64) {
			if s.Group == group.ID && partitions.Has(s.Partition) {
				d.ahead[s.Partition] = cumulative
			}
		}); err != nil {
			return last, err
		}
		last = c
		if d.full(group) {
			break
		}
	}
	return last, nil
}

// latestFold is how much larger a batch of a latest_by group may be: the newest
// of many old rows makes the rest needless, so catching up folds as much as
// memory allows before one apply (S12).
const latestFold = 8

func (d *Drainer) full(g *schema.Group) bool {
	rows, bytes := d.rowsMax, d.o.Store.BatchBytesMax
	if g.LatestBy != nil {
		rows, bytes = rows*latestFold, bytes*latestFold
	}
	return d.folder.Len() >= rows || d.folder.Bytes() >= bytes
}

func (d *Drainer) apply(ctx context.Context, last journal.Commit) error {
	next := d.cursor
	next.Commit, next.Chain = last.Number, last.Chain
	group := d.group.Load()
	if d.folder.Len() == 0 && d.o.Now().Sub(d.confirmed) < confirmIdleEvery {
		// Commits of others' groups only. The cursor in the shard follows with the
		// next batch or idle confirmation; applying nothing costs no transaction.
		d.skipTo(next)
		return nil
	}
	from := d.o.Now()
	batch := &store.Batch{Group: group, Prev: d.stored(), Next: next, Entries: d.folder.Entries(fold.ByKey), ParentsPassed: d.o.ParentsPassed}
	res, err := d.transact(ctx, batch, d.cursor.Commit+1, last.Number)
	if d.hold(err) {
		return nil // the next batch goes without that partition
	}
	if err != nil {
		return err
	}
	took := d.o.Now().Sub(from)
	d.adapt(took)
	d.cursor, d.passed = next, d.ahead
	d.pending = time.Time{}
	if d.o.Shard.SyncApply() {
		d.confirmed = from
	}
	if slices.ContainsFunc(batch.Entries, func(e sluice.Entry) bool { return e.Replay != 0 }) {
		counts, err := d.o.Shard.Counts(ctx, group.ID)
		if err != nil {
			return err
		}
		d.pos.recounted(counts)
		res.Rejected = nil // they are in the counts
	}
	d.pos.applied(next, &res, appliedBatch{writes: d.folder.Writes(), took: took, durable: d.o.Shard.SyncApply(), at: from}, &d.passed)
	return nil
}

// adapt keeps a batch's time within the limit: halved at once, grown slowly.
func (d *Drainer) adapt(took time.Duration) {
	limit := d.o.Store.BatchTimeMax
	switch {
	case took > limit:
		d.rowsMax = max(1, d.rowsMax/2)
	case took < limit/2 && d.rowsMax < d.o.Store.BatchRowsMax:
		d.rowsMax = min(d.o.Store.BatchRowsMax, d.rowsMax+d.rowsMax/4+1)
	}
}

// transact applies a batch of the commits from to to. When the journal cannot be read
// for a refused row, the transaction is given up: a reject of the folded row would
// take the good writes in it along.
func (d *Drainer) transact(ctx context.Context, b *store.Batch, from, to uint64) (store.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.Unfold = d.unfold(from, to, cancel)
	res, err := d.o.Shard.Apply(ctx, b)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = errors.Join(cause, err)
	}
	return res, err
}

// unfold reads the journal again for the entries of one key: only when the
// database refused the folded one, so it may be slow.
func (d *Drainer) unfold(from, to uint64, fail context.CancelCauseFunc) func(key []byte) []sluice.Entry {
	return func(key []byte) []sluice.Entry {
		var out []sluice.Entry
		group := d.group.Load().ID
		for n := from; n <= to; n++ {
			body, c, err := readBody(d.o.Journal, n)
			if err != nil {
				fail(fmt.Errorf("unfold a refused row: %w", err))
				return nil
			}
			if n = c.Number; n > to {
				break // a hole reached beyond
			}
			err = body.Entries(group, &d.o.Partitions, func(e *sluice.Entry) error {
				if string(e.Key) == string(key) {
					e.Commit = n
					out = append(out, keepEntry(e))
				}
				return nil
			})
			if err != nil {
				fail(fmt.Errorf("unfold commit %d: %w", n, err))
				return nil
			}
		}
		return out
	}
}

// keepEntry copies what is valid during a call only. Bytes point into the
// commit's body, which stays.
func keepEntry(e *sluice.Entry) sluice.Entry {
	kept := *e
	kept.Cells = append([]sluice.Cell(nil), e.Cells...)
	return kept
}

// tryParked gives parked entries another try (S8).
func (d *Drainer) tryParked(ctx context.Context) error {
	now := d.o.Now()
	if !d.pos.hasParked() || now.Sub(d.lastTry) < parkedEvery {
		return nil
	}
	d.lastTry = now
	cur := d.stored()
	res, err := d.o.Shard.Unpark(ctx, &store.Batch{Group: d.group.Load(), Prev: cur, Next: cur, ParentsPassed: d.o.ParentsPassed}, max(parkedTryMin, d.tryKeys))
	if err != nil {
		return err
	}
	// The oldest are tried first. When none of them can go, look further: keys
	// that stay locked must not hold up those behind them.
	if d.tryKeys = max(parkedTryMin, d.tryKeys) * 2; len(res.Unparked) > 0 || d.tryKeys > parkedTryMax {
		d.tryKeys = parkedTryMin
	}
	d.pos.unparked(&res, now)
	if len(res.Unparked) == 0 {
		return nil
	}
	// The transaction left the cursor as it was, so a shard that loses it would
	// not be seen to have gone back (S4). Taking the shard again changes the row,
	// durably, and reads what is parked and rejected by then.
	return d.take(ctx)
}

// confirm makes the cursor durable where commits are asynchronous, and notices
// a shard that went back while it was idle (S4, S5).
func (d *Drainer) confirm(ctx context.Context) error {
	every := confirmIdleEvery
	if d.pos.uncovered() {
		every = confirmEvery
		if d.flushTo.Load() > d.pos.durable() {
			every = 0
		}
	}
	now := d.o.Now()
	if now.Sub(d.confirmed) < every {
		return nil
	}
	if stored := d.stored(); !sameCursor(&stored, &d.cursor) {
		if _, err := d.o.Shard.Apply(ctx, &store.Batch{Group: d.group.Load(), Prev: stored, Next: d.cursor}); err != nil {
			return err
		}
		d.pos.moved(d.cursor, d.o.Shard.SyncApply())
	}
	if err := d.o.Shard.Confirm(ctx, d.cursor); err != nil {
		return err
	}
	d.confirmed = now
	d.pos.confirmed(now, d.cursor)
	return nil
}

// skipTo moves the cursor in memory only.
func (d *Drainer) skipTo(next store.Cursor) {
	d.cursor = next
	d.pending = time.Time{}
	d.pos.skipped(next)
}

// stored is the cursor as the shard has it.
func (d *Drainer) stored() store.Cursor { return d.pos.stored() }

func (d *Drainer) idleWait() time.Duration {
	switch {
	case d.pos.hasParked():
		return parkedEvery
	case d.pos.uncovered():
		return confirmEvery
	default:
		return confirmIdleEvery
	}
}

// readBody reads commit n, or the first one after a hole at n: what is in a
// hole was durably applied before it was removed, and checkCursor made sure
// that this shard is not behind it.
func readBody(j journal.Journal, n uint64) (journal.Body, journal.Commit, error) {
	c, err := j.Read(n)
	var hole *journal.HoleError
	if errors.As(err, &hole) {
		c, err = j.Read(hole.Next)
	}
	if err != nil {
		return journal.Body{}, journal.Commit{}, err
	}
	body, err := journal.DecodeBody(c.Body)
	if err != nil {
		return journal.Body{}, journal.Commit{}, fmt.Errorf("commit %d: %w", c.Number, err)
	}
	return body, c, nil
}
