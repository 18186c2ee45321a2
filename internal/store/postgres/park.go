package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/store"
)

// park is which keys of a group wait in the shard (S8), as the database has it
// since the last Take. It follows the database only after a COMMIT that
// succeeded; after any error it is forgotten and read again.
type park struct {
	keys       map[string]int // key -> parked entries
	partitions [sluice.Partitions]int
}

// parkedRow is one row of sluice_parked.
type parkedRow struct {
	seq    int64
	entry  sluice.Entry
	waited bool // for fk_wait or longer
}

func (s *Shard) forgetPark(group sluice.GroupID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.parks, group)
}

// park gives the parked keys of a group, from memory when they are there. Read
// before the guard they may be another epoch's, but then the guard raises.
func (s *Shard) park(ctx context.Context, db *database, group sluice.GroupID) (*park, error) {
	s.mu.Lock()
	p := s.parks[group]
	s.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p = &park{keys: map[string]int{}}
	rows, err := s.pool.Query(ctx, "SELECT key, partition, count(*) FROM "+db.schema+".sluice_parked WHERE group_id = $1 GROUP BY key, partition", int64(group))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var key []byte
		var partition, n int
		if err := rows.Scan(&key, &partition, &n); err != nil {
			return nil, err
		}
		p.keys[string(key)] = n
		p.partitions[uint8(partition)] += n
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.parks[group] = p
	s.mu.Unlock()
	return p, nil
}

// keep brings in what a committed transaction did.
func (p *park) keep(n *notes) {
	for i := range n.parked {
		p.keys[string(n.parked[i].Key)]++
		p.partitions[n.parked[i].Partition()]++
	}
	for i := range n.gone {
		e := &n.gone[i].entry
		if p.keys[string(e.Key)]--; p.keys[string(e.Key)] <= 0 {
			delete(p.keys, string(e.Key))
		}
		p.partitions[e.Partition()]--
	}
}

// limitParked stops the stream at parked_max.
func (a *applier) limitParked() error {
	limit := a.s.opt.Store.ParkedMax
	if limit <= 0 {
		return nil
	}
	var more [sluice.Partitions]int
	for i := range a.notes.parked {
		p := a.notes.parked[i].Partition()
		if more[p]++; a.park.partitions[p]+more[p] > limit {
			return &store.StopError{Reason: store.ReasonParkedMax, Partition: p, Detail: fmt.Sprintf("%s: group %s, partition %d would have more than %d parked entries (parked_max); end the transaction that locks rows of %s (pg_stat_activity, pg_locks) or bring the missing parent rows, then `sluice resume --store %s`",
				a.s.where(), a.t.group.FullName(), p, limit, a.t.table, a.s.opt.Store.Name)}
		}
	}
	return nil
}

// Unpark tries parked entries again in a guarded transaction that leaves the
// cursor as it is.
func (s *Shard) Unpark(ctx context.Context, b *store.Batch, max int) (store.Result, error) {
	same := *b
	same.Next, same.Entries, same.Unfold = b.Prev, nil, nil
	a, err := s.applier(ctx, &same)
	if err != nil {
		return store.Result{}, err
	}
	if err = a.unpark(ctx, max); err != nil {
		s.forgetPark(b.Group.ID)
		return store.Result{}, s.outcome("unpark entries of group "+a.t.group.FullName(), err)
	}
	a.park.keep(&a.notes)
	return a.res, nil
}

func (a *applier) unpark(ctx context.Context, max int) error {
	x, err := a.openCareful(ctx)
	if err != nil {
		return err
	}
	defer x.end(ctx)
	units, err := a.parkedUnits(ctx, max)
	if err != nil {
		return err
	}
	if err := a.judge(ctx, units); err != nil {
		return err
	}
	if len(a.notes.stayed) > 0 {
		x.add("notes", a.db.texts.tried, be32(uint32(a.t.group.ID)), int8Array(a.notes.stayed))
	}
	return a.closeCareful(ctx)
}

// parkedUnits reads the parked entries of at most max keys: those tried
// longest ago, so that keys that stay locked do not keep the others waiting.
// They come sorted by key, as rows are locked everywhere.
func (a *applier) parkedUnits(ctx context.Context, max int) ([]unit, error) {
	parked := a.db.schema + ".sluice_parked"
	wait := a.s.opt.Store.FKWait.Microseconds()
	a.x.add("parked", &statement{sql: "SELECT p.seq, p.entry, p.at <= clock_timestamp() - $3::bigint * interval '1 microsecond' FROM " + parked + " AS p" +
		" JOIN (SELECT key FROM " + parked + " WHERE group_id = $1::integer GROUP BY key ORDER BY min(tried), min(seq) LIMIT $2::bigint) AS k USING (key)" +
		" WHERE p.group_id = $1::integer ORDER BY p.key, p.seq"}, be32(uint32(a.t.group.ID)), be64(uint64(max)), be64(uint64(wait)))
	results, err := a.x.send(ctx)
	if err != nil {
		return nil, err
	}
	var units []unit
	for _, row := range results[len(results)-1].Rows {
		p := parkedRow{seq: int64(binary.BigEndian.Uint64(row[0])), waited: row[2][0] != 0}
		if p.entry, err = journal.DecodeEntry(row[1]); err != nil {
			return nil, &store.StopError{Reason: "corrupt", Detail: fmt.Sprintf("%s: row %d of sluice_parked: %v; restore it from a backup of this database", a.s.where(), p.seq, err)}
		}
		if n := len(units); n == 0 || string(units[n-1].entries[0].Key) != string(p.entry.Key) {
			units = append(units, unit{})
		}
		u := &units[len(units)-1]
		u.entries, u.rows = append(u.entries, p.entry), append(u.rows, p)
	}
	return units, nil
}

// ParkedKeys gives every parked entry of the group, in the order parked.
func (s *Shard) ParkedKeys(ctx context.Context, group sluice.GroupID) ([]store.ParkedKey, error) {
	db, err := s.ready()
	if err != nil {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, "SELECT key_hash, partition, commit, ordinal, writes FROM "+db.schema+".sluice_parked WHERE group_id = $1 ORDER BY seq", int64(group))
	if err != nil {
		return nil, s.outcome("read the parked entries", err)
	}
	defer rows.Close()
	var out []store.ParkedKey
	for rows.Next() {
		var hash, commit, ordinal, writes int64
		var partition int
		if err := rows.Scan(&hash, &partition, &commit, &ordinal, &writes); err != nil {
			return nil, s.outcome("read the parked entries", err)
		}
		out = append(out, store.ParkedKey{KeyHash: uint64(hash), Partition: uint8(partition), Commit: uint64(commit), Ordinal: uint32(ordinal), Writes: uint32(writes)})
	}
	if err := rows.Err(); err != nil {
		return nil, s.outcome("read the parked entries", err)
	}
	return slices.Clip(out), nil
}
