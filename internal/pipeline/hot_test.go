package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/hotkey"
	"sluice.dev/sluice/internal/pipeline"
)

// A viral post: however many increments a commit and a flush window bring, they
// are one entry in the commit and one row update in the flush.
func TestHotSumKeyCostsOneEntryPerCommitAndOneRowPerFlush(t *testing.T) {
	r := newRig(t)
	const flushes, commits, writers, each = 3, 20, 50, 40 // 120,000 increments
	group := r.schema.Tables["posts"].Group([]byte("metrics"))
	for flush := range flushes {
		for range commits {
			chunks := make([]*sluice.Chunk, writers)
			for w := range chunks {
				chunks[w] = r.increments(42, each)
			}
			before := r.acceptor.Counts().Commits.Load()
			r.together(chunks)
			if n := r.acceptor.Counts().Commits.Load() - before; n != 1 {
				t.Fatalf("%d commits, want 1", n)
			}
		}
		if errs := r.drain(); errs != nil {
			t.Fatal(errs)
		}
		counts, rows := r.acceptor.Counts(), uint64(0)
		for _, d := range r.drains.Of(group.ID) {
			rows += d.Position().Counts.Rows
		}
		n := uint64(flush + 1)
		if w, e := counts.Writes.Load(), counts.Entries.Load(); w != n*commits*writers*each || e != n*commits || rows != n {
			t.Fatalf("%d increments are %d entries and %d row updates; want %d, %d and %d", w, e, rows, n*commits*writers*each, n*commits, n)
		}
	}
	if got, want := string(r.row("posts", 42).Columns["likes"]), fmt.Sprint(flushes*commits*writers*each); got != want {
		t.Errorf("likes %s, want %s", got, want)
	}
	r.balance()
}

// increments is a chunk of n likes of one post.
func (r *rig) increments(id int64, n int) *sluice.Chunk {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = like(id, 1)
	}
	return r.chunk(nil, lines...)
}

// together commits chunks in one commit: all are in it before the step.
func (r *rig) together(chunks []*sluice.Chunk) {
	r.t.Helper()
	whole := &sluice.Chunk{}
	for _, c := range chunks {
		if err := c.Fill(c); err != nil {
			r.t.Fatal(err)
		}
		whole.Entries = append(whole.Entries, c.Entries...)
	}
	if _, errs := r.submit(whole); errs[0] != nil {
		r.t.Fatal(errs[0])
	}
}

// What was folded counts as the writes that it is; events as one each.
func TestHotKeysAreCountedByWrites(t *testing.T) {
	r := newRig(t)
	hot := hotkey.New()
	now := r.now.UnixMicro()
	r.acceptor = pipeline.NewAcceptor(r.schema, pipeline.AcceptorOptions{Journal: r.journal, Dedup: r.dedup, Gate: r.gate, Ledger: r.ledger,
		Clock: func() int64 { return now }, Wall: func() time.Time { return r.now }, Committed: r.drains.Committed, Hot: hot})
	lines := make([]string, 0, 200)
	for i := range 100 {
		lines = append(lines, like(42, 1), fmt.Sprintf(`{"table":"posts","key":%d,"append":{"clicks":{"what":"x"}}}`, 1000+i%4))
	}
	r.mustWrite(lines...)
	now += hotkey.Window.Microseconds()
	got := ""
	for _, k := range hot.Keys(now) {
		g := r.schema.Group(k.Group)
		got += fmt.Sprintf("%s %s %d of %d\n", g.FullName(), g.Table.AppendKeyJSON(nil, k.Key), k.Writes, k.Of)
	}
	want := "posts.metrics 42 100 of 100\n"
	for i := range 4 {
		want += fmt.Sprintf("posts.clicks %d 25 of 100\n", 1000+i)
	}
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
