// Package hotkey finds the keys that take a notable share of a group's writes.
// It is told each entry of each commit and says which keys are hot; it has no
// clock and no goroutine, and never decides what is done about a hot key.
//
// # What it promises
//
// Time is cut into windows of 150 ms. The span is the last four that are over.
//
//   - No false alarm: a key becomes hot only when it certainly had at least 1 %
//     of the group's writes in the span, and 25 writes a second: below that nobody
//     needs to know.
//   - A key that takes at least 1 % of each window's writes is hot at most 0.9 s after it
//     began, in whatever order the writes come: one window has begun when it comes, the
//     first whole one makes it a seed, the four after that count it exactly.
//   - A key with at least 1.15 % of the span's writes (1 % and the error bound of
//     Space-Saving, see window) is hot when the span is over, in whatever order they come.
//   - It is hot until it had less than 0.5 % for 5 s, so that a key at the edge is
//     not told of again and again.
//   - Memory: per group five windows of at most 36 KiB, and at most 2,048 keys.
//
// A key with 1 % of a table's writes has 1 % of the writes of one of the
// table's groups at least, so the promises hold for tables too.
package hotkey

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice"
)

// The promises, as figures.
const (
	Window    = 150 * time.Millisecond
	Windows   = 4 // of a span
	Span      = Windows * Window
	RateMin   = 25 // writes a second that a hot key has at least
	CoolAfter = 5 * time.Second

	shareHot  = 100 // one write in so many makes hot
	shareCool = 200 // one in more keeps it hot
	writesMin = uint64(RateMin * Span / time.Second)

	hotMax     = 128  // keys of a group that are hot or cool down; at most 100 can have 1 %
	seedsMax   = 384  // hot ones, and at most 2.5 times 100 that are heavy in one window
	namesMax   = 2048 // key bytes that a group keeps
	changesMax = 1024 // that wait to be told; later ones are not told of
)

// Tracker watches all groups. A nil one watches nothing. It is safe for
// concurrent use; times are microseconds of one clock that never goes back.
type Tracker struct {
	mu      sync.Mutex
	groups  []*group // by GroupID; nil until its first write
	seed    maphash.Seed
	changes []Change
}

// New makes a Tracker.
func New() *Tracker { return &Tracker{seed: maphash.MakeSeed()} }

// Key is a hot key and what is known of it since the last window was over.
type Key struct {
	Group   sluice.GroupID
	Key     []byte // as schema encodes it; not to be changed
	Since   int64  // when it became hot
	Cooling bool   // below the share that keeps it hot
	Writes  uint64 // in the span, at least
	Unsure  uint64 // writes in the span that may have been this key's as well
	Of      uint64 // writes of the whole group in the span

	hash uint64
	warm int64 // when it last had the share that keeps it hot
}

// PerSecond is the key's writes a second, at least.
func (k *Key) PerSecond() float64 { return float64(k.Writes) / Span.Seconds() }

// Share is the key's part of the group's writes, at least.
func (k *Key) Share() float64 { return share(k.Writes, k.Of) }

// ShareError is how much higher the share may be.
func (k *Key) ShareError() float64 { return share(k.Unsure, k.Of) }

func share(n, of uint64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// Change says that a key became hot or cool.
type Change struct {
	Key
	Hot bool
}

// Batch tells a Tracker of the entries of one commit. It holds the Tracker's lock
// until End: a lock for each entry took a third of the time.
type Batch struct {
	t   *Tracker
	g   *group // of the last entry: most neighbours share it
	now int64
}

// Begin starts a batch, which ends with End.
func (t *Tracker) Begin(now int64) Batch {
	if t != nil {
		t.mu.Lock()
	}
	return Batch{t: t, now: now}
}

// End lets others at the Tracker again.
func (b *Batch) End() {
	if b.t != nil {
		b.t.mu.Unlock()
	}
}

// Add counts writes to a key of a group. It copies the key when it needs it.
func (b *Batch) Add(id sluice.GroupID, key []byte, writes uint32) {
	if b.t == nil || writes == 0 {
		return
	}
	if b.g == nil || b.g.id != id {
		b.g = b.t.group(id, b.now)
	}
	w := b.g.open
	at := w.add(maphash.Bytes(b.t.seed, key), writes)
	if c := &w.counters[at]; at >= w.seeds && w.isHeavy(c) {
		b.g.name(c.hash, key)
	}
}

// group finds or makes the group and ends its windows that are over.
func (t *Tracker) group(id sluice.GroupID, now int64) *group {
	for int(id) >= len(t.groups) {
		t.groups = append(t.groups, nil)
	}
	g := t.groups[id]
	if g == nil {
		g = newGroup(id, t, now)
		t.groups[id] = g
	}
	if now >= g.ends {
		g.advance(now)
	}
	return g
}

// Step ends the windows that are over, also of groups that nobody writes to any
// more, and gives what changed since the last call.
func (t *Tracker) Step(now int64) []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance(now)
	out := t.changes
	t.changes = nil
	return out
}

// Keys lists the keys that are hot or cool down: by group, hottest first.
func (t *Tracker) Keys(now int64) []Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance(now)
	var out []Key
	for _, g := range t.groups {
		if g == nil {
			continue
		}
		for _, k := range g.hot {
			out = append(out, *k)
		}
	}
	slices.SortFunc(out, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(b.Writes, a.Writes), bytes.Compare(a.Key, b.Key))
	})
	return out
}

func (t *Tracker) advance(now int64) {
	for _, g := range t.groups {
		if g != nil && now >= g.ends {
			g.advance(now)
		}
	}
}

func (t *Tracker) tell(k *Key, hot bool) {
	if len(t.changes) < changesMax {
		t.changes = append(t.changes, Change{Key: *k, Hot: hot})
	}
}
