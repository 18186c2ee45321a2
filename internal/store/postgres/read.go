package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Read gives the rows of keys and the owner's cursor, of one snapshot (S13):
// a cursor read after its rows could claim commits that the rows do not show.
func (s *Shard) Read(ctx context.Context, g *schema.Group, keys [][]byte) ([]store.Row, store.Cursor, error) {
	cur := store.Cursor{Group: g.ID, Owner: store.OwnerName}
	db, t, err := s.target(g)
	if err != nil {
		return nil, cur, err
	}
	doing := "read group " + g.FullName()
	if g.Events {
		return nil, cur, sluice.Errorf(sluice.Invalid, "events", "%s: events are not read by key; ask the database with SQL", g.FullName())
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, cur, s.wrap("connect", err)
	}
	x := &tx{s: s, conn: conn}
	defer x.end(ctx)
	rows := make([]store.Row, len(keys))
	shown := t.shown()
	st := s.lookupStatement(t, "read", func() string { return t.lookup(t.resultExprs(shown), "") })
	if err := x.prepare(ctx, st); err != nil {
		return nil, cur, s.outcome(doing, err)
	}
	x.add("begin", &statement{sql: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"})
	x.add("cursor", &statement{sql: "SELECT epoch, commit, chain, exceptions, (extract(epoch FROM at) * 1000000)::bigint FROM " + db.schema + ".sluice_cursor WHERE group_id = $1::integer AND owner = 'owner'"}, be32(uint32(g.ID)))
	if len(keys) > 0 {
		w := &writer{x: x, t: t}
		w.entries = make([]sluice.Entry, len(keys))
		for i := range keys {
			w.entries[i].Key = keys[i]
		}
		params, err := w.keyArrays(all(len(keys)))
		if err != nil {
			return nil, cur, s.wrap(doing, err)
		}
		x.add("rows", st, params...)
	}
	x.add("end", &statement{sql: "COMMIT"}) // nothing was written: a lost answer is no unknown outcome
	results, err := x.send(ctx)
	if err != nil {
		return nil, cur, s.outcome(doing, err)
	}
	if err := readCursor(&cur, results[1].Rows); err != nil {
		return nil, cur, err
	}
	if len(keys) > 0 {
		err = t.readRows(rows, shown, results[2].Rows)
	}
	if err != nil {
		return nil, cur, s.wrap(doing, err)
	}
	return rows, cur, nil
}

// shown lists the columns that a read answers.
func (t *target) shown() []int {
	var out []int
	for i := range t.columns {
		if !t.columns[i].absent {
			out = append(out, i)
		}
	}
	return out
}

func (t *target) resultExprs(columns []int) []string {
	exprs := make([]string, len(columns))
	for i, c := range columns {
		f := &t.columns[c]
		exprs[i] = resultExpr(f.kind, f, "t."+f.name)
	}
	return exprs
}

func (t *target) readRows(rows []store.Row, columns []int, results [][][]byte) error {
	for _, r := range results {
		row := &rows[binary.BigEndian.Uint64(r[0])-1]
		row.Found, row.Values = true, make([]sluice.Value, len(t.columns))
		for i, c := range columns {
			v, err := parseValue(t.columns[c].kind, r[1+i])
			if err != nil {
				return fmt.Errorf("column %s: %w", t.columns[c].name, err)
			}
			row.Values[c] = v
		}
	}
	return nil
}

func readCursor(cur *store.Cursor, rows [][][]byte) (err error) {
	if len(rows) == 0 {
		return nil
	}
	r := rows[0]
	cur.Found = true
	cur.Epoch, cur.Commit, cur.Chain = binary.BigEndian.Uint64(r[0]), binary.BigEndian.Uint64(r[1]), binary.BigEndian.Uint64(r[2])
	cur.Except, err = unpackExceptions(r[3])
	cur.At = time.UnixMicro(int64(binary.BigEndian.Uint64(r[4])))
	return err
}

// Rejects answers the newest first.
func (s *Shard) Rejects(ctx context.Context, q store.RejectQuery) ([]sluice.Reject, error) {
	db, err := s.ready()
	if err != nil {
		return nil, err
	}
	where := []string{"true"}
	var args []any
	and := func(text string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(text, len(args)))
	}
	if q.Group != nil {
		and("group_id = $%d", int64(*q.Group))
	}
	if q.Commit != 0 {
		and("commit = $%d", int64(q.Commit))
	}
	if q.KeyHash != 0 {
		and("key_hash = $%d", int64(q.KeyHash))
	}
	if q.State != "" {
		and("state = $%d", q.State)
	}
	args = append(args, int64(max(q.Max, 0)))
	rows, err := s.pool.Query(ctx, "SELECT group_id, commit, ordinal, partition, key_hash, writes, sqlstate, reason, state, at, entry FROM "+db.schema+".sluice_rejects WHERE "+
		strings.Join(where, " AND ")+fmt.Sprintf(" ORDER BY commit DESC, ordinal DESC LIMIT $%d", len(args)), args...)
	if err != nil {
		return nil, s.outcome("read the rejects", err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (sluice.Reject, error) { return s.scanReject(db, r) })
	if err != nil {
		return nil, s.outcome("read the rejects", err)
	}
	return out, nil
}

func (s *Shard) scanReject(db *database, row pgx.Row) (sluice.Reject, error) {
	var r sluice.Reject
	var group, commit, ordinal, hash, writes int64
	var partition int
	if err := row.Scan(&group, &commit, &ordinal, &partition, &hash, &writes, &r.SQLState, &r.Reason, &r.State, &r.At, &r.Entry); err != nil {
		return r, err
	}
	r.GroupID, r.Commit, r.Ordinal, r.Partition = sluice.GroupID(group), uint64(commit), uint32(ordinal), uint8(partition)
	r.KeyHash, r.Writes, r.ID = uint64(hash), uint32(writes), store.RejectID(r.Commit, r.Ordinal)
	r.Store, r.Shard = s.opt.Store.Name, s.opt.Shard.Name
	t := db.targets[r.GroupID]
	if t == nil { // its group is not in the config any more
		return r, nil
	}
	e, err := journal.DecodeEntry(r.Entry)
	if err != nil {
		return r, fmt.Errorf("reject %s of sluice_rejects: %w", r.ID, err)
	}
	told := store.NewReject(t.group, &e, &store.Refusal{})
	r.Table, r.Group, r.Key, r.Change = told.Table, told.Group, told.Key, told.Change
	return r, nil
}

// SetRejectState moves an open reject on.
func (s *Shard) SetRejectState(ctx context.Context, group sluice.GroupID, commit uint64, ordinal uint32, state string) error {
	db, err := s.ready()
	if err != nil {
		return err
	}
	tag, err := s.pool.Exec(ctx, "UPDATE "+db.schema+".sluice_rejects SET state = $4, at = clock_timestamp() WHERE group_id = $1 AND commit = $2 AND ordinal = $3 AND state = 'open'",
		int64(group), int64(commit), int64(ordinal), state)
	if err != nil {
		return s.outcome("set the state of reject "+store.RejectID(commit, ordinal), err)
	}
	if tag.RowsAffected() == 0 {
		return sluice.Errorf(sluice.NotFound, "no_reject", "%s: group %s has no open reject %s; `sluice rejects ls` lists them", s.where(), db.groupName(group), store.RejectID(commit, ordinal))
	}
	return nil
}

// Counts counts writes, not entries, in one snapshot.
func (s *Shard) Counts(ctx context.Context, group sluice.GroupID) (store.Counts, error) {
	c := store.Counts{Rejected: map[uint8]uint64{}, Parked: map[uint8]uint64{}}
	db, err := s.ready()
	if err != nil {
		return c, err
	}
	rows, err := s.pool.Query(ctx, "SELECT false, partition, sum(writes)::bigint FROM "+db.schema+".sluice_rejects WHERE group_id = $1 AND state <> 'replayed' GROUP BY partition"+
		" UNION ALL SELECT true, partition, sum(writes)::bigint FROM "+db.schema+".sluice_parked WHERE group_id = $1 GROUP BY partition", int64(group))
	if err != nil {
		return c, s.outcome("count rejects", err)
	}
	defer rows.Close()
	for rows.Next() {
		var parked bool
		var partition int
		var writes int64
		if err := rows.Scan(&parked, &partition, &writes); err != nil {
			return c, s.outcome("count rejects", err)
		}
		if parked {
			c.Parked[uint8(partition)] = uint64(writes)
		} else {
			c.Rejected[uint8(partition)] = uint64(writes)
		}
	}
	return c, s.outcome("count rejects", rows.Err())
}
