package pipeline_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
)

// Two requests in one commit: the reject of one is none of the other.
func TestR1_AReceiptAnswersForItsOwnKeysOnly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for _, db := range r.dbs {
			db.SetHooks(mem.Hooks{Refuse: func(g *schema.Group, _ []byte, row []sluice.Value) *store.Refusal {
				if string(row[g.Column([]byte("title")).Index].Bytes) == "bad" {
					return &store.Refusal{SQLState: "23514", Reason: "title is bad"}
				}
				return nil
			}})
		}
		one, cancelOne := r.submitting(r.chunk(nil, `{"table":"mapped","key":1,"set":{"title":"bad"}}`))
		defer cancelOne()
		two, cancelTwo := r.submitting(r.chunk(nil, `{"table":"mapped","key":2,"set":{"title":"good"}}`))
		defer cancelTwo()
		r.mustStep()
		bad, good := <-one, <-two
		if err := errors.Join(bad.err, good.err); err != nil || bad.ack.Commit != good.ack.Commit {
			t.Fatalf("%+v %+v", bad, good)
		}
		for range 2 {
			r.drain()
			if was, is := r.state(bad.ack.Receipt), r.state(good.ack.Receipt); was != sluice.StateRejected || is != sluice.StateApplied {
				t.Errorf("receipts of one commit: %s for the bad one, %s for the good one", was, is)
			}
			r.restart()
		}
	})
}

// A dead store shows in the receipts of those who wrote for it, and in no other.
func TestR1_AReceiptWaitsForItsOwnStreamsOnly(t *testing.T) {
	r := newRig(t)
	r.dbs["z"].SetHooks(mem.Hooks{BeforeCommit: func(*store.Batch) error { return errors.New("down") }})
	both := r.mustWrite(`{"table":"posts","key":1,"set":{"content":"x"},"add":{"likes":1}}`)
	one := r.mustWrite(like(1, 1))
	r.drain()
	if got := r.state(one.Receipt); got != sluice.StateApplied {
		t.Errorf("receipt of a write to a store that works: %s", got)
	}
	if got := r.state(both.Receipt); got != sluice.StateQueued {
		t.Errorf("receipt of a write to both stores: %s", got)
	}
}

// A receipt of more keys than it names answers for whole streams.
func TestR1_AReceiptOfManyKeysStaysSmall(t *testing.T) {
	r := newRig(t)
	var lines []string
	for id := range 500 {
		lines = append(lines, like(int64(id), 1))
	}
	ack := r.mustWrite(lines...)
	if len(ack.Receipt) > 200 {
		t.Errorf("%d characters", len(ack.Receipt))
	}
	rec := r.parse(ack.Receipt)
	if len(rec.Keys) != 0 || len(rec.Groups) != 1 || rec.Groups[0].Partitions.Len() < 100 {
		t.Errorf("%d keys, %+v", len(rec.Keys), rec.Groups)
	}
	few := r.parse(r.mustWrite(lines[:sluice.ReceiptKeysMax]...).Receipt)
	if len(few.Keys) != sluice.ReceiptKeysMax {
		t.Errorf("of %d keys it names %d", sluice.ReceiptKeysMax, len(few.Keys))
	}
	if _, err := sluice.ParseReceipt(strings.Repeat("A", 30)); sluice.CodeOf(err) != sluice.Invalid {
		t.Errorf("what is no receipt: %v", err)
	}
	other := newRig(t)
	if _, err := other.reader.Receipt(t.Context(), rec, 0); sluice.CodeOf(err) != sluice.NotFound {
		t.Errorf("a receipt of another journal: %v", err)
	}
}

// A read shows what the database has, never what waits, and says how old it is.
func TestS13_AReadSaysHowOldItIs(t *testing.T) {
	r := newRig(t)
	r.mustWrite(like(1, 1))
	r.drain()
	if row := r.row("posts", 1); row.StaleBy != 0 || string(row.Columns["likes"]) != "1" {
		t.Errorf("when all is applied: %+v", row)
	}
	wrote := r.now
	r.mustWrite(like(1, 10))
	r.now = r.now.Add(3 * time.Second)
	if row := r.row("posts", 1); row.StaleBy != r.now.Sub(wrote) || string(row.Columns["likes"]) != "1" {
		t.Errorf("3 s after a write that waits: stale by %s, %+v", row.StaleBy, row)
	}
	rec := r.parse(r.mustWrite(like(1, 100)).Receipt)
	key, err := r.schema.Tables["posts"].KeyFromText(nil, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.reader.Read(t.Context(), sluice.ReadQuery{Table: "posts", Keys: [][]byte{key}, After: rec}); sluice.CodeOf(err) != sluice.Unavailable {
		t.Errorf("a read after a write that waits: %v", err)
	}
	r.drain()
	if row := r.row("posts", 1); row.StaleBy != 0 || string(row.Columns["likes"]) != "111" {
		t.Errorf("when all is applied: %+v", row)
	}
}
