package sqlite

import (
	"database/sql/driver"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/store"
)

// Park implements store.RowTx.
func (t *tx) Park(e *sluice.Entry) error {
	g := t.l.group.ID
	_, err := t.w.exec("INSERT INTO sluice_parked (group_id, commit_id, ordinal, partition, key_hash, key, writes, since, entry) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		int64(g), int64(e.Commit), int64(e.Ordinal), int64(e.Partition()), int64(sluice.KeyHash(g, e.Key)), e.Key, int64(e.Writes),
		t.now.UTC().Format(timestampForm), journal.AppendEntry(nil, e))
	return err
}

// Unpark implements store.RowTx.
func (t *tx) Unpark(e *sluice.Entry) error {
	_, err := t.w.exec("DELETE FROM sluice_parked WHERE group_id = ? AND commit_id = ? AND ordinal = ?", int64(t.l.group.ID), int64(e.Commit), int64(e.Ordinal))
	return err
}

// Reject implements store.RowTx.
func (t *tx) Reject(e *sluice.Entry, r *sluice.Reject) error {
	r.Store, r.Shard, r.At = t.s.o.Store.Name, t.s.o.Shard.Name, t.now
	r.Entry = journal.AppendEntry(nil, e)
	_, err := t.w.exec(`INSERT INTO sluice_rejects (group_id, commit_id, ordinal, partition, key_hash, table_name, group_name, key, change, sqlstate, reason, state, at, writes, entry)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (group_id, commit_id, ordinal) DO UPDATE SET sqlstate = excluded.sqlstate, reason = excluded.reason, state = excluded.state, at = excluded.at`,
		int64(r.GroupID), int64(r.Commit), int64(r.Ordinal), int64(r.Partition), int64(r.KeyHash), r.Table, r.Group, string(r.Key), string(r.Change),
		r.SQLState, r.Reason, r.State, r.At.UTC().Format(timestampForm), int64(r.Writes), r.Entry)
	return err
}

// Replayed implements store.RowTx.
func (t *tx) Replayed(commit uint64, ordinal uint32) error {
	_, err := t.w.exec("UPDATE sluice_rejects SET state = 'replayed' WHERE group_id = ? AND commit_id = ? AND ordinal = ?", int64(t.l.group.ID), int64(commit), int64(ordinal))
	return err
}

// Waiting implements store.RowTx.
func (t *tx) Waiting(partition uint8) (rejects, parked int, err error) {
	g, p := int64(t.l.group.ID), int64(partition)
	row, err := t.w.row(`SELECT (SELECT count(*) FROM sluice_rejects WHERE group_id = ? AND partition = ? AND state = 'open'),
		(SELECT count(*) FROM sluice_parked WHERE group_id = ? AND partition = ?)`, g, p, g, p)
	if err != nil {
		return 0, 0, err
	}
	return int(integer(row[0])), int(integer(row[1])), nil
}

// parkedKeys gives the keys of the group that have parked entries.
func (t *tx) parkedKeys() (map[string]bool, error) {
	keys, err := t.w.texts("SELECT DISTINCT key FROM sluice_parked WHERE group_id = ?", int64(t.l.group.ID))
	if len(keys) == 0 {
		return nil, err
	}
	out := map[string]bool{}
	for _, k := range keys {
		out[k] = true
	}
	return out, err
}

// parkedByKey gives the entries of the max keys that wait longest, in order.
func (t *tx) parkedByKey(max int) (out [][]store.ParkedEntry, err error) {
	g := int64(t.l.group.ID)
	keys, err := t.w.texts("SELECT key FROM sluice_parked WHERE group_id = ? GROUP BY key ORDER BY min(commit_id * 16777216 + ordinal) LIMIT ?", g, int64(max))
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		var entries []store.ParkedEntry
		err := t.w.each("SELECT entry, +since FROM sluice_parked WHERE group_id = ? AND key = ? ORDER BY commit_id, ordinal", []driver.Value{g, []byte(k)}, func(row []driver.Value) error {
			data, _ := row[0].([]byte)
			e, err := journal.DecodeEntry(data)
			if err != nil {
				return err
			}
			since, err := time.Parse(timestampForm, text(row[1]))
			entries = append(entries, store.ParkedEntry{Entry: e, Since: since})
			return err
		})
		if err != nil {
			return nil, err
		}
		out = append(out, entries)
	}
	return out, nil
}
