package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"sluice.dev/sluice"
)

// Header values are shared slices: setting one costs no allocation.
var (
	jsonType    = []string{"application/json"}
	linesType   = []string{"application/x-ndjson"}
	problemType = []string{"application/problem+json"}
	noStore     = []string{"no-store"}
)

// detailBytesMax bounds each sentence in an answer that lists many.
const detailBytesMax = 512

// fault is one line of a body that cannot be accepted, whoever retries it.
type fault struct {
	line int // from 1: of NDJSON the line, of an array the position
	err  *sluice.Error
}

// faults is the error of a body that is refused as a whole.
type faults struct {
	list   []fault
	writes int
}

func (f *faults) Error() string {
	switch {
	case f.writes == 1:
		return f.list[0].err.Detail
	case len(f.list) == 1:
		return "write " + strconv.Itoa(f.list[0].line) + " of " + strconv.Itoa(f.writes) + ": " + f.list[0].err.Detail + "; nothing was accepted"
	}
	return strconv.Itoa(len(f.list)) + " of " + strconv.Itoa(f.writes) + " writes are wrong and nothing was accepted; correct them and send all again"
}

// Unwrap gives the Error that decides the status: that of the only fault, or
// Invalid as soon as one of many is.
func (f *faults) Unwrap() error {
	worst := f.list[0].err
	for _, x := range f.list {
		if x.err.Code == sluice.Invalid {
			worst = x.err
			break
		}
	}
	reason := "bad_writes"
	if len(f.list) == 1 {
		reason = worst.Reason
	}
	return &sluice.Error{Code: worst.Code, Reason: reason, Detail: f.Error()}
}

// partial is the error of a body of which policy accepted nothing.
type partial struct {
	cause    *sluice.Error
	outcomes []sluice.Reason
}

func (p *partial) Error() string { return p.cause.Detail }
func (p *partial) Unwrap() error { return p.cause }

// problem answers an error as problem+json (RFC 9457).
func (q *request) problem(err error) {
	e := asError(err)
	switch {
	case !errors.Is(err, context.Canceled):
	case q.h.closing.Err() != nil:
		e = errClosing
	default: // most likely nobody is there to be told; an empty 200 would be a lie
		e = errEnded
	}
	if e.Code == sluice.Internal {
		q.h.o.Failed(err)
	}
	status := outcomeOf(e.Code, e.Reason).HTTP
	if status == http.StatusUnauthorized {
		q.w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
	}
	b := append(q.out[:0], `{"type":"about:blank","title":`...)
	b = appendString(b, http.StatusText(status))
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = q.appendError(append(b, ','), e)
	var f *faults
	var p *partial
	switch {
	case errors.As(err, &f):
		b = append(b, `,"faults":[`...)
		for i := range f.list {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendFault(b, &f.list[i])
		}
		b = append(b, ']')
	case errors.As(err, &p):
		b = appendOutcomes(append(b, `,"outcomes":`...), p.outcomes)
	}
	q.out = append(b, '}', '\n')
	q.send(status, problemType)
}

var (
	errClosing = &sluice.Error{Code: sluice.Unavailable, Reason: "shutting_down", Detail: "Sluice is closing; send the request again in a moment"}
	errEnded   = &sluice.Error{Code: sluice.Unavailable, Reason: "unknown", Detail: "the request ended before its answer; send it again with the same identity"}
)

// appendError appends an error's members without braces, and sets Retry-After
// while the head of the answer can still be changed.
func (q *request) appendError(b []byte, e *sluice.Error) []byte {
	b = append(b, `"code":`...)
	b = appendString(b, string(e.Code))
	b = append(b, `,"reason":`...)
	b = appendString(b, e.Reason)
	b = append(b, `,"detail":`...)
	b = appendString(b, e.Detail)
	if wait := retryAfter(e); wait > 0 {
		q.retryAfter(wait)
		b = append(b, `,"retry_after_ms":`...)
		b = strconv.AppendInt(b, max(1, wait.Milliseconds()), 10)
	}
	return b
}

// retryAfter sets the header, which knows whole seconds only.
func (q *request) retryAfter(wait time.Duration) {
	q.w.Header()["Retry-After"] = []string{strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)}
}

// send writes the answer that stands in q.out.
func (q *request) send(status int, contentType []string) {
	head := q.w.Header()
	head["Content-Type"] = contentType
	head["Cache-Control"] = noStore
	q.w.WriteHeader(status)
	// The only error is a client that went away: there is nobody to tell it to.
	_, _ = q.w.Write(q.out)
}

// sendJSON answers a value that is not on the hot path. RawMessages go out as
// they are: no escaping for HTML.
func (q *request) sendJSON(status int, v any) error {
	b, err := marshal(v)
	if err != nil {
		return err
	}
	q.out = append(append(q.out[:0], b...), '\n')
	q.send(status, jsonType)
	return nil
}

func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimRight(buf.Bytes(), "\n"), err
}

func appendFault(b []byte, f *fault) []byte {
	b = append(b, `{"line":`...)
	b = strconv.AppendInt(b, int64(f.line), 10)
	b = append(b, `,"reason":`...)
	b = appendString(b, f.err.Reason)
	b = append(b, `,"detail":`...)
	b = appendString(b, cut(f.err.Detail, detailBytesMax))
	return append(b, '}')
}

// appendOutcomes lists the lines that were not accepted.
func appendOutcomes(b []byte, outcomes []sluice.Reason) []byte {
	b = append(b, '[')
	first := true
	for i, r := range outcomes {
		if r == sluice.Accepted {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendOutcome(b, i+1, r)
	}
	return append(b, ']')
}

func appendOutcome(b []byte, line int, r sluice.Reason) []byte {
	b = append(b, `{"line":`...)
	b = strconv.AppendInt(b, int64(line), 10)
	b = append(b, `,"reason":"`...)
	b = append(b, r.String()...)
	return append(b, `"}`...)
}

func countRefused(outcomes []sluice.Reason) int {
	n := 0
	for _, r := range outcomes {
		if r != sluice.Accepted {
			n++
		}
	}
	return n
}

// appendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD: details quote what clients sent.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += size
			continue
		}
		i++
	}
	return append(b, '"')
}

// cut shortens s to at most limit bytes, at a rune.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}
