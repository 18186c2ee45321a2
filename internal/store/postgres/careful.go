package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// ownKeyTries is how often a row is applied again when another writer inserted
// its key between our look and our insert (23505 on the key's own index).
const ownKeyTries = 3

// unit is what stands or falls together at first: the entries of one key in
// order, or one event.
type unit struct {
	entries []sluice.Entry
	rows    []parkedRow // beside entries, when they come out of the park
}

// careful applies a batch of which a row is refused or locked. Groups of rows
// are tried under savepoints and halved until the culprits stand alone; only
// the end state commits (S10).
func (a *applier) careful(ctx context.Context) error {
	a.parkRuns(a.follow)
	x, err := a.openCareful(ctx)
	if err != nil {
		return err
	}
	defer x.end(ctx)
	units, err := a.unlocked(ctx, a.units(a.fresh))
	if err != nil {
		return err
	}
	if err := a.judge(ctx, units); err != nil {
		return err
	}
	if err := a.limitParked(); err != nil {
		return err
	}
	return a.closeCareful(ctx)
}

func (a *applier) openCareful(ctx context.Context) (*tx, error) {
	x, err := a.begin(ctx)
	if err != nil {
		return nil, err
	}
	a.x, a.w = x, &writer{x: x, t: a.t, careful: true}
	// A constraint that is checked at COMMIT would refuse the batch as a whole.
	x.add("settings", &statement{sql: "SET CONSTRAINTS ALL IMMEDIATE"})
	// A lock on the table holds up every row: better to fail here than to park them all.
	x.add("table", &statement{sql: "LOCK TABLE " + a.t.table + " IN ROW EXCLUSIVE MODE"})
	if _, err := x.send(ctx); err != nil {
		x.end(ctx)
		return nil, err
	}
	return x, nil
}

func (a *applier) closeCareful(ctx context.Context) error {
	if err := a.notes.write(a.x, a.db); err != nil {
		return err
	}
	if err := a.limitRejects(ctx); err != nil {
		return err
	}
	if _, err := a.x.commit(ctx); err != nil {
		return err
	}
	a.finish(a.x)
	return nil
}

func (a *applier) units(entries []sluice.Entry) []unit {
	var out []unit
	for len(entries) > 0 {
		n := a.runLength(entries)
		out = append(out, unit{entries: entries[:n:n]})
		entries = entries[n:]
	}
	return out
}

// runLength counts the entries of the first one's key. Events have no row to share.
func (a *applier) runLength(entries []sluice.Entry) int {
	n := 1
	for !a.t.group.Events && n < len(entries) && bytes.Equal(entries[n].Key, entries[0].Key) {
		n++
	}
	return n
}

// pieces gives the journal entries that a run was folded from.
func (a *applier) pieces(run []sluice.Entry) []sluice.Entry {
	if a.b.Unfold != nil && !a.t.group.Events {
		if p := a.b.Unfold(run[0].Key); len(p) > 0 {
			return p
		}
	}
	return run
}

// unlocked parks the units whose row somebody else holds, and puts those whose
// row must be there but is not to the ones to be judged singly. What remains
// is locked by this transaction. Rows that another transaction has inserted
// and not committed cannot be seen; halving finds them.
func (a *applier) unlocked(ctx context.Context, units []unit) ([]unit, error) {
	if a.t.group.Events || len(units) == 0 {
		return units, nil
	}
	entries := make([]sluice.Entry, len(units))
	for i := range units {
		entries[i] = units[i].entries[0]
	}
	a.w.entries = entries
	params, err := a.w.keyArrays(all(len(units)))
	if err != nil {
		return nil, err
	}
	a.x.add("savepoint", &statement{sql: "SAVEPOINT sluice"})
	a.x.add("locks", &statement{sql: a.t.lookup(nil, "")}, params...)
	a.x.add("locks", &statement{sql: a.t.lookup(nil, " FOR NO KEY UPDATE OF t SKIP LOCKED")}, params...)
	a.x.add("savepoint", &statement{sql: "RELEASE SAVEPOINT sluice"})
	results, err := a.x.send(ctx)
	if err != nil && classify(err) == refused { // a key out of the column's range: halving finds it
		return units, a.back(ctx)
	} else if err != nil {
		return nil, err
	}
	there, free := places(results[1], len(units)), places(results[2], len(units))
	strict := !a.t.own && a.t.group.Existing.MissingRow == schema.MissingReject
	var rest []unit
	for i, u := range units {
		switch {
		case there[i] && !free[i]:
			a.notes.parkEntries(a.pieces(u.entries), a.t.group.ID)
		case strict && !there[i] && !free[i]:
			a.again = append(a.again, u)
		default:
			rest = append(rest, u)
		}
	}
	return rest, nil
}

func places(r *pgconn.Result, n int) []bool {
	out := make([]bool, n)
	for _, row := range r.Rows {
		out[binary.BigEndian.Uint64(row[0])-1] = true
	}
	return out
}

// judge applies units, parks what is locked, and gives what was refused one
// more try behind the rest, since a later row may have made room (a unique
// value given back, a parent inserted). That second answer is final.
func (a *applier) judge(ctx context.Context, units []unit) error {
	if err := a.halve(ctx, units); err != nil {
		return err
	}
	for _, u := range a.again {
		if err := a.singly(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// halve tries units together and, when that fails, each half.
func (a *applier) halve(ctx context.Context, units []unit) error {
	if len(units) == 0 {
		return nil
	}
	var entries []sluice.Entry
	for _, u := range units {
		entries = append(entries, u.entries...)
	}
	err := a.attempt(ctx, entries)
	switch {
	case err == nil:
		for _, u := range units {
			a.took(u.entries, u.rows)
		}
		return nil
	case !isRowFault(err):
		return err
	case len(units) > 1:
		half := len(units) / 2
		if err := a.halve(ctx, units[:half]); err != nil {
			return err
		}
		return a.halve(ctx, units[half:])
	case classify(err) == locked:
		a.wait(units[0], 0)
	default:
		a.again = append(a.again, units[0])
	}
	return nil
}

// attempt applies entries under a savepoint: all of them or none.
func (a *applier) attempt(ctx context.Context, entries []sluice.Entry) error {
	rows := a.x.rows
	a.x.add("savepoint", &statement{sql: "SAVEPOINT sluice"})
	err := a.w.write(ctx, entries)
	if err == nil && a.x.counts {
		_, err = a.x.send(ctx) // the counts decide whether the savepoint is released
	}
	if err == nil {
		a.x.add("savepoint", &statement{sql: "RELEASE SAVEPOINT sluice"})
		_, err = a.x.send(ctx)
	}
	if err == nil || !isRowFault(err) {
		return err
	}
	a.x.rows = rows
	if back := a.back(ctx); back != nil {
		return back
	}
	return err
}

// back takes back what was done since the savepoint.
func (a *applier) back(ctx context.Context) error {
	a.x.queued, a.x.batch, a.x.counts = nil, pgconn.Batch{}, false
	a.x.add("savepoint", &statement{sql: "ROLLBACK TO SAVEPOINT sluice"})
	a.x.add("savepoint", &statement{sql: "RELEASE SAVEPOINT sluice"})
	_, err := a.x.send(ctx)
	return err
}

// took notes applied entries.
func (a *applier) took(entries []sluice.Entry, rows []parkedRow) {
	a.good += len(entries)
	a.notes.applied(entries)
	for i := range rows {
		a.leave(&rows[i])
	}
}

func (a *applier) leave(row *parkedRow) {
	a.notes.gone = append(a.notes.gone, *row)
	a.notes.left = append(a.notes.left, parkedKeyOf(a.t.group.ID, &row.entry))
}

// wait parks a unit's entries from the i-th on; those that are parked stay.
func (a *applier) wait(u unit, i int) {
	if u.rows == nil {
		if i == 0 {
			u.entries = a.pieces(u.entries)
		}
		a.notes.parkEntries(u.entries[i:], a.t.group.ID)
		return
	}
	for _, r := range u.rows[i:] {
		a.notes.stayed = append(a.notes.stayed, r.seq)
	}
}

// singly applies a unit's journal entries one by one, in order: a refused one
// is rejected, and from one that must wait on all wait.
func (a *applier) singly(ctx context.Context, u unit) error {
	if u.rows == nil {
		u.entries = a.pieces(u.entries)
	}
	for i := range u.entries {
		e := &u.entries[i]
		err := a.attemptOne(ctx, e)
		var row *parkedRow
		if u.rows != nil {
			row = &u.rows[i]
		}
		switch {
		case err == nil:
			if a.took(u.entries[i:i+1], nil); row != nil {
				a.leave(row)
			}
			continue
		case !isRowFault(err):
			return err
		case classify(err) == locked:
			a.waitFrom(u, i)
			return nil
		}
		why := a.refusal(err)
		if !a.final(why, e, row) {
			a.waitFrom(u, i)
			return nil
		}
		a.reject(e, why)
		if row != nil {
			a.leave(row)
		}
	}
	return nil
}

// waitFrom is wait for a unit that is taken apart already.
func (a *applier) waitFrom(u unit, i int) {
	if u.rows == nil {
		a.notes.parkEntries(u.entries[i:], a.t.group.ID)
		return
	}
	a.wait(u, i)
}

func (a *applier) attemptOne(ctx context.Context, e *sluice.Entry) (err error) {
	for range ownKeyTries {
		err = a.attempt(ctx, []sluice.Entry{*e})
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "23505" || !a.t.uniques[pg.ConstraintName] {
			break
		}
	}
	return err
}

// refusal says what the database said. Its detail is left out: it repeats the
// row, and with it what may be secret.
func (a *applier) refusal(err error) *store.Refusal {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return &store.Refusal{Reason: errMissingRow.Error()}
	}
	why := &store.Refusal{SQLState: pg.Code, Reason: strings.ToValidUTF8(pg.Message, "?")}
	if parent := a.t.parents[pg.ConstraintName]; pg.Code == "23503" && parent != "" {
		why.Parents = []string{parent}
	}
	return why
}

// final tells whether waiting cannot help any more: only a missing parent may
// still come. It is waited for until its streams have passed the child and the
// child has been parked for fk_wait.
func (a *applier) final(why *store.Refusal, e *sluice.Entry, row *parkedRow) bool {
	if len(why.Parents) == 0 || a.b.ParentsPassed == nil {
		return true
	}
	for _, p := range why.Parents {
		if !a.b.ParentsPassed(p, e.Commit) {
			return false
		}
	}
	return a.s.opt.Store.FKWait <= 0 || row != nil && row.waited
}

func (a *applier) reject(e *sluice.Entry, why *store.Refusal) {
	r := store.NewReject(a.t.group, e, why)
	r.Store, r.Shard, r.Entry = a.s.opt.Store.Name, a.s.opt.Shard.Name, journal.AppendEntry(nil, e)
	r.At = time.Now()
	a.notes.rejects = append(a.notes.rejects, r)
}
