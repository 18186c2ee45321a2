package sim_test

import (
	"maps"
	"slices"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/store"
)

// heal ends all faults; from here on everything must come to its end.
func (w *world) heal() {
	w.say("all faults end")
	w.healing = true
	w.io.syncErr, w.io.slowSync = false, false
	w.disk.CrashAt(0)
	if w.io.full {
		w.full()
	}
	for _, name := range shardNames {
		w.dbs[name].heal()
	}
	for len(w.stalls) > 0 {
		w.release(w.stalls[0])
	}
	for _, land := range w.late {
		land()
	}
	w.late, w.stale = nil, nil
	if _, err := w.disk.Free("/"); err != nil && w.proc != nil {
		w.crash("the machine is down", true)
	}
	for range 5 {
		if w.proc != nil || w.violated != "" {
			break
		}
		w.restart()
	}
	if w.proc == nil && w.violated == "" {
		w.fail("promise 10", "the process does not start after all faults ended")
	}
}

// drainAll lets clients, acceptor and drainers come to rest.
func (w *world) drainAll() {
	for range 400 {
		p := w.proc
		if p == nil {
			w.fail("promise 10", "the process ended without a fault")
			return
		}
		p.reach()
		w.loop("trim", p.trim)
		for _, c := range w.clients {
			for _, k := range c.open() {
				if k.running() {
					continue
				}
				if !k.identified() {
					k.state = left
					continue
				}
				k.send("sends again")
			}
		}
		for range 5 {
			p.commit()
		}
		for _, d := range p.list {
			for range 50 {
				d.step()
				if d.err != nil || d.wait > 0 || w.violated != "" {
					break
				}
			}
		}
		if w.violated != "" {
			return
		}
		if w.proc != p {
			continue
		}
		w.always()
		w.advance(700 * time.Millisecond)
		if w.quiet() {
			break
		}
	}
}

// quiet tells that nothing is left to do. The idle confirmation has to come
// round once more, since it is what finds a shard that went back.
func (w *world) quiet() bool {
	w.rounds++
	open := slices.ContainsFunc(w.clients, func(c *client) bool { return len(c.open()) > 0 })
	if open || w.proc == nil || w.proc.drains.Queued(w.proc.journal) > 0 {
		w.rounds = 0
	}
	if w.rounds == 3 && !w.idleLoss {
		w.idleLoss = true
		for _, name := range shardNames {
			if db := w.dbs[name]; db.replica != nil && w.profile.failover > 0 {
				db.failOver()
				w.rounds = 0
				w.say("shard %s fails over to its replica while nobody uses it", name)
			}
		}
	}
	return w.rounds > 10
}

// finally checks what has to hold at the end.
func (w *world) finally() {
	p := w.proc
	if queued := p.drains.Queued(p.journal); queued > 0 {
		w.fail("promise 4", "%d writes are queued though nothing holds them up", queued)
	}
	for _, d := range p.list {
		st := d.state()
		if d.err != nil {
			w.fail("promise 10", "%s does not go on: %v", d.name(), d.err)
		}
		w.compare(st, "at the end")
		for part := range sluice.Partitions {
			s := journal.Stream{Group: st.g.ID, Partition: uint8(part)}
			if last := p.journal.Stream(s).Last; d.has(s.Partition) && st.cur.Applied(s.Partition) < last {
				w.fail("S4", "%s: the shard's own cursor ends at commit %d for partition %d, and commit %d has an entry", d.name(), st.cur.Applied(s.Partition), part, last)
				break
			}
		}
		if len(st.parked) > 0 {
			w.fail("S8", "%s: keys %v are parked though nothing holds them up", d.name(), slices.Sorted(maps.Keys(st.parked)))
		}
		if last := p.journal.Head().Number; !d.Through(last, p.journal.Streams()) {
			w.fail("promise 4", "%s ends at commit %d of %d", d.name(), d.Position().Applied, last)
		}
	}
	for _, c := range w.clients {
		for _, k := range c.chunks {
			if k.state == unknown {
				w.fail("promise 4", "%s was never decided", k.id)
			}
			w.checkReceipt(k, true)
			if w.violated != "" {
				return
			}
		}
	}
}

// olderDisk lets the whole disk come back as it once was. The shards are then
// ahead of the journal: each of them has to stop, whatever is written meanwhile,
// until somebody adopts the loss (S4, J7).
func (w *world) olderDisk() {
	w.crash("an older copy of the disk comes back", false)
	w.disk, w.lost = w.older, true
	w.watchDisk()
	p, err := w.open()
	if err != nil {
		w.fail("promise 10", "the process does not start on an older copy of its disk: %v", err)
		return
	}
	w.proc = p
	p.reach()
	before := map[string]store.Cursor{}
	for _, d := range p.list {
		if cur := d.state().cur; cur.Highest() > p.journal.Head().Number {
			before[d.name()] = cur
		}
	}
	w.say("the process starts at commit %d; %d streams are ahead of it", p.journal.Head().Number, len(before))
	for range 40 {
		w.advance(time.Duration(w.rng.IntN(1500)) * time.Millisecond)
		k := &chunk{id: "new", c: w.clients[0]}
		k.write(nil)
		c := k.request()
		go func() { _, _ = p.acceptor.Submit(background, c) }()
		w.settle()
		p.commit()
		p.list[w.rng.IntN(len(p.list))].step()
		for _, d := range p.list {
			was, ahead := before[d.name()]
			if is := d.state().cur; ahead && (is.Commit != was.Commit || is.Chain != was.Chain) {
				w.fail("S4", "%s was at commit %d, beyond the end of the journal, and went on to commit %d", d.name(), was.Commit, is.Commit)
				return
			}
		}
	}
}

// end lets go of every goroutine.
func (w *world) end() {
	w.healing = true
	if w.proc != nil {
		p := w.proc
		w.leave(p)
		w.settleGone(p)
	}
	for len(w.stalls) > 0 {
		s := w.stalls[0]
		w.stalls = w.stalls[1:]
		close(s.free)
		w.settle()
	}
}
