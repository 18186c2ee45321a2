package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice"
)

// BatcherOptions say how a Batcher works. All have defaults.
type BatcherOptions struct {
	// Producer and Next resume an earlier Batcher at what Resolved said last.
	// 0: a new producer id. To resume, the same writes must be added again from
	// Position.Writes on, with the same options, and Delay below 0: a number
	// then names the same lines as before, and what was accepted counts once.
	Producer, Next uint64
	// LinesMax and BytesMax bound a request: at most and by default 1,000 and 1 MiB.
	LinesMax, BytesMax int
	// Delay is how long a write waits for others; 0 means DefaultDelay, below 0
	// until the request is full or Flush is called.
	Delay time.Duration
	// InFlight is how many requests are under way at a time, at most and from 1
	// to 64. With 1, the default, writes are journaled in the order they were
	// added; with more, requests may overtake each other, which is lawful for
	// sums, max, min, unique and events, but not for `set`.
	InFlight int
	// Sums names by table the columns of merge sum, so that Adds of whole
	// numbers to the same key fold before they are sent. A folded write counts
	// once in Sluice's ledger.
	Sums map[string][]string
	// Refused hears of lines that Sluice did not accept, with their text. It is
	// called by the sending goroutine, one call at a time.
	Refused func(line []byte, r Refusal)
	// Resolved hears, in order, how far everything is answered. Save the
	// position, and a later Batcher goes on from it. One call at a time.
	Resolved func(Position)
}

// DefaultDelay is how long a write waits for others.
const DefaultDelay = 5 * time.Millisecond

// Position says how far a Batcher got.
type Position struct {
	Producer uint64
	Next     uint64 // number of the first request that is not answered
	Writes   uint64 // added to this Batcher and answered
	Accepted uint64 // lines of this Batcher
	Refused  uint64
}

// Batcher gathers writes into numbered requests. A number is sent again until
// it is answered, and counts once. It is safe for concurrent use. It holds at
// most InFlight + 1 requests in memory: Add waits when Sluice is slower. It
// starts a goroutine for each request under way, and Close waits for them.
// Refused and Resolved must not call it, but for Position.
type Batcher struct {
	c     *Client
	o     BatcherOptions
	turn  chan struct{} // holds a token while nobody adds or cuts
	send  context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	timer *time.Timer

	open   batch // being filled; under turn
	fold   folder
	closed bool // under turn

	hooks sync.Mutex // one call of Refused or Resolved at a time

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew when a request is answered
	next     uint64        // number of the next request
	lowest   uint64        // lowest number that is not answered
	answered map[uint64]batch
	position Position
	failed   error // sticky: what stopped it
}

// batch is one request.
type batch struct {
	text   []byte
	ends   []int // of the lines
	writes uint64
	answer chunkAnswer
}

// errBatcherClosed answers what is added after Close.
var errBatcherClosed = errors.New("the batcher is closed")

// NewBatcher makes a Batcher; for a new producer it asks Sluice for an id.
func (c *Client) NewBatcher(ctx context.Context, o BatcherOptions) (*Batcher, error) {
	if o.Producer == 0 {
		id, err := c.NewProducer(ctx)
		if err != nil {
			return nil, fmt.Errorf("get a producer id: %w", err)
		}
		o.Producer, o.Next = id, 1
	}
	o.Next = max(o.Next, 1)
	o.LinesMax = within(o.LinesMax, sluice.ChunkLinesMax)
	o.BytesMax = within(o.BytesMax, sluice.ChunkBytesMax)
	if o.InFlight = min(max(o.InFlight, 1), sluice.ProducerInFlightMax); o.Delay == 0 {
		o.Delay = DefaultDelay
	}
	b := &Batcher{c: c, o: o, turn: make(chan struct{}, 1), changed: make(chan struct{}), next: o.Next, lowest: o.Next,
		answered: make(map[uint64]batch), position: Position{Producer: o.Producer, Next: o.Next}}
	b.fold.init(o.Sums)
	b.turn <- struct{}{}
	b.timer = time.AfterFunc(time.Hour, b.overdue)
	b.timer.Stop()
	// Requests outlive the call that added to them; Close ends them.
	b.send, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	return b, nil
}

func within(n, top int) int {
	if n <= 0 || n > top {
		return top
	}
	return n
}

// Add takes a write. It returns before the write is durable: Resolved and
// Close tell. An error of a request that was given up comes back from here on.
func (b *Batcher) Add(ctx context.Context, w *sluice.Write) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.leave()
	key, err := b.fold.key(w)
	if err != nil {
		return notJSON(err)
	}
	if b.fold.lawful(w) {
		if err := b.cutIfFull(ctx, b.fold.cost(w, key)); err != nil {
			return err
		}
		b.start()
		if b.fold.add(w, key) {
			b.open.writes++
			return b.cutIfFull(ctx, 0)
		}
	}
	b.start()
	line, err := json.Marshal(w)
	if err != nil {
		return notJSON(err)
	}
	// What was folded for this key came before this write.
	if err := b.unfold(ctx, key); err != nil {
		return err
	}
	return b.addLine(ctx, line)
}

// AddJSON takes a write that is JSON already, on one line.
func (b *Batcher) AddJSON(ctx context.Context, line []byte) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.leave()
	b.start()
	if err := b.unfoldAll(ctx); err != nil {
		return err
	}
	return b.addLine(ctx, line)
}

// Flush sends what was added and waits until all of it is answered.
func (b *Batcher) Flush(ctx context.Context) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	err := b.cutAll(ctx)
	b.leave()
	if err != nil {
		return err
	}
	return b.await(ctx, func() bool { return b.lowest == b.next })
}

// Close flushes and ends the Batcher. When ctx ends first, requests under way
// are given up: what they did can be found out by resuming at Position. After
// Close no goroutine of the Batcher is left. It may be called again.
func (b *Batcher) Close(ctx context.Context) error {
	err := b.Flush(ctx)
	if errors.Is(err, errBatcherClosed) {
		return b.error()
	}
	b.stop()
	b.wg.Wait()
	<-b.turn
	b.closed = true
	b.timer.Stop()
	b.leave()
	return err
}

// Position says how far everything is answered.
func (b *Batcher) Position() Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.position
}

func (b *Batcher) error() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// enter waits for the turn to add.
func (b *Batcher) enter(ctx context.Context) error {
	select {
	case <-b.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := b.error()
	if b.closed {
		err = errBatcherClosed
	}
	if err != nil {
		b.leave()
	}
	return err
}

func (b *Batcher) leave() { b.turn <- struct{}{} }

// start begins the Delay of the first write of a request.
func (b *Batcher) start() {
	if b.o.Delay < 0 || len(b.open.ends) > 0 || b.fold.len() > 0 {
		return
	}
	b.timer.Reset(b.o.Delay)
}

// overdue cuts a request whose Delay is over. Somebody who waits for room will
// cut it anyway, so that it never waits itself.
func (b *Batcher) overdue() {
	select {
	case <-b.turn:
	default:
		b.timer.Reset(b.o.Delay)
		return
	}
	defer b.leave()
	if b.closed || b.error() != nil {
		return
	}
	b.mu.Lock()
	room := b.hasRoom()
	b.mu.Unlock()
	if !room {
		b.timer.Reset(b.o.Delay)
		return
	}
	// With room nothing waits, and a failure is kept for the next call.
	_ = b.cutAll(b.send)
}

// addLine appends a line; the turn is held.
func (b *Batcher) addLine(ctx context.Context, line []byte) error {
	if len(line) >= b.o.BytesMax {
		return sluice.Errorf(sluice.TooLarge, "line_bytes", "a write of %d bytes does not fit into a request of %d; make it smaller", len(line), b.o.BytesMax)
	}
	if slices.Contains(line, '\n') {
		return sluice.Errorf(sluice.Invalid, "bad_json", "a line of NDJSON holds no newline; take it out of the JSON")
	}
	if err := b.cutIfFull(ctx, len(line)+1); err != nil {
		return err
	}
	b.open.writes++
	b.appendLine(line)
	return b.cutIfFull(ctx, 0)
}

func (b *Batcher) appendLine(line []byte) {
	b.open.text = append(append(b.open.text, line...), '\n')
	b.open.ends = append(b.open.ends, len(b.open.text))
}

// cutIfFull cuts the open request when more bytes do not fit, or it is full.
func (b *Batcher) cutIfFull(ctx context.Context, more int) error {
	lines, size := len(b.open.ends)+b.fold.len(), len(b.open.text)+b.fold.bytes()
	if lines == 0 || lines < b.o.LinesMax && size+more <= b.o.BytesMax {
		return nil
	}
	return b.cutAll(ctx)
}

// unfold makes a line of what was folded for a key.
func (b *Batcher) unfold(ctx context.Context, key string) error {
	line := b.fold.take(key)
	if line == nil {
		return nil
	}
	if err := b.cutIfFull(ctx, len(line)+1); err != nil {
		return err
	}
	b.appendLine(line)
	return nil
}

func (b *Batcher) unfoldAll(ctx context.Context) error {
	for key := range b.fold.keys() {
		if err := b.unfold(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// cutAll makes a request of what is open and sends it.
func (b *Batcher) cutAll(ctx context.Context) error {
	if len(b.open.ends)+b.fold.len() == 0 {
		return nil
	}
	if err := b.await(ctx, b.hasRoom); err != nil {
		return err
	}
	for key := range b.fold.keys() {
		b.appendLine(b.fold.take(key))
	}
	sent := b.open
	b.open = batch{}
	b.mu.Lock()
	number := b.next
	b.next++
	b.mu.Unlock()
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		b.sendOne(number, sent)
	}()
	return nil
}

// hasRoom tells whether one more request may be under way; mu is held. What
// counts is the distance to the lowest unanswered number, which Sluice bounds.
func (b *Batcher) hasRoom() bool { return b.next-b.lowest < uint64(b.o.InFlight) }

// await waits until ok, the Batcher failed, or ctx ended.
func (b *Batcher) await(ctx context.Context, ok func() bool) error {
	for {
		b.mu.Lock()
		done, failed, changed := ok(), b.failed, b.changed
		b.mu.Unlock()
		if failed != nil || done {
			return failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendOne sends a request until it is answered.
func (b *Batcher) sendOne(number uint64, sent batch) {
	b.mu.Lock()
	lowest := b.lowest
	b.mu.Unlock()
	answer, err := b.c.writeChunk(b.send, b.o.Producer, number, lowest, sent.text)
	if err != nil {
		b.fail(fmt.Errorf("request %d of producer %d: %w", number, b.o.Producer, err))
		return
	}
	sent.answer = answer
	if b.o.Refused != nil && len(answer.refusals) > 0 {
		b.hooks.Lock()
		for _, r := range answer.refusals {
			b.o.Refused(sent.line(r.Line), r)
		}
		b.hooks.Unlock()
	}
	b.resolve(number, sent)
}

// line is the text of a line, from 1, without its newline.
func (s *batch) line(n int) []byte {
	if n < 1 || n > len(s.ends) {
		return nil
	}
	from := 0
	if n > 1 {
		from = s.ends[n-2]
	}
	return s.text[from : s.ends[n-1]-1]
}

// resolve moves the position over all numbers that are answered without a gap.
func (b *Batcher) resolve(number uint64, sent batch) {
	sent.text, sent.ends = nil, nil
	b.hooks.Lock()
	defer b.hooks.Unlock()
	b.mu.Lock()
	b.answered[number] = sent
	before := b.lowest
	for {
		done, ok := b.answered[b.lowest]
		if !ok {
			break
		}
		delete(b.answered, b.lowest)
		b.lowest++
		b.position.Next = b.lowest
		b.position.Writes += done.writes
		b.position.Accepted += uint64(done.answer.accepted)
		b.position.Refused += uint64(done.answer.refused)
	}
	moved, position := b.lowest > before, b.position
	b.wake()
	b.mu.Unlock()
	if moved && b.o.Resolved != nil {
		b.o.Resolved(position)
	}
}

// fail stops the Batcher: a later request must not be accepted when an earlier
// one is not.
func (b *Batcher) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.failed = err
	}
	b.wake()
	b.stop()
}

func (b *Batcher) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}
