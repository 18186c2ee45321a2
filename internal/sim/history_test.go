package sim_test

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// history is what clients saw of the counter: additions, from being sent until a
// receipt said applied, and reads. It must be one of a counter that one after
// the other used (promise 7).
type history struct {
	clock int64
	ops   []porcupine.Operation
	calls map[*chunk]int64
	reads int
	adds  int
	over  bool // nothing more is noted
}

type counterInput struct {
	read bool
	n    int64
}

const (
	historyAddsMax  = 12 // checking is exponential in what overlaps: a history ends here
	historyReadsMax = 40
	historyTimeMax  = time.Second // of the real clock; an undecided history is no fault
)

func (h *history) tick() int64 {
	h.clock++
	return h.clock
}

// sent notes the first time that a chunk with additions is sent.
func (h *history) sent(k *chunk) {
	if h.calls == nil {
		h.calls = map[*chunk]int64{}
	}
	if _, known := h.calls[k]; known || k.counts() == 0 || h.over {
		return
	}
	if h.adds++; h.adds > historyAddsMax {
		h.over = true
		return
	}
	h.calls[k] = h.tick()
}

// counts is what the chunk adds to the counter.
func (k *chunk) counts() int64 {
	n := int64(0)
	for i := range k.lines {
		if l := &k.lines[i]; l.key == counterKey && !l.del && (k.taken == nil || k.taken[i]) {
			n += l.number("likes")
		}
	}
	return n
}

func (h *history) applied(k *chunk) {
	if call, known := h.calls[k]; known && !h.over {
		h.ops = append(h.ops, porcupine.Operation{ClientId: len(h.ops), Input: counterInput{n: k.counts()}, Call: call, Return: h.tick()})
		delete(h.calls, k)
	}
}

func (h *history) read(n int64) {
	if h.reads++; h.reads > historyReadsMax || h.over {
		return
	}
	call := h.tick()
	h.ops = append(h.ops, porcupine.Operation{ClientId: len(h.ops), Input: counterInput{read: true}, Output: n, Call: call, Return: h.tick()})
}

var counterModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(counterInput); !in.read {
			return true, state.(int64) + in.n
		}
		return output.(int64) == state.(int64), state
	},
}

// linearizable judges the history. Additions whose receipt nobody asked for may
// have come to be at any time, also never: they end behind everything.
func (h *history) linearizable(w *world) bool {
	if w.eras > 0 {
		return true
	}
	ops := h.ops
	for k, call := range h.calls {
		if k.at != 0 && k.counts() > 0 {
			ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: counterInput{n: k.counts()}, Call: call, Return: math.MaxInt64})
		}
	}
	return porcupine.CheckOperationsTimeout(counterModel, ops, historyTimeMax) != porcupine.Illegal
}
