package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

// Limits of a load.
const (
	pieceBytesMax  = 512 << 10 // of one request, under ChunkBytesMax: so a request is one chunk, with one number
	pieceFaultsMax = 1000
	piecesAhead    = 4  // cut while one is sent
	saveEvery      = 32 // chunks; under ProducerInFlightMax, since the lowest number sent along is the saved one
	saveInterval   = time.Second
	loadWaitMin    = 100 * time.Millisecond
	loadWaitMax    = 5 * time.Second
)

// loader moves an input into a server, one chunk after the other: with more
// than one in flight two writes to one key could change places.
type loader struct {
	in       *input
	tmpl     *template
	st       *loadState
	send     func(ctx context.Context, id sluice.Identity, body []byte) (sent, error)
	patience time.Duration
	pause    func(context.Context, time.Duration) error
	faults   faultsFile
	say      *console.Console
	reasons  map[string]int64

	held     *piece // a record that did not fit into the piece before
	fields   fields
	saved    uint64 // Next of the state on disk
	savedAt  time.Time
	progress *console.Progress
	raw      int64 // bytes of the file as it lies, of what is settled
}

// sent is what a server says to a chunk.
type sent struct {
	accepted   int
	faults     []lineFault
	retryAfter time.Duration
}

// lineFault is a write of the chunk that was not accepted.
type lineFault struct {
	index  int // of the write in the chunk, from 0
	reason string
	detail string
}

// later tells whether a reason passes by itself. Sampled and thinned writes were
// shed because the config says so; sending them again would undo that.
func (f lineFault) later() bool {
	switch f.reason {
	case "journal_full", "disk_reserve", "backlog_max", "memory_max", "rate_limit", "overload", "shutting_down", "stream_stopped", "idempotency_max":
		return true
	default:
		return false
	}
}

// piece is a stretch of the input and the writes it became.
type piece struct {
	lines        []int64 // of each write
	body         []byte
	faults       []loadFault // records that became no write
	offset, line int64       // of the input, after the piece
	raw          int64
}

// loadFault is a line of the faults file.
type loadFault struct {
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	Write  string `json:"write,omitempty"`
}

// run loads until the input ends. Whatever stops it, the state on disk is one
// to go on from.
func (l *loader) run(ctx context.Context) error {
	if err := l.open(); err != nil {
		return err
	}
	l.progress = l.say.Progress(console.ProgressOptions{Title: "loading", Total: l.in.size, Base: l.in.raw, Unit: console.Bytes})
	err := l.pump(ctx)
	l.progress.Stop()
	if err == nil {
		l.st.Done = time.Now().UTC()
	}
	return errors.Join(err, l.save(), l.faults.close())
}

// pump cuts in one goroutine and sends in this one.
func (l *loader) pump(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pieces := make(chan *piece, piecesAhead)
	cut := make(chan error, 1)
	go func() {
		defer close(pieces)
		cut <- l.cutAll(ctx, pieces)
	}()
	err := l.settleAll(ctx, pieces)
	if err != nil {
		cancel()
	}
	if err != nil && l.in.file == nil {
		// Not awaited: it may sit in a read of standard input, which nothing
		// ends. It touches nothing but the input.
		return err
	}
	if cutErr := <-cut; err == nil {
		err = cutErr
	}
	return err
}

// open brings input and faults file to where the state stands.
func (l *loader) open() error {
	l.reasons = map[string]int64{}
	if err := l.in.begin(); err != nil {
		return err
	}
	if l.st.Offset > 0 {
		if err := l.in.skip(l.st.Offset, l.st.Line); err != nil {
			return err
		}
	}
	l.st.Offset, l.st.Line = l.in.offset, l.in.line
	if err := l.faults.open(l.st.FaultBytes); err != nil {
		return err
	}
	return l.save()
}

func (l *loader) cutAll(ctx context.Context, pieces chan<- *piece) error {
	for {
		p, err := l.cut()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if p != nil {
			select {
			case pieces <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != nil {
			return nil
		}
	}
}

// cut takes the next piece from the input; io.EOF comes with the last one. It
// depends on nothing but the text and the template: a load that goes on must
// cut as the one before did.
func (l *loader) cut() (*piece, error) {
	p := &piece{}
	if l.held != nil {
		p, l.held = l.held, nil
	}
	for len(p.faults) < pieceFaultsMax {
		before := *p
		err := l.record(p)
		if err != nil {
			if len(p.lines)+len(p.faults) == 0 {
				p = nil
			}
			return p, err
		}
		if len(before.lines) > 0 && (len(p.lines) > sluice.ChunkLinesMax || len(p.body) > pieceBytesMax) {
			l.held = p.since(&before)
			return &before, nil
		}
	}
	return p, nil
}

// since is a piece of what p has more than an earlier copy of it.
func (p *piece) since(before *piece) *piece {
	return &piece{lines: slices.Clone(p.lines[len(before.lines):]), body: bytes.Clone(p.body[len(before.body):]),
		faults: slices.Clone(p.faults[len(before.faults):]), offset: p.offset, line: p.line, raw: p.raw}
}

// record appends one record to a piece: its writes, or its fault.
func (l *loader) record(p *piece) error {
	rec, err := l.in.next()
	if err != nil {
		return err
	}
	p.offset, p.line, p.raw = l.in.offset, l.in.line, l.in.raw
	n, before := 1, len(p.body)
	switch {
	case rec.fault != "":
		err = errors.New(rec.fault)
	case l.tmpl == nil:
		p.body = append(append(p.body, rec.text...), '\n')
	default:
		if err = l.fields.set(l.in, rec); err == nil {
			p.body, n, err = l.tmpl.render(p.body, &l.fields)
		}
	}
	if size := len(p.body) - before; err == nil && (n > sluice.ChunkLinesMax || size > sluice.ChunkBytesMax) {
		err = fmt.Errorf("the record becomes %d writes of %d bytes; at most %d and %d fit into one request", n, size, sluice.ChunkLinesMax, sluice.ChunkBytesMax)
	}
	if err != nil {
		p.body = p.body[:before]
		p.faults = append(p.faults, loadFault{Line: rec.line, Reason: "bad_record", Detail: err.Error(), Write: string(rec.text)})
		return nil
	}
	for range n {
		p.lines = append(p.lines, rec.line)
	}
	return nil
}

func (l *loader) settleAll(ctx context.Context, pieces <-chan *piece) error {
	if len(l.st.Again) > 0 {
		p := &piece{offset: l.st.Offset, line: l.st.Line, raw: l.in.raw}
		for _, w := range l.st.Again {
			p.lines = append(p.lines, w.Line)
			p.body = append(append(p.body, w.Write...), '\n')
		}
		if err := l.settle(ctx, p); err != nil {
			return err
		}
	}
	for {
		select {
		case p, ok := <-pieces:
			if !ok {
				return nil
			}
			if err := l.settle(ctx, p); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settle sends a piece until each of its writes is accepted or refused for good.
func (l *loader) settle(ctx context.Context, p *piece) error {
	for {
		var out sent
		if len(p.lines) > 0 {
			var err error
			if out, err = l.deliver(ctx, p); err != nil {
				return err
			}
			l.st.Next++
		}
		again, err := l.count(p, out)
		if err != nil {
			return err
		}
		l.st.Offset, l.st.Line, l.st.Again, l.raw = p.offset, p.line, nil, p.raw
		if again == nil {
			l.show("")
			return l.saveSometimes()
		}
		for i, text := range again.texts() {
			l.st.Again = append(l.st.Again, pendingWrite{again.lines[i], string(text)})
		}
		if err := l.save(); err != nil {
			return err
		}
		if err := l.wait(ctx, max(out.retryAfter, loadWaitMin), out.faults[len(out.faults)-1].detail); err != nil {
			return err
		}
		p = again
	}
}

// count books an answer and gives the writes that are to be sent again, nil
// when there are none.
func (l *loader) count(p *piece, out sent) (*piece, error) {
	l.st.Accepted += int64(out.accepted)
	faults := p.faults
	var texts [][]byte
	if len(out.faults) > 0 {
		texts = p.texts()
	}
	var again *piece
	for _, f := range out.faults {
		if f.index < 0 || f.index >= len(p.lines) {
			return nil, fmt.Errorf("the server answered for line %d of a request with %d; it and this program do not fit together", f.index+1, len(p.lines))
		}
		if !f.later() {
			faults = append(faults, loadFault{Line: p.lines[f.index], Reason: f.reason, Detail: f.detail, Write: string(texts[f.index])})
			continue
		}
		if again == nil {
			again = &piece{offset: p.offset, line: p.line, raw: p.raw}
		}
		again.lines = append(again.lines, p.lines[f.index])
		again.body = append(append(again.body, texts[f.index]...), '\n')
	}
	for _, f := range faults {
		l.reasons[f.Reason]++
	}
	l.st.Refused += int64(len(faults))
	err := l.faults.add(faults)
	l.st.FaultBytes = l.faults.size
	return again, err
}

// texts gives each write of the piece.
func (p *piece) texts() [][]byte {
	if len(p.lines) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(p.body, []byte("\n")), []byte("\n"))
}

// deliver sends a chunk under its number until the server has judged it. A
// chunk of which nothing was accepted is judged anew, so it keeps its number.
func (l *loader) deliver(ctx context.Context, p *piece) (sent, error) {
	id := sluice.Identity{Producer: l.st.Producer, Chunk: l.st.Next, Lowest: l.saved, Format: sluice.ChunkFormat}
	if l.st.path == "" {
		id.Lowest = l.st.Next
	}
	began, pause := time.Now(), loadWaitMin
	for {
		out, err := l.send(ctx, id, p.body)
		why := ""
		switch {
		case err == nil && !(out.accepted == 0 && slices.ContainsFunc(out.faults, lineFault.later)):
			return out, nil
		case err == nil:
			i := slices.IndexFunc(out.faults, lineFault.later)
			why, err = out.faults[i].detail, sluice.Errorf(sluice.Overloaded, out.faults[i].reason, "%s", out.faults[i].detail)
		case ctx.Err() != nil:
			return out, ctx.Err()
		default:
			code := sluice.CodeOf(err)
			if code != sluice.Overloaded && code != sluice.Unavailable {
				return out, fmt.Errorf("lines %d to %d: %w", p.lines[0], p.lines[len(p.lines)-1], err)
			}
			why = err.Error()
			var e *sluice.Error
			if errors.As(err, &e) {
				out.retryAfter = e.RetryAfter
			}
		}
		if time.Since(began) > l.patience {
			return out, fmt.Errorf("the server took nothing for %s: %w", l.patience, err)
		}
		if err := l.wait(ctx, max(pause, out.retryAfter), why); err != nil {
			return out, err
		}
		pause = min(2*pause, loadWaitMax)
	}
}

func (l *loader) wait(ctx context.Context, d time.Duration, why string) error {
	l.show(l.say.Yellow("waiting: " + console.Clean(why)))
	return l.pause(ctx, d)
}

func (l *loader) show(note string) {
	if note == "" {
		note = console.Plural(l.st.Accepted, "write", "writes")
		if l.st.Refused > 0 {
			note += ", " + l.say.Yellow(console.Count(l.st.Refused)+" refused")
		}
	}
	l.progress.Set(l.raw, l.in.size, note)
}

func (l *loader) saveSometimes() error {
	if l.st.Next-l.saved < saveEvery && time.Since(l.savedAt) < saveInterval {
		return nil
	}
	return l.save()
}

// save syncs the faults first: the state says how long that file is.
func (l *loader) save() error {
	if err := l.faults.sync(); err != nil {
		return err
	}
	if err := l.st.save(); err != nil {
		return err
	}
	l.saved, l.savedAt = l.st.Next, time.Now()
	return nil
}

// reasonList is " (bad_line 12, not_allowed 1)".
func reasonList(reasons map[string]int64) string {
	if len(reasons) == 0 {
		return ""
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		parts = append(parts, reason+" "+console.Count(reasons[reason]))
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
