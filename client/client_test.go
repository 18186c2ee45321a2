package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
)

// door answers requests from a script, and keeps what it was sent.
type door struct {
	*httptest.Server
	mu      sync.Mutex
	answers []http.HandlerFunc // one a request; the last one stays
	got     []sent
}

type sent struct{ path, identity, token, body string }

func newDoor(t *testing.T, answers ...http.HandlerFunc) *door {
	d := &door{answers: answers}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		d.mu.Lock()
		d.got = append(d.got, sent{r.Method + " " + r.URL.String(), r.Header.Get("Idempotency-Key") + r.Header.Get("Sluice-Producer"), r.Header.Get("Authorization"), string(body)})
		answer := d.answers[0]
		if len(d.answers) > 1 {
			d.answers = d.answers[1:]
		}
		d.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(d.Close)
	return d
}

// requests is what the door was sent so far.
func (d *door) requests() []sent {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.got)
}

func (d *door) client(t *testing.T, o Options) *Client {
	t.Helper()
	o.URL = d.URL
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func says(status int, kind, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		io.WriteString(w, text)
	}
}

func problem(status int, code, reason string, ms int) http.HandlerFunc {
	return says(status, "application/problem+json", fmt.Sprintf(`{"code":%q,"reason":%q,"detail":"it is so","retry_after_ms":%d}`, code, reason, ms))
}

// lost does the work and loses the answer.
func lost(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

// half sends only the beginning of an answer.
func half(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	io.WriteString(w, `{"receipt":"r`)
}

var accepted = says(202, "application/json", `{"receipt":"r1","accepted":1}`)

// A write is sent again, as it was, after everything that may pass.
func TestClientRetries(t *testing.T) {
	for name, trouble := range map[string]http.HandlerFunc{
		"lost answer": lost, "half an answer": half, "proxy": says(502, "text/html", "<html>"), "429": problem(429, "overloaded", "rate_limit", 1),
		"503": problem(503, "unavailable", "shutting_down", 1), "500": problem(500, "internal", "internal", 0), "not JSON": says(202, "application/json", "{"),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, trouble, trouble, accepted)
			a, err := d.client(t, Options{Token: "secret"}).Write(t.Context(), &sluice.Write{Table: "posts", Key: 1, Add: map[string]any{"likes": 1}})
			if err != nil || a.Receipt != "r1" || a.Accepted != 1 {
				t.Fatalf("got %+v, %v", a, err)
			}
			if len(d.requests()) != 3 || d.requests()[0] != d.requests()[2] || d.requests()[0].identity == "" || d.requests()[0].token != "Bearer secret" {
				t.Fatalf("sent %+v", d.requests())
			}
		})
	}
}

// What cannot pass is not tried again.
func TestClientDoesNotRetry(t *testing.T) {
	for _, c := range []struct {
		status       int
		code, reason string
	}{{422, "invalid", "bad_value"}, {401, "denied", "unauthenticated"}, {404, "not_found", "no_table"}, {422, "conflict", "identity_reused"}, {413, "too_large", "request_bytes"}} {
		d := newDoor(t, problem(c.status, c.code, c.reason, 0))
		_, err := d.client(t, Options{}).Write(t.Context(), &sluice.Write{})
		var e *sluice.Error
		if !errors.As(err, &e) || string(e.Code) != c.code || e.Reason != c.reason || e.Detail != "it is so" || len(d.requests()) != 1 {
			t.Errorf("%s: got %v after %d tries", c.reason, err, len(d.requests()))
		}
	}
}

func TestClientBudget(t *testing.T) {
	d := newDoor(t, problem(503, "overloaded", "journal_full", 60_000))
	_, err := d.client(t, Options{}).Write(t.Context(), &sluice.Write{})
	if sluice.CodeOf(err) != sluice.Overloaded || len(d.requests()) != 1 {
		t.Errorf("a wait beyond the budget: got %v after %d tries", err, len(d.requests()))
	}
	d = newDoor(t, lost)
	if _, err := d.client(t, Options{RetryBudget: 100 * time.Millisecond}).Write(t.Context(), &sluice.Write{}); err == nil || !strings.Contains(err.Error(), "gave up after") {
		t.Errorf("got %v", err)
	}
	d = newDoor(t, lost)
	if _, err := d.client(t, Options{RetryBudget: -1}).Write(t.Context(), &sluice.Write{}); err == nil || len(d.requests()) > 2 {
		t.Errorf("without a budget: got %v after %d tries", err, len(d.requests())) // net/http itself may try a fresh connection once
	}
	ctx, cancel := context.WithCancel(t.Context())
	d = newDoor(t, func(w http.ResponseWriter, r *http.Request) { cancel(); lost(w, r) })
	if _, err := d.client(t, Options{}).Write(ctx, &sluice.Write{}); err == nil {
		t.Error("a cancelled write succeeded")
	}
}

// What would happen twice is not sent again when its answer is lost.
func TestClientDecidesOnce(t *testing.T) {
	d := newDoor(t, lost)
	if err := d.client(t, Options{}).DecideReject(t.Context(), "1.0", "replay"); err == nil || len(d.requests()) != 1 {
		t.Errorf("got %v after %d tries", err, len(d.requests()))
	}
	d = newDoor(t, problem(503, "overloaded", "rate_limit", 1), says(200, "application/json", "{}"))
	if err := d.client(t, Options{}).DecideReject(t.Context(), "1.0", "replay"); err != nil || len(d.requests()) != 2 {
		t.Errorf("a refusal did nothing and may be tried again: got %v after %d tries", err, len(d.requests()))
	}
}

func TestClientWriteAnswers(t *testing.T) {
	d := newDoor(t, says(422, "application/problem+json", `{"code":"invalid","reason":"bad_writes","detail":"2 of 3","faults":[{"line":1,"reason":"a","detail":"A"},{"line":3,"reason":"b","detail":"B"}]}`))
	_, err := d.client(t, Options{}).WriteMany(t.Context(), make([]sluice.Write, 3), WriteOptions{})
	var w *WriteError
	if !errors.As(err, &w) || len(w.Refusals) != 2 || w.Refusals[1].Line != 3 || err.Error() != "2 of 3\nwrite 1: a: A\nwrite 3: b: B" {
		t.Errorf("got %v", err)
	}
	d = newDoor(t, says(207, "application/json", `{"receipt":"r","accepted":1,"refused":1,"outcomes":[{"line":2,"reason":"sampled"}]}`))
	a, err := d.client(t, Options{}).WriteMany(t.Context(), make([]sluice.Write, 2), WriteOptions{Key: `a"b`, Wait: time.Second})
	if err != nil || a.Refused != 1 || a.Outcomes[0].Reason != "sampled" || d.requests()[0].identity != `"a\"b"` || d.requests()[0].path != "POST /v1/writes?wait=applied&timeout=1s" {
		t.Errorf("got %+v, %v, sent %+v", a, err, d.requests())
	}
	d = newDoor(t, says(422, "application/json", `{"receipt":"r","accepted":1,"state":"rejected","groups":[{"table":"posts","state":"rejected"}]}`))
	a, err = d.client(t, Options{}).WriteJSON(t.Context(), []byte("{}"), WriteOptions{Wait: time.Second})
	if sluice.CodeOf(err) != sluice.Rejected || a.Receipt != "r" || len(a.Groups) != 1 || len(d.requests()) != 1 {
		t.Errorf("got %+v, %v", a, err)
	}
	d = newDoor(t, says(200, "application/json", strings.Repeat(" ", 100)))
	if _, err = d.client(t, Options{AnswerBytesMax: 99}).Write(t.Context(), &sluice.Write{}); sluice.CodeOf(err) != sluice.TooLarge {
		t.Errorf("got %v", err)
	}
}

func TestClientNew(t *testing.T) {
	for _, url := range []string{"", "localhost:7070", "ftp://x", "http://", "://"} {
		if _, err := New(Options{URL: url}); err == nil {
			t.Errorf("%q was taken", url)
		}
	}
}

func TestClientDrain(t *testing.T) {
	d := newDoor(t, says(200, "application/x-ndjson", "{\"queued\":5}\n{\"queued\":0}\n{\"done\":true}\n"))
	var seen []uint64
	if err := d.client(t, Options{}).Drain(t.Context(), func(n uint64) { seen = append(seen, n) }); err != nil || !slices.Equal(seen, []uint64{5, 0}) {
		t.Errorf("got %v, %v", seen, err)
	}
	d = newDoor(t, says(200, "application/x-ndjson", "{\"queued\":5}\n{\"error\":{\"code\":\"conflict\",\"reason\":\"stopped\",\"detail\":\"shard a is stopped\"}}\n"))
	if err := d.client(t, Options{}).Drain(t.Context(), nil); err == nil || err.Error() != "shard a is stopped" {
		t.Errorf("got %v", err)
	}
	d = newDoor(t, says(200, "application/x-ndjson", "{\"queued\":5}\n"))
	if err := d.client(t, Options{RetryBudget: -1}).Drain(t.Context(), nil); err == nil {
		t.Error("a drain without its last line succeeded")
	}
}

func TestFolder(t *testing.T) {
	var f folder
	f.init(map[string][]string{"posts": {"likes", "views"}})
	add := func(want bool, w sluice.Write) {
		t.Helper()
		key, _ := f.key(&w)
		if got := f.lawful(&w) && f.add(&w, key); got != want {
			t.Errorf("folding %+v: %v, want %v", w, got, want)
		}
	}
	like := func(key any, n any) sluice.Write {
		return sluice.Write{Table: "posts", Key: key, Add: map[string]any{"likes": n}}
	}
	add(true, like(2, 1))
	add(true, like(1, int64(1)<<62))
	add(true, like(2, json.Number("4")))
	add(false, like(1, int64(1)<<62)) // overflow
	add(true, like(1, -7))
	add(false, like(1, 1.5))
	add(false, like(1, json.Number("1.5")))
	add(false, sluice.Write{Table: "posts", Key: 1, Add: map[string]any{"cost": 1}})
	add(false, sluice.Write{Table: "pages", Key: 1, Add: map[string]any{"likes": 1}})
	add(false, sluice.Write{Table: "posts", Key: 1, Delete: true})
	add(false, sluice.Write{Table: "posts", Key: 1, Add: map[string]any{"likes": 1}, Set: map[string]any{"x": 1}})
	size := f.bytes()
	var lines []string
	total := 0
	for key := range f.keys() {
		line := f.take(key)
		total += len(line) + 1
		lines = append(lines, string(line))
	}
	want := []string{`{"add":{"likes":5},"key":2,"table":"posts"}`, `{"add":{"likes":4611686018427387897},"key":1,"table":"posts"}`}
	if !slices.Equal(lines, want) || f.len() != 0 {
		t.Errorf("got %v", lines)
	}
	if total > size {
		t.Errorf("lines take %d bytes, more than the %d that were counted", total, size)
	}
}

// Batcher against a door that loses every other answer: numbers are sent again
// as they were, and the position follows the answers in order.
func TestBatcherRetriesByNumber(t *testing.T) {
	d := newDoor(t)
	n := 0
	d.answers = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		n++
		count, body := n, d.got[len(d.got)-1].body
		d.mu.Unlock()
		switch {
		case r.URL.Path == "/v1/producers":
			says(201, "application/json", `{"producer":9}`)(w, r)
		case count%2 == 0:
			lost(w, r)
		default:
			says(200, "application/x-ndjson", fmt.Sprintf("{\"line\":1,\"reason\":\"sampled\"}\n{\"receipt\":\"r\",\"first\":1,\"last\":2,\"accepted\":1,\"refused\":1}\n{\"accepted\":%d,\"refused\":1}\n", strings.Count(body, "\n")-1))(w, r)
		}
	}}
	var positions []Position
	var refused []string
	b, err := d.client(t, Options{}).NewBatcher(t.Context(), BatcherOptions{LinesMax: 2, Delay: -1,
		Resolved: func(p Position) { positions = append(positions, p) },
		Refused:  func(line []byte, r Refusal) { refused = append(refused, string(line)+" "+r.Reason) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"a", "b", "c"} {
		if err := b.AddJSON(t.Context(), []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []sent{{"POST /v1/producers", "", "", ""}, {"POST /v1/writes", "9;1;1", "", "a\nb\n"}, {"POST /v1/writes", "9;1;1", "", "a\nb\n"},
		{"POST /v1/writes", "9;2;2", "", "c\n"}, {"POST /v1/writes", "9;2;2", "", "c\n"}}
	if !slices.Equal(d.requests(), want) {
		t.Errorf("sent %+v", d.requests())
	}
	if !slices.Equal(positions, []Position{{9, 2, 2, 1, 1}, {9, 3, 3, 1, 2}}) || !slices.Equal(refused, []string{"a sampled", "c sampled"}) {
		t.Errorf("positions %+v, refused %v", positions, refused)
	}
	if err := b.AddJSON(t.Context(), []byte("d")); !errors.Is(err, errBatcherClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// One that is refused for good stops the batcher, and says at what position.
func TestBatcherStopsAtAnError(t *testing.T) {
	d := newDoor(t, says(200, "application/x-ndjson", "{\"accepted\":1,\"refused\":0}\n"), problem(422, "conflict", "identity_reused", 0))
	b, err := d.client(t, Options{}).NewBatcher(t.Context(), BatcherOptions{Producer: 4, Next: 7, LinesMax: 1, Delay: -1})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.AddJSON(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	err = b.Flush(t.Context())
	if sluice.CodeOf(err) != sluice.Conflict || b.Position().Next != 8 {
		t.Errorf("got %v at %+v", err, b.Position())
	}
	if add := b.AddJSON(t.Context(), []byte("y")); add == nil || add.Error() != err.Error() {
		t.Errorf("Add: %v", add)
	}
	if again := b.Close(t.Context()); again == nil || again.Error() != err.Error() {
		t.Errorf("Close: %v", again)
	}
}

// Full, nobody answers, stop: Add and Close come back with their contexts.
func TestBatcherStopsWhileFull(t *testing.T) {
	hold := make(chan struct{})
	d := newDoor(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(hold) })
	b, err := d.client(t, Options{}).NewBatcher(t.Context(), BatcherOptions{Producer: 1, LinesMax: 1, Delay: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.AddJSON(t.Context(), []byte("a")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.AddJSON(ctx, []byte("b")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Add while full: %v", err)
	}
	if err := b.Close(ctx); err == nil {
		t.Error("Close succeeded with a request under way")
	}
	if b.Position().Next != 1 {
		t.Errorf("position %+v", b.Position())
	}
}

// The order of one key's writes is kept, folded or not.
func TestBatcherFoldsLawfully(t *testing.T) {
	d := newDoor(t, says(200, "application/x-ndjson", "{\"accepted\":1,\"refused\":0}\n"))
	b, err := d.client(t, Options{}).NewBatcher(t.Context(), BatcherOptions{Producer: 1, Delay: -1, Sums: map[string][]string{"posts": {"likes"}}})
	if err != nil {
		t.Fatal(err)
	}
	like := sluice.Write{Table: "posts", Key: 1, Add: map[string]any{"likes": 1}}
	other := sluice.Write{Table: "posts", Key: 2, Add: map[string]any{"likes": 5}}
	remove := sluice.Write{Table: "posts", Key: 1, Delete: true}
	for _, w := range []*sluice.Write{&like, &other, &like, &remove, &like, &like, &other} {
		if err := b.Add(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `{"add":{"likes":2},"key":1,"table":"posts"}
{"table":"posts","key":1,"delete":true}
{"add":{"likes":2},"key":1,"table":"posts"}
{"add":{"likes":10},"key":2,"table":"posts"}
`
	if d.requests()[0].body != want || b.Position().Writes != 7 {
		t.Errorf("sent %s", d.requests()[0].body)
	}
}
