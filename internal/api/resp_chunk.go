package api

import (
	"strconv"
	"strings"

	"github.com/tidwall/redcon"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

const (
	respOutBytesMax   = 64 << 10  // of answers gathered before they are written
	respKeepBytesMax  = 256 << 10 // what a chunk may hold on to when it goes back to the pool
	respErrorBytesMax = 512       // of one error answer
)

// respChunk is the working memory of a pipeline: the writes gathered so far and
// the answers. The answers to writes are put down as if all were accepted,
// which is the common case and then needs no second look; what was refused is
// written anew after Submit.
type respChunk struct {
	builder *schema.Builder
	chunk   sluice.Chunk
	lines   []respLine
	entryOf []int32 // becomes Chunk.EntryLine when a line has not exactly one entry
	uneven  bool    // that is so
	events  bool    // some line's answer needs the commit's number

	out      []byte
	mark     int // where the answer to the command in work begins
	from     int // where the answers to lines begin
	spare    []byte
	bytes    int   // of the commands gathered
	bytesMax int   // largest bytes since the chunk came from the pool
	commands int64 // since the last flush, for INFO
	broken   error // ends the connection without another answer
}

// respLine is a command that waits for Submit, or a fault between such.
type respLine struct {
	end     int // of its answer in out
	entries int // in the builder, up to and with this line
	fault   bool
	event   bool
}

func (c *respConn) begin() {
	w := c.door.chunks.Get().(*respChunk)
	w.builder.Reset(c.schema)
	c.work = w
}

func (c *respConn) end() {
	w := c.work
	c.work = nil
	// What one huge pipeline needed must not stay with each of ten thousand connections.
	if cap(w.out)+cap(w.spare)+max(w.bytes, w.bytesMax) > respKeepBytesMax {
		return
	}
	w.clear()
	w.out, w.mark, w.bytesMax, w.commands, w.broken = w.out[:0], 0, 0, 0, nil
	c.door.chunks.Put(w)
}

// fail answers an error to the command in work.
func (w *respChunk) fail(prefix, text string) {
	w.out = appendRESPError(w.out[:w.mark], prefix, text)
	if len(w.lines) > 0 {
		w.lines = append(w.lines, respLine{end: len(w.out), entries: w.builder.Len(), fault: true})
	}
}

func (w *respChunk) failWith(err error) {
	w.out = appendRESPFault(w.out[:w.mark], err)
	if len(w.lines) > 0 {
		w.lines = append(w.lines, respLine{end: len(w.out), entries: w.builder.Len(), fault: true})
	}
}

// line takes the command in work, whose answer stands at the end of out and
// whose entries stand at the end of the builder, as a line of the chunk.
func (w *respChunk) line(event bool) {
	before := 0
	if n := len(w.lines); n > 0 {
		before = w.lines[n-1].entries
	} else {
		w.from = w.mark
	}
	l := respLine{end: len(w.out), entries: w.builder.Len(), event: event}
	w.uneven = w.uneven || l.entries != before+1
	w.events = w.events || event
	w.lines = append(w.lines, l)
}

func (w *respChunk) full(commandsMax int) bool {
	return len(w.lines) >= commandsMax || w.builder.Len() >= commandsMax || w.bytes >= sluice.ChunkBytesMax
}

func (w *respChunk) clear() {
	w.lines, w.uneven, w.events = w.lines[:0], false, false
	w.bytes, w.bytesMax = 0, max(w.bytes, w.bytesMax)
	w.chunk = sluice.Chunk{}
}

// submit hands the gathered writes to the pipeline and settles their answers.
// An error means that nobody knows what became of them: the connection ends
// without an answer, which is how Redis clients are told so.
func (c *respConn) submit() error {
	w := c.work
	if len(w.lines) == 0 {
		return nil
	}
	w.chunk = sluice.Chunk{Client: c.principal.Name, Entries: w.builder.Entries(), WantReceipt: c.door.journal.Load() == 0}
	if w.uneven {
		w.chunk.EntryLine = w.numberEntries()
	}
	ack, err := c.door.o.Writes.Submit(c.door.stop, &w.chunk)
	if err != nil && c.door.stop.Err() != nil {
		return err
	}
	if err != nil || ack.Outcomes != nil || w.events {
		w.settle(c.door, &ack, err)
	}
	if err == nil {
		c.remember(&ack)
	}
	w.clear()
	w.mark = len(w.out)
	w.builder.Reset(c.schema)
	return nil
}

// numberEntries says for each entry which line it belongs to. Faults are no lines.
func (w *respChunk) numberEntries() []int32 {
	w.entryOf = w.entryOf[:0]
	n := int32(0)
	for i := range w.lines {
		for len(w.entryOf) < w.lines[i].entries {
			w.entryOf = append(w.entryOf, n)
		}
		if !w.lines[i].fault {
			n++
		}
	}
	return w.entryOf
}

// settle writes the answers anew where they are not what was put down.
func (w *respChunk) settle(d *RESP, ack *sluice.Ack, failed error) {
	w.spare = append(w.spare[:0], w.out[w.from:]...)
	said, at, n := w.spare, 0, 0
	w.out = w.out[:w.from]
	for _, l := range w.lines {
		answer := said[at : l.end-w.from]
		at = l.end - w.from
		if l.fault {
			w.out = append(w.out, answer...)
			continue
		}
		reason := sluice.Accepted
		if n < len(ack.Outcomes) {
			reason = ack.Outcomes[n]
		}
		n++
		switch {
		case failed != nil:
			w.out = appendRESPFault(w.out, failed)
		case reason != sluice.Accepted:
			w.out = appendRESPRefusal(w.out, reason)
		case l.event:
			w.out = redcon.AppendBulkString(w.out, d.eventID(ack.Commit))
		default:
			w.out = append(w.out, answer...)
		}
	}
}

// eventID is what XADD answers: the commit, and a number that makes it unique.
func (d *RESP) eventID(commit uint64) string {
	b := strconv.AppendUint(make([]byte, 0, 32), commit, 10)
	return string(strconv.AppendUint(append(b, '-'), d.events.Add(1), 10))
}

// remember notes what WAIT has to wait for.
func (c *respConn) remember(ack *sluice.Ack) {
	if ack.Receipt != "" {
		if r, err := sluice.ParseReceipt(ack.Receipt); err == nil {
			c.door.journal.Store(r.Journal)
		}
	}
	if ack.Commit == 0 {
		return
	}
	c.since.commit = max(c.since.commit, ack.Commit)
	w := c.work
	var in *sluice.ReceiptGroup
	for i := range w.chunk.Entries {
		e := &w.chunk.Entries[i]
		if ack.Outcomes != nil && w.refused(i, ack) {
			continue
		}
		if in == nil || in.Group != e.Group {
			in = c.since.group(e.Group)
		}
		in.Partitions.Add(e.Partition())
	}
}

func (w *respChunk) refused(entry int, ack *sluice.Ack) bool {
	line := entry
	if w.chunk.EntryLine != nil {
		line = int(w.chunk.EntryLine[entry])
	}
	return line < len(ack.Outcomes) && ack.Outcomes[line] != sluice.Accepted
}

func (s *sinceConnect) group(id sluice.GroupID) *sluice.ReceiptGroup {
	for i := range s.groups {
		if s.groups[i].Group == id {
			return &s.groups[i]
		}
	}
	s.groups = append(s.groups, sluice.ReceiptGroup{Group: id})
	return &s.groups[len(s.groups)-1]
}

// appendRESPFault appends an error as RESP says it.
func appendRESPFault(out []byte, err error) []byte {
	e := asError(err)
	text := e.Detail
	prefix := outcomeOf(e.Code, e.Reason).RESP
	if wait := retryAfter(e); wait > 0 {
		prefix, text = "BUSY", busyText(e.Reason, wait.Milliseconds(), text)
	}
	return appendRESPError(out, prefix, text)
}

// appendRESPRefusal appends what policy said about one line of a chunk whose
// other lines were accepted.
func appendRESPRefusal(out []byte, r sluice.Reason) []byte {
	switch code := reasonCode(r); code {
	case "":
		return appendRESPError(out, "SHED", r.String()+": dropped as on_overload of its group says; nothing was written")
	case sluice.Overloaded, sluice.Unavailable:
		return appendRESPError(out, "BUSY", busyText(r.String(), retryAfterDefault.Milliseconds(), "nothing was written; send it again then"))
	default:
		return appendRESPError(out, outcomeOf(code, r.String()).RESP, r.String()+": nothing was written")
	}
}

// busyText is "reason retry-after-ms: sentence".
//
// The prefix is BUSY and not TRYAGAIN or LOADING, which client libraries answer by
// sending the whole pipeline again: commands of it that were accepted would
// count twice.
func busyText(reason string, ms int64, text string) string {
	return reason + " " + strconv.FormatInt(max(ms, 1), 10) + ": " + text
}

// appendRESPError appends one error line: input that found its way into the
// text must not break the line or grow without bound.
func appendRESPError(out []byte, prefix, text string) []byte {
	out = append(out, '-')
	out = append(out, prefix...)
	out = append(out, ' ')
	if len(text) > respErrorBytesMax {
		text = strings.ToValidUTF8(text[:respErrorBytesMax], "") + "..."
	}
	for i := range len(text) {
		if ch := text[i]; ch >= ' ' && ch != 0x7f {
			out = append(out, ch)
		} else {
			out = append(out, ' ')
		}
	}
	return append(out, '\r', '\n')
}
