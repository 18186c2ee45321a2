package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/store"
)

const cursorColumns = "group_id, owner, epoch, commit_id, chain, except_for, +at"

func scanCursor(row []driver.Value) (store.Cursor, error) {
	c := store.Cursor{
		Group: sluice.GroupID(integer(row[0])), Owner: text(row[1]), Epoch: uint64(integer(row[2])),
		Commit: uint64(integer(row[3])), Chain: uint64(integer(row[4])), Found: true,
	}
	if except := text(row[5]); except != "{}" {
		if err := json.Unmarshal([]byte(except), &c.Except); err != nil {
			return c, fmt.Errorf("sluice_cursor: exceptions of group %d: %w", c.Group, err)
		}
	}
	at, err := time.Parse(timestampForm, text(row[6]))
	c.At = at
	return c, err
}

// exceptText is the one spelling of exceptions, so that the guard can compare text.
func exceptText(m map[uint8]uint64) string {
	if len(m) == 0 {
		return "{}"
	}
	b, _ := json.Marshal(m) // numbers only: it cannot fail, and keys are sorted
	return string(b)
}

func now() string { return time.Now().UTC().Format(timestampForm) }

// Take implements store.Shard. An earlier epoch's transaction holds the
// database's write lock until it is over, so waiting for BEGIN IMMEDIATE is
// waiting for its outcome (S3).
func (s *Shard) Take(ctx context.Context, group sluice.GroupID, owner string, epoch uint64) (cur store.Cursor, err error) {
	err = s.write(ctx, true, func(w *conn) error {
		row, err := w.row("SELECT "+cursorColumns+" FROM sluice_cursor WHERE group_id = ? AND owner = ?", int64(group), owner)
		if err != nil {
			return err
		}
		if row == nil {
			cur = store.Cursor{Group: group, Owner: owner, Epoch: epoch}
			_, err = w.exec("INSERT INTO sluice_cursor (group_id, owner, epoch, commit_id, chain, except_for, at) VALUES (?, ?, ?, 0, 0, '{}', ?)",
				int64(group), owner, int64(epoch), now())
			return err
		}
		if cur, err = scanCursor(row); err != nil {
			return err
		}
		if cur.Epoch > epoch {
			return store.ErrFenced
		}
		cur.Epoch = epoch
		_, err = w.exec("UPDATE sluice_cursor SET epoch = ?, at = ? WHERE group_id = ? AND owner = ?", int64(epoch), now(), int64(group), owner)
		return err
	})
	return cur, err
}

// guard moves the cursor from prev to next, or answers ErrFenced (S2). It is the
// first statement of the transaction. That it merely matches no row, and does not
// raise, is enough here: there is one writer, each statement is awaited before
// the next, and so no COMMIT can be under way when the count of rows is seen.
func guard(w *conn, prev, next *store.Cursor) error {
	n, err := w.exec(`UPDATE sluice_cursor SET commit_id = ?, chain = ?, except_for = ?, at = ?
		WHERE group_id = ? AND owner = ? AND epoch = ? AND commit_id = ? AND chain = ? AND except_for = ?`,
		int64(next.Commit), int64(next.Chain), exceptText(next.Except), now(),
		int64(prev.Group), prev.Owner, int64(prev.Epoch), int64(prev.Commit), int64(prev.Chain), exceptText(prev.Except))
	if err == nil && n != 1 {
		err = store.ErrFenced
	}
	return err
}

// Confirm implements store.Shard.
func (s *Shard) Confirm(ctx context.Context, cur store.Cursor) error {
	return s.write(ctx, true, func(w *conn) error { return guard(w, &cur, &cur) })
}

// Cursors implements store.Shard.
func (s *Shard) Cursors(ctx context.Context) (out []store.Cursor, err error) {
	err = s.read(ctx, func(r *conn) error {
		return r.each("SELECT "+cursorColumns+" FROM sluice_cursor ORDER BY group_id, owner", nil, func(row []driver.Value) error {
			c, err := scanCursor(row)
			out = append(out, c)
			return err
		})
	})
	return out, err
}

// ownerCursor reads the owner's cursor in the reader's snapshot.
func ownerCursor(r *conn, group sluice.GroupID) (store.Cursor, error) {
	row, err := r.row("SELECT "+cursorColumns+" FROM sluice_cursor WHERE group_id = ? AND owner = ?", int64(group), store.OwnerName)
	if err != nil || row == nil {
		return store.Cursor{}, err
	}
	return scanCursor(row)
}
