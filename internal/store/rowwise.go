package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// ErrRowLocked answers RowTx.Change when somebody else holds the row (S8).
var ErrRowLocked = errors.New("store: row is locked by another transaction")

// RowTx is an open transaction of a database that is in the process, where a
// statement costs no round trip: rows are tried one by one, so a refused row is
// found without bisection. The guard has passed already.
type RowTx interface {
	// Change applies one entry, or nothing of it and answers a *Refusal or
	// ErrRowLocked. Any other error ends the transaction.
	Change(e *sluice.Entry) error
	// Together applies the first n entries in one statement, all or none. Not
	// done and no error: try these n one by one, since they do not go together
	// or one of them is refused. n is at least 1.
	Together(entries []sluice.Entry) (n int, done bool, err error)
	// Try calls f and, when f fails, takes back what f did.
	Try(f func() error) error
	// Park keeps an entry; Unpark forgets it.
	Park(e *sluice.Entry) error
	Unpark(e *sluice.Entry) error
	// Reject keeps a reject, or renews the one of the same commit and ordinal.
	Reject(e *sluice.Entry, r *sluice.Reject) error
	// Replayed marks a reject as replayed.
	Replayed(commit uint64, ordinal uint32) error
	// Waiting counts a partition's open rejects and parked entries.
	Waiting(partition uint8) (rejects, parked int, err error)
}

// ParkedEntry is an entry that waits, and since when.
type ParkedEntry struct {
	Entry sluice.Entry
	Since time.Time
}

// Rowwise applies a batch in a RowTx by the rules S8 and S10.
type Rowwise struct {
	Tx    RowTx
	Batch *Batch
	Store *schema.Store
	Now   time.Time
	// Parked tells whether entries of the key wait already: later ones follow them.
	Parked map[string]bool

	result Result
	grown  map[uint8]bool // partitions with more rejects or parked entries than before
}

// Apply applies the batch's entries.
//
// The entries of one key stand or fall together at first. What the database
// refused is taken apart into its journal entries and tried again behind the rest
// of the batch, since a later row may have made room (a unique value given
// back, a parent inserted). That second answer is final.
func (r *Rowwise) Apply(ctx context.Context) (Result, error) {
	var again [][]sluice.Entry
	var refusal *Refusal
	apart := 0 // so many entries go one by one
	for rest := r.Batch.Entries; len(rest) > 0; {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		if apart <= 0 && len(r.Parked) == 0 {
			n, done, err := r.Tx.Together(rest)
			if err != nil {
				return Result{}, err
			}
			if done {
				r.result.Rows += n
				rest = rest[n:]
				continue
			}
			apart = n
		}
		run := rest[:r.runLength(rest)]
		rest = rest[len(run):]
		apart -= len(run)
		err := r.whole(run)
		switch {
		case err == nil:
		case errors.Is(err, ErrRowLocked):
			err = r.park(r.pieces(run))
		case errors.As(err, &refusal):
			again, err = append(again, run), nil
		}
		if err != nil {
			return Result{}, err
		}
	}
	for _, run := range again {
		if err := r.singly(r.pieces(run)); err != nil {
			return Result{}, err
		}
	}
	for i := range r.Batch.Entries {
		r.result.Bytes += sizeOf(&r.Batch.Entries[i])
	}
	return r.result, r.limits()
}

// sizeOf is about what an entry takes in the database.
func sizeOf(e *sluice.Entry) int64 {
	n := int64(len(e.Key))
	for i := range e.Cells {
		n += 8 + int64(len(e.Cells[i].Value.Bytes))
	}
	return n
}

// runLength counts the entries of the first one's key. Events have no row to share.
func (r *Rowwise) runLength(entries []sluice.Entry) int {
	n := 1
	for !r.Batch.Group.Events && n < len(entries) && bytes.Equal(entries[n].Key, entries[0].Key) {
		n++
	}
	return n
}

// pieces gives the journal entries that a run was folded from.
func (r *Rowwise) pieces(run []sluice.Entry) []sluice.Entry {
	if r.Batch.Unfold != nil && !r.Batch.Group.Events {
		if p := r.Batch.Unfold(run[0].Key); len(p) > 0 {
			return p
		}
	}
	return run
}

// whole applies all entries of a run or none.
func (r *Rowwise) whole(run []sluice.Entry) error {
	if len(r.Parked) > 0 && r.Parked[string(run[0].Key)] {
		return r.park(r.pieces(run))
	}
	if len(run) == 1 {
		return r.change(&run[0])
	}
	rows := r.result.Rows
	err := r.Tx.Try(func() error {
		for i := range run {
			if err := r.change(&run[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.result.Rows = rows
	}
	return err
}

func (r *Rowwise) change(e *sluice.Entry) error {
	if err := r.Tx.Change(e); err != nil {
		return err
	}
	r.result.Rows++
	if e.Replay != 0 {
		return r.Tx.Replayed(RejectOf(e.Replay))
	}
	return nil
}

// singly applies a key's entries in order; a refused one is rejected, and from
// one that must wait on all are parked.
func (r *Rowwise) singly(pieces []sluice.Entry) error {
	for i := range pieces {
		err := r.change(&pieces[i])
		var refusal *Refusal
		if errors.As(err, &refusal) {
			if !r.final(refusal, pieces[i].Commit, r.Now) {
				return r.park(pieces[i:])
			}
			err = r.reject(&pieces[i], refusal)
		} else if errors.Is(err, ErrRowLocked) {
			return r.park(pieces[i:])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// final tells whether waiting cannot help any more: only a missing parent may
// still come, and it is waited for until its streams have passed the child and
// fk_wait is over.
func (r *Rowwise) final(why *Refusal, commit uint64, since time.Time) bool {
	if len(why.Parents) == 0 || r.Batch.ParentsPassed == nil {
		return true
	}
	for _, p := range why.Parents {
		if !r.Batch.ParentsPassed(p, commit) {
			return false
		}
	}
	return r.Now.Sub(since) >= r.Store.FKWait
}

func (r *Rowwise) reject(e *sluice.Entry, why *Refusal) error {
	reject := NewReject(r.Batch.Group, e, why)
	if err := r.Tx.Reject(e, &reject); err != nil {
		return err
	}
	r.result.Rejected = append(r.result.Rejected, reject)
	r.grow(e.Partition())
	return nil
}

func (r *Rowwise) park(entries []sluice.Entry) error {
	for i := range entries {
		e := &entries[i]
		if err := r.Tx.Park(e); err != nil {
			return err
		}
		r.result.Parked = append(r.result.Parked, parkedKey(r.Batch.Group, e))
		r.grow(e.Partition())
	}
	if r.Parked == nil {
		r.Parked = map[string]bool{}
	}
	if len(entries) > 0 {
		r.Parked[string(entries[0].Key)] = true
	}
	return nil
}

func (r *Rowwise) grow(p uint8) {
	if r.grown == nil {
		r.grown = map[uint8]bool{}
	}
	r.grown[p] = true
}

func parkedKey(g *schema.Group, e *sluice.Entry) ParkedKey {
	return ParkedKey{KeyHash: sluice.KeyHash(g.ID, e.Key), Partition: e.Partition(), Commit: e.Commit, Ordinal: e.Ordinal, Writes: e.Writes}
}

// Unpark tries parked entries again, given in order and by key. The first of a
// key that must still wait holds those behind it.
func (r *Rowwise) Unpark(ctx context.Context, keys [][]ParkedEntry) (Result, error) {
	for _, entries := range keys {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		for i := range entries {
			left, err := r.unpark(&entries[i])
			if err != nil {
				return Result{}, err
			}
			if !left {
				break
			}
		}
	}
	return r.result, r.limits()
}

func (r *Rowwise) unpark(p *ParkedEntry) (left bool, err error) {
	e := &p.Entry
	err = r.change(e)
	var refusal *Refusal
	if errors.Is(err, ErrRowLocked) {
		return false, nil
	} else if errors.As(err, &refusal) {
		if !r.final(refusal, e.Commit, p.Since) {
			return false, nil
		}
		err = r.reject(e, refusal)
	}
	if err == nil {
		err = r.Tx.Unpark(e)
	}
	r.result.Unparked = append(r.result.Unparked, parkedKey(r.Batch.Group, e))
	return true, err
}

// limits stops the stream where more rejects or parked entries would only hide
// that something is wrong with the table.
func (r *Rowwise) limits() error {
	g, res := r.Batch.Group, &r.result
	if MassRejects(len(res.Rejected), res.Rows+len(res.Parked), r.Store.RejectsMax) {
		return &StopError{Reason: "mass_rejects", Detail: fmt.Sprintf("%s: the database refused all %d rows of a batch, first with %s: %s; correct table %s, or raise rejects_max of store %s to let them become rejects, then `sluice resume --store %s`",
			g.FullName(), len(res.Rejected), res.Rejected[0].SQLState, res.Rejected[0].Reason, g.Physical, r.Store.Name, r.Store.Name)}
	}
	for p := range r.grown {
		rejects, parked, err := r.Tx.Waiting(p)
		switch {
		case err != nil:
			return err
		case len(res.Rejected) > 0 && rejects > r.Store.RejectsMax:
			return &StopError{Reason: "too_many_rejects", Detail: fmt.Sprintf("%s: partition %d would have %d open rejects, the limit rejects_max is %d; look at `sluice rejects ls`, replay or discard them, then `sluice resume --store %s`",
				g.FullName(), p, rejects, r.Store.RejectsMax, r.Store.Name)}
		case len(res.Parked) > 0 && parked > r.Store.ParkedMax:
			return &StopError{Reason: ReasonParkedMax, Partition: p, Detail: fmt.Sprintf("%s: partition %d would have %d parked entries, the limit parked_max is %d; end the transaction that locks the rows or bring the missing parent rows, then `sluice resume --store %s`",
				g.FullName(), p, parked, r.Store.ParkedMax, r.Store.Name)}
		}
	}
	return nil
}
