package hotkey

import (
	"slices"

	"sluice.dev/sluice"
)

// group watches the keys of one group. Its Tracker's lock guards it.
type group struct {
	id    sluice.GroupID
	t     *Tracker
	ends  int64            // when the open window is over
	open  *window          // counts now
	span  [Windows]*window // closed; the oldest at next
	next  int
	hot   map[uint64]*Key
	names map[uint64][]byte // bytes of keys that are hot or may become so
}

const windowMicros = int64(Window / 1000)

func newGroup(id sluice.GroupID, t *Tracker, now int64) *group {
	g := &group{id: id, t: t, open: new(window), hot: map[uint64]*Key{}, names: map[uint64][]byte{}}
	g.ends = now - now%windowMicros + windowMicros
	g.open.reset()
	for i := range g.span {
		g.span[i] = new(window)
		g.span[i].reset()
	}
	return g
}

// advance closes every window that is over. Once open window and span are empty,
// those of a long pause are all alike, and only the last of them is closed.
func (g *group) advance(now int64) {
	over := (now-g.ends)/windowMicros + 1
	for n := 0; over > 0; n++ {
		if n > Windows && over > 1 {
			g.ends += (over - 1) * windowMicros
			over = 1
		}
		g.close(g.ends)
		g.ends += windowMicros
		over--
	}
}

// close ends the open window, judges the span and opens the next window.
func (g *group) close(at int64) {
	if g.quiet() {
		return
	}
	w := g.open
	for i := range w.counters {
		if c := &w.counters[i]; w.isHeavy(c) {
			w.heavy = append(w.heavy, c.hash)
		}
	}
	g.open, g.span[g.next] = g.span[g.next], w
	g.next = (g.next + 1) % Windows
	g.open.reset()
	g.judge(at)
	for hash := range g.hot {
		g.open.seed(hash)
	}
	for _, hash := range w.heavy {
		g.open.seed(hash)
	}
	g.forget()
}

// quiet groups, which nobody writes to, cost nothing.
func (g *group) quiet() bool {
	return g.open.writes == 0 && len(g.hot) == 0 && g.writes() == 0
}

func (g *group) writes() (n uint64) {
	for _, w := range g.span {
		n += w.writes
	}
	return n
}

// judge finds what became hot or cool. A key with 1 % of the span is heavy in
// one of its windows at least.
func (g *group) judge(at int64) {
	of := g.writes()
	for _, w := range g.span {
		for _, hash := range w.heavy {
			if g.hot[hash] != nil {
				continue
			}
			if low, _ := g.bounds(hash); low >= writesMin && low*shareHot >= of {
				g.heat(hash, at)
			}
		}
	}
	for hash, k := range g.hot {
		low, high := g.bounds(hash)
		k.Writes, k.Unsure, k.Of = low, high-low, of
		k.Cooling = low*shareCool < of || 2*low < writesMin
		if !k.Cooling {
			k.warm = at
		} else if at-k.warm >= CoolAfter.Microseconds() {
			g.cool(k)
		}
	}
	for _, k := range g.hot {
		if k.Since == at {
			g.t.tell(k, true)
		}
	}
}

func (g *group) heat(hash uint64, at int64) {
	if len(g.hot) == hotMax {
		// At most 100 keys can be above 1 %, so the coldest is on its way out.
		var coldest *Key
		for _, k := range g.hot {
			if coldest == nil || k.warm < coldest.warm || k.warm == coldest.warm && k.Writes < coldest.Writes {
				coldest = k
			}
		}
		g.cool(coldest)
	}
	g.hot[hash] = &Key{Group: g.id, Key: g.names[hash], Since: at, hash: hash, warm: at}
}

func (g *group) cool(k *Key) {
	delete(g.hot, k.hash)
	g.t.tell(k, false)
}

// bounds of a key's writes in the span.
func (g *group) bounds(hash uint64) (low, high uint64) {
	for _, w := range g.span {
		l, h := w.bounds(hash)
		low, high = low+l, high+h
	}
	return low, high
}

// name keeps the bytes of a key whose share of the open window is that of a hot
// one. A key that ends a window with this share had it at its last write, so no
// heavy key is without its bytes. Seeds have theirs: they were heavy, or are hot.
func (g *group) name(hash uint64, key []byte) {
	if _, known := g.names[hash]; known {
		return
	}
	if len(g.names) >= namesMax {
		g.forget()
	}
	g.names[hash] = slices.Clone(key)
}

// forget drops the bytes of keys that are neither hot nor heavy in any window.
// What is left is at most hotMax and 2.5 times 100 for each window.
func (g *group) forget() {
	keep := make(map[uint64]bool, len(g.names))
	for _, w := range g.span {
		for _, hash := range w.heavy {
			keep[hash] = true
		}
	}
	for hash := range g.names {
		if keep[hash] || g.hot[hash] != nil {
			continue
		}
		if at := *g.open.find(hash); at != 0 && g.open.isHeavy(&g.open.counters[at-1]) {
			continue
		}
		delete(g.names, hash)
	}
}
