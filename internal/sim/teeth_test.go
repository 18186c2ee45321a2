package sim_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/vfs"
)

// teethSeedsMax is within how many seeds a defect has to be found.
const teethSeedsMax = 200

func segmentFile(first uint64) string { return fmt.Sprintf("journal/%020d.seg", first) }

// defects are the simpler rules that PROTOCOL was found by breaking.
func defects() []defect {
	var last []byte
	return []defect{
		{name: "ack before fsync", disk: func(op vfs.Op) error {
			if op.Kind == "sync" && strings.HasSuffix(op.Name, ".seg") {
				return vfs.ErrSkip
			}
			return nil
		}},
		{name: "cursor outside the transaction", shard: func(_ *process, l *link) store.Shard { return &cursorApart{l} }},
		{name: "guard that does not raise", server: func(s store.Shard) store.Shard { return &looseGuard{s} }},
		{name: "epoch taken from the shard", drain: func(p *process, l *link, g *schema.Group) journal.Journal {
			return &shardEpochs{p.journal, l, g}
		}},
		{name: "fold across a cursor", shard: func(_ *process, l *link) store.Shard { return &foldOn{Shard: l} }},
		{name: "one cursor for two groups", shard: func(p *process, l *link) store.Shard { return &oneCursor{l, p} }},
		{name: "dedup at drain", shard: func(_ *process, l *link) store.Shard { return &drainDedup{l, map[[2]uint64]bool{}} }},
		{name: "dedup forgotten at restart", forgetful: true},
		{name: "chunk number left out of the identity", identity: func(c *sluice.Chunk) {
			if c.Identity.Key != "" {
				c.Identity.Chunk = 0
			}
		}},
		{name: "torn tail accepted", profile: func(p *profile) { p.cut, p.crashAt, p.kill = 25, 30, 0 }, opened: func(p *process, tail []byte) {
			if body := tornBody(tail, p.disk.Head().Number+1); body != nil && p.w.unsure {
				_, _ = p.disk.Append(body)
			}
		}},
		{name: "last commit cut although marked", disk: func(op vfs.Op) error {
			if op.Kind == "write" && op.Name == "journal/mark" {
				return vfs.ErrSkip
			}
			return nil
		}},
		{name: "parked rows kept in memory only", shard: func(_ *process, l *link) store.Shard { return &parkInMemory{Shard: l, l: l} }},
		{name: "NULL summed", shard: func(_ *process, l *link) store.Shard { return &nullSum{l} }},
		{name: "unsynced tail drained", journal: func(p *process) journal.Journal { return &earlyTail{p.disk, p} }},
		{name: "commit torn across partitions",
			journal: func(p *process) journal.Journal { return &lastBody{&watched{p.disk, p.w}, &last} },
			opened: func(p *process, _ []byte) {
				if body := half(p.disk, last); body != nil && p.w.unsure && p.disk.Head().Number == uint64(len(p.w.truth)) {
					_, _ = p.disk.Append(body)
				}
			}},
		{name: "cursor of an idle shard not read again", shard: func(_ *process, l *link) store.Shard { return &neverAgain{Shard: l} }},
		{name: "cursor beyond the journal accepted", shard: func(p *process, l *link) store.Shard { return &pullBack{l, p} }},
		{name: "reject outside the transaction", shard: func(_ *process, l *link) store.Shard { return &rejectApart{l} }},
		{name: "fold that overflows", journal: func(p *process) journal.Journal { return &wrapAround{&watched{p.disk, p.w}} }},
		{name: "trimming before durable", trim: trimEarly},
	}
}

// trimEarly removes what is applied, whether or not it would survive a crash.
func trimEarly(p *process) error {
	for _, s := range p.journal.Segments() {
		keep := s.SealedAt == 0
		for stream, last := range s.Streams {
			d := p.drains.Find(stream)
			keep = keep || d == nil || d.Position().Applied < last
		}
		if keep {
			continue
		}
		if err := p.dedup.Checkpoint(p.journal.Head().Number); err != nil {
			return err
		}
		if err := p.saveLedger(); err != nil {
			return err
		}
		if err := p.journal.Remove(s.First); err != nil {
			return err
		}
	}
	return nil
}

// TestTeeth plants each defect and demands that the simulation finds it. It
// says what the simulation would miss if it did not.
func TestTeeth(t *testing.T) {
	for _, d := range defects() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= teethSeedsMax; seed++ {
				if _, what := simulate(t, seed, &d); what != "" {
					t.Logf("found with seed %d: %s", seed, what)
					return
				}
			}
			t.Errorf("not found within %d seeds", teethSeedsMax)
		})
	}
}
