package node

import (
	"context"
	"time"

	"sluice.dev/sluice"
)

const (
	// forgetWait is how long a reload lets the drains finish what was dropped.
	forgetWait = 2 * time.Second
	// forgetAfter is longer than a request that was parsed under the schema before
	// can wait for its commit.
	forgetAfter = 2 * time.Minute
)

// dropped lists the groups that are dropped, or have a dropped column, and may
// still have entries somewhere. n.mu is held.
func (n *Node) dropped() []sluice.GroupID {
	var out []sluice.GroupID
	n.catalog.Forget(func(g sluice.GroupID) bool {
		out = append(out, g)
		return false
	})
	return out
}

// finishDropped brings what waits for dropped groups and columns to the
// databases, so that the catalog can forget them.
func (n *Node) finishDropped(ctx context.Context) {
	n.mu.Lock()
	groups := n.dropped()
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, forgetWait)
	defer cancel()
	for head := n.journal.Head().Number; len(groups) > 0 && ctx.Err() == nil; {
		streams := n.journal.Streams()
		left := false
		for _, g := range groups {
			for _, d := range n.drains.Of(g) {
				d.Flush(head)
				left = left || !d.Through(head, streams)
			}
		}
		if !left {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// drained tells whether every shard durably has all entries of a group and has
// none parked, and no request is under way that was parsed before the last
// reload. n.mu is held. head is the journal's when the drains were asked.
func (n *Node) drained(head uint64) func(sluice.GroupID) bool {
	streams := n.journal.Streams()
	settled := n.acceptor.Idle() || time.Since(n.reloaded) > forgetAfter
	return func(id sluice.GroupID) bool {
		g := n.acceptor.Schema().Group(id)
		if g == nil || !settled {
			return false
		}
		for name, sh := range n.shards {
			if name.store != g.Store {
				continue
			}
			if d := sh.drained[id]; d == nil || !d.Through(head, streams) {
				return false
			}
		}
		return true
	}
}

// neverWritten is drained at the start: no shard was asked yet, so what may be
// parked there is not known.
func (n *Node) neverWritten(id sluice.GroupID) bool {
	for s, state := range n.journal.Streams() {
		if s.Group == id && state.Last > 0 {
			return false
		}
	}
	return true
}

// forgetAtStop keeps what an orderly stop proved, so that the next start may
// bring a dropped column back or leave its store out.
func (n *Node) forgetAtStop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.catalog.Forget(n.drained(n.journal.Head().Number)) {
		return nil
	}
	return n.saveCatalog()
}
