package sim_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

type clientKind int

const (
	anonymous clientKind = iota // a retry may count twice, so it never retries
	keyed                       // an Idempotency-Key for each body of some chunks
	producing                   // a producer id and numbers
	clientKinds
)

// client sends bodies of chunks, sometimes several at a time, gives up, tries
// again, and sends the same twice.
type client struct {
	w    *world
	id   int
	kind clientKind

	producer uint64
	number   uint64
	bodies   int
	chunks   []*chunk
	lastHuge *chunk
}

// state is what a client knows of its chunk.
type state int

const (
	unknown state = iota // sent, or not yet; no answer that decides
	acked
	refused // certainly not accepted, never sent again
	left    // the client gave up for good; it may count
)

// chunk is one piece of a body, with what the client knows of it.
type chunk struct {
	id       string
	c        *client
	identity sluice.Identity // Producer and Key empty: none
	lines    []line
	attempts []*attempt
	state    state
	commit   uint64
	receipt  string
	outcomes []sluice.Reason

	at      uint64 // commit that holds it; 0: none known
	taken   []bool // by line, when at is known
	applied bool   // its receipt said so
	order   uint64 // of placement
}

// attempt is one Submit.
type attempt struct {
	seq    uint64
	p      *process
	cancel context.CancelFunc
	done   bool
	ack    sluice.Ack
	err    error
	seen   bool
	level  int // of the config when it was parsed
}

// waits tells that nothing decided this attempt, so that it may be the one
// whose chunk lies in the open commit.
func (a *attempt) waits() bool {
	var e *sluice.Error
	return !a.done || errors.As(a.err, &e) && (e.Reason == "unknown" || e.Reason == "journal_failed")
}

func (k *chunk) running() bool {
	return slices.ContainsFunc(k.attempts, func(a *attempt) bool { return !a.done })
}

func (k *chunk) identified() bool { return k.identity.Producer != 0 || k.identity.Key != "" }

// act lets the client do something.
func (c *client) act() {
	w := c.w
	if w.proc == nil {
		return
	}
	open := c.open()
	if len(open) > 0 {
		k := open[w.rng.IntN(len(open))]
		switch {
		case k.running() && w.chance(w.profile.giveUp):
			w.say("client %d gives up on %s", c.id, k.id)
			k.attempts[len(k.attempts)-1].cancel()
			w.settle()
			w.collect()
			return
		case k.running() && k.identified() && w.chance(w.profile.doubles):
			k.send("sends again, while it waits,")
			return
		case !k.running() && !k.identified(), !k.running() && w.chance(w.profile.giveUp/4):
			w.say("client %d leaves %s undecided", c.id, k.id)
			k.state = left
			return
		case !k.running():
			k.send("sends again")
			return
		}
	}
	if old := c.settled(); old != nil && w.chance(w.profile.doubles/2) {
		old.send("doubles")
		return
	}
	if len(open) < 3 {
		c.body()
	}
}

func (c *client) open() []*chunk {
	var out []*chunk
	for _, k := range c.chunks {
		if k.state == unknown {
			out = append(out, k)
		}
	}
	return out
}

// settled picks a chunk that was acknowledged and could be sent again by a
// network that doubles. A producer's is one that it still calls unresolved.
func (c *client) settled() *chunk {
	if len(c.chunks) == 0 || c.kind != keyed {
		return nil
	}
	k := c.chunks[c.w.rng.IntN(len(c.chunks))]
	if k.state != acked || k.running() || !k.identified() {
		return nil
	}
	return k
}

// body sends one to three new chunks.
func (c *client) body() {
	w := c.w
	c.bodies++
	for i := range 1 + w.rng.IntN(2) {
		k := &chunk{id: fmt.Sprintf("c%d.%d.%d", c.id, c.bodies, i), c: c}
		switch c.kind {
		case keyed:
			k.identity = sluice.Identity{Key: fmt.Sprintf("client%d-%d", c.id, c.bodies), Chunk: uint64(i), Format: sluice.ChunkFormat}
		case producing:
			if c.producer == 0 {
				id, err := w.proc.acceptor.NewProducer(context.Background())
				if err != nil {
					w.say("client %d gets no producer id: %v", c.id, err)
					w.crashAfter(err)
					return
				}
				c.producer = id
			}
			c.number++
			k.identity = sluice.Identity{Producer: c.producer, Chunk: c.number, Format: sluice.ChunkFormat}
		}
		k.write(c.huge(k))
		c.chunks = append(c.chunks, k)
		w.chunks[k.id] = k
		k.send("sends")
		if w.proc == nil {
			return
		}
	}
}

// write fills the chunk with lines; given ones, or some that are drawn.
func (k *chunk) write(lines []line) {
	k.lines = lines
	if lines != nil {
		return
	}
	w := k.c.w
	for n := range 1 + w.rng.IntN(4) {
		k.lines = append(k.lines, w.newLine(fmt.Sprintf("%s:%d", k.id, n), n > 0))
	}
}

// huge gives, now and then, the next two steps of the sum that overflows when it
// is folded: from -5e18 to 7e18 and back, each step alone within range. It waits
// until the steps before are acknowledged, so their order is certain.
func (c *client) huge(k *chunk) []line {
	last := c.lastHuge
	if c.kind != keyed || !c.w.chance(25) || last != nil && last.state != acked {
		return nil
	}
	steps := []int64{-5e18}
	switch {
	case last == nil && c.w.hugeTaken:
		return nil
	case last != nil && last.lines[0].cols[0].num == huge:
		steps = []int64{-huge, -huge}
	case last != nil:
		steps = []int64{huge, huge}
	}
	c.lastHuge, c.w.hugeTaken = k, true
	var lines []line
	for n, step := range steps {
		l := line{name: fmt.Sprintf("%s:%d", k.id, n), key: hugeKey}
		l.sum("metrics", "likes", step)
		l.encode()
		lines = append(lines, l)
	}
	return lines
}

func (k *chunk) text() string {
	var b strings.Builder
	for i := range k.lines {
		b.WriteString(k.lines[i].json)
		b.WriteByte('\n')
	}
	return b.String()
}

// send submits the chunk and waits until it is answered or placed.
func (k *chunk) send(how string) {
	w, p := k.c.w, k.c.w.proc
	if k.deletes() && (p.gate.Refusing() != nil || len(p.gate.Blocks()) > 0) {
		return // a delete leaves no mark of its own in the commit, so it is sent when nothing is refused
	}
	w.sent++
	ctx, cancel := context.WithCancel(context.Background())
	a := &attempt{seq: w.sent, p: p, cancel: cancel, level: w.level}
	k.attempts = append(k.attempts, a)
	w.say("client %d %s %s: %s", k.c.id, how, k.id, k.summary())
	w.history.sent(k)
	c := k.request()
	go func() {
		a.ack, a.err = p.acceptor.Submit(ctx, c)
		a.done = true
	}()
	w.settle()
	w.collect()
}

func (k *chunk) deletes() bool {
	return slices.ContainsFunc(k.lines, func(l line) bool { return l.del })
}

func (k *chunk) summary() string {
	var parts []string
	for i := range k.lines {
		parts = append(parts, k.lines[i].String())
	}
	return strings.Join(parts, "; ")
}

// request is the chunk as a door hands it over.
func (k *chunk) request() *sluice.Chunk {
	w, p := k.c.w, k.c.w.proc
	c := &sluice.Chunk{WantReceipt: true}
	if k.identified() {
		id := k.identity
		if id.Producer != 0 {
			id.Lowest = k.c.lowest()
		}
		c.Identity, c.Hash = &id, sluice.HashChunk([]byte(k.text()))
		if w.defect != nil && w.defect.identity != nil {
			w.defect.identity(c)
		}
	}
	c.Fill = func(c *sluice.Chunk) error {
		b := schema.NewBuilder(p.acceptor.Schema(), w.wall)
		b.Reset(p.acceptor.Schema())
		c.EntryLine = nil
		for i := range k.lines {
			from := b.Len()
			if err := b.AddJSON([]byte(k.lines[i].json)); err != nil {
				return err
			}
			for range b.Len() - from {
				c.EntryLine = append(c.EntryLine, int32(i))
			}
		}
		c.Entries = b.Entries()
		return nil
	}
	return c
}

// lowest is the lowest number that the client has not resolved.
func (c *client) lowest() uint64 {
	low := c.number
	for _, k := range c.chunks {
		if k.state == unknown && k.identity.Chunk != 0 {
			low = min(low, k.identity.Chunk)
		}
	}
	return low
}

// collect takes in the answers since the last step.
func (c *client) collect() {
	for _, k := range c.chunks {
		for _, a := range k.attempts {
			if a.done && !a.seen {
				a.seen = true
				a.cancel()
				k.answered(a)
			}
		}
	}
}

// answered judges an answer.
func (k *chunk) answered(a *attempt) {
	w := k.c.w
	var e *sluice.Error
	switch {
	case a.err == nil && a.ack.Commit == 0:
		w.fail("promise 4", "%s: answered without a commit and without an error", k.id)
	case a.err == nil:
		w.say("%s is acknowledged in commit %d%s", k.id, a.ack.Commit, map[bool]string{true: ", as a duplicate"}[a.ack.Duplicate])
		k.acknowledged(a)
	case !errors.As(a.err, &e):
		w.fail("promise 4", "%s: an error without a code: %v", k.id, a.err)
	case e.Code == sluice.Unavailable && (e.Reason == "unknown" || e.Reason == "journal_failed" || e.Reason == "identities"):
		w.say("%s: unknown (%s)", k.id, e.Reason)
	case e.Code == sluice.Overloaded, e.Code == sluice.Unavailable:
		w.say("%s: refused (%s)", k.id, e.Reason)
		if e.RetryAfter == 0 && e.Reason != "timeout" {
			w.fail("promise 6", "%s: refused for %s without a time to come back", k.id, e.Reason)
		}
		if !k.identified() {
			k.state = refused
		}
	case e.Code == sluice.Invalid && a.level != 0 && k.state != acked:
		w.say("%s: %v", k.id, a.err)
		k.state = refused // made for an earlier config; it was not accepted before, else it would be known
		if k.at != 0 {
			w.fail("I1", "%s is in commit %d, and a retry of it was validated again: %v", k.id, k.at, a.err)
		}
	default:
		w.fail("I2", "%s: %v", k.id, a.err)
	}
}

func (k *chunk) acknowledged(a *attempt) {
	w := k.c.w
	if k.state == acked {
		if a.ack.Commit != k.commit || a.ack.Receipt != k.receipt || !slices.Equal(a.ack.Outcomes, k.outcomes) {
			w.fail("I2", "%s was answered with commit %d %v and then with commit %d %v", k.id, k.commit, k.outcomes, a.ack.Commit, a.ack.Outcomes)
		}
		return
	}
	k.state, k.commit, k.receipt, k.outcomes = acked, a.ack.Commit, a.ack.Receipt, a.ack.Outcomes
	if k.at != k.commit {
		w.fail("promise 1", "%s was acknowledged in commit %d, and the journal has it in commit %d (0: nowhere)", k.id, k.commit, k.at)
		return
	}
	for i := range k.lines {
		if got := k.outcomes == nil || k.outcomes[i] == sluice.Accepted; got != k.taken[i] {
			w.fail("promise 4", "%s line %d: the answer says accepted=%v, the journal says %v", k.id, i, got, k.taken[i])
		}
	}
}
