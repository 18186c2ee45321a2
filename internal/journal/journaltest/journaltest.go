// Package journaltest is the suite that every journal passes. Each case states
// the rule it holds (docs PROTOCOL, rules J). Only tests import it.
package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"sluice.dev/sluice/internal/journal"
)

// Harness makes journals of one kind. Its segments hold about 64 KiB.
type Harness struct {
	// New gives an empty journal.
	New func(t *testing.T) journal.Journal
	// Reopen closes j and opens what it held.
	Reopen func(t *testing.T, j journal.Journal) journal.Journal
	// Crash opens what j held without closing it, as after a kill -9.
	Crash func(t *testing.T, j journal.Journal) journal.Journal
	// FailSync lets the next sync of a commit fail with err.
	FailSync func(t *testing.T, j journal.Journal, err error)
}

// Run runs every case against journals of h.
func Run(t *testing.T, h Harness) {
	cases := []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"J1_NumbersAreConsecutiveFromOne", numbersAreConsecutive},
		{"J1_TheChainDependsOnTheHistory", chainDependsOnHistory},
		{"J1_AnUnreadableBodyIsRefusedAndChangesNothing", unreadableBodyIsRefused},
		{"J1_BytesAreKeptAsTheyWere", bytesAreKept},
		{"J2_OnlyWhatIsDurableIsRead", readsNeverOvertake},
		{"J2_WaitEndsWithTheCommit", waitEnds},
		{"J2_WaitEndsWithTheContextAndWithClose", waitEndsWithContextAndClose},
		{"J3_WhatWasAcknowledgedIsThereAfterReopen", acknowledgedSurvivesReopen},
		{"J3_WhatWasAcknowledgedIsThereAfterCrash", acknowledgedSurvivesCrash},
		{"J4_AFailedSyncIsForEver", failedSyncIsForEver},
		{"J5_SegmentsGoSinglyAndLeaveHoles", segmentsGoSingly},
		{"J5_TheOpenSegmentStays", openSegmentStays},
		{"J5_StreamsOutliveTheirSegments", streamsOutliveSegments},
		{"J5_AHoleKnowsTheChainAtItsEnd", holeKnowsChain},
		{"J5_ReadersAndRemoversDoNotMeet", readersAndRemovers},
		{"J7_EpochsNeverRepeat", epochsNeverRepeat},
		{"J7_AnAdoptedEpochIsInANewEra", adoptedEpoch},
		{"StopIsStop_CloseTwice", closeTwice},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(t, h) })
	}
}

var (
	likes = journal.Stream{Group: 1, Partition: 7}
	views = journal.Stream{Group: 1, Partition: 200}
	posts = journal.Stream{Group: 9, Partition: 7}
)

func open(t *testing.T, h Harness) journal.Journal {
	t.Helper()
	j := h.New(t)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func reopen(t *testing.T, h Harness, j journal.Journal) journal.Journal {
	t.Helper()
	j = h.Reopen(t, j)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func appendBody(t *testing.T, j journal.Journal, body []byte) journal.Commit {
	t.Helper()
	c, err := j.Append(body)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return c
}

func wantCommit(t *testing.T, j journal.Journal, want journal.Commit) {
	t.Helper()
	got, err := j.Read(want.Number)
	if err != nil {
		t.Fatalf("read %d: %v", want.Number, err)
	}
	if got.Number != want.Number || got.Chain != want.Chain || !bytes.Equal(got.Body, want.Body) {
		t.Fatalf("commit %d reads as %d, chain %x for %x, same body: %v", want.Number, got.Number, got.Chain, want.Chain, bytes.Equal(got.Body, want.Body))
	}
}

// fill appends until there are so many segments.
func fill(t *testing.T, j journal.Journal, b *Bodies, segments int) []journal.Commit {
	t.Helper()
	var out []journal.Commit
	for i := 0; len(j.Segments()) < segments; i++ {
		streams := []journal.Stream{likes}
		if i%3 == 0 {
			streams = append(streams, views)
		}
		out = append(out, appendBody(t, j, b.Next(9000, streams...)))
	}
	return out
}

func numbersAreConsecutive(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	if got := j.Head(); got.Number != 0 || got.Chain != 0 {
		t.Fatalf("a new journal has head %d, chain %x", got.Number, got.Chain)
	}
	for n := uint64(1); n <= 40; n++ {
		if c := appendBody(t, j, b.Next(5000, likes)); c.Number != n {
			t.Fatalf("commit %d has number %d", n, c.Number)
		}
		if head := j.Head(); head.Number != n || head.Body != nil {
			t.Fatalf("head is %d with a body of %d bytes after commit %d", head.Number, len(head.Body), n)
		}
	}
	if _, err := j.Read(41); !errors.Is(err, journal.ErrNotYet) {
		t.Fatalf("read beyond the head: %v", err)
	}
}

func chainDependsOnHistory(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	body := b.Next(100, likes)
	seen := map[uint64]bool{}
	for range 10 {
		c := appendBody(t, j, body)
		if seen[c.Chain] {
			t.Fatal("two commits have the same chain")
		}
		seen[c.Chain] = true
		if got := j.Head().Chain; got != c.Chain {
			t.Fatalf("head has chain %x, the commit %x", got, c.Chain)
		}
	}
}

func unreadableBodyIsRefused(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	body := b.Next(200, likes)
	for _, bad := range [][]byte{nil, {255}, body[:len(body)-1], append(bytes.Clone(body), 0)} {
		if _, err := j.Append(bad); err == nil {
			t.Fatalf("a body of %d bytes that cannot be read was taken", len(bad))
		}
	}
	if c := appendBody(t, j, body); c.Number != 1 {
		t.Fatalf("after refusals the first commit is %d", c.Number)
	}
	if got := j.Stream(likes); got != (journal.StreamState{Last: 1, Writes: 1}) {
		t.Fatalf("stream is %+v", got)
	}
}

func bytesAreKept(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	var all []journal.Commit
	for size := 30; size < 60000; size = size*2 + 1 {
		body := b.Next(size, likes)
		c := appendBody(t, j, body)
		c.Body = bytes.Clone(body)
		clear(body) // the caller may use its buffer again
		all = append(all, c)
	}
	for _, c := range all {
		wantCommit(t, j, c)
	}
	j = reopen(t, h, j)
	for _, c := range all {
		wantCommit(t, j, c)
	}
}

func readsNeverOvertake(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	const commits = 60
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for n := uint64(1); n <= commits; n++ {
				if err := j.Wait(ctx, n-1); err != nil {
					t.Errorf("wait for %d: %v", n, err)
					return
				}
				if _, err := j.Read(n); err != nil {
					t.Errorf("read %d: %v", n, err)
					return
				}
				if head := j.Head().Number; head < n {
					t.Errorf("commit %d was read while the head was %d", n, head)
				}
			}
		})
	}
	for range commits {
		appendBody(t, j, b.Next(4000, likes, posts))
	}
	readers.Wait()
}

func waitEnds(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	appendBody(t, j, b.Next(50, likes))
	if err := j.Wait(t.Context(), 0); err != nil {
		t.Fatalf("wait for what is there: %v", err)
	}
	done := make(chan error)
	go func() { done <- j.Wait(t.Context(), 2) }()
	appendBody(t, j, b.Next(50, likes))
	select {
	case err := <-done:
		t.Fatalf("wait for commit 3 ended at 2: %v", err)
	default:
	}
	appendBody(t, j, b.Next(50, likes))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func waitEndsWithContextAndClose(t *testing.T, h Harness) {
	j := open(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- j.Wait(ctx, 0) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("wait after cancel: %v", err)
	}
	go func() { done <- j.Wait(t.Context(), 0) }()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, journal.ErrClosed) {
		t.Fatalf("wait after close: %v", err)
	}
}

func acknowledgedSurvivesReopen(t *testing.T, h Harness) {
	survive(t, h, h.Reopen)
}

func acknowledgedSurvivesCrash(t *testing.T, h Harness) {
	survive(t, h, h.Crash)
}

func survive(t *testing.T, h Harness, again func(*testing.T, journal.Journal) journal.Journal) {
	j, b := open(t, h), NewBodies()
	id := j.ID()
	var all []journal.Commit
	for round := range 4 {
		all = append(all, fill(t, j, b, round+2)...)
		all = append(all, appendBody(t, j, b.Next(300, posts)))
		j = again(t, j)
		t.Cleanup(func() { _ = j.Close() })
		if j.ID() != id {
			t.Fatal("the journal has another id")
		}
		last := all[len(all)-1]
		if head := j.Head(); head.Number != last.Number || head.Chain != last.Chain {
			t.Fatalf("head is %d, chain %x; want %d, %x", head.Number, head.Chain, last.Number, last.Chain)
		}
		for _, c := range all {
			wantCommit(t, j, c)
		}
		wantCounts(t, j, b)
	}
}

func wantCounts(t *testing.T, j journal.Journal, b *Bodies) {
	t.Helper()
	for s, writes := range b.Counts {
		if got := j.Stream(s); got.Writes != writes {
			t.Fatalf("stream %v has %d writes, want %d", s, got.Writes, writes)
		}
	}
	if got := len(j.Streams()); got != len(b.Counts) {
		t.Fatalf("%d streams, want %d", got, len(b.Counts))
	}
}

func failedSyncIsForEver(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	appendBody(t, j, b.Next(50, likes))
	broken := errors.New("the disk is broken")
	h.FailSync(t, j, broken)
	if _, err := j.Append(b.Next(50, likes)); !errors.Is(err, broken) {
		t.Fatalf("append over a broken disk: %v", err)
	}
	_, appendErr := j.Append(b.Next(50, likes))
	_, readErr := j.Read(1)
	_, epochErr := j.NextEpoch()
	for what, err := range map[string]error{
		"append": appendErr, "read": readErr, "next epoch": epochErr,
		"wait": j.Wait(t.Context(), 0), "remove": j.Remove(1), "adopt epoch": j.AdoptEpoch(5),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s after a failed sync: %v", what, err)
		}
	}
	if j.Head().Number != 1 {
		t.Errorf("the failed commit is the head: %d", j.Head().Number)
	}
}

func segmentsGoSingly(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	all := fill(t, j, b, 5)
	all = append(all, appendBody(t, j, b.Next(100, likes)))
	before := j.Usage().Bytes
	segs := j.Segments()
	for _, gone := range []int{2, 0} { // the middle one first: holes are allowed
		if err := j.Remove(segs[gone].First); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		for _, c := range all {
			switch {
			case c.Number <= segs[0].Last:
				wantHole(t, j, c.Number, segs[1].First)
			case c.Number >= segs[2].First && c.Number <= segs[2].Last:
				wantHole(t, j, c.Number, segs[3].First)
			default:
				wantCommit(t, j, c)
			}
		}
		if got := len(j.Segments()); got != len(segs)-2 {
			t.Fatalf("%d segments are left of %d", got, len(segs))
		}
		if after := j.Usage().Bytes; after >= before {
			t.Fatalf("removing freed nothing: %d of %d bytes", after, before)
		}
	}
	check()
	j = reopen(t, h, j)
	check()
	if err := j.Remove(segs[2].First); err == nil {
		t.Fatal("a removed segment was removed again")
	}
	if c := appendBody(t, j, b.Next(100, likes)); c.Number != uint64(len(all))+1 {
		t.Fatalf("the next commit is %d", c.Number)
	}
}

func wantHole(t *testing.T, j journal.Journal, n, next uint64) *journal.HoleError {
	t.Helper()
	_, err := j.Read(n)
	var hole *journal.HoleError
	if !errors.As(err, &hole) {
		t.Fatalf("read %d, which was trimmed: %v", n, err)
	}
	if hole.Number != n || hole.Next != next || hole.Lost {
		t.Fatalf("hole %+v, want next %d", hole, next)
	}
	return hole
}

func openSegmentStays(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	fill(t, j, b, 2)
	segs := j.Segments()
	open := segs[len(segs)-1]
	if open.SealedAt != 0 || segs[0].SealedAt == 0 {
		t.Fatalf("sealed at %d and %d", segs[0].SealedAt, open.SealedAt)
	}
	if err := j.Remove(open.First); err == nil {
		t.Fatal("the open segment was removed")
	}
	if err := j.Remove(segs[0].First + 1); err == nil {
		t.Fatal("a segment that does not exist was removed")
	}
}

func streamsOutliveSegments(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	appendBody(t, j, b.Next(100, posts)) // only in the first segment
	fill(t, j, b, 4)
	segs := j.Segments()
	if got := segs[0].Streams[posts]; got != 1 {
		t.Fatalf("the first segment says that the last of posts is %d", got)
	}
	if _, there := segs[1].Streams[posts]; there {
		t.Fatal("the second segment says that it holds posts")
	}
	for _, s := range segs[:2] {
		if err := j.Remove(s.First); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		wantCounts(t, j, b)
		if got := j.Stream(posts); got != (journal.StreamState{Last: 1, Writes: 1, Removed: 1}) {
			t.Fatalf("posts is %+v", got)
		}
		got := j.Stream(likes)
		if got.Removed != segs[1].Streams[likes] || got.Last != j.Head().Number {
			t.Fatalf("likes is %+v, head %d, removed up to %d", got, j.Head().Number, segs[1].Streams[likes])
		}
	}
	check()
	j = reopen(t, h, j)
	check()
	j = h.Crash(t, j)
	t.Cleanup(func() { _ = j.Close() })
	check()
}

func holeKnowsChain(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	all := fill(t, j, b, 3)
	segs := j.Segments()
	if err := j.Remove(segs[0].First); err != nil {
		t.Fatal(err)
	}
	last := all[segs[0].Last-1]
	for range 2 {
		if hole := wantHole(t, j, last.Number, segs[1].First); hole.Chain != last.Chain {
			t.Fatalf("the hole ends with chain %x, the commit had %x", hole.Chain, last.Chain)
		}
		if hole := wantHole(t, j, 1, segs[1].First); hole.Chain != 0 {
			t.Fatal("a chain inside the hole is known")
		}
		j = reopen(t, h, j)
	}
}

func readersAndRemovers(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	all := fill(t, j, b, 6)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for _, want := range all {
				got, err := j.Read(want.Number)
				var hole *journal.HoleError
				if errors.As(err, &hole) {
					continue
				}
				if err != nil || !bytes.Equal(got.Body, want.Body) {
					t.Errorf("read %d: %v", want.Number, err)
				}
			}
		})
	}
	segs := j.Segments()
	for _, s := range segs[:len(segs)-1] {
		if err := j.Remove(s.First); err != nil {
			t.Error(err)
		}
	}
	readers.Wait()
}

func epochsNeverRepeat(t *testing.T, h Harness) {
	j := open(t, h)
	last := uint64(0)
	for round := range 6 {
		for range 70 {
			e, err := j.NextEpoch()
			if err != nil {
				t.Fatal(err)
			}
			if e <= last {
				t.Fatalf("epoch %d after %d", e, last)
			}
			last = e
		}
		if round%2 == 0 {
			j = h.Crash(t, j)
			t.Cleanup(func() { _ = j.Close() })
		} else {
			j = reopen(t, h, j)
		}
	}
}

func adoptedEpoch(t *testing.T, h Harness) {
	j := open(t, h)
	for _, c := range []struct{ seen, want uint64 }{
		{0, 1 << 32}, {5<<32 + 17, 6 << 32}, {3, 7 << 32},
	} {
		if err := j.AdoptEpoch(c.seen); err != nil {
			t.Fatal(err)
		}
		e, err := j.NextEpoch()
		if err != nil {
			t.Fatal(err)
		}
		if e != c.want {
			t.Fatalf("after adopting %d the next epoch is %d, want %d", c.seen, e, c.want)
		}
	}
	j = reopen(t, h, j)
	if e, err := j.NextEpoch(); err != nil || e <= 7<<32 {
		t.Fatalf("after a restart: epoch %d, %v", e, err)
	}
}

func closeTwice(t *testing.T, h Harness) {
	j, b := open(t, h), NewBodies()
	appendBody(t, j, b.Next(50, likes))
	for i := range 2 {
		if err := j.Close(); err != nil {
			t.Fatal(fmt.Errorf("close %d: %w", i+1, err))
		}
	}
	if _, err := j.Append(b.Next(50, likes)); !errors.Is(err, journal.ErrClosed) {
		t.Fatalf("append after close: %v", err)
	}
	if _, err := j.Read(1); !errors.Is(err, journal.ErrClosed) {
		t.Fatalf("read after close: %v", err)
	}
}
