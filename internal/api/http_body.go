package api

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"sluice.dev/sluice"
)

var gzips = sync.Pool{New: func() any { return new(gzip.Reader) }}

// decoded gives the request's body without its content encoding; done gives
// back what it used.
func (q *request) decoded() (body io.Reader, done func(), err error) {
	switch enc := q.r.Header.Get("Content-Encoding"); strings.ToLower(enc) {
	case "", "identity":
		return q.r.Body, func() {}, nil
	case "gzip", "x-gzip":
		z := gzips.Get().(*gzip.Reader)
		if err := z.Reset(q.r.Body); err != nil {
			gzips.Put(z)
			return nil, nil, bodyError(err)
		}
		return z, func() { gzips.Put(z) }, nil
	default:
		return nil, nil, sluice.Errorf(sluice.Invalid, "content_encoding", "Content-Encoding %.40q is not known; send gzip or nothing", enc)
	}
}

// readBody reads a whole body into q.text. net/http's ReadTimeout bounds it as
// a whole, and net/http lifts it when the body was read: a handler may wait longer.
func (q *request) readBody() error {
	limit := q.schema.Limits.RequestBytesMax
	tooLarge := func() error {
		return sluice.Errorf(sluice.TooLarge, "request_bytes", "the body is longer than %d bytes, the limit `request_bytes`; send less at once, or one write per line as application/x-ndjson", limit)
	}
	if q.r.ContentLength > limit {
		return tooLarge()
	}
	body, done, err := q.decoded()
	if err != nil {
		return err
	}
	defer done()
	for {
		if len(q.text) == cap(q.text) {
			if q.text, err = q.h.grow(q.text, &q.taken, max(512, int(q.r.ContentLength)+1)); err != nil {
				return err
			}
		}
		n, err := body.Read(q.text[len(q.text):cap(q.text)])
		q.text = q.text[:len(q.text)+n]
		if int64(len(q.text)) > limit {
			return tooLarge()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return bodyError(err)
		}
	}
	return nil
}

// grow gives b room for more, at least want in all. Room beyond bodyKeepMax
// counts against `memory`: many large bodies at once are refused, not held.
func (h *HTTP) grow(b []byte, taken *int64, want int) ([]byte, error) {
	size := max(want, 2*cap(b))
	if size > bodyKeepMax {
		more := int64(size) - *taken
		if limit := h.o.Writes.Schema().Limits.MemoryMax; h.memory.Add(more) > limit {
			h.memory.Add(-more)
			return b, sluice.Errorf(sluice.Overloaded, "memory_max", "bodies under way hold %d bytes, the limit `memory`; send again in a moment, or less at once", limit)
		}
		*taken += more
	}
	return append(make([]byte, 0, size), b...), nil
}

// forgetLarge gives back memory that was counted.
func (q *request) forgetLarge() {
	if q.taken > 0 {
		q.h.memory.Add(-q.taken)
		q.taken, q.text = 0, nil
	}
	if cap(q.out) > bodyKeepMax {
		q.out = nil
	}
}

func (q *request) setReadDeadline(t time.Time) {
	// Writers that know no deadlines (a recorder, another server's) need none.
	_ = http.NewResponseController(q.w).SetReadDeadline(t)
}

// bodyError says what went wrong when a body was read.
func bodyError(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return sluice.Errorf(sluice.Unavailable, "read_timeout", "the body came too slowly: it must bring a line or %d bytes within `read_timeout`, and be whole by then if it is not streamed", progressBytes)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return sluice.Errorf(sluice.Invalid, "bad_request", "the body is not gzip as its Content-Encoding says: %w", err)
	default:
		return sluice.Errorf(sluice.Invalid, "bad_request", "the body ended early: %w; send it again", err)
	}
}
