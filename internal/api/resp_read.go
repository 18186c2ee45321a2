package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// Sizes of the RESP reader. What a command may hold comes from the config
// (`line_bytes`, `value_bytes`); these are of the protocol and of the buffers.
const (
	respArgsMax         = 16 << 10 // arguments of one command
	respInlineBytesMax  = 64 << 10 // an inline command, as in Redis
	respDigitsMax       = 10       // of a length
	respBufferBytes     = 4 << 10  // what a quiet connection holds
	respPipelineBytes   = 64 << 10 // what a busy one grows to by itself; more only for one large command
	respAnonArgsMax     = 10       // before AUTH, as in Redis: nobody unknown makes us hold much
	respAnonBulkMax     = 16 << 10
	respBufferBudgetMax = 64 << 20 // of all connections, beyond respBufferBytes each
)

var errRESPNoMemory = errors.New("no memory for this command")

// respReader cuts commands out of a connection's bytes.
//
// It is our own because redcon's reader doubles its buffer without a limit,
// allocates three times for each command, throws away the good commands before
// a bad one, and indexes outside its buffer when a bulk length is negative or
// overflows, which ends the process. Of redcon we use the functions that append
// replies.
//
// The arguments that next gives are slices of the buffer and stay valid until
// fill is called. What was parsed of an incomplete command is kept, so a
// command that comes byte by byte is looked at once, not once for each byte.
type respReader struct {
	buf        []byte // unread bytes are buf[start:end]
	start, end int
	full       bool // the last read filled the buffer: a larger one would save reads

	pos     int // of the command at start, this many bytes are parsed
	left    int // its arguments still to come; 0: its header is not read yet
	bulk    int // size of the argument being read; -1: that header is not read yet
	spans   []respSpan
	args    [][]byte
	argsMax int
	bulkMax int
	cmdMax  int           // bytes of one command
	budget  *atomic.Int64 // bytes of all large buffers of the door
}

// respSpan is one argument, by offsets from the start of its command: a slice
// would dangle when the buffer grows or moves.
type respSpan struct{ from, to int }

// respProtocolError is answered and ends the connection: where the next command
// would start is not known.
type respProtocolError string

func (e respProtocolError) Error() string { return "Protocol error: " + string(e) }

func protocolErrorf(format string, args ...any) error {
	return respProtocolError(fmt.Sprintf(format, args...))
}

// partial tells whether the reader holds the beginning of a command.
func (r *respReader) partial() bool { return r.end > r.start }

// fill reads once from rd. It moves what is unread to the front and grows the
// buffer where a command needs it, so earlier arguments are gone.
func (r *respReader) fill(rd io.Reader) error {
	used := r.end
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	switch {
	case r.buf == nil:
		r.buf = make([]byte, respBufferBytes)
	case r.end == len(r.buf):
		if !r.resize(r.larger()) {
			return errRESPNoMemory
		}
	case r.end == 0 && used <= respPipelineBytes && len(r.buf) > respPipelineBytes:
		r.resize(respPipelineBytes) // the large command is over
	case r.full && len(r.buf) < respPipelineBytes:
		r.resize(len(r.buf) * 2) // without memory for it the old one does, with smaller pipelines
	}
	n, err := rd.Read(r.buf[r.end:])
	r.end += n
	r.full = r.end == len(r.buf)
	if n > 0 {
		return nil // an error comes again at the next read
	}
	return err
}

// larger is the size that a full buffer grows to: twice its own, since only
// what has come shall cost memory and not what a client announces, but no more
// than the argument in work needs.
func (r *respReader) larger() int {
	size := 2 * len(r.buf)
	if r.left > 0 && r.bulk >= 0 {
		size = min(size, max(r.pos+r.bulk+2, len(r.buf)+respBufferBytes))
	}
	return size
}

func (r *respReader) resize(size int) bool {
	grow := int64(size - len(r.buf))
	if grow > 0 && r.budget.Add(grow) > respBufferBudgetMax {
		r.budget.Add(-grow)
		return false
	}
	buf := make([]byte, size)
	r.end = copy(buf, r.buf[r.start:r.end])
	r.start = 0
	if grow < 0 {
		r.budget.Add(grow)
	}
	r.buf = buf
	return true
}

// shrink gives memory back when nothing is unread.
func (r *respReader) shrink() {
	if !r.partial() && len(r.buf) > respBufferBytes {
		r.resize(respBufferBytes)
		r.full = false
	}
	if cap(r.spans) > 64 {
		r.spans, r.args = nil, nil
	}
}

// release gives back what the reader took of the budget.
func (r *respReader) release() {
	if len(r.buf) > respBufferBytes {
		r.budget.Add(int64(respBufferBytes - len(r.buf)))
	}
	*r = respReader{budget: r.budget}
}

// next gives the next whole command, or nil when more bytes must come first.
// Empty commands are skipped.
func (r *respReader) next() ([][]byte, error) {
	for r.start < r.end {
		if r.left == 0 {
			if r.buf[r.start] != '*' {
				args, err := r.inline()
				if err != nil || args == nil || len(args) > 0 {
					return args, err
				}
				continue
			}
			if more, err := r.header(); err != nil || more {
				return nil, err
			}
			if r.left == 0 {
				continue
			}
		}
		if more, err := r.arguments(); err != nil || more {
			return nil, err
		}
		return r.command(), nil
	}
	return nil, nil
}

// header reads "*4\r\n"; more says that it is not whole yet.
func (r *respReader) header() (more bool, err error) {
	n, used, ok := respNumber(r.buf[r.start+1 : r.end])
	switch {
	case !ok || n > respArgsMax:
		return false, protocolErrorf("invalid multibulk length")
	case used == 0:
		return true, nil
	case n > r.argsMax:
		return false, protocolErrorf("unauthenticated multibulk length")
	case n <= 0: // Redis skips these
		r.start += 1 + used
		return false, nil
	}
	r.pos, r.left, r.bulk = 1+used, n, -1
	r.spans = r.spans[:0]
	return false, nil
}

// arguments reads "$7\r\nHINCRBY\r\n" until none is left.
func (r *respReader) arguments() (more bool, err error) {
	b := r.buf[r.start:r.end]
	for r.left > 0 {
		if r.bulk < 0 {
			if r.pos == len(b) {
				return true, nil
			}
			if b[r.pos] != '$' {
				return false, protocolErrorf("expected '$', got %q", b[r.pos])
			}
			n, used, ok := respNumber(b[r.pos+1:])
			if !ok || n < 0 {
				return false, protocolErrorf("invalid bulk length")
			}
			if used == 0 {
				return true, nil
			}
			if n > r.bulkMax && r.argsMax == respAnonArgsMax {
				return false, protocolErrorf("unauthenticated bulk length")
			}
			if n > r.bulkMax {
				return false, protocolErrorf("invalid bulk length: %d bytes are more than the %d of an argument (value_bytes)", n, r.bulkMax)
			}
			if r.pos+n > r.cmdMax {
				return false, protocolErrorf("the command has more than %d bytes (line_bytes)", r.cmdMax)
			}
			r.pos += 1 + used
			r.bulk = n
		}
		end := r.pos + r.bulk
		if end+2 > len(b) {
			return true, nil
		}
		if b[end] != '\r' || b[end+1] != '\n' {
			return false, protocolErrorf("an argument of %d bytes does not end where it should", r.bulk)
		}
		r.spans = append(r.spans, respSpan{r.pos, end})
		r.pos = end + 2
		r.bulk = -1
		r.left--
	}
	return false, nil
}

// command gives the arguments of the whole command at start and steps over it.
func (r *respReader) command() [][]byte {
	b := r.buf[r.start:r.end]
	r.args = r.args[:0]
	for _, s := range r.spans {
		r.args = append(r.args, b[s.from:s.to:s.to])
	}
	r.start += r.pos
	r.pos = 0
	return r.args
}

// respNumber reads "-?digits\r\n" and says how many bytes it took; 0 when more
// must come.
func respNumber(b []byte) (n, used int, ok bool) {
	i := 0
	if len(b) > 0 && b[0] == '-' {
		i = 1
	}
	first := i
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		n = n*10 + int(b[i]-'0')
		if i > respDigitsMax {
			return 0, 0, false
		}
	}
	switch {
	case i == len(b):
		return 0, 0, true
	case b[i] != '\r' || i == first:
		return 0, 0, false
	case i+1 == len(b):
		return 0, 0, true
	case b[i+1] != '\n':
		return 0, 0, false
	case first == 1:
		n = -n
	}
	return n, i + 2, true
}

// inline reads a command typed as a line. It gives nil when the line is not
// whole yet and an empty list for an empty line.
func (r *respReader) inline() ([][]byte, error) {
	b := r.buf[r.start:r.end]
	i := bytes.IndexByte(b[r.pos:], '\n')
	if r.pos+i >= respInlineBytesMax || (i < 0 && len(b) >= respInlineBytesMax) {
		return nil, protocolErrorf("too big inline request")
	}
	if i < 0 {
		r.pos = len(b)
		return nil, nil
	}
	line := b[:r.pos+i]
	r.start += r.pos + i + 1
	r.pos = 0
	return r.words(bytes.TrimSuffix(line, []byte{'\r'}))
}

// words splits a line as Redis does: blanks part words, "..." knows escapes,
// '...' only \'. Unescaped text is never longer than it was, so it is written
// over the line itself.
func (r *respReader) words(line []byte) ([][]byte, error) {
	r.args = r.args[:0]
	if r.args == nil {
		r.args = [][]byte{}
	}
	for {
		for len(line) > 0 && blank(line[0]) {
			line = line[1:]
		}
		if len(line) == 0 {
			return r.args, nil
		}
		if len(r.args) >= min(r.argsMax, respArgsMax) {
			return nil, protocolErrorf("too many words in an inline request")
		}
		word, rest, ok := inlineWord(line)
		if !ok {
			return nil, protocolErrorf("unbalanced quotes in request")
		}
		if len(word) > r.bulkMax {
			return nil, protocolErrorf("a word of %d bytes is more than the %d of an argument (value_bytes)", len(word), r.bulkMax)
		}
		r.args = append(r.args, word)
		line = rest
	}
}

func blank(c byte) bool { return c == ' ' || (c >= '\t' && c <= '\r') || c == 0 }

func inlineWord(line []byte) (word, rest []byte, ok bool) {
	out := line[:0]
	var quote byte
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == 0 && blank(c):
			return out, line[i:], true
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			// A closing quote ends the word; something must part it from the next.
			if i+1 < len(line) && !blank(line[i+1]) {
				return nil, nil, false
			}
			return out, line[i+1:], true
		case quote == '"' && c == '\\' && i+3 < len(line) && line[i+1] == 'x' && hexDigit(line[i+2]) >= 0 && hexDigit(line[i+3]) >= 0:
			out = append(out, byte(hexDigit(line[i+2])<<4|hexDigit(line[i+3])))
			i += 3
		case quote == '"' && c == '\\' && i+1 < len(line):
			i++
			out = append(out, unescape(line[i]))
		case quote == '\'' && c == '\\' && i+1 < len(line) && line[i+1] == '\'':
			i++
			out = append(out, '\'')
		default:
			out = append(out, c)
		}
	}
	return out, nil, quote == 0
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}
