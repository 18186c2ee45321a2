package api

import (
	"bytes"
	"mime"
	"strconv"
	"strings"
	"time"

	"sluice.dev/sluice"
)

// postWrites takes one write, an array of writes, or a stream of lines.
func (q *request) postWrites() error {
	if err := q.who.MayWrite(""); err != nil {
		return err
	}
	if isLines(q.r.Header.Get("Content-Type")) {
		return q.stream()
	}
	wait, id, err := q.writeOptions()
	if err != nil {
		return err
	}
	if err := q.readBody(); err != nil {
		return err
	}
	return q.submitWhole(q.text, wait, id)
}

// postTable takes one write whose table and key stand in the path.
func (q *request) postTable() error {
	t, err := q.table()
	if err != nil {
		return err
	}
	if err := q.who.MayWrite(t.Name); err != nil {
		return err
	}
	key, err := q.pathKey(t)
	if err != nil {
		return err
	}
	wait, id, err := q.writeOptions()
	if err != nil {
		return err
	}
	if err := q.readBody(); err != nil {
		return err
	}
	body := bytes.Trim(q.text, jsonSpace)
	if len(body) < 2 || body[0] != '{' {
		return sluice.Errorf(sluice.Invalid, "bad_json", `the body must be one object like {"add":{"likes":1}}; table and key stand in the path`)
	}
	// The path's members go in front. A second "table" or "key" in the body is
	// then a doubled member, which the builder refuses.
	whole := appendString(append(make([]byte, 0, len(body)+len(key)+64), `{"table":`...), t.Name)
	whole = t.AppendKeyJSON(append(whole, `,"key":`...), key)
	if rest := bytes.TrimLeft(body[1:], jsonSpace); len(rest) > 0 && rest[0] != '}' {
		whole = append(whole, ',')
	}
	return q.submitWhole(append(whole, body[1:]...), wait, id)
}

func isLines(contentType string) bool {
	if contentType == "" || contentType == jsonType[0] {
		return false
	}
	kind, _, _ := mime.ParseMediaType(contentType)
	return kind == "application/x-ndjson" || kind == "application/ndjson" || kind == "application/jsonl"
}

// writeOptions reads what stands beside the body: how long to wait until the
// write is applied (0: not at all), and the identity (nil: none).
func (q *request) writeOptions() (time.Duration, *sluice.Identity, error) {
	var wait time.Duration
	if q.r.URL.RawQuery != "" {
		query := q.r.URL.Query()
		switch query.Get("wait") {
		case "":
		case "applied":
			wait = q.schema.Limits.WaitMax
		default:
			return 0, nil, sluice.Errorf(sluice.Invalid, "bad_request", "wait=%.40q: a write waits until it is applied (wait=applied) or not at all", query.Get("wait"))
		}
		timeout, err := q.duration(query.Get("timeout"))
		if err != nil {
			return 0, nil, err
		}
		if timeout > 0 && wait > 0 {
			wait = timeout
		}
	}
	id, err := q.identity()
	return wait, id, err
}

// Headers that carry an identity.
const (
	keyHeader      = "Idempotency-Key"
	producerHeader = "Sluice-Producer"
)

// identity reads the request's identity; nil when it has none.
func (q *request) identity() (*sluice.Identity, error) {
	keys, producers := q.r.Header[keyHeader], q.r.Header[producerHeader]
	switch {
	case len(keys)+len(producers) == 0:
		return nil, nil
	case len(keys)+len(producers) > 1:
		return nil, sluice.Errorf(sluice.Invalid, "bad_identity", "a request has one identity; send one %s or one %s", keyHeader, producerHeader)
	case len(keys) == 1:
		key, err := idempotencyKey(keys[0])
		if err != nil {
			return nil, err
		}
		scoped, err := q.who.IdentityKey(key)
		if err != nil {
			return nil, err
		}
		return &sluice.Identity{Key: scoped}, nil
	}
	return producerIdentity(producers[0])
}

// idempotencyKey reads the header of the IETF draft: a structured-field string
// ("..." with \" and \\). Bare tokens are taken too, since many clients send them.
func idempotencyKey(v string) (string, error) {
	v = strings.Trim(v, " \t")
	bad := func() (string, error) {
		return "", sluice.Errorf(sluice.Invalid, "bad_identity", `%s is a string in double quotes, like "8e03978e-40d5-43dd-bc93-6894a57f9324"`, keyHeader)
	}
	if !strings.HasPrefix(v, `"`) {
		if v == "" || strings.Trim(v, tokenChars) != "" {
			return bad()
		}
		return v, nil
	}
	key := make([]byte, 0, len(v))
	for i := 1; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"':
			if i != len(v)-1 {
				return bad()
			}
			return string(key), nil
		case c == '\\':
			if i++; i >= len(v) || v[i] != '"' && v[i] != '\\' {
				return bad()
			}
			key = append(key, v[i])
		case c < 0x20 || c > 0x7e:
			return bad()
		default:
			key = append(key, c)
		}
	}
	return bad()
}

const tokenChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/+=!#$%&'*^`|"

// producerIdentity reads "id;number;lowest".
func producerIdentity(v string) (*sluice.Identity, error) {
	var n [3]uint64
	parts := strings.Split(v, ";")
	ok := len(parts) == len(n)
	for i := 0; ok && i < len(n); i++ {
		var err error
		n[i], err = strconv.ParseUint(strings.TrimSpace(parts[i]), 10, 64)
		ok = err == nil && n[i] > 0
	}
	if !ok {
		return nil, sluice.Errorf(sluice.Invalid, "bad_identity", "%s is id;number;lowest, three whole numbers above 0 like 17;3;1, not %.60q", producerHeader, v)
	}
	id := &sluice.Identity{Producer: n[0], Chunk: n[1], Lowest: n[2]}
	if id.Lowest > id.Chunk || id.Chunk-id.Lowest >= sluice.ProducerInFlightMax {
		return nil, sluice.Errorf(sluice.Invalid, "bad_identity", "%s %.60q: number must be at least lowest and less than lowest + %d, since at most %d requests are in flight",
			producerHeader, v, sluice.ProducerInFlightMax, sluice.ProducerInFlightMax)
	}
	return id, nil
}

// submitWhole submits one write or an array as one chunk and answers it.
func (q *request) submitWhole(text []byte, wait time.Duration, id *sluice.Identity) error {
	j := q.newJob()
	defer j.free()
	j.whole, j.text = true, text
	j.identify(id, 0)
	ack, err := q.h.o.Writes.Submit(q.r.Context(), &j.chunk)
	if err == nil {
		err = refusedWhole(&ack)
	}
	if err != nil {
		return err
	}
	if wait > 0 && ack.Receipt != "" {
		return q.answerApplied(&ack, j, wait)
	}
	status := 202
	if len(ack.Outcomes) > 0 && countRefused(ack.Outcomes) > 0 {
		status = 207
	}
	q.out = append(q.appendAck(q.out[:0], &ack, j), '}', '\n')
	q.send(status, jsonType)
	return nil
}

// refusedNow makes an error of an answer that accepted nothing, when some of it
// may be tried again. What was sampled or thinned away is no error: its owner
// asked for that.
func refusedNow(ack *sluice.Ack) error {
	if ack.Commit == 0 {
		for _, r := range ack.Outcomes {
			if outcomeOf(reasonCode(r), r.String()).Retry {
				return nothingAccepted(ack, r)
			}
		}
	}
	return nil
}

// refusedWhole is refusedNow for a body that is one chunk: there also what is
// wrong for good is an error, and no line of an answer.
func refusedWhole(ack *sluice.Ack) error {
	if err := refusedNow(ack); err != nil || ack.Commit != 0 {
		return err
	}
	for _, r := range ack.Outcomes {
		if reasonCode(r) != "" {
			return nothingAccepted(ack, r)
		}
	}
	return nil
}

func nothingAccepted(ack *sluice.Ack, r sluice.Reason) error {
	return &partial{outcomes: ack.Outcomes, cause: sluice.Errorf(reasonCode(r), r.String(), "%s", reasonDetail(r))}
}

// reasonDetail is a sentence for a refusal that came as a bare reason.
func reasonDetail(r sluice.Reason) string {
	switch r {
	case sluice.BadLine:
		return "nothing was accepted: the writes are wrong"
	case sluice.NotAllowed:
		return "nothing was accepted: this client may not write to the table; `tables` of the client in the config lists its tables"
	case sluice.ShuttingDown:
		return errClosing.Detail
	}
	return "nothing was accepted, because of " + r.String() + "; GET /v1/status shows the limits, send again after the time said"
}

// appendAck appends the members of an answer to accepted writes, without the
// closing brace. Writes of one body count once, however many groups they hit.
func (q *request) appendAck(b []byte, ack *sluice.Ack, j *job) []byte {
	lines := j.count(ack)
	refused := countRefused(ack.Outcomes)
	b = append(b, '{')
	if ack.Receipt != "" {
		b = append(b, `"receipt":"`...)
		b = append(b, ack.Receipt...)
		b = append(b, `",`...)
	}
	b = append(b, `"accepted":`...)
	b = strconv.AppendInt(b, int64(lines-refused), 10)
	if refused > 0 {
		b = append(b, `,"refused":`...)
		b = strconv.AppendInt(b, int64(refused), 10)
		b = appendOutcomes(append(b, `,"outcomes":`...), ack.Outcomes)
		for _, r := range ack.Outcomes {
			if outcomeOf(reasonCode(r), "").Retry {
				q.retryAfter(retryAfterDefault)
				break
			}
		}
	}
	if ack.Duplicate {
		b = append(b, `,"duplicate":true`...)
	}
	return b
}

// count tells how many writes a whole body has. Of a retry nothing was parsed;
// its text is that of the original, which was valid.
func (j *job) count(ack *sluice.Ack) int {
	if j.parsed {
		return j.lines
	}
	if len(ack.Outcomes) > 0 {
		return len(ack.Outcomes)
	}
	text := bytes.TrimLeft(j.text, jsonSpace)
	if len(text) == 0 || text[0] != '[' {
		return 1
	}
	n := 0
	for s := (arrayScanner{text: text[1:]}); ; n++ {
		if element, err := s.next(); element == nil || err != nil {
			return n
		}
	}
}

// answerApplied waits until what was just accepted is applied and answers with
// its state: 200 when all is applied, 202 when the wait was over first, 422 when
// the database refused it.
func (q *request) answerApplied(ack *sluice.Ack, j *job, wait time.Duration) error {
	receipt, err := sluice.ParseReceipt(ack.Receipt)
	if err != nil {
		return err
	}
	ctx, cancel := q.waiting()
	defer cancel()
	state, err := q.h.o.Reads.Receipt(ctx, receipt, wait)
	if err != nil && ctx.Err() == nil {
		return err
	}
	status := 202
	if err != nil {
		// The door closes. The write is durable all the same, so that its
		// receipt is the answer and not an error.
		state = sluice.ReceiptStatus{State: sluice.StateQueued}
	}
	switch {
	case state.State == sluice.StateApplied && countRefused(ack.Outcomes) > 0:
		status = 207
	case state.State == sluice.StateApplied:
		status = 200
	case state.State == sluice.StateRejected || state.State == sluice.StateLost:
		status = outcomeOf(sluice.Rejected, "").HTTP
	}
	if q.who.MayRead("") != nil {
		hideRejects(&state)
	}
	q.out = q.appendAck(q.out[:0], ack, j)
	q.out = append(q.out, `,"state":`...)
	q.out = appendString(q.out, state.State)
	groups, err := marshal(state.Groups)
	if err != nil {
		return err
	}
	q.out = append(append(q.out, `,"groups":`...), groups...)
	q.out = append(q.out, '}', '\n')
	q.send(status, jsonType)
	return nil
}

// hideRejects leaves the states and takes out what was refused: a folded row
// may hold what others wrote, and this client may not read.
func hideRejects(state *sluice.ReceiptStatus) {
	for i := range state.Groups {
		state.Groups[i].Rejects = nil
	}
}

// postProducers issues a producer id (I3).
func (q *request) postProducers() error {
	if err := q.who.MayWrite(""); err != nil {
		return err
	}
	id, err := q.h.o.Writes.NewProducer(q.r.Context())
	if err != nil {
		return err
	}
	q.out = strconv.AppendUint(append(q.out[:0], `{"producer":`...), id, 10)
	q.out = append(q.out, '}', '\n')
	q.send(201, jsonType)
	return nil
}
