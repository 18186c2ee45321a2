package sim_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/store"
)

// pick draws one of the weights; -1 when all are 0.
func pick(rng *rand.Rand, weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	if sum == 0 {
		return -1
	}
	at := rng.IntN(sum)
	for i, w := range weights {
		if at < w {
			return i
		}
		at -= w
	}
	return -1
}

// run takes the steps of one seed and gives what did not hold, or "".
func (w *world) run() string {
	w.watchDisk()
	w.restart()
	for i := 0; i < w.profile.steps && w.violated == ""; i++ {
		w.step()
	}
	if w.violated == "" {
		w.heal()
	}
	if w.violated == "" {
		w.drainAll()
	}
	if w.violated == "" {
		w.finally()
	}
	if w.violated == "" && w.older != nil {
		w.olderDisk()
	}
	w.end()
	return w.violated
}

// step lets one thing happen.
func (w *world) step() {
	if w.proc == nil {
		if w.chance(70) {
			w.restart()
		} else {
			w.advance(time.Duration(1+w.rng.IntN(3000)) * time.Millisecond)
		}
		return
	}
	p := w.proc
	stalled, late := 0, 0
	if len(w.stalls) > 0 {
		stalled = 8
	}
	if len(w.late) > 0 {
		late = 5
	}
	switch pick(w.rng, 22, 22, 22, 40, 4, 3, 3, 2, 8, 6, 7, stalled, late, 2) {
	case 0:
		w.advance(time.Duration(1+w.rng.IntN(400)) * time.Millisecond)
	case 1:
		w.clients[w.rng.IntN(len(w.clients))].act()
	case 2:
		p.commit()
	case 3:
		if len(p.list) > 0 {
			w.turn(p.list[w.rng.IntN(len(p.list))])
		}
	case 4:
		w.loop("trim", p.trim)
	case 5:
		w.loop("mark", p.disk.SyncMark)
	case 6:
		w.loop("prepare", p.disk.Prepare)
	case 7:
		w.loop("identities", p.keepIdentities)
	case 8:
		w.askReceipt()
	case 9:
		w.readOne()
	case 10:
		w.fault()
	case 11:
		w.release(w.stalls[w.rng.IntN(len(w.stalls))])
	case 12:
		at := w.rng.IntN(len(w.late))
		land := w.late[at]
		w.late = slices.Delete(w.late, at, at+1)
		w.say("a late COMMIT arrives")
		land()
	case 13:
		if len(w.stale) > 0 {
			w.stale[w.rng.IntN(len(w.stale))].step()
		}
	}
	if w.proc != nil && w.violated == "" {
		w.proc.reach()
		w.always()
	}
}

// turn steps a drainer once, or as often as it says that there is more to do, as
// node would. One that says so and gets nowhere would spin for ever.
func (w *world) turn(d *drain) {
	most := 1
	if w.chance(25) {
		most = 40
	}
	idle := 0
	for range most {
		before := d.state().cur
		d.step()
		if d.busy || d.err != nil || d.wait > 0 || w.proc != d.p || w.violated != "" {
			return
		}
		after := d.state().cur
		if idle++; before.Commit != after.Commit || !maps.Equal(before.Except, after.Except) {
			idle = 0
		}
	}
	if idle > 30 {
		w.fail("S8", "%s says that there is more to do, and gets no further than commit %d", d.name(), d.state().cur.Commit)
	}
}

// loop takes a step of house-keeping; its error ends the process, as in node.
func (w *world) loop(name string, step func() error) {
	if err := step(); err != nil {
		w.say("%s stops: %v", name, err)
		w.crashAfter(err)
	}
}

func (p *process) trim() error {
	if d := p.w.defect; d != nil && d.trim != nil {
		return d.trim(p)
	}
	return p.trimmer.Step(background)
}

func (p *process) keepIdentities() error {
	p.dedup.Advance(time.Duration(p.clock()) * time.Microsecond)
	if !p.dedup.Due() && !p.w.chance(30) {
		return nil
	}
	return p.dedup.Checkpoint(p.journal.Head().Number)
}

// fault lets something go wrong outside.
func (w *world) fault() {
	f := &w.profile
	if _, err := w.disk.Free("/"); err != nil {
		return // the machine is down; the process will notice
	}
	db := w.dbs[shardNames[w.rng.IntN(len(shardNames))]]
	switch pick(w.rng, f.kill, f.cut, f.syncFail, f.crashAt, f.restart, f.full, f.flip, f.jump, f.reload, f.lose+f.failover+f.down+f.lock, f.slowSync, f.older) {
	case 0:
		w.crash("kill -9", false)
	case 1:
		w.crash("power cut", true)
	case 2:
		w.io.syncErr = true
		w.say("the next sync of a segment fails")
	case 3:
		n := 1 + w.rng.IntN(12)
		w.disk.CrashAt(w.disk.Changes() + n)
		w.say("the machine stops in its %d. next change of the disk", n)
	case 4:
		w.stop()
	case 5:
		w.full()
	case 6:
		w.probeFlip()
	case 7:
		w.skew += time.Duration(w.rng.IntN(7200)-3600) * time.Second
		w.say("the wall clock jumps; it is off by %s", w.skew)
	case 8:
		w.proc.reload()
	case 9:
		db.fault(f)
	case 11:
		if !w.proc.committing {
			w.older = w.disk.Kill(w.rng.Uint64())
			w.say("somebody copies the disk at commit %d", len(w.truth))
		}
	case 10:
		w.io.slowSync = true
		w.say("the next sync of a segment is slow")
	}
}

// always holds at every moment.
func (w *world) always() {
	p := w.proc
	if used := p.disk.Usage().Bytes; used > w.profile.journal {
		w.fail("promise 6", "the journal has %d bytes, at most %d", used, w.profile.journal)
	}
	if !w.healing && !w.chance(25) {
		return // the ledger is the dear part
	}
	for _, row := range p.ledger.Rows(p.schemaNow(), p.journal, &p.drains) {
		if acked := w.acked(row.Group, func(uint8) uint64 { return uint64(len(w.truth)) }); row.Acked != acked {
			w.fail("R2", "the ledger of %s says %d were acknowledged, %d were", row.Group, row.Acked, acked)
		}
		if row.Acked != row.Applied+row.Rejected+row.Expired+row.Lost+row.Queued {
			w.fail("R2", "the ledger of %s does not balance: %+v", row.Group, row)
		}
	}
}

// acked counts the writes to a group, each partition through its own commit.
func (w *world) acked(group string, through func(p uint8) uint64) uint64 {
	n := uint64(0)
	for _, c := range w.truth {
		for _, at := range c.lines {
			if l := at.get(); l.touches(group) && c.number <= through(w.partition(l.key)) {
				n++
			}
		}
	}
	return n
}

// stepped checks a shard after a drainer's step that ended.
func (w *world) stepped(d *drain) {
	if w.lost {
		return
	}
	if d.err != nil {
		w.say("%s: %v", d.name(), d.err)
		w.judgeStop(d)
	}
	if w.violated != "" || d.p.gone || d.p != w.proc {
		return
	}
	st := d.state()
	w.compare(st, "after a step")
	w.checkPosition(d, st)
}

// judgeStop: a stream may stop for good only where the run gave it a reason.
func (w *world) judgeStop(d *drain) {
	var stop *store.StopError
	if !errors.As(d.err, &stop) || d.p.gone {
		return
	}
	if stop.Reason == store.ReasonParkedMax {
		return
	}
	w.fail("promise 10", "%s stops: %v", d.name(), d.err)
}

// checkPosition compares what the process believes of a shard with the shard.
func (w *world) checkPosition(d *drain, st *shardState) {
	pos := d.Position()
	if d.err != nil || pos.State == pipeline.StateStarting || d.wentBack() {
		return
	}
	passed := uint64(0)
	for p, n := range pos.Passed {
		if st.owned.Has(uint8(p)) {
			passed += n
		}
	}
	at := store.Cursor{Commit: pos.Applied, Except: pos.Except}
	should := w.acked(st.g.Name, func(p uint8) uint64 {
		if !st.owned.Has(p) {
			return 0
		}
		return at.Applied(p)
	})
	if passed != should {
		w.fail("R2", "%s: %d writes passed through commit %d, should be %d", d.name(), passed, pos.Applied, should)
	}
	if rejected := uint64(len(st.rejected)); pos.Rejected != rejected && st.cur.Commit == pos.Applied {
		w.fail("R2", "%s: counts %d rejected writes, the shard has %d", d.name(), pos.Rejected, rejected)
	}
}
