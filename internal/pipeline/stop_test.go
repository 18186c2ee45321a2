package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/vfs"
)

// Every wait ends with its context, also when nothing else moves. In a bubble of
// synctest a goroutine that is left behind fails the test, and time passes only
// when all wait.
func bubble(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, newRig(t)) })
}

// answer is what a Submit came back with.
type answer struct {
	ack sluice.Ack
	err error
}

// submitting starts a Submit that waits, and gives its answer and what ends it.
func (r *rig) submitting(c *sluice.Chunk) (<-chan answer, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.t.Context())
	out := make(chan answer, 1)
	go func() {
		ack, err := r.acceptor.Submit(ctx, c)
		out <- answer{ack, err}
	}()
	synctest.Wait()
	return out, cancel
}

// reason is the reason of the error that a Submit answered.
func (a answer) reason() string {
	var e *sluice.Error
	if errors.As(a.err, &e) {
		return e.Reason
	}
	return fmt.Sprint(a.err)
}

func (r *rig) waits(out <-chan answer, what string) {
	r.t.Helper()
	synctest.Wait()
	select {
	case a := <-out:
		r.t.Fatalf("%s did not wait: %+v %v", what, a.ack, a.err)
	default:
	}
}

func (r *rig) mustStep() {
	r.t.Helper()
	if err := r.acceptor.Step(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func key(name string) *sluice.Identity {
	return &sluice.Identity{Key: name, Format: sluice.ChunkFormat}
}

func TestStop_WhileWaitingForTheCommit(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		out, cancel := r.submitting(r.chunk(key("k"), like(1, 1)))
		r.waits(out, "a submit without a step")
		cancel()
		if a := <-out; a.reason() != "unknown" || sluice.CodeOf(a.err) != sluice.Unavailable {
			t.Errorf("got %v", a.err)
		}
		// It was in the open commit, so it counts, and a retry is told so.
		r.mustStep()
		ack, err := r.acceptor.Submit(t.Context(), r.chunk(key("k"), like(1, 1)))
		if err != nil || !ack.Duplicate || ack.Commit != 1 {
			t.Errorf("retry: %+v %v", ack, err)
		}
	})
}

func TestStop_WhileWaitingForRoom(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.schema.Limits.CommitEntriesMax = 1
		first, cancelFirst := r.submitting(r.chunk(nil, like(1, 1)))
		defer cancelFirst()
		second, cancel := r.submitting(r.chunk(key("k"), like(2, 1)))
		r.waits(second, "a submit without room")
		cancel()
		if a := <-second; a.reason() != "timeout" || sluice.CodeOf(a.err) != sluice.Unavailable {
			t.Errorf("got %v", a.err)
		}
		r.mustStep()
		if a := <-first; a.err != nil {
			t.Error(a.err)
		}
		if !r.acceptor.Idle() {
			t.Error("something is left of the request that gave up")
		}
		again, cancelAgain := r.submitting(r.chunk(key("k"), like(2, 1)))
		defer cancelAgain()
		r.mustStep()
		if a := <-again; a.err != nil || a.ack.Duplicate {
			t.Errorf("nothing of it counted, so its retry is new: %+v %v", a.ack, a.err)
		}
	})
}

func TestStop_WhileTheOriginalIsInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		original, cancelOriginal := r.submitting(r.chunk(key("k"), like(1, 1)))
		defer cancelOriginal()
		retry, cancel := r.submitting(r.chunk(key("k"), like(1, 1)))
		r.waits(retry, "a retry of what is in flight")
		cancel()
		if a := <-retry; a.reason() != "unknown" {
			t.Errorf("got %v", a.err)
		}
		r.mustStep()
		if a := <-original; a.err != nil || a.ack.Duplicate {
			t.Errorf("the original: %+v %v", a.ack, a.err)
		}
	})
}

func TestStop_WhileIdle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		out := make(chan error, 1)
		go func() { out <- r.acceptor.Step(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-out; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		// The next Step begins where that one stopped.
		waiting, cancelWaiting := r.submitting(r.chunk(nil, like(1, 1)))
		defer cancelWaiting()
		r.mustStep()
		if a := <-waiting; a.err != nil || a.ack.Commit != 1 {
			t.Errorf("%+v %v", a.ack, a.err)
		}
	})
}

// Full and nobody commits: those who wait within the memory limit wait, others
// are refused at once, and all of them can be stopped.
func TestStop_WhileFull(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.schema.Limits.CommitEntriesMax = 1
		r.schema.Limits.MemoryMax = 400
		var outs []<-chan answer
		var cancels []context.CancelFunc
		refused := 0
		for i := range 40 {
			out, cancel := r.submitting(r.chunk(nil, like(int64(i), 1)))
			select {
			case a := <-out:
				refused++
				if a.reason() != "memory_max" || sluice.CodeOf(a.err) != sluice.Overloaded {
					t.Errorf("got %v", a.err)
				}
				cancel()
			default:
				outs, cancels = append(outs, out), append(cancels, cancel)
			}
		}
		if refused == 0 || len(outs) < 2 {
			t.Fatalf("%d refused, %d wait", refused, len(outs))
		}
		for _, cancel := range cancels {
			cancel()
		}
		for _, out := range outs {
			if a := <-out; sluice.CodeOf(a.err) != sluice.Unavailable {
				t.Errorf("got %v", a.err)
			}
		}
		r.mustStep() // the first one was in the open commit
		if !r.acceptor.Idle() {
			t.Error("memory of requests that are gone is still counted")
		}
	})
}

// A journal that fails answers everyone who waits, now and later.
func TestJ4_EveryoneWhoWaitsHearsOfTheFailedSync(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.schema.Limits.CommitEntriesMax = 1
		inCommit, cancel := r.submitting(r.chunk(nil, like(1, 1)))
		defer cancel()
		forRoom, cancelRoom := r.submitting(r.chunk(nil, like(2, 1)))
		defer cancelRoom()
		r.disk.SetFault(func(op vfs.Op) error {
			if op.Kind == "sync" {
				return errors.New("disk is gone")
			}
			return nil
		})
		if err := r.acceptor.Step(t.Context()); sluice.CodeOf(err) != sluice.Unavailable {
			t.Errorf("step: %v", err)
		}
		r.disk.SetFault(nil)
		for _, out := range []<-chan answer{inCommit, forRoom} {
			if a := <-out; a.reason() != "journal_failed" {
				t.Errorf("got %v", a.err)
			}
		}
		if _, err := r.acceptor.Submit(t.Context(), r.chunk(nil, like(3, 1))); sluice.CodeOf(err) != sluice.Unavailable {
			t.Errorf("later: %v", err)
		}
	})
}

// status is what a Receipt came back with.
type status struct {
	st  sluice.ReceiptStatus
	err error
}

func waiting(ctx context.Context, reader *pipeline.Reader, rec *sluice.Receipt, wait time.Duration) <-chan status {
	out := make(chan status, 1)
	go func() {
		st, err := reader.Receipt(ctx, rec, wait)
		out <- status{st, err}
	}()
	synctest.Wait()
	return out
}

func (r *rig) parse(receipt string) *sluice.Receipt {
	r.t.Helper()
	rec, err := sluice.ParseReceipt(receipt)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

func TestStop_WhileWaitingForAReceipt(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.parse(r.mustWrite(like(1, 1)).Receipt)
		ctx, cancel := context.WithCancel(t.Context())
		out := waiting(ctx, r.reader, rec, time.Minute)
		cancel()
		if got := <-out; got.err != nil || got.st.State != sluice.StateQueued {
			t.Errorf("cancelled: %+v %v", got.st, got.err)
		}
		from := time.Now()
		if got := <-waiting(t.Context(), r.reader, rec, 2*time.Second); got.err != nil || got.st.State != sluice.StateQueued {
			t.Errorf("when the time is over: %+v %v", got.st, got.err)
		}
		if took := time.Since(from); took != 2*time.Second {
			t.Errorf("it waited %s", took)
		}
	})
}

func TestR1_AWaiterBoundIsARefusal(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.schema.Limits.ReceiptWaitersMax = 1
		rec := r.parse(r.mustWrite(like(1, 1)).Receipt)
		ctx, cancel := context.WithCancel(t.Context())
		out := waiting(ctx, r.reader, rec, time.Minute)
		if got := <-waiting(t.Context(), r.reader, rec, time.Minute); sluice.CodeOf(got.err) != sluice.Overloaded {
			t.Errorf("one more than the limit: %+v %v", got.st, got.err)
		}
		if _, err := r.reader.Receipt(t.Context(), rec, 0); err != nil {
			t.Errorf("who does not wait is not bounded: %v", err)
		}
		cancel()
		<-out
		if got := <-waiting(t.Context(), r.reader, rec, time.Second); got.err != nil {
			t.Errorf("when the place is free: %v", got.err)
		}
	})
}

// After a start shards come one by one: who waits for a receipt waits for them
// too, and ends with its context when they do not come.
func TestR1_AReceiptWaitsForDrainersThatCome(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.parse(r.mustWrite(like(1, 1), like(2, 1), like(3, 1)).Receipt)
		drains := &pipeline.Drains{}
		reader := pipeline.NewReader(pipeline.ReaderOptions{Schema: r.acceptor.Schema, Journal: r.journal, Drains: drains, Now: func() time.Time { return r.now },
			Lost: func(string, string, sluice.GroupID, uint64) bool { return false }})
		ctx, cancel := context.WithCancel(t.Context())
		given := waiting(ctx, reader, rec, time.Minute)
		out := waiting(t.Context(), reader, rec, time.Minute)
		cancel()
		if got := <-given; got.err != nil || got.st.State != sluice.StateQueued {
			t.Errorf("without shards: %+v %v", got.st, got.err)
		}
		for _, d := range r.drains.All() {
			drains.Add(d)
			synctest.Wait()
			select {
			case got := <-out:
				t.Fatalf("answered before it is applied: %+v %v", got.st, got.err)
			default:
			}
		}
		synctest.Wait()
		for _, d := range r.drains.All() {
			for range 4 { // what it flushes is due at once
				if _, err := d.Step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := <-out; got.err != nil || got.st.State != sluice.StateApplied {
			t.Errorf("with all shards: %+v %v", got.st, got.err)
		}
	})
}
