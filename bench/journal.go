package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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

const (
	recordBytes  = 128
	bareLogBytes = 256 << 20
)

// Events, so that nothing folds: every write's bytes go to the disk.
const journalConfig = `
stores: {local: "sqlite:unused.db"}
tables:
  log:
    key: {id: int64}
    groups:
      lines: {kind: events, columns: {line: text}}
`

// contender is one side of the comparison in process.
type contender struct {
	name  string
	write func(writer int) error
	close func() error
	tally tally
}

func journalScenario(ctx context.Context, s *suite) error {
	for _, writers := range []int{64, 1024} {
		if err := journalAt(ctx, s, writers); err != nil {
			return fmt.Errorf("%d writers: %w", writers, err)
		}
	}
	return nil
}

func journalAt(ctx context.Context, s *suite, writers int) (err error) {
	entries, sch, err := journalEntries(writers)
	if err != nil {
		return err
	}
	var all []*contender
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.close())
		}
	}()
	for _, open := range []func(string, *schema.Schema, []sluice.Entry) (*contender, error){openBare, openJournal, openAcceptor} {
		dir, err := s.newDir()
		if err != nil {
			return err
		}
		c, err := open(dir, sch, entries)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	// In turns, since the disk is quicker in one minute than in the next.
	for range pick(s, 4, 2) {
		for _, c := range all {
			t, err := closedLoop(ctx, writers, pick(s, 3*time.Second, 400*time.Millisecond), c.write)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.tally.merge(t)
		}
	}
	bare := all[0]
	for _, c := range all[1:] {
		row := Row{What: fmt.Sprintf("%s, %s writers", c.name, number(float64(writers))), Against: bare.name,
			Durable: "fdatasync", RivalDurable: "fdatasync"}
		rate, times := row, row
		rate.Unit, rate.Goal = "writes/s", ratioAtLeast(0.9)
		rate.Sluice, rate.Rival = []float64{c.tally.perSecond()}, []float64{bare.tally.perSecond()}
		times.What += ", p50 / p99 / p99.9"
		times.Unit, times.Sluice, times.Rival = "ms", c.tally.millis(), bare.tally.millis()
		if writers == 1024 {
			times.Goal = ratioAtMost(2)
		}
		s.add(rate)
		s.add(times)
	}
	return nil
}

// journalEntries makes an entry of recordBytes, as encoded, for each writer.
func journalEntries(writers int) ([]sluice.Entry, *schema.Schema, error) {
	sch, err := parseSchema(journalConfig)
	if err != nil {
		return nil, nil, err
	}
	b := schema.NewBuilder(sch, time.Now)
	pad := recordBytes
	for range 3 { // the first times tell what the entry takes beside its text
		b.Reset(sch)
		for i := range writers {
			line := fmt.Sprintf(`{"table":"log","key":%d,"append":{"lines":{"line":%q}}}`, 1_000_000+i, strings.Repeat("x", pad))
			if err := b.AddJSON([]byte(line)); err != nil {
				return nil, nil, err
			}
		}
		pad -= len(journal.AppendEntry(nil, &b.Entries()[0])) - recordBytes
	}
	return b.Entries(), sch, nil
}

func parseSchema(config string) (*schema.Schema, error) {
	c, faults := schema.Parse("bench.yaml", []byte(config), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		return nil, faults
	}
	sch, _, faults := c.Resolve(nil)
	if len(faults) > 0 {
		return nil, faults
	}
	return sch, nil
}

func openBare(dir string, _ *schema.Schema, entries []sluice.Entry) (*contender, error) {
	log, err := openBareLog(dir, bareLogBytes)
	if err != nil {
		return nil, err
	}
	records := make([][]byte, len(entries))
	for i := range entries {
		records[i] = journal.AppendEntry(nil, &entries[i])
	}
	g := newGroupCommit(log.writeAll)
	return &contender{name: "bare append+fdatasync", close: log.close,
		write: func(i int) error { return g.write(records[i]) }}, nil
}

// openJournal is journal/disk under the same group commit as the rival's.
func openJournal(dir string, _ *schema.Schema, entries []sluice.Entry) (*contender, error) {
	j, stop, err := runJournal(dir)
	if err != nil {
		return nil, err
	}
	sums := map[journal.Stream]uint64{}
	enc := journal.Encoder{Cumulate: func(s journal.Stream, writes uint64) uint64 {
		sums[s] += writes
		return sums[s]
	}}
	g := newGroupCommit(func(batch []*sluice.Entry) error {
		slices.SortFunc(batch, func(a, b *sluice.Entry) int { return cmp.Compare(a.Slot, b.Slot) })
		now := time.Now().UnixMicro()
		enc.Begin(journal.Header{Time: now, Wall: now})
		for _, e := range batch {
			enc.Entry(e)
		}
		_, err := j.Append(enc.Finish())
		return err
	})
	return &contender{name: "journal alone", write: func(i int) error { return g.write(&entries[i]) }, close: stop}, nil
}

// openAcceptor is the whole way of a write in a process, from its door on.
func openAcceptor(dir string, sch *schema.Schema, entries []sluice.Entry) (*contender, error) {
	j, stopJournal, err := runJournal(dir)
	if err != nil {
		return nil, err
	}
	table, err := dedup.Open(dedup.Options{Dir: dir + "/identities", FS: vfs.OS{}, Journal: pipeline.JournalNumber(j.ID())})
	if err != nil {
		return nil, errors.Join(err, stopJournal())
	}
	from := time.Now()
	var drains pipeline.Drains
	a := pipeline.NewAcceptor(sch, pipeline.AcceptorOptions{Journal: j, Dedup: table, Gate: &admit.Gate{}, Ledger: &pipeline.Ledger{},
		Clock: func() int64 { return time.Since(from).Microseconds() }, Wall: time.Now, Committed: drains.Committed})
	chunks := make([]sluice.Chunk, len(entries))
	for i := range chunks {
		chunks[i].Entries = entries[i : i+1]
	}
	ctx, stop := context.WithCancel(context.Background())
	stepped := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			err = a.Step(ctx)
		}
		if ctx.Err() != nil {
			err = nil
		}
		stepped <- err
	}()
	return &contender{name: "acceptor and journal",
		write: func(i int) error {
			_, err := a.Submit(ctx, &chunks[i])
			return err
		},
		close: func() error {
			stop()
			return errors.Join(<-stepped, table.Close(), stopJournal())
		}}, nil
}

// runJournal opens a journal with its house-keeping, as a process runs it.
func runJournal(dir string) (*disk.Journal, func() error, error) {
	j, err := disk.Open(disk.Options{Dir: dir + "/journal"})
	if err != nil {
		return nil, nil, err
	}
	if err := j.Prepare(); err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	quit := make(chan struct{})
	var kept error
	var wg sync.WaitGroup
	wg.Go(func() {
		for kept == nil {
			select {
			case <-quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
			kept = errors.Join(j.Prepare(), j.SyncMark())
		}
	})
	return j, func() error {
		close(quit)
		wg.Wait()
		return errors.Join(kept, j.Close())
	}, nil
}
