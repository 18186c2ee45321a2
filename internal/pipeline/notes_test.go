package pipeline_test

import (
	"context"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
)

// While every write is refused no commit comes for the counts to ride in: they
// get one of their own.
func TestR2_CountsDoNotWaitForAWrite(t *testing.T) {
	r := newRig(t)
	r.gate.RefuseAll(&admit.Refusal{Reason: sluice.JournalFull, Detail: "full", RetryAfter: time.Second})
	for range 3 {
		if _, err := r.write(nil, like(1, 1), like(2, 1)); sluice.CodeOf(err) != sluice.Overloaded {
			t.Fatalf("got %v", err)
		}
	}
	r.acceptor.CommitNotes()
	r.acceptor.CommitNotes()
	if err := r.acceptor.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if head := r.journal.Head().Number; head != 1 || !r.acceptor.Idle() {
		t.Errorf("the journal ends at %d, idle %t", head, r.acceptor.Idle())
	}
	// Nothing waits any more: no commit is made.
	if err := r.acceptor.Finish(); err != nil {
		t.Fatal(err)
	}
	r.acceptor.CommitNotes()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 5 {
		if err := r.acceptor.Step(ctx); err == nil {
			t.Log("a token was left over")
		}
	}
	if head := r.journal.Head().Number; head != 1 {
		t.Errorf("a commit of nothing: the journal ends at %d", head)
	}
	for range 2 {
		for _, row := range r.ledger.Rows(r.schema, r.journal, r.drains) {
			if row.Group == "metrics" && (row.Refused["journal_full"] != 6 || row.Offered != 6) {
				t.Errorf("the ledger says %+v", row)
			}
		}
		r.restart() // a kill
	}
	r.gate.RefuseAll(nil)
	if ack := r.mustWrite(like(1, 1)); ack.Commit != 2 {
		t.Errorf("the next write is in commit %d", ack.Commit)
	}
	r.drain()
	r.balance()
}
