package pipeline_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
	"sluice.dev/sluice/internal/vfs"
)

func like(id int64, n int) string {
	return fmt.Sprintf(`{"table":"posts","key":%d,"add":{"likes":%d}}`, id, n)
}

func TestJ1_WhatArrivesTogetherFoldsIntoOneCommit(t *testing.T) {
	r := newRig(t)
	ack := r.mustWrite(like(1, 1), like(1, 1), like(1, 1), like(2, 5))
	if ack.Commit != 1 || r.acceptor.Counts().Entries.Load() != 2 || r.acceptor.Counts().Writes.Load() != 4 {
		t.Fatalf("commit %d, %d entries, %d writes", ack.Commit, r.acceptor.Counts().Entries.Load(), r.acceptor.Counts().Writes.Load())
	}
	if st := r.state(ack.Receipt); st != sluice.StateQueued {
		t.Errorf("before the drain the receipt says %s", st)
	}
	if errs := r.drain(); errs != nil {
		t.Fatal(errs)
	}
	if got := string(r.row("posts", 1).Columns["likes"]); got != "3" {
		t.Errorf("likes of 1: %s", got)
	}
	if st := r.state(ack.Receipt); st != sluice.StateApplied {
		t.Errorf("after the drain the receipt says %s", st)
	}
	r.balance()
}

func TestJ4_AfterAFailedSyncNothingIsAcknowledged(t *testing.T) {
	r := newRig(t)
	r.mustWrite(like(1, 1))
	r.disk.SetFault(func(op vfs.Op) error {
		if op.Kind == "sync" {
			return errors.New("disk is gone")
		}
		return nil
	})
	if _, err := r.write(nil, like(1, 1)); sluice.CodeOf(err) != sluice.Unavailable {
		t.Fatalf("got %v", err)
	}
	r.disk.SetFault(nil)
	if _, err := r.write(nil, like(1, 1)); sluice.CodeOf(err) != sluice.Unavailable {
		t.Fatalf("after the disk is back, the same process goes on: %v", err)
	}
}

func TestI1_RetryIsKnownBeforeItIsValidated(t *testing.T) {
	r := newRig(t)
	id := &sluice.Identity{Key: "k", Format: sluice.ChunkFormat}
	first, err := r.write(id, like(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	r.restart()
	c := r.chunk(id, like(1, 2))
	c.Fill = func(*sluice.Chunk) error {
		return sluice.Errorf(sluice.Invalid, "bad_value", "the schema changed since")
	}
	acks, errs := r.submit(c)
	if errs[0] != nil || !acks[0].Duplicate || acks[0].Receipt != first.Receipt {
		t.Fatalf("retry: %+v, %v; first: %+v", acks[0], errs[0], first)
	}
	r.drain()
	if got := string(r.row("posts", 1).Columns["likes"]); got != "2" {
		t.Errorf("likes %s: the retry counted", got)
	}
}

func TestI2_OtherBytesUnderOneIdentityAreRefused(t *testing.T) {
	r := newRig(t)
	id := &sluice.Identity{Key: "k", Format: sluice.ChunkFormat}
	if _, err := r.write(id, like(1, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.write(id, like(1, 3)); sluice.CodeOf(err) != sluice.Conflict {
		t.Errorf("got %v", err)
	}
}

func TestI2_ConcurrentRetryWaitsForItsOriginal(t *testing.T) {
	r := newRig(t)
	id := &sluice.Identity{Key: "k", Format: sluice.ChunkFormat}
	acks, errs := r.submit(r.chunk(id, like(1, 1)), r.chunk(id, like(1, 1)), r.chunk(id, like(1, 1)))
	duplicates := 0
	for i := range acks {
		if errs[i] != nil || acks[i].Commit != acks[0].Commit {
			t.Fatalf("%+v %v", acks[i], errs[i])
		}
		if acks[i].Duplicate {
			duplicates++
		}
	}
	if duplicates != 2 {
		t.Errorf("%d duplicates", duplicates)
	}
	r.drain()
	if got := string(r.row("posts", 1).Columns["likes"]); got != "1" {
		t.Errorf("likes %s", got)
	}
}

func TestI2_WhatWasNotAcceptedIsJudgedAnew(t *testing.T) {
	r := newRig(t)
	id := &sluice.Identity{Key: "k", Format: sluice.ChunkFormat}
	r.gate.RefuseAll(&admit.Refusal{Reason: sluice.JournalFull, Detail: "full", RetryAfter: time.Second})
	_, err := r.write(id, like(1, 1))
	var e *sluice.Error
	if !errors.As(err, &e) || e.Code != sluice.Overloaded || e.RetryAfter != time.Second {
		t.Fatalf("got %v", err)
	}
	r.gate.RefuseAll(nil)
	ack, err := r.write(id, like(1, 1))
	if err != nil || ack.Duplicate {
		t.Errorf("retry: %+v %v", ack, err)
	}
	r.mustWrite(like(2, 1))
	for _, row := range r.ledger.Rows(r.schema, r.journal, r.drains) {
		if row.Group == "metrics" && row.Refused["journal_full"] != 1 {
			t.Errorf("R2: the refusal is not in the ledger: %+v", row)
		}
	}
}

func TestS13_AWriteToSeveralGroupsIsRefusedWhole(t *testing.T) {
	r := newRig(t)
	both := `{"table":"posts","key":1,"set":{"content":"x"},"add":{"likes":1}}`
	text := r.schema.Tables["posts"].Group([]byte("text"))
	r.gate.SetBlocks([]admit.Block{{Group: text.ID, Partitions: sluice.AllPartitions, Refusal: &admit.Refusal{Reason: sluice.BacklogMax}}})
	ack, err := r.write(nil, both, like(1, 1))
	if err != nil || ack.Outcomes[0] != sluice.BacklogMax || ack.Outcomes[1] != sluice.Accepted {
		t.Fatalf("%+v %v", ack, err)
	}
	r.drain()
	if got := string(r.row("posts", 1).Columns["likes"]); got != "1" {
		t.Errorf("likes %s: half of a refused write counts", got)
	}
}

func TestS1_GroupsDoNotShareACursor(t *testing.T) {
	r := newRig(t)
	r.dbs["z"].SetHooks(mem.Hooks{BeforeCommit: func(*store.Batch) error { return errors.New("down") }})
	r.mustWrite(`{"table":"posts","key":1,"set":{"content":"x"},"add":{"likes":1}}`)
	if errs := r.drain(); len(errs) == 0 {
		t.Fatal("the dead store gave no error")
	}
	if got := string(r.row("posts", 1).Columns["likes"]); got != "1" {
		t.Errorf("likes %s: a dead store holds up another", got)
	}
	r.dbs["z"].SetHooks(mem.Hooks{})
	r.drain()
	if got := string(r.row("posts", 1).Columns["content"]); got != `"x"` {
		t.Errorf("content %s: the slower group lost its entry", got)
	}
	r.balance()
}

func TestS3_LostAnswerToCommit(t *testing.T) {
	r := newRig(t)
	r.mustWrite(like(1, 1))
	lost := 0
	r.dbs["a"].SetHooks(mem.Hooks{AfterCommit: func(*store.Batch) error { lost++; return store.ErrUnknown }})
	r.dbs["b"].SetHooks(mem.Hooks{AfterCommit: func(*store.Batch) error { lost++; return store.ErrUnknown }})
	r.drain()
	r.dbs["a"].SetHooks(mem.Hooks{})
	r.dbs["b"].SetHooks(mem.Hooks{})
	if errs := r.drain(); errs != nil || lost == 0 {
		t.Fatal(errs, lost)
	}
	if got := string(r.row("posts", 1).Columns["likes"]); got != "1" {
		t.Errorf("likes %s", got)
	}
}

func TestS4_ShardThatWentBackIsReplayedTo(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.mustWrite(fmt.Sprintf(`{"table":"posts","key":1,"set":{"content":"v%d"},"append":{"clicks":{"what":"c%d"}}}`, i, i))
		r.drain()
		r.now = r.now.Add(-500 * time.Millisecond)
	}
	clicks := r.schema.Tables["posts"].Group([]byte("clicks"))
	r.dbs["z"].Lose(3)
	if errs := r.drain(); len(errs) > 0 {
		t.Log(errs)
	}
	r.drain()
	if got := len(r.dbs["z"].Events(clicks)); got != 5 {
		t.Errorf("%d events, want 5", got)
	}
	if got := string(r.row("posts", 1).Columns["content"]); got != `"v4"` {
		t.Errorf("content %s", got)
	}
	r.balance()
}

func TestS4_CursorBeyondTheJournalStopsTheShard(t *testing.T) {
	r := newRig(t)
	before := r.disk.Kill(1)
	r.mustWrite(like(1, 1))
	r.drain()
	r.disk = before // an older copy of the disk comes back
	r.restart()
	errs := r.drain()
	var stop *store.StopError
	if len(errs) == 0 || !errors.As(errs[0], &stop) || stop.Reason != "epoch_ahead" && stop.Reason != "beyond_journal" && stop.Reason != "wrong_shard" {
		t.Fatalf("got %v", errs)
	}
}

func TestS4_MissingCursorOfAKnownShardStopsIt(t *testing.T) {
	r := newRig(t)
	r.mustWrite(like(1, 1))
	r.drain()
	for name := range r.dbs { // restored from nothing
		now := r.dbs[name].Now
		r.dbs[name] = &mem.Database{Now: now}
	}
	r.restart()
	errs := r.drain()
	var stop *store.StopError
	if len(errs) == 0 || !errors.As(errs[0], &stop) || stop.Reason != "cursor_missing" {
		t.Fatalf("got %v", errs)
	}
	for _, d := range r.drains.All() {
		d.AcceptMissing()
	}
	if errs := r.drain(); errs != nil {
		t.Fatalf("after the gap was accepted: %v", errs)
	}
	for name := range r.dbs { // and again
		r.dbs[name] = &mem.Database{Now: r.dbs[name].Now}
	}
	r.restart()
	if errs := r.drain(); len(errs) == 0 || !errors.As(errs[0], &stop) || stop.Reason != "cursor_missing" {
		t.Fatalf("accepted once, missing for ever: %v", errs)
	}
}

func TestS5_OnlyWhatIsConfirmedCounts(t *testing.T) {
	r := newRig(t)
	ack := r.mustWrite(`{"table":"posts","key":1,"set":{"content":"x"}}`)
	r.now = r.now.Add(time.Second)
	for _, d := range r.drains.All() {
		if d.Group().Name != "text" {
			continue
		}
		for range 3 { // take, wait for the window
			if _, err := d.Step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		r.now = r.now.Add(1100 * time.Millisecond)
		r.dbs["z"].SetHooks(mem.Hooks{})
		if _, err := d.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		pos := d.Position()
		if pos.Applied == ack.Commit && pos.Durable < ack.Commit && r.state(ack.Receipt) != sluice.StateQueued {
			t.Error("a receipt says applied before the asynchronous commit is covered")
		}
	}
	r.drain()
	if st := r.state(ack.Receipt); st != sluice.StateApplied {
		t.Errorf("receipt says %s", st)
	}
	if lost := r.dbs["z"].Crash(); lost != 0 {
		t.Errorf("a crash takes back %d confirmed transactions", lost)
	}
}

func TestS10_RejectIsTruthInTheReceiptAndReplays(t *testing.T) {
	r := newRig(t)
	g := r.schema.Tables["mapped"].Groups[0]
	refusing := true
	for _, db := range r.dbs {
		db.SetHooks(mem.Hooks{Refuse: func(_ *schema.Group, _ []byte, row []sluice.Value) *store.Refusal {
			if refusing && string(row[g.Column([]byte("title")).Index].Bytes) == "bad" {
				return &store.Refusal{SQLState: "23514", Reason: "title is bad"}
			}
			return nil
		}})
	}
	good := r.mustWrite(`{"table":"mapped","key":1,"add":{"n":1}}`)
	bad := r.mustWrite(`{"table":"mapped","key":1,"set":{"title":"bad"},"add":{"n":10}}`)
	after := r.mustWrite(`{"table":"mapped","key":1,"add":{"n":100}}`)
	r.drain()
	for want, ack := range map[string]sluice.Ack{sluice.StateApplied: good, sluice.StateRejected: bad} {
		if st := r.state(ack.Receipt); st != want {
			t.Errorf("receipt says %s, want %s", st, want)
		}
	}
	if got := string(r.row("mapped", 1).Columns["n"]); got != "101" || r.state(after.Receipt) != sluice.StateApplied {
		t.Errorf("n is %s, want 101: the bad row harmed its neighbours", got)
	}
	r.balance()
	r.restart()
	r.drain()
	r.balance()

	refusing = false
	r.replayAll(g)
	r.drain()
	if got := string(r.row("mapped", 1).Columns["n"]); got != "111" {
		t.Errorf("n is %s after the replay, want 111", got)
	}
	if st := r.state(bad.Receipt); st != sluice.StateApplied {
		t.Errorf("receipt says %s after the replay", st)
	}
	r.balance()
}

// lockedKey makes key 1 of posts' metrics a row that another transaction holds.
func lockedKey(r *rig, locked *bool) func(*schema.Group, []byte) bool {
	key, err := r.schema.Tables["posts"].KeyFromText(nil, []byte("1"))
	if err != nil {
		r.t.Fatal(err)
	}
	return func(g *schema.Group, k []byte) bool {
		return *locked && g.Name == "metrics" && string(k) == string(key)
	}
}

func TestS8_ParkedIsQueuedUntilItsLockGoes(t *testing.T) {
	r := newRig(t)
	locked := true
	hook := mem.Hooks{Locked: lockedKey(r, &locked)}
	r.dbs["a"].SetHooks(hook)
	r.dbs["b"].SetHooks(hook)
	first, other := r.mustWrite(like(1, 1)), r.mustWrite(like(2, 1))
	r.drain()
	second := r.mustWrite(like(1, 10))
	r.drain()
	for _, ack := range []sluice.Ack{first, second} {
		if st := r.state(ack.Receipt); st != sluice.StateQueued {
			t.Errorf("receipt of a parked write says %s", st)
		}
	}
	if st := r.state(other.Receipt); st != sluice.StateApplied {
		t.Errorf("receipt of a neighbour says %s", st)
	}
	r.balance()
	r.restart()
	locked = false
	r.drain()
	if got := string(r.row("posts", 1).Columns["likes"]); got != "11" {
		t.Errorf("likes %s: parked entries were lost", got)
	}
	if st := r.state(second.Receipt); st != sluice.StateApplied {
		t.Errorf("receipt says %s", st)
	}
	r.balance()
}

// Random writes, crashes of the process, of databases, lost answers and losses of
// asynchronous commits: at the end every sum is exact and nothing is queued.
func TestR2_ExactAfterRandomCrashes(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { randomRun(t, seed) })
	}
}

func randomRun(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 99))
	r := newRig(t)
	want := map[int64]int{}
	clicks := 0
	var acks []sluice.Ack
	for range 60 {
		switch rnd.IntN(10) {
		case 0:
			r.restart()
		case 1:
			r.dbs["z"].Lose(rnd.IntN(3))
		case 2:
			n := rnd.IntN(3)
			hook := mem.Hooks{AfterCommit: func(*store.Batch) error {
				if n--; n < 0 {
					return nil
				}
				return store.ErrUnknown
			}}
			for _, db := range r.dbs {
				db.SetHooks(hook)
			}
		case 3, 4:
			r.drain()
		default:
			var lines []string
			for range 1 + rnd.IntN(5) {
				id, n := int64(rnd.IntN(20)), rnd.IntN(9)
				want[id] += n
				clicks++
				lines = append(lines, fmt.Sprintf(`{"table":"posts","key":%d,"add":{"likes":%d}}`, id, n),
					fmt.Sprintf(`{"table":"posts","key":%d,"append":{"clicks":{"what":"x"}}}`, id))
			}
			acks = append(acks, r.mustWrite(lines...))
		}
		r.balance()
	}
	for _, db := range r.dbs {
		db.SetHooks(mem.Hooks{})
	}
	for range 3 {
		r.drain()
	}
	for id, n := range want {
		if got := string(r.row("posts", id).Columns["likes"]); got != fmt.Sprint(n) {
			t.Errorf("likes of %d: %s, want %d", id, got, n)
		}
	}
	if got := len(r.dbs["z"].Events(r.schema.Tables["posts"].Group([]byte("clicks")))); got != clicks {
		t.Errorf("%d events, want %d", got, clicks)
	}
	for _, ack := range acks {
		if st := r.state(ack.Receipt); st != sluice.StateApplied {
			t.Errorf("receipt of commit %d says %s", ack.Commit, st)
		}
	}
	r.balance()
}

func TestJ4_NoRoomIsARefusalAndNothingOfItCounts(t *testing.T) {
	r := newRig(t)
	id := &sluice.Identity{Key: "k", Format: sluice.ChunkFormat}
	accepted, refused := 0, 0
	r.disk.SetCapacity(2 << 20)
	for i := 0; refused == 0 && i < 2000; i++ {
		_, err := r.write(nil, like(1, 1), fmt.Sprintf(`{"table":"posts","key":%d,"set":{"content":"%02000d"}}`, i, i))
		switch {
		case err == nil:
			accepted++
		case sluice.CodeOf(err) == sluice.Overloaded:
			refused++
		default:
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Fatal("the disk never filled up")
	}
	if _, err := r.write(id, like(1, 1)); sluice.CodeOf(err) != sluice.Overloaded {
		t.Fatalf("got %v", err)
	}
	r.disk.SetCapacity(0)
	if ack, err := r.write(id, like(1, 1)); err != nil || ack.Duplicate {
		t.Fatalf("a refused write is judged anew: %+v %v", ack, err)
	}
	r.restart()
	r.drain()
	if got := string(r.row("posts", 1).Columns["likes"]); got != fmt.Sprint(accepted+1) {
		t.Errorf("likes %s, acknowledged %d", got, accepted+1)
	}
	r.balance()
}

// Unpark leaves the cursor as it is, so the guard alone does not notice a shard
// that lost the transaction in which an entry left the park.
func TestS4_ALostUnparkIsNoticed(t *testing.T) {
	r := newRig(t)
	locked := true
	r.dbs["z"].SetHooks(mem.Hooks{Locked: func(g *schema.Group, _ []byte) bool { return locked && g.Name == "text" }})
	ack := r.mustWrite(`{"table":"posts","key":1,"set":{"content":"x"}}`)
	r.drain()
	if st := r.state(ack.Receipt); st != sluice.StateQueued {
		t.Fatalf("the receipt of a parked write says %s", st)
	}
	locked = false
	for _, d := range r.drains.All() {
		if d.Group().Name != "text" {
			continue
		}
		r.now = r.now.Add(1100 * time.Millisecond)
		if _, err := d.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r.state(ack.Receipt) != sluice.StateApplied {
		r.dbs["z"].Crash() // what was not confirmed is gone
	} else if lost := r.dbs["z"].Crash(); lost != 0 {
		t.Errorf("the receipt says applied, and a crash takes %d transactions back", lost)
	}
	r.drain()
	r.drain()
	if got := string(r.row("posts", 1).Columns["content"]); got != `"x"` || r.state(ack.Receipt) != sluice.StateApplied {
		t.Errorf("content %s, receipt %s", got, r.state(ack.Receipt))
	}
	r.balance()
}

func TestJ7_ARefusedEpochIsNotCountedOn(t *testing.T) {
	r := newRig(t)
	before := r.disk.Kill(1)
	for range 3 { // epochs go on
		r.mustWrite(like(1, 1))
		r.drain()
		r.restart()
	}
	r.drain()
	r.disk = before
	r.restart()
	var stop *store.StopError
	for range 300 { // far more tries than epochs lie between
		for _, d := range r.drains.All() {
			if d.Group().Name != "metrics" {
				continue
			}
			if _, err := d.Step(t.Context()); err == nil {
				t.Fatal("an older journal goes on with a shard that is ahead of it")
			} else if !errors.As(err, &stop) {
				t.Fatal(err)
			}
		}
	}
}
