package api

import (
	"bytes"
	"slices"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// job is one chunk on its way from text to Submit. It is used again: builder,
// slices and the chunk keep their memory.
type job struct {
	h        *HTTP
	schema   *schema.Schema
	who      *Principal
	builder  *schema.Builder
	chunk    sluice.Chunk
	identity sluice.Identity
	fill     func(*sluice.Chunk) error // chunk.Fill; made once, so that it costs no allocation

	// The text and how it is parsed. Streams own their text (ends says where
	// its lines end) and parse ahead; other bodies point at the request's.
	text    []byte
	taken   int64 // of HTTP.memory, for text
	first   int   // line number of the first line, from 1
	ends    []int
	tooLong bool // the text is one line that was longer than may be held; only its number is known
	whole   bool // all or nothing: one write or an array
	parsed  bool

	lines     int
	blank     int // lines that hold nothing
	entryLine []int32
	manyToOne bool // some line made other than one entry
	outcomes  []sluice.Reason
	bad       []fault
}

func newJob(h *HTTP) *job {
	j := &job{h: h}
	j.fill = j.Fill
	return j
}

// newJob takes a job for a request.
func (q *request) newJob() *job {
	j := q.h.jobs.Get().(*job)
	j.begin(q.schema, q.who)
	return j
}

// begin makes the job ready for a chunk; it keeps its memory.
func (j *job) begin(in *schema.Schema, who *Principal) {
	if j.builder == nil {
		j.builder = schema.NewBuilder(in, j.h.o.Now)
	} else {
		j.builder.Reset(in)
	}
	*j = job{h: j.h, schema: in, who: who, builder: j.builder, fill: j.fill, text: j.text[:0], taken: j.taken, ends: j.ends[:0],
		entryLine: j.entryLine[:0], outcomes: j.outcomes[:0], bad: j.bad[:0], first: 1}
	j.chunk = sluice.Chunk{Client: who.Name, Fill: j.fill, WantReceipt: true}
}

// free gives the job back. Nobody may hold its chunk any more.
func (j *job) free() {
	if j.whole || j.taken > 0 { // the request's text, or too large to keep
		j.h.memory.Add(-j.taken)
		j.taken, j.text = 0, nil
	}
	j.chunk, j.who, j.schema = sluice.Chunk{}, nil, nil
	clear(j.bad)
	j.h.jobs.Put(j)
}

// identify names the chunk. The hash is of the decoded bytes; it is SHA-256 cut
// to 128 bits, since a client must not be able to make other bytes pass for a
// retry, which a faster hash would allow.
func (j *job) identify(id *sluice.Identity, index uint64) {
	if id == nil {
		return
	}
	j.identity = *id
	j.identity.Format = sluice.ChunkFormat
	if id.Producer == 0 {
		j.identity.Chunk = index
	}
	j.chunk.Hash = sluice.HashChunk(j.text)
	j.chunk.Identity = &j.identity
}

// Fill is Chunk.Fill: the pipeline calls it once it knows that the chunk is no
// retry (I1), so that a retry is answered as its original was even when a
// reload has made its text invalid since.
func (j *job) Fill(c *sluice.Chunk) error {
	if !j.parsed {
		j.parse()
	}
	if j.whole && len(j.bad) > 0 {
		return &faults{list: slices.Clone(j.bad), writes: j.lines}
	}
	c.Entries = j.builder.Entries()
	if j.manyToOne {
		c.EntryLine = j.entryLine
	}
	if len(j.bad) > 0 {
		c.Outcomes = slices.Clone(j.outcomes) // an Ack may live longer than the job
	}
	return nil
}

// parse turns the text into entries. It never fails: what is wrong with a line
// stands in bad and outcomes.
func (j *job) parse() {
	j.parsed = true
	if !j.whole {
		start := 0
		for i, end := range j.ends {
			j.line(i, j.text[start:end])
			start = end
		}
		return
	}
	text := bytes.TrimLeft(j.text, jsonSpace)
	if len(text) > 0 && text[0] == '[' {
		j.array(text)
		return
	}
	j.line(0, j.text)
	if len(j.bad) > 0 && j.bad[0].err.Reason == "bad_json" && bytes.Contains(text, []byte("\n{")) {
		e := *j.bad[0].err
		e.Detail += "; if this is one write per line, send Content-Type: application/x-ndjson"
		j.bad[0].err = &e
	}
}

const jsonSpace = " \t\r\n"

// line parses the write of line i, counted from 0.
func (j *job) line(i int, text []byte) {
	j.lines = i + 1
	text = bytes.Trim(text, jsonSpace)
	if len(text) == 0 && !j.whole && !j.tooLong {
		j.blank++
		j.outcomes = append(j.outcomes, sluice.Accepted)
		return
	}
	before := j.builder.Len()
	err := j.add(text)
	if err == nil && !j.who.AllTables() {
		// Entries of a line that is not allowed stay in the chunk: its outcome
		// keeps them out of the commit.
		err = j.mayWrite(j.builder.Entries()[before:])
	}
	outcome := sluice.Accepted
	if err != nil {
		e := asError(err)
		outcome = sluice.BadLine
		if e.Code == sluice.Denied {
			outcome = sluice.NotAllowed
		}
		j.bad = append(j.bad, fault{line: j.first + i, err: e})
	}
	j.outcomes = append(j.outcomes, outcome)
	after := j.builder.Len()
	if after != before+1 || before != i {
		j.manyToOne = true
	}
	for range after - before {
		j.entryLine = append(j.entryLine, int32(i))
	}
}

func (j *job) add(text []byte) error {
	if limit := j.schema.Limits.LineBytesMax; len(text) > limit || j.tooLong {
		return sluice.Errorf(sluice.Invalid, "line_bytes", "the write is longer than %d bytes, the limit `line_bytes`; make it smaller or raise the limit", limit)
	}
	return j.builder.AddJSON(text)
}

// mayWrite checks the tables of entries against the client's.
func (j *job) mayWrite(entries []sluice.Entry) error {
	for i := range entries {
		if g := j.schema.Group(entries[i].Group); g != nil {
			if err := j.who.MayWrite(g.Table.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// array parses each element of a JSON array as a write.
func (j *job) array(text []byte) {
	limit := j.schema.Limits.BatchWritesMax
	elements := arrayScanner{text: text[1:]}
	n := 0
	for {
		element, err := elements.next()
		if err != nil {
			j.bad = append(j.bad, fault{line: n + 1, err: asError(err)})
			break
		}
		if element == nil {
			break
		}
		if n == limit {
			j.bad = []fault{{line: n + 1, err: asError(sluice.Errorf(sluice.TooLarge, "batch_writes",
				"the array holds more than %d writes, the limit `batch_writes`; send several, or one write per line as application/x-ndjson", limit))}}
			break
		}
		j.line(n, element)
		n++
	}
	j.lines = max(n, 1)
	if n == 0 && len(j.bad) == 0 {
		j.bad = append(j.bad, fault{line: 1, err: asError(sluice.Errorf(sluice.Invalid, "no_writes", "the array is empty; put at least one write into it"))})
	}
}

// arrayScanner finds where the elements of a JSON array end. It looks at
// strings and brackets only: whether an element is JSON is for the builder to
// say, which sees all of its bytes.
type arrayScanner struct {
	text []byte // after the opening bracket
	done bool
	some bool
}

// next gives the bytes of an element; nil after the last.
func (a *arrayScanner) next() ([]byte, error) {
	if a.done {
		if rest := bytes.Trim(a.text, jsonSpace); len(rest) > 0 {
			return nil, sluice.Errorf(sluice.Invalid, "bad_json", "%.20q stands after the array; for one write per line send Content-Type: application/x-ndjson", rest)
		}
		return nil, nil
	}
	depth, quoted := 0, false
	for i := 0; i < len(a.text); i++ {
		switch c := a.text[i]; {
		case quoted:
			switch c {
			case '\\':
				i++
			case '"':
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']' && depth > 0:
			depth--
		case c == ',' && depth == 0, c == ']':
			return a.element(i, c == ']')
		}
	}
	return nil, sluice.Errorf(sluice.Invalid, "bad_json", "the array is not closed: its ] is missing; was the body cut short?")
}

// element takes the bytes up to i, where a comma or the closing bracket stands.
func (a *arrayScanner) element(i int, last bool) ([]byte, error) {
	element := bytes.Trim(a.text[:i], jsonSpace)
	a.text, a.done = a.text[i+1:], last
	if len(element) > 0 {
		a.some = true
		return element, nil
	}
	if last && !a.some {
		return a.next() // []: only what stands after it is left to check
	}
	return nil, sluice.Errorf(sluice.Invalid, "bad_json", "a write is missing beside a comma of the array; take the comma out")
}
