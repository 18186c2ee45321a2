package sim_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/vfs"
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

// watchDisk tells the disk to ask before every call.
func (w *world) watchDisk() {
	w.disk.SetFault(w.diskFault(w.disk))
}

func (w *world) diskFault(m *vfs.Mem) func(op vfs.Op) error {
	return func(op vfs.Op) error {
		if m != w.disk { // of a process that is gone: the volume is another's now
			if op.Seq > 0 {
				return vfs.ErrCrashed
			}
			return nil
		}
		if d := w.defect; d != nil && d.disk != nil {
			if err := d.disk(op); err != nil {
				return err
			}
		}
		if op.Kind != "sync" || !strings.HasSuffix(op.Name, ".seg") || w.proc == nil {
			return nil
		}
		if w.io.skipSync {
			return vfs.ErrSkip
		}
		if w.io.syncErr {
			w.io.syncErr = false
			return errIO
		}
		if w.io.slowSync && w.proc.committing && !w.healing {
			w.io.slowSync = false
			p := w.proc
			if w.wait(p, "a sync of %s", op.Name); p.gone {
				return vfs.ErrCrashed
			}
		}
		return nil
	}
}

// full fills the disk, or makes room again.
func (w *world) full() {
	if w.io.full {
		w.disk.SetCapacity(0)
		w.say("the disk has room again")
	} else {
		const large = 1 << 40
		w.disk.SetCapacity(large)
		used := large - must(w.disk.Free("/"))
		w.disk.SetCapacity(used + int64(w.rng.IntN(100_000)))
		w.say("the disk is nearly full")
	}
	w.io.full = !w.io.full
}

// crashAfter ends a process that cannot go on: a failed disk, or a full one.
func (w *world) crashAfter(err error) {
	if w.proc == nil {
		return
	}
	var e *sluice.Error
	if errors.As(err, &e) && e.Code == sluice.Overloaded {
		// Node would stop here too; a disk that stays full stops it again.
		w.say("it stops for lack of room")
	}
	cut := errors.Is(err, vfs.ErrCrashed) && w.chance(60)
	w.crash("process ends", cut)
}

// crash ends the process without a word. What it had under way goes on by itself
// until it is answered.
func (w *world) crash(how string, powerCut bool) {
	p := w.proc
	w.say("%s at commit %d", how, len(w.truth))
	w.leave(p)
	next := w.rng.Uint64()
	if powerCut {
		w.disk = w.disk.PowerCut(next)
	} else {
		w.disk = w.disk.Kill(next)
	}
	w.watchDisk()
	w.io.syncErr, w.io.slowSync = false, false
	w.settleGone(p)
}

// leave makes the process one that nobody hears of.
func (w *world) leave(p *process) {
	p.gone = true
	w.proc = nil
	for _, d := range p.list {
		w.stale = append(w.stale, d)
	}
}

// settleGone cancels what clients wait for and ends a commit that the disk holds up.
func (w *world) settleGone(p *process) {
	p.cancel()
	for _, k := range w.chunks {
		for _, a := range k.attempts {
			if !a.done {
				a.cancel()
			}
		}
	}
	w.settle()
	for _, s := range slices.Clone(w.stalls) {
		if s.proc == p && strings.HasPrefix(s.what, "a sync of") {
			w.stalls = slices.DeleteFunc(w.stalls, func(o *stall) bool { return o == s })
			close(s.free)
		}
	}
	w.settle()
	w.collect()
}

// stop ends the process in order and leaves the disk as it is.
func (w *world) stop() {
	p := w.proc
	for _, s := range slices.Clone(w.stalls) {
		w.release(s)
	}
	if w.proc != p {
		return
	}
	p.gate.RefuseAll(&admit.Refusal{Reason: sluice.ShuttingDown, Detail: "stopping", RetryAfter: time.Second})
	w.io.slowSync = false
	for range 5 {
		p.commit()
	}
	if w.proc != p {
		return
	}
	w.say("the process stops in order at commit %d", len(w.truth))
	w.leave(p)
	w.stale = nil
	if err := errors.Join(p.dedup.Close(), p.disk.Close()); err != nil {
		w.say("stop: %v", err)
		w.disk = w.disk.Kill(w.rng.Uint64())
		w.watchDisk()
	}
	w.settleGone(p)
}

// restart starts a process on what the disk holds.
func (w *world) restart() {
	p, err := w.open()
	if err != nil {
		w.say("start failed: %v", err)
		var corrupt *journal.CorruptError
		if errors.As(err, &corrupt) {
			w.fail("promise 1", "the journal is said to be damaged, and nobody damaged it: %v", err)
			return
		}
		if w.io.full {
			w.full()
		} else if !errors.Is(err, vfs.ErrCrashed) {
			w.fail("promise 10", "the process does not start: %v", err)
			return
		}
		w.disk = w.disk.Kill(w.rng.Uint64())
		w.watchDisk()
		return
	}
	w.proc = p
	w.recovered(p)
	w.say("the process starts at commit %d, level %d", p.journal.Head().Number, w.level)
	if w.violated == "" {
		p.reach()
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

func (w *world) String() string { return fmt.Sprintf("seed %d", w.seed) }
