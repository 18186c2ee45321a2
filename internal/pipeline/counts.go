package pipeline

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/observe"
)

// Counts are what an Acceptor did since it was made. Written by Submit and
// Step, read by node for metrics and status.
type Counts struct {
	Writes       atomic.Uint64 // made durable
	Entries      atomic.Uint64 // that these became in the journal
	Commits      atomic.Uint64
	Bytes        atomic.Uint64 // of commit bodies
	Duplicates   atomic.Uint64 // chunks recognised as retries
	Refused      [256]atomic.Uint64
	AppendTime   *observe.Histogram // write and sync of one commit
	CommitTime   *observe.Histogram // from its first write until it was durable
	CommitWrites *observe.Histogram
}

func (c *Counts) init() {
	c.AppendTime, c.CommitTime = observe.NewHistogram(observe.Seconds), observe.NewHistogram(observe.Seconds)
	c.CommitWrites = observe.NewHistogram(observe.Sizes)
}

func (c *Counts) committed(at *commit, bytes int, appended, whole time.Duration) {
	c.Writes.Add(uint64(at.writes))
	c.Entries.Add(uint64(at.folder.Len()))
	c.Commits.Add(1)
	c.Bytes.Add(uint64(bytes))
	c.AppendTime.Observe(appended.Seconds())
	c.CommitTime.Observe(whole.Seconds())
	c.CommitWrites.Observe(float64(at.writes))
}

func (c *Counts) refused(r sluice.Reason, n uint64) { c.Refused[r].Add(n) }

// Counts gives the Acceptor's counters.
func (a *Acceptor) Counts() *Counts { return &a.counts }

// notes gathers what rides in the next commit (R2): a kill loses at most what
// was gathered since the last one.
type notes struct {
	mu   sync.Mutex
	list map[noteKey]uint64
}

type noteKey struct {
	group  sluice.GroupID
	reason sluice.Reason
}

func (n *notes) add(g sluice.GroupID, r sluice.Reason, count uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.list == nil {
		n.list = map[noteKey]uint64{}
	}
	n.list[noteKey{g, r}] += count
}

func (n *notes) any() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.list) > 0
}

func (n *notes) take() []journal.Note {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.list) == 0 {
		return nil
	}
	out := make([]journal.Note, 0, len(n.list))
	for k, count := range n.list {
		out = append(out, journal.Note{Group: k.group, Reason: k.reason, Count: count})
	}
	clear(n.list)
	return out
}
