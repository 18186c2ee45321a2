package postgres

import (
	"context"
	"time"

	"sluice.dev/sluice"
)

// listenEvery is how often Listen looks whether somebody waits. It reads one
// row of a sequence.
const listenEvery = 50 * time.Millisecond

// Listen calls fn with the groups that somebody waits for with sluice_wait, so
// that they are flushed at once. It returns when ctx ends or the database
// cannot be asked.
//
// It looks instead of being told: a NOTIFY would be delivered only when the
// waiting transaction ends, and behind a pooler LISTEN hears nothing.
func (s *Shard) Listen(ctx context.Context, fn func([]sluice.GroupID)) error {
	ticker := time.NewTicker(listenEvery)
	defer ticker.Stop()
	var seen int64
	for {
		db, err := s.ready()
		if err == nil && db.flush {
			var groups []sluice.GroupID
			if groups, seen, err = s.waiting(ctx, db, seen); err == nil && len(groups) > 0 {
				fn(groups)
			}
		}
		if err != nil {
			return s.outcome("look for waiters", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// waiting gives the groups that somebody waits for, if the sequence has moved
// since it was seen.
func (s *Shard) waiting(ctx context.Context, db *database, seen int64) ([]sluice.GroupID, int64, error) {
	var moved int64
	if err := s.pool.QueryRow(ctx, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM "+db.schema+".sluice_flush").Scan(&moved); err != nil || moved == seen {
		return nil, seen, err
	}
	var groups []sluice.GroupID
	rows, err := s.pool.Query(ctx, "SELECT DISTINCT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"+
		" AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = $1::regclass::oid", db.schema+".sluice_cursor")
	if err != nil {
		return nil, seen, err
	}
	defer rows.Close()
	for rows.Next() {
		var group int64
		if err := rows.Scan(&group); err != nil {
			return nil, seen, err
		}
		groups = append(groups, sluice.GroupID(group))
	}
	return groups, moved, rows.Err()
}
