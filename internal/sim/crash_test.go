package sim_test

import (
	"errors"
	"slices"
	"strings"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/vfs"
)

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
	w.stale = append(w.stale, p.list...)
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
