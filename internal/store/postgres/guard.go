package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/store"
)

// packExceptions: nine bytes each, the partition and its commit, big-endian,
// by partition, so that equal sets are equal bytes and get_byte can read them.
func packExceptions(except map[uint8]uint64) []byte {
	out := make([]byte, 0, 9*len(except))
	for _, p := range slices.Sorted(maps.Keys(except)) {
		out = append(out, p)
		out = binary.BigEndian.AppendUint64(out, except[p])
	}
	return out
}

func unpackExceptions(b []byte) (map[uint8]uint64, error) {
	if len(b)%9 != 0 {
		return nil, &store.StopError{Reason: "corrupt", Detail: "sluice_cursor.exceptions is damaged: its length is no multiple of 9; restore the row from a backup of this database"}
	}
	if len(b) == 0 {
		return nil, nil
	}
	out := make(map[uint8]uint64, len(b)/9)
	for ; len(b) > 0; b = b[9:] {
		out[b[0]] = binary.BigEndian.Uint64(b[1:])
	}
	return out, nil
}

// guard queues the guard (S2): it moves the cursor row from prev to next and
// raises SL001 when epoch or position are not prev's. A guard that only
// matched no row would let the COMMIT behind it in the pipeline through.
//
// It writes the cursor at once, not at the end: the transaction is one, and
// the row's lock makes a Take wait for its end (S3).
func (x *tx) guard(ctx context.Context, db *database, prev, next *store.Cursor) error {
	before, after := packExceptions(prev.Except), packExceptions(next.Except)
	if db.guard {
		st := x.s.unnamedBehindPooler(db.texts.guard)
		if err := x.prepare(ctx, st); err != nil {
			return err
		}
		x.add("guard", st, be32(uint32(prev.Group)), []byte(prev.Owner), be64(prev.Epoch), be64(prev.Commit), before,
			be64(next.Commit), be64(next.Chain), after)
		return nil
	}
	// A DO block takes no parameters.
	x.add("guard", &statement{sql: fmt.Sprintf("DO $sluice$ BEGIN %s END $sluice$", guardBody(db.schema,
		fmt.Sprint(uint32(prev.Group)), literal(prev.Owner), fmt.Sprint(int64(prev.Epoch)), fmt.Sprint(int64(prev.Commit)), hexLiteral(before),
		fmt.Sprint(int64(next.Commit)), fmt.Sprintf("(%d)", int64(next.Chain)), hexLiteral(after)))})
	return nil
}

func hexLiteral(b []byte) string { return fmt.Sprintf(`'\x%x'::bytea`, b) }

// guardBody is the guard in PL/pgSQL over expressions for its eight arguments:
// group, owner, epoch, commit and exceptions expected, commit, chain and exceptions to write.
func guardBody(schema string, a ...string) string {
	return "UPDATE " + schema + ".sluice_cursor SET commit = " + a[5] + ", chain = " + a[6] + ", exceptions = " + a[7] + ", at = clock_timestamp()" +
		" WHERE group_id = " + a[0] + " AND owner = " + a[1] + " AND epoch = " + a[2] + " AND commit = " + a[3] + " AND exceptions = " + a[4] + ";" +
		" IF NOT FOUND THEN RAISE EXCEPTION 'sluice: epoch or cursor is not the expected one' USING ERRCODE = '" + store.SQLStateGuard + "'; END IF;"
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

const cursorColumns = "group_id, owner, epoch, commit, chain, exceptions, at"

func scanCursor(row pgx.Row) (store.Cursor, error) {
	var group, epoch, commit, chain int64
	var except []byte
	c := store.Cursor{Found: true}
	if err := row.Scan(&group, &c.Owner, &epoch, &commit, &chain, &except, &c.At); err != nil {
		return c, err
	}
	c.Group, c.Epoch, c.Commit, c.Chain = sluice.GroupID(group), uint64(epoch), uint64(commit), uint64(chain)
	var err error
	c.Except, err = unpackExceptions(except)
	return c, err
}

// Take makes epoch the only one whose batches pass the guard. Its update waits
// for the row's lock, that is for the end of a transaction of an earlier
// epoch whose outcome nobody knows (S3), and commits synchronously (S5).
func (s *Shard) Take(ctx context.Context, group sluice.GroupID, owner string, epoch uint64) (store.Cursor, error) {
	db, err := s.ready()
	if err != nil {
		return store.Cursor{}, err
	}
	if owner == store.OwnerName {
		s.forgetPark(group)
	}
	cur, err := s.take(ctx, db, &store.Cursor{Group: group, Owner: owner, Epoch: epoch})
	if err != nil {
		if errors.Is(err, store.ErrFenced) {
			return cur, err
		}
		return cur, s.outcome("take group "+db.groupName(group), err)
	}
	if owner == store.OwnerName {
		if _, err := s.park(ctx, db, group); err != nil {
			return cur, s.outcome("read the parked entries", err)
		}
	}
	return cur, nil
}

func (s *Shard) take(ctx context.Context, db *database, want *store.Cursor) (store.Cursor, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return store.Cursor{}, err
	}
	defer conn.Release()
	dbtx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
	if err != nil {
		return store.Cursor{}, err
	}
	defer dbtx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
	if _, err := dbtx.Exec(ctx, s.settings(true, takeLockTimeMax.Milliseconds())); err != nil {
		return store.Cursor{}, err
	}
	made, err := dbtx.Exec(ctx, "INSERT INTO "+db.schema+".sluice_cursor (group_id, owner, name, epoch) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		int64(want.Group), want.Owner, db.groupName(want.Group), int64(want.Epoch))
	if err != nil {
		return store.Cursor{}, err
	}
	cur, err := scanCursor(dbtx.QueryRow(ctx, "UPDATE "+db.schema+".sluice_cursor SET epoch = $3, name = $4, at = clock_timestamp() WHERE group_id = $1 AND owner = $2 AND epoch <= $3 RETURNING "+cursorColumns,
		int64(want.Group), want.Owner, int64(want.Epoch), db.groupName(want.Group)))
	if errors.Is(err, pgx.ErrNoRows) {
		cur, err = scanCursor(dbtx.QueryRow(ctx, "SELECT "+cursorColumns+" FROM "+db.schema+".sluice_cursor WHERE group_id = $1 AND owner = $2", int64(want.Group), want.Owner))
		if err != nil {
			return cur, err
		}
		return cur, fmt.Errorf("%s: group %s is owned by epoch %d, above %d: %w", s.where(), db.groupName(want.Group), cur.Epoch, want.Epoch, store.ErrFenced)
	}
	if err != nil {
		return cur, err
	}
	cur.Found = made.RowsAffected() == 0
	return cur, dbtx.Commit(ctx)
}

// Confirm writes the cursor row as it is. It must write: a synchronous commit
// that wrote nothing flushes nothing (S5).
func (s *Shard) Confirm(ctx context.Context, cur store.Cursor) error {
	db, err := s.ready()
	if err != nil {
		return err
	}
	x, err := s.begin(ctx, db.texts.durable)
	if err != nil {
		return err
	}
	defer x.end(ctx)
	err = x.guard(ctx, db, &cur, &cur)
	if err == nil {
		_, err = x.commit(ctx)
	}
	if err != nil {
		return s.outcome(fmt.Sprintf("confirm group %s at commit %d", db.groupName(cur.Group), cur.Commit), err)
	}
	return nil
}

// Cursors reads all cursor rows in one statement, so of one snapshot.
func (s *Shard) Cursors(ctx context.Context) ([]store.Cursor, error) {
	db, err := s.ready()
	if err != nil {
		// Asked before Ensure, as `journal adopt` does: a database that has no
		// tables of Sluice's has no cursors.
		if db, err = s.inspect(ctx); err != nil {
			return nil, s.outcome("check the database", err)
		}
		var made bool
		if err := s.pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", db.schema+".sluice_cursor").Scan(&made); err != nil || !made {
			return nil, s.outcome("look for the cursors", err)
		}
	}
	rows, err := s.pool.Query(ctx, "SELECT "+cursorColumns+" FROM "+db.schema+".sluice_cursor ORDER BY group_id, owner")
	if err != nil {
		return nil, s.outcome("read the cursors", err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (store.Cursor, error) { return scanCursor(r) })
	if err != nil {
		return nil, s.outcome("read the cursors", err)
	}
	return out, nil
}

func (db *database) groupName(id sluice.GroupID) string {
	if t := db.targets[id]; t != nil {
		return t.group.FullName()
	}
	return fmt.Sprint(id)
}
