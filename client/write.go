package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sluice.dev/sluice"
)

// Accepted answers a write that is durable.
type Accepted struct {
	Receipt  string `json:"receipt"` // "" when nothing was accepted
	Accepted int    `json:"accepted"`
	// Refused counts the writes that policy did not accept; Outcomes says why.
	// They were not wrong: sampled away, thinned, or over a limit.
	Refused   int       `json:"refused"`
	Outcomes  []Refusal `json:"outcomes"`
	Duplicate bool      `json:"duplicate"` // an earlier try had been accepted
	// State and Groups are there when the call waited.
	State  string               `json:"state"`
	Groups []sluice.GroupStatus `json:"groups"`
}

// Refusal says why one write of several was not accepted.
type Refusal struct {
	Line   int    `json:"line"` // from 1: its position
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// WriteError is the error of a body of which nothing was accepted, with a
// refusal for each write at fault. The cause is a *sluice.Error.
type WriteError struct {
	Cause    *sluice.Error
	Refusals []Refusal
}

func (e *WriteError) Error() string {
	if len(e.Refusals) < 2 {
		return e.Cause.Detail
	}
	text := e.Cause.Detail
	for i, r := range e.Refusals {
		if i == refusalsShown {
			return text + fmt.Sprintf("\n... and %d more", len(e.Refusals)-i)
		}
		text += fmt.Sprintf("\nwrite %d: %s: %s", r.Line, r.Reason, r.Detail)
	}
	return text
}

// refusalsShown is how many refusals an error's text lists.
const refusalsShown = 20

func (e *WriteError) Unwrap() error { return e.Cause }

// WriteOptions say how to write.
type WriteOptions struct {
	// Key names the request, so that a retry of it counts once, even one by
	// another process. "": a random one that lasts for this call. Sluice
	// remembers each key for a day; who writes much uses a Batcher.
	Key string
	// Wait above 0 waits so long until the database has the write, durably.
	Wait time.Duration
}

// Write writes one change and returns when it is durable.
func (c *Client) Write(ctx context.Context, w *sluice.Write) (Accepted, error) {
	body, err := json.Marshal(w)
	if err != nil {
		return Accepted{}, notJSON(err)
	}
	return c.WriteJSON(ctx, body, WriteOptions{})
}

// WriteMany writes all changes or, when one is wrong, none; at most
// `batch_writes` of them. They are durable together.
func (c *Client) WriteMany(ctx context.Context, ws []sluice.Write, o WriteOptions) (Accepted, error) {
	body, err := json.Marshal(ws)
	if err != nil {
		return Accepted{}, notJSON(err)
	}
	return c.WriteJSON(ctx, body, o)
}

func notJSON(err error) error {
	return sluice.Errorf(sluice.Invalid, "bad_value", "a write cannot be said in JSON: %w", err)
}

// WriteJSON writes a body that is JSON already: one write or an array. An error
// with code Rejected comes with the answer: the write was accepted, and then
// the database refused it.
func (c *Client) WriteJSON(ctx context.Context, body []byte, o WriteOptions) (Accepted, error) {
	if o.Key == "" {
		o.Key = rand.Text()
	}
	r := &call{method: http.MethodPost, path: "/v1/writes", contentType: "application/json", body: body,
		identity: "Idempotency-Key", identityText: quote(o.Key), wait: o.Wait}
	if o.Wait > 0 {
		r.path += "?wait=applied&timeout=" + o.Wait.String()
	}
	var a Accepted
	r.answer = func(h *http.Response) error {
		a = Accepted{}
		return c.into(&a)(h)
	}
	if err := c.do(ctx, r); err != nil {
		return Accepted{}, err
	}
	if a.State == sluice.StateRejected || a.State == sluice.StateLost {
		return a, sluice.Errorf(sluice.Rejected, a.State, "the write was accepted, and then %s: see the groups of the answer, and `sluice rejects ls`", a.State)
	}
	return a, nil
}

// quote makes a structured-field string.
func quote(s string) string {
	b := []byte{'"'}
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(append(b, '"'))
}

// NewProducer asks for a producer id: the name under which a Batcher numbers
// its requests.
func (c *Client) NewProducer(ctx context.Context) (uint64, error) {
	var a struct {
		Producer uint64 `json:"producer"`
	}
	// Asking twice wastes an id and harms nothing.
	err := c.do(ctx, &call{method: http.MethodPost, path: "/v1/producers", answer: c.into(&a)})
	return a.Producer, err
}

// chunkAnswer is what came of one numbered request.
type chunkAnswer struct {
	receipt   string
	refusals  []Refusal
	accepted  int
	refused   int
	duplicate bool
}

// writeChunk sends lines as one chunk of a producer.
func (c *Client) writeChunk(ctx context.Context, producer, number, lowest uint64, lines []byte) (chunkAnswer, error) {
	id := strconv.FormatUint(producer, 10) + ";" + strconv.FormatUint(number, 10) + ";" + strconv.FormatUint(lowest, 10)
	var a chunkAnswer
	err := c.do(ctx, &call{method: http.MethodPost, path: "/v1/writes", contentType: "application/x-ndjson", body: lines,
		identity: "Sluice-Producer", identityText: id, answer: func(h *http.Response) (err error) {
			a, err = c.readChunkAnswer(h)
			return err
		}})
	return a, err
}

// answerLine is any line of the answer to NDJSON.
type answerLine struct {
	Refusal
	Receipt   string       `json:"receipt"`
	Accepted  *int         `json:"accepted"`
	Refused   int          `json:"refused"`
	Duplicate bool         `json:"duplicate"`
	Error     *problemJSON `json:"error"`
}

// readChunkAnswer reads the answer of a stream. Without its last line nobody
// knows what was accepted.
func (c *Client) readChunkAnswer(h *http.Response) (a chunkAnswer, err error) {
	text, err := c.readAll(h)
	if err != nil {
		return a, err
	}
	for line := range bytes.Lines(text) {
		var l answerLine
		if err := json.Unmarshal(line, &l); err != nil {
			return a, err
		}
		switch {
		case l.Error != nil:
			return a, l.Error.error(0)
		case l.Line > 0:
			a.refusals = append(a.refusals, l.Refusal)
		case l.Receipt != "":
			a.receipt, a.duplicate = l.Receipt, l.Duplicate
		case l.Accepted != nil:
			a.accepted, a.refused = *l.Accepted, l.Refused
			return a, nil
		}
	}
	return a, fmt.Errorf("the answer has no last line")
}
