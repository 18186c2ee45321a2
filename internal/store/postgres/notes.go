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

// notes is what a transaction writes beside the rows: parked entries that come
// and go, rejects, and rejects that a replay resolved.
type notes struct {
	parked     []sluice.Entry
	parkedKeys []store.ParkedKey
	rejects    []sluice.Reject
	replayed   []sluice.Entry
	gone       []parkedRow // parked rows that leave
	left       []store.ParkedKey
	stayed     []int64 // parked rows that were tried in vain
}

func (n *notes) parkEntries(entries []sluice.Entry, group sluice.GroupID) {
	for i := range entries {
		n.parked = append(n.parked, entries[i])
		n.parkedKeys = append(n.parkedKeys, parkedKeyOf(group, &entries[i]))
	}
}

func parkedKeyOf(group sluice.GroupID, e *sluice.Entry) store.ParkedKey {
	return store.ParkedKey{KeyHash: sluice.KeyHash(group, e.Key), Partition: e.Partition(), Commit: e.Commit, Ordinal: e.Ordinal, Writes: e.Writes}
}

// applied notes which rejects the applied entries resolve.
func (n *notes) applied(entries []sluice.Entry) {
	for i := range entries {
		if entries[i].Replay != 0 {
			n.replayed = append(n.replayed, entries[i])
		}
	}
}

// Fields of the arrays in which notes travel.
var (
	intField   = field{kind: sluice.Int64, wire: oidInt8}
	smallField = field{kind: sluice.Int64, wire: oidInt2}
	bytesField = field{kind: sluice.Bytes, wire: oidBytea}
	textField  = field{kind: sluice.Text, wire: oidText}

	parkedFields = []*field{&smallField, &intField, &bytesField, &intField, &intField, &intField, &bytesField}
	rejectFields = []*field{&smallField, &intField, &bytesField, &intField, &intField, &intField, &bytesField, &textField, &textField}
	idFields     = []*field{&intField, &intField}
	seqFields    = []*field{&intField}
)

// texts are the statements on Sluice's own tables.
type texts struct {
	settings, durable                                         *statement // of a transaction: as the store says, and synchronous
	guard, park, reject, replayed, unpark, tried, rejectsOpen *statement
}

func makeTexts(s *Shard, schema string) texts {
	named := func(format string, args ...any) *statement {
		return &statement{sql: fmt.Sprintf(format, args...), name: s.newName()}
	}
	plain := func(format string, args ...any) *statement { return &statement{sql: fmt.Sprintf(format, args...)} }
	return texts{
		// By name: parsing and planning them took a tenth of a small batch.
		settings: named("%s", s.settings(s.opt.Store.SynchronousCommit, s.lockTimeoutMS())),
		durable:  named("%s", s.settings(true, s.lockTimeoutMS())),
		guard:    named("SELECT %s.sluice_guard($1::integer, $2::text, $3::bigint, $4::bigint, $5::bytea, $6::bigint, $7::bigint, $8::bytea)", schema),
		park: plain("INSERT INTO %s.sluice_parked (group_id, partition, key_hash, key, commit, ordinal, writes, entry) SELECT $1::integer, s.* FROM unnest($2::smallint[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[]) AS s",
			schema),
		// A replay that is refused again renews its reject.
		reject: plain("INSERT INTO %s.sluice_rejects AS r (group_id, partition, key_hash, key, commit, ordinal, writes, entry, sqlstate, reason) SELECT $1::integer, s.* FROM unnest($2::smallint[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[], $9::text[], $10::text[]) AS s"+
			" ON CONFLICT (group_id, commit, ordinal) DO UPDATE SET sqlstate = excluded.sqlstate, reason = excluded.reason, at = excluded.at WHERE r.state = 'open'", schema),
		replayed:    plain("UPDATE %s.sluice_rejects AS r SET state = 'replayed', at = clock_timestamp() FROM unnest($2::bigint[], $3::bigint[]) AS s(c, o) WHERE r.group_id = $1::integer AND r.commit = s.c AND r.ordinal = s.o", schema),
		unpark:      plain("DELETE FROM %s.sluice_parked WHERE group_id = $1::integer AND seq = ANY($2::bigint[])", schema),
		tried:       plain("UPDATE %s.sluice_parked SET tried = clock_timestamp() WHERE group_id = $1::integer AND seq = ANY($2::bigint[])", schema),
		rejectsOpen: plain("SELECT partition::bigint, count(*) FROM %s.sluice_rejects WHERE group_id = $1::integer AND state = 'open' GROUP BY partition", schema),
	}
}

// write queues what was noted.
func (n *notes) write(x *tx, db *database) error {
	if len(n.gone) > 0 {
		seqs := make([]int64, len(n.gone))
		for i := range n.gone {
			seqs[i] = n.gone[i].seq
		}
		x.add("notes", db.texts.unpark, be32(uint32(n.gone[0].entry.Group)), int8Array(seqs))
	}
	if len(n.parked) > 0 {
		a := newArrays(parkedFields, len(n.parked))
		for i := range n.parked {
			e := &n.parked[i]
			a.note(e, e.Commit, e.Ordinal)
			a.n++
		}
		x.add("notes", db.texts.park, append([][]byte{be32(uint32(n.parked[0].Group))}, a.params()...)...)
	}
	if len(n.rejects) > 0 {
		a := newArrays(rejectFields, len(n.rejects))
		seen := map[string]bool{}
		for i := range slices.Backward(n.rejects) {
			r := &n.rejects[i]
			if seen[r.ID] { // two replays of one reject; one statement may touch a row once
				continue
			}
			seen[r.ID] = true
			e, err := journal.DecodeEntry(r.Entry)
			if err != nil {
				return err
			}
			a.note(&e, r.Commit, r.Ordinal)
			a.must(&textField, sluice.TextValue(r.SQLState))
			a.must(&textField, sluice.TextValue(r.Reason))
			a.n++
		}
		x.add("notes", db.texts.reject, append([][]byte{be32(uint32(n.rejects[0].GroupID))}, a.params()...)...)
	}
	if len(n.replayed) > 0 {
		a := newArrays(idFields, len(n.replayed))
		for i := range n.replayed {
			commit, ordinal := store.RejectOf(n.replayed[i].Replay)
			a.must(&intField, sluice.IntValue(int64(commit)))
			a.must(&intField, sluice.IntValue(int64(ordinal)))
			a.n++
		}
		x.add("notes", db.texts.replayed, append([][]byte{be32(uint32(n.replayed[0].Group))}, a.params()...)...)
	}
	return nil
}

// note appends what parked entries and rejects have in common.
func (a *arrays) note(e *sluice.Entry, commit uint64, ordinal uint32) {
	a.must(&smallField, sluice.IntValue(int64(e.Partition())))
	a.must(&intField, sluice.IntValue(int64(sluice.KeyHash(e.Group, e.Key))))
	a.must(&bytesField, sluice.Value{Kind: sluice.Bytes, Bytes: e.Key})
	a.must(&intField, sluice.IntValue(int64(commit)))
	a.must(&intField, sluice.IntValue(int64(ordinal)))
	a.must(&intField, sluice.IntValue(int64(e.Writes)))
	a.must(&bytesField, sluice.Value{Kind: sluice.Bytes, Bytes: journal.AppendEntry(nil, e)})
}

// must appends a value of a kind that always has a form.
func (a *arrays) must(f *field, v sluice.Value) { _ = a.value(f, v) }

func int8Array(values []int64) []byte {
	a := newArrays(seqFields, len(values))
	for _, v := range values {
		a.must(&intField, sluice.IntValue(v))
		a.n++
	}
	return a.params()[0]
}

// limitRejects stops the stream where more rejects would only hide that
// something is wrong with the table (S10). The rejects of this transaction are
// queued or written already.
func (a *applier) limitRejects(ctx context.Context) error {
	if len(a.notes.rejects) == 0 {
		return nil
	}
	st, g := a.s.opt.Store, a.t.group
	if store.MassRejects(len(a.notes.rejects), a.good+len(a.notes.parked), st.RejectsMax) {
		return a.massRejects(len(a.notes.rejects), a.notes.rejects[0].SQLState+": "+a.notes.rejects[0].Reason)
	}
	a.x.add("notes", a.db.texts.rejectsOpen, be32(uint32(g.ID)))
	results, err := a.x.send(ctx)
	if err != nil {
		return err
	}
	touched := map[uint8]bool{}
	for i := range a.notes.rejects {
		touched[a.notes.rejects[i].Partition] = true
	}
	for _, row := range results[len(results)-1].Rows {
		p, n := uint8(binary.BigEndian.Uint64(row[0])), binary.BigEndian.Uint64(row[1])
		if touched[p] && st.RejectsMax > 0 && n > uint64(st.RejectsMax) {
			return &store.StopError{Reason: "too_many_rejects", Detail: fmt.Sprintf("%s: group %s, partition %d would have %d open rejects, the limit rejects_max is %d; look at `sluice rejects ls`, replay or discard them, then `sluice resume --store %s`",
				a.s.where(), g.FullName(), p, n, st.RejectsMax, st.Name)}
		}
	}
	return nil
}

func (a *applier) massRejects(n int, first string) error {
	return &store.StopError{Reason: "mass_rejects", Detail: fmt.Sprintf("%s: table %s refused all %d rows of a batch, first with %s; correct the table, or raise rejects_max of store %s to let them become rejects, then `sluice resume --store %s`",
		a.s.where(), a.t.table, n, first, a.s.opt.Store.Name, a.s.opt.Store.Name)}
}
