package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/store"
)

const (
	trimEvery    = time.Second
	notesEvery   = time.Second            // a kill loses at most so much of the counts of refusals (R2)
	markEvery    = 500 * time.Millisecond // the mark is synced within 1 s when idle (J3)
	prepareEvery = 100 * time.Millisecond
	doorsClose   = 10 * time.Second // accepted requests get so long to finish
)

// Run opens the doors and runs until ctx ends or something fatal happens, then
// stops in order: doors, accept, drain to the deadline, journal, stores.
func (n *Node) Run(ctx context.Context) error {
	accepting, stopAccepting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAccepting()
	accepted := make(chan struct{})
	n.loops.Add(1)
	go func() {
		defer n.loops.Done()
		defer close(accepted)
		for {
			if err := n.acceptor.Step(accepting); err != nil {
				if accepting.Err() == nil {
					n.fail(err)
				}
				return
			}
		}
	}()
	n.every(trimEvery, "trim", n.trimmer.Step)
	n.every(trimEvery, "identities", n.keepIdentities)
	n.every(rateEvery, "rates", n.measure)
	n.every(notesEvery, "notes", func(context.Context) error { n.acceptor.CommitNotes(); return nil })
	n.every(hotEvery, "hot keys", n.tellHot)
	n.every(markEvery, "mark", func(context.Context) error { return n.journal.SyncMark() })
	n.every(prepareEvery, "prepare segment", func(context.Context) error { return n.journal.Prepare() })
	n.startShards()
	n.awaitShards()
	n.doors.serve(n)
	n.ready.Store(true)
	n.emit(observe.EventReady, "http", n.HTTPAddr(), "resp", n.RESPAddr(), "journal", n.acceptor.Schema().Journal.Dir, "head", n.journal.Head().Number)

	var err error
	select {
	case <-ctx.Done():
	case err = <-n.fatal:
	}
	n.ready.Store(false)
	n.emit(observe.EventStopping, "error", err)
	deadline, cancel := context.WithTimeout(context.Background(), doorsClose)
	defer cancel()
	n.doors.shutdown(deadline)
	n.gate.RefuseAll(&admit.Refusal{Reason: sluice.ShuttingDown, Detail: "Sluice is stopping; try again when it is back", RetryAfter: 2 * time.Second})
	if err == nil {
		n.settle(deadline)
		n.drainUntil(n.acceptor.Schema().Limits.DrainDeadline)
		err = n.forgetAtStop()
	}
	stopAccepting()
	<-accepted
	if err == nil {
		err = n.acceptor.Finish()
	}
	if err == nil {
		err = n.saveLedger()
	}
	return errors.Join(err, n.Close())
}

// settle waits until what was submitted is durable.
func (n *Node) settle(ctx context.Context) {
	for !n.acceptor.Idle() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

// drainUntil lets the drains go on until nothing is queued or the time is over.
func (n *Node) drainUntil(limit time.Duration) {
	ctx, cancel := context.WithTimeout(n.run, limit)
	defer cancel()
	if err := n.Drain(ctx, func(uint64) {}); err != nil {
		n.emit(observe.EventNotEmpty, "queued", n.drains.Queued(n.journal))
	}
}

// Drain flushes until every store has what was acknowledged before the call.
func (n *Node) Drain(ctx context.Context, progress func(queued uint64)) error {
	n.drains.FlushAll(n.journal.Head().Number)
	target := n.journal.Head().Number
	for {
		queued := n.drains.Queued(n.journal)
		progress(queued)
		if n.through(target) {
			progress(0)
			return nil
		}
		if err := n.stuck(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return sluice.Errorf(sluice.Unavailable, "not_drained", "%d writes are still queued; `sluice status` says where, and `sluice drain` goes on", queued)
		case <-time.After(50 * time.Millisecond):
			n.drains.FlushAll(target)
		}
	}
}

// stuck tells that a drain cannot end since a stream waits for somebody to act.
func (n *Node) stuck() error {
	for _, d := range n.drains.All() {
		if pos := d.Position(); pos.State == pipeline.StateStopped {
			return sluice.Errorf(sluice.Unavailable, "stream_stopped", "not everything can be drained: %w", pos.Err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, sh := range n.shards {
		var missing *store.MissingError
		var stop *store.StopError
		if errors.As(sh.err, &missing) || errors.As(sh.err, &stop) {
			return sluice.Errorf(sluice.Unavailable, "shard_unused", "not everything can be drained, a shard is not in use: %w", sh.err)
		}
	}
	return nil
}

func (n *Node) through(commit uint64) bool {
	streams := n.journal.Streams()
	for _, d := range n.drains.All() {
		if !d.Through(commit, streams) {
			return false
		}
	}
	return n.shardsOpen()
}

// every runs step again and again until the node stops; its error is fatal.
func (n *Node) every(interval time.Duration, name string, step func(context.Context) error) {
	n.loops.Add(1)
	go func() {
		defer n.loops.Done()
		for {
			select {
			case <-n.run.Done():
				return
			case <-time.After(interval):
			}
			err := step(n.run)
			if sluice.CodeOf(err) == sluice.Overloaded {
				// No room on the disk harms nothing: the gate is closed at
				// disk_reserve, and the next try may find room.
				n.emit(observe.EventRefusing, "while", name, "error", err)
				continue
			}
			if err != nil {
				if n.run.Err() == nil {
					n.fail(fmt.Errorf("%s: %w", name, err))
				}
				return
			}
		}
	}()
}

// fail ends Run with the first fatal error.
func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
	default: // an earlier one ends it already
	}
}

// keepIdentities advances the identities' clock and moves them to files when
// memory asks for it.
func (n *Node) keepIdentities(context.Context) error {
	n.dedup.Advance(time.Duration(n.clock.now()) * time.Microsecond)
	if !n.dedup.Due() {
		return nil
	}
	return n.dedup.Checkpoint(n.journal.Head().Number)
}

func drainEvent(d *pipeline.Drainer) *observe.Event {
	if d.Position().State == pipeline.StateStopped {
		return observe.EventStopped
	}
	return observe.EventRetry
}

func (n *Node) emit(e *observe.Event, fields ...any) {
	n.log.Log(context.Background(), slog.Level(e.Level), e.Name, fields...)
}

// runDrainer steps one drainer until the node stops.
func (n *Node) runDrainer(d *pipeline.Drainer) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := ""
	for n.run.Err() == nil {
		wait, err := d.Step(n.run)
		var stop *store.StopError
		if errors.As(err, &stop) && stop.Reason == store.ReasonIOError {
			n.fail(err) // never retried (J4)
			return
		}
		if err != nil && n.run.Err() == nil {
			wait = d.Backoff()
			if err.Error() != said {
				said = err.Error()
				n.emit(drainEvent(d), "error", err)
			}
		}
		if err == nil && said != "" {
			said = ""
			n.emit(observe.EventGoesOn, "group", d.Group().FullName())
		}
		if wait <= 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-d.Wake():
		case <-timer.C:
		case <-n.run.Done():
		}
	}
}
