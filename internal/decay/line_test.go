package decay_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/dedup"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/disk"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/vfs"
)

const config = `
stores:
  main: {url: "postgres://test", ddl: auto}
tables:
  posts:
    key: {id: int64}
    groups:
      metrics: {store: main, flush: 1s, columns: {likes: int64 sum}}
      clicks:  {store: main, kind: events, flush: 1s, columns: {n: int64, what: text}}
`

const (
	uniformKeys = 100_000
	eventText   = "a comment of about forty bytes, no more"
)

// line is the way of a write with the real parts, and with a clock that the test
// moves: one request is one commit, whatever the machine is doing.
type line struct {
	t        *testing.T
	schema   *schema.Schema
	now      time.Time
	disk     *countingFS
	journal  *disk.Journal
	acceptor *pipeline.Acceptor
	drains   pipeline.Drains
	random   *rand.Rand
	serial   int
	builder  *schema.Builder
}

func newLine(t *testing.T) *line {
	t.Helper()
	c, faults := schema.Parse("sluice.yaml", []byte(config), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s, _, faults := c.Resolve(nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	l := &line{t: t, schema: s, now: time.Unix(1_700_000_000, 0).UTC(), disk: &countingFS{FS: vfs.OS{}}, random: rand.New(rand.NewPCG(1, 2))}
	clock := func() time.Time { return l.now }
	l.builder = schema.NewBuilder(s, clock)
	dir := t.TempDir()
	var err error
	if l.journal, err = disk.Open(disk.Options{Dir: filepath.Join(dir, "journal"), FS: l.disk, SegmentBytes: 32 << 20, Now: clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.journal.Close() })
	d, err := dedup.Open(dedup.Options{Dir: filepath.Join(dir, "identities"), FS: vfs.OS{}, Journal: pipeline.JournalNumber(l.journal.ID())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	l.acceptor = pipeline.NewAcceptor(s, pipeline.AcceptorOptions{Journal: l.journal, Dedup: d, Gate: &admit.Gate{}, Ledger: &pipeline.Ledger{},
		Clock: func() int64 { return l.now.UnixMicro() }, Wall: clock, Committed: l.drains.Committed})
	l.stepAcceptor()
	return l
}

// stepAcceptor commits what is submitted until the test ends.
func (l *line) stepAcceptor() {
	ctx, cancel := context.WithCancel(l.t.Context())
	var loop sync.WaitGroup
	loop.Go(func() {
		for l.acceptor.Step(ctx) == nil {
		}
	})
	l.t.Cleanup(func() { cancel(); loop.Wait() })
}

// lines gives so many writes of a load as NDJSON.
func (l *line) lines(load string, writes int) (out []byte) {
	l.t.Helper()
	for range writes {
		l.serial++
		switch load {
		case "hot":
			out = append(out, `{"table":"posts","key":42,"add":{"likes":1}}`...)
		case "uniform":
			out = fmt.Appendf(out, `{"table":"posts","key":%d,"add":{"likes":1}}`, l.random.Int64N(uniformKeys))
		case "events":
			out = fmt.Appendf(out, `{"table":"posts","key":%d,"append":{"clicks":{"n":%d,"what":%q}}}`, l.random.Int64N(uniformKeys), l.serial, eventText)
		default:
			l.t.Fatalf("there is no load %q", load)
		}
		out = append(out, '\n')
	}
	return out
}

// chunk parses lines as a door does.
func (l *line) chunk(load string, writes int) *sluice.Chunk {
	l.t.Helper()
	l.builder.Reset(l.schema)
	text := l.lines(load, writes)
	for from, at := 0, 0; at < len(text); at++ {
		if text[at] != '\n' {
			continue
		}
		if err := l.builder.AddJSON(text[from:at]); err != nil {
			l.t.Fatal(err)
		}
		from = at + 1
	}
	return &sluice.Chunk{Entries: l.builder.Entries()}
}

func (l *line) submit(load string, writes int) {
	l.t.Helper()
	if _, err := l.acceptor.Submit(l.t.Context(), l.chunk(load, writes)); err != nil {
		l.t.Fatal(err)
	}
}

// journaled counts what the journal writes for commits of so many writes each.
func journaled(t *testing.T, load string, writes int) []figure {
	const commits = 20
	l := newLine(t)
	l.submit(load, writes)
	before, from := l.disk.counts(), l.journal.Head().Number
	for range commits {
		l.submit(load, writes)
	}
	c := l.disk.counts().minus(before)
	body, entries := 0, 0
	for n := from + 1; n <= l.journal.Head().Number; n++ {
		commit, err := l.journal.Read(n)
		if err != nil {
			t.Fatal(err)
		}
		body += len(commit.Body)
		entries += entriesOf(t, commit.Body, l.schema)
	}
	if made := int(l.journal.Head().Number - from); made != commits {
		t.Fatalf("%d commits, want %d: one for each request", made, commits)
	}
	all := float64(commits * writes)
	return []figure{{"body bytes per write", float64(body) / all}, {"bytes on disk per write", float64(c.bytes) / all}, {"entries per write", float64(entries) / all},
		{"calls to write per commit", float64(c.writes) / commits}, {"fsyncs per commit", float64(c.syncs) / commits}}
}

func entriesOf(t *testing.T, body []byte, s *schema.Schema) (n int) {
	t.Helper()
	b, err := journal.DecodeBody(body)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range s.Groups() {
		if err := b.Entries(g.ID, allPartitions(), func(*sluice.Entry) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func allPartitions() *sluice.PartitionSet {
	var set sluice.PartitionSet
	for p := range sluice.Partitions {
		set.Add(uint8(p))
	}
	return &set
}
