package sim_test

import (
	"cmp"
	"slices"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
)

// commit is what one durable commit holds, in the words of the clients: which
// lines, in the order in which they were placed. It comes from the marks in the
// commit and from what clients sent, never from the entries that are under test.
type commit struct {
	number uint64
	lines  []placed
}

type placed struct {
	k    *chunk
	line int
}

func (p placed) get() *line { return &p.k.lines[p.line] }

// durable takes in a commit that became durable.
func (w *world) durable(c journal.Commit) {
	if w.lost {
		return
	}
	if c.Number != uint64(len(w.truth))+1 {
		w.fail("J1", "commit %d follows commit %d", c.Number, len(w.truth))
		return
	}
	found := w.marks(c)
	out := &commit{number: c.Number}
	for k := range found {
		if k.at != 0 {
			w.fail("I1", "%s is in commit %d and in commit %d", k.id, k.at, c.Number)
			return
		}
		k.at, k.taken, k.order = c.Number, make([]bool, len(k.lines)), k.placement()
		for i := range k.lines {
			k.taken[i] = k.lines[i].del || found[k][k.lines[i].name]
			if k.taken[i] {
				out.lines = append(out.lines, placed{k, i})
			}
		}
	}
	slices.SortFunc(out.lines, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.k.order, b.k.order), cmp.Compare(a.line, b.line))
	})
	w.truth = append(w.truth, out)
	w.say("commit %d is durable: %s", c.Number, out)
}

func (c *commit) String() string {
	var parts []string
	for _, p := range c.lines {
		parts = append(parts, p.get().name)
	}
	return strings.Join(parts, " ")
}

// placement is the sequence of the attempt that put the chunk into the commit:
// the first one that nothing decided.
func (k *chunk) placement() uint64 {
	for _, a := range k.attempts {
		if a.p == k.attempts[len(k.attempts)-1].p && a.waits() {
			return a.seq
		}
	}
	return k.attempts[len(k.attempts)-1].seq
}

// marks reads which lines the commit holds, and checks each mark.
func (w *world) marks(c journal.Commit) map[*chunk]map[string]bool {
	found := map[*chunk]map[string]bool{}
	body, err := journal.DecodeBody(c.Body)
	if err != nil {
		w.fail("promise 1", "commit %d cannot be read: %v", c.Number, err)
		return found
	}
	g := group(w.schema, "clicks")
	_ = body.Entries(g.ID, &sluice.AllPartitions, func(e *sluice.Entry) error {
		name := string(e.Cells[0].Value.Bytes)
		id, _, _ := strings.Cut(name, ":")
		k := w.chunks[id]
		if k == nil || found[k][name] {
			w.fail("I1", "commit %d holds line %q, which nobody sent, or twice", c.Number, name)
			return nil
		}
		if found[k] == nil {
			found[k] = map[string]bool{}
		}
		found[k][name] = true
		return nil
	})
	return found
}

// recovered compares the journal of a new process with what was durable before.
func (w *world) recovered(p *process) {
	head := p.journal.Head().Number
	switch n := uint64(len(w.truth)); {
	case head < n:
		w.fail("promise 1", "the journal ends at commit %d after the start, and commit %d was durable", head, n)
	case head == n:
	case head == n+1 && w.unsure:
		c, err := p.journal.Read(head)
		if err != nil {
			w.fail("promise 1", "commit %d cannot be read after the start: %v", head, err)
			return
		}
		w.durable(c)
	default:
		w.fail("J1", "the journal ends at commit %d after the start, and commit %d was the last one written", head, n)
	}
	w.unsure = false
}
