package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// Read implements store.Shard.
func (s *Shard) Read(ctx context.Context, g *schema.Group, keys [][]byte) (rows []store.Row, cur store.Cursor, err error) {
	if g.Events {
		return nil, cur, sluice.Errorf(sluice.Invalid, "events", "%s is a group of events, which are not read by key; ask the database: table %s", g.FullName(), g.Physical)
	}
	err = s.read(ctx, func(r *conn) error {
		if cur, err = ownerCursor(r, g.ID); err != nil {
			return err
		}
		query := s.selectRow(g)
		var vals []sluice.Value
		var args []driver.Value
		for _, k := range keys {
			if err := ctx.Err(); err != nil {
				return err
			}
			if vals, err = g.Table.DecodeKey(k, vals[:0]); err != nil {
				return err
			}
			args = args[:0]
			for _, v := range vals {
				args = append(args, encode(v))
			}
			have, err := r.row(query, args...)
			if err != nil {
				return err
			}
			row, err := rowOf(g, have)
			if err != nil {
				return fmt.Errorf("table %s: %w", g.Physical, err)
			}
			rows = append(rows, row)
		}
		return nil
	})
	return rows, cur, err
}

// selectRow is the query for one row. With the + a column is an expression,
// which the driver hands over as it is; a column declared timestamp it would parse
// into something else.
func (s *Shard) selectRow(g *schema.Group) string {
	s.mu.Lock()
	l := s.layouts[g.ID]
	s.mu.Unlock()
	if l == nil || l.group != g {
		l = newLayout(g, &facts{}) // not written to yet; what it needs for reading is in the group
	}
	return l.query
}

func rowOf(g *schema.Group, have []driver.Value) (row store.Row, err error) {
	if have == nil {
		return row, nil
	}
	row = store.Row{Found: true, Values: make([]sluice.Value, len(g.Columns))}
	for i, c := range g.Live() {
		t := c.Type
		if c.Merge == schema.Unique {
			t = schema.Type{Kind: sluice.Int64}
		}
		if row.Values[c.Index], err = decode(t, have[1+i]); err != nil {
			return row, fmt.Errorf("column %s: %w", c.Physical, err)
		}
	}
	return row, nil
}

// Rejects implements store.Shard.
func (s *Shard) Rejects(ctx context.Context, q store.RejectQuery) (out []sluice.Reject, err error) {
	where, args := []string{"true"}, []driver.Value{}
	add := func(cond string, v driver.Value) {
		where, args = append(where, cond), append(args, v)
	}
	if q.Group != nil {
		add("group_id = ?", int64(*q.Group))
	}
	if q.Commit != 0 {
		add("commit_id = ?", int64(q.Commit))
	}
	if q.KeyHash != 0 {
		add("key_hash = ?", int64(q.KeyHash))
	}
	if q.State != "" {
		add("state = ?", q.State)
	}
	query := "SELECT group_id, commit_id, ordinal, partition, key_hash, table_name, group_name, key, change, sqlstate, reason, state, +at, writes, entry FROM sluice_rejects WHERE " +
		strings.Join(where, " AND ") + " ORDER BY commit_id DESC, ordinal DESC, group_id DESC LIMIT ?"
	err = s.read(ctx, func(r *conn) error {
		return r.each(query, append(args, int64(q.Max)), func(row []driver.Value) error {
			at, err := time.Parse(timestampForm, text(row[12]))
			x := sluice.Reject{
				GroupID: sluice.GroupID(integer(row[0])), Commit: uint64(integer(row[1])), Ordinal: uint32(integer(row[2])),
				Partition: uint8(integer(row[3])), KeyHash: uint64(integer(row[4])), Table: text(row[5]), Group: text(row[6]),
				Key: []byte(text(row[7])), Change: []byte(text(row[8])), SQLState: text(row[9]), Reason: text(row[10]), State: text(row[11]),
				At: at, Writes: uint32(integer(row[13])), Store: s.o.Store.Name, Shard: s.o.Shard.Name,
			}
			x.Entry, _ = row[14].([]byte)
			x.ID = store.RejectID(x.Commit, x.Ordinal)
			out = append(out, x)
			return err
		})
	})
	return out, err
}

// SetRejectState implements store.Shard.
func (s *Shard) SetRejectState(ctx context.Context, group sluice.GroupID, commit uint64, ordinal uint32, state string) error {
	return s.write(ctx, true, func(w *conn) error {
		key := []driver.Value{int64(group), int64(commit), int64(ordinal)}
		have, err := w.texts("SELECT state FROM sluice_rejects WHERE group_id = ? AND commit_id = ? AND ordinal = ?", key...)
		id := store.RejectID(commit, ordinal)
		switch {
		case err != nil:
			return err
		case len(have) == 0:
			return sluice.Errorf(sluice.NotFound, "no_reject", "there is no reject %s on %s; `sluice rejects ls` lists them", id, s.where())
		case have[0] != "open":
			return sluice.Errorf(sluice.Conflict, "not_open", "reject %s is %s already; only open ones can be decided", id, have[0])
		}
		_, err = w.exec("UPDATE sluice_rejects SET state = ? WHERE group_id = ? AND commit_id = ? AND ordinal = ?", append([]driver.Value{state}, key...)...)
		return err
	})
}

// Counts implements store.Shard.
func (s *Shard) Counts(ctx context.Context, group sluice.GroupID) (store.Counts, error) {
	c := store.Counts{Rejected: map[uint8]uint64{}, Parked: map[uint8]uint64{}}
	err := s.read(ctx, func(r *conn) error {
		for query, into := range map[string]map[uint8]uint64{
			"SELECT partition, sum(writes) FROM sluice_rejects WHERE group_id = ? AND state IN ('open', 'discarded') GROUP BY partition": c.Rejected,
			"SELECT partition, sum(writes) FROM sluice_parked WHERE group_id = ? GROUP BY partition":                                     c.Parked,
		} {
			if err := r.each(query, []driver.Value{int64(group)}, func(row []driver.Value) error {
				into[uint8(integer(row[0]))] = uint64(integer(row[1]))
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return c, err
}

// ParkedKeys implements store.Shard.
func (s *Shard) ParkedKeys(ctx context.Context, group sluice.GroupID) (out []store.ParkedKey, err error) {
	err = s.read(ctx, func(r *conn) error {
		return r.each("SELECT key_hash, partition, commit_id, ordinal, writes FROM sluice_parked WHERE group_id = ? ORDER BY commit_id, ordinal", []driver.Value{int64(group)}, func(row []driver.Value) error {
			out = append(out, store.ParkedKey{KeyHash: uint64(integer(row[0])), Partition: uint8(integer(row[1])),
				Commit: uint64(integer(row[2])), Ordinal: uint32(integer(row[3])), Writes: uint32(integer(row[4]))})
			return nil
		})
	})
	return out, err
}
