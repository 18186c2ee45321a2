package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

func post(t *testing.T, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return roundTrip(t, req)
}

// Each limit has its own refusal, and over it nothing is accepted.
func TestHTTPLimits(t *testing.T) {
	b := NewHTTPBackend(t, false)
	b.Change(func(s *schema.Schema) {
		s.Limits.RequestBytesMax, s.Limits.LineBytesMax, s.Limits.BatchWritesMax, s.Limits.MultiReadKeysMax = 2000, 300, 3, 2
	})
	url := b.Serve(t, nil)
	one := `{"table":"posts","key":1,"add":{"likes":1}}`
	long := `{"table":"posts","key":1,"set":{"content":"` + strings.Repeat("x", 400) + `"}}`
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(bytes.Repeat([]byte(" "), 1<<20))
	z.Close()
	for name, c := range map[string]struct {
		path, body string
		header     []string
		status     int
		reason     string
	}{
		"body":       {"/v1/writes", strings.Repeat(" ", 2001), nil, 413, "request_bytes"},
		"body gzip":  {"/v1/writes", bomb.String(), []string{"Content-Encoding", "gzip"}, 413, "request_bytes"},
		"not gzip":   {"/v1/writes", one, []string{"Content-Encoding", "gzip"}, 400, "bad_request"},
		"cut gzip":   {"/v1/writes", bomb.String()[:bomb.Len()-4], []string{"Content-Encoding", "gzip", "Content-Type", "application/x-ndjson"}, 400, "bad_request"},
		"line":       {"/v1/writes", long, nil, 422, "line_bytes"},
		"line array": {"/v1/writes", "[" + one + "," + long + "]", nil, 422, "line_bytes"},
		"batch":      {"/v1/writes", "[" + one + strings.Repeat(","+one, 3) + "]", nil, 413, "batch_writes"},
		"read keys":  {"/v1/reads", `{"table":"posts","keys":[1,2,3]}`, nil, 413, "read_keys"},
		"key":        {"/v1/tables/pages/" + strings.Repeat("k", 1100), `{"add":{"n":1}}`, nil, 422, "bad_key"},
	} {
		t.Run(name, func(t *testing.T) {
			status, text := post(t, url+c.path, c.body, c.header...)
			if status != c.status || !strings.Contains(text, `"reason":"`+c.reason+`"`) {
				t.Errorf("got %d %s, want %d %s", status, text, c.status, c.reason)
			}
		})
	}
	if len(b.Order) > 0 {
		t.Errorf("something was accepted: %v", b.Order)
	}
	status, text := postLines(t, url, strings.NewReader(one+"\n"+long+"\n"+one))
	if status != 200 || !strings.Contains(text, `{"line":2,"reason":"line_bytes"`) || lastLine(text) != `{"accepted":2,"refused":1}` {
		t.Errorf("got %d %s", status, text)
	}
}

// Bodies under way hold no more than `memory`; when they are over it is free again.
func TestHTTPMemoryLimit(t *testing.T) {
	b := NewHTTPBackend(t, false)
	b.Change(func(s *schema.Schema) { s.Limits.MemoryMax = 1 << 20 })
	b.Hold = make(chan struct{})
	url := b.Serve(t, nil)
	large := `{"table":"posts","key":1,"set":{"content":"` + strings.Repeat("x", 700_000) + `"}}`
	first := make(chan int)
	go func() {
		status, _ := post(t, url+"/v1/writes", large)
		first <- status
	}()
	<-b.Submitting
	if status, text := post(t, url+"/v1/writes", large); status != 503 || !strings.Contains(text, "memory_max") {
		t.Errorf("got %d %s", status, text)
	}
	close(b.Hold)
	if status := <-first; status != 202 {
		t.Errorf("the first got %d", status)
	}
	if status, text := post(t, url+"/v1/writes", large); status != 202 {
		t.Errorf("got %d %s", status, text)
	}
}

func TestHTTPConnectionLimit(t *testing.T) {
	b := NewHTTPBackend(t, false)
	b.Change(func(s *schema.Schema) { s.Limits.ConnsMax = 2 })
	addr := strings.TrimPrefix(b.Serve(t, nil), "http://")
	var open []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := io.ReadFull(c, make([]byte, 20)); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	over, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(over)
	over.Close()
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), `"reason":"connections"`) {
		t.Fatalf("got %q, %v", answer, err)
	}
	_, text, _ := strings.Cut(string(answer), "\r\n\r\n")
	if !json.Valid([]byte(text)) {
		t.Errorf("the refusal is not JSON: %s", text)
	}
	open[0].Close()
	for { // the door hears of the close a moment later
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
		answer, _ := io.ReadAll(c)
		c.Close()
		if strings.HasPrefix(string(answer), "HTTP/1.0 200") {
			return
		}
	}
}

// A head over the limit is refused by net/http, which stops reading it.
func TestHTTPHeaderLimit(t *testing.T) {
	url := NewHTTPBackend(t, false).Serve(t, nil)
	req, _ := http.NewRequest("GET", url+"/healthz", nil)
	req.Header.Set("X-Long", strings.Repeat("x", 10*headerBytesMax))
	if h, err := http.DefaultTransport.RoundTrip(req); err == nil {
		h.Body.Close()
		if h.StatusCode != 431 {
			t.Fatalf("got %d", h.StatusCode)
		}
	}
}

// When the door closes, requests in flight are answered, streams end with an
// error instead of a last line, and new connections are refused.
func TestHTTPStop(t *testing.T) {
	b := NewHTTPBackend(t, false)
	h, err := NewHTTP(Options{Writes: b, Reads: b, Admin: b, Auth: NewAuth(b.Schema)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, l) }()

	body, send := io.Pipe()
	defer send.Close()
	streamed := make(chan string, 1)
	go func() {
		_, text := postLines(t, url, body)
		streamed <- text
	}()
	io.WriteString(send, likeLines(0, 1000))
	<-b.Submitting // the chunk; its answer may be under way

	b.mu.Lock()
	b.Hold = make(chan struct{})
	b.mu.Unlock()
	single := make(chan int, 1)
	go func() {
		status, _ := post(t, url+"/v1/writes", `{"table":"posts","key":1,"add":{"likes":1}}`)
		single <- status
	}()
	<-b.Submitting
	cancel()
	if text := <-streamed; !strings.Contains(lastLine(text), "shutting_down") {
		t.Errorf("the stream ended with %s", lastLine(text))
	}
	close(b.Hold)
	if status := <-single; status != 202 {
		t.Errorf("the request in flight got %d", status)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("the door is still open")
	}
}

func TestHTTPServeSaysWhyItEnds(t *testing.T) {
	b := NewHTTPBackend(t, false)
	h, _ := NewHTTP(Options{Writes: b, Reads: b, Admin: b, Auth: NewAuth(b.Schema)})
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	l.Close()
	if err := h.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if _, err := NewHTTP(Options{}); err == nil {
		t.Fatal("a door without a backend was made")
	}
}

// openapi.json lists exactly the routes that there are, and everything it
// refers to.
func TestHTTPOpenAPIListsTheRoutes(t *testing.T) {
	var doc struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Schemas, Responses map[string]json.RawMessage }
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	var listed, routes []string
	for path, methods := range doc.Paths {
		for method := range methods {
			listed = append(listed, strings.ToUpper(method)+" "+path)
		}
	}
	for _, rt := range (&HTTP{}).allRoutes() {
		routes = append(routes, strings.ReplaceAll(rt.pattern, "...}", "}"))
	}
	slices.Sort(listed)
	slices.Sort(routes)
	if !slices.Equal(listed, routes) {
		t.Errorf("openapi.json lists\n%s\nthe routes are\n%s", strings.Join(listed, "\n"), strings.Join(routes, "\n"))
	}
	for _, part := range strings.Split(string(openAPI), `"$ref": "#/components/`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		kind, name, _ := strings.Cut(ref, "/")
		if kind == "schemas" && doc.Components.Schemas[name] == nil || kind == "responses" && doc.Components.Responses[name] == nil {
			t.Errorf("openapi.json refers to %s, which is not there", ref)
		}
	}
	url := NewHTTPBackend(t, true).Serve(t, nil)
	req, _ := http.NewRequest("GET", url+"/openapi.json", nil)
	if status, text := roundTrip(t, req); status != 200 || text != string(openAPI) {
		t.Errorf("got %d, %d bytes", status, len(text))
	}
}

// Whatever the bytes: an answer of ours, never half an array, and the sums are
// those of what was said to be accepted.
func FuzzHTTPWrites(f *testing.F) {
	f.Add([]byte(`{"table":"posts","key":1,"add":{"likes":1}}`), "application/json")
	f.Add([]byte(`[{"table":"posts","key":1,"add":{"likes":1}},{"table":"posts","key":"x","add":{"likes":1}}]`), "")
	f.Add([]byte("{\"table\":\"posts\",\"key\":1,\"add\":{\"likes\":1}}\n\n{\n"), "application/x-ndjson")
	f.Add([]byte("[[{]},\"\\"), "")
	b := NewHTTPBackend(f, false)
	h, err := NewHTTP(Options{Writes: b, Reads: b, Admin: b, Auth: NewAuth(b.Schema), Failed: func(err error) { f.Error(err) }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, kind string) {
		b.Order, b.Sums = nil, map[string]int64{}
		r := httptest.NewRequest("POST", "/v1/writes", bytes.NewReader(body))
		r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
		r.Header["Content-Type"] = []string{kind}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if isLines(kind) {
			if w.Code != 200 || !json.Valid([]byte(lastLine(w.Body.String()))) {
				t.Fatalf("%q: %d %s", body, w.Code, w.Body)
			}
			return
		}
		var a struct{ Accepted int }
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatalf("%q: answer %s: %v", body, w.Body, err)
		}
		if (w.Code == 202) != (len(b.Order) > 0) || w.Code != 202 && w.Code != 422 && w.Code != 413 {
			t.Fatalf("%q: %d %s, with entries %v", body, w.Code, w.Body, b.Order)
		}
		if text := bytes.TrimSpace(body); w.Code == 202 && text[0] == '[' {
			var writes []sluice.Write
			if err := json.Unmarshal(body, &writes); err != nil || len(writes) != a.Accepted {
				t.Fatalf("%q: %d accepted of %d, %v", body, a.Accepted, len(writes), err)
			}
		}
	})
}

// Receipts and waits reach the backend as they were asked for.
func TestHTTPReceiptsAndWaits(t *testing.T) {
	b := NewHTTPBackend(t, false)
	url := b.Serve(t, nil)
	r := (&sluice.Receipt{Journal: 7, Commit: 1}).String()
	req, _ := http.NewRequest("GET", url+"/v1/receipts/"+r+"?wait=5s", nil)
	if status, text := roundTrip(t, req); status != 200 || b.LastWait != 5*time.Second {
		t.Fatalf("got %d %s, waited %s", status, text, b.LastWait)
	}
	req, _ = http.NewRequest("GET", url+"/v1/tables/posts/1?receipt="+r, nil)
	roundTrip(t, req)
	if b.LastRead.After == nil || b.LastRead.After.Commit != 1 || b.LastRead.Wait != b.schema.Limits.WaitMax {
		t.Fatalf("read %+v", b.LastRead)
	}
}

// read_timeout is for what clients send, not for how long they wait.
func TestHTTPWaitOutlivesReadTimeout(t *testing.T) {
	b := NewHTTPBackend(t, false)
	b.Change(func(s *schema.Schema) { s.Limits.ReadTimeout = 20 * time.Millisecond })
	b.Slow = 100 * time.Millisecond
	url := b.Serve(t, nil)
	r := (&sluice.Receipt{Journal: 7, Commit: 1}).String()
	req, _ := http.NewRequest("GET", url+"/v1/receipts/"+r+"?wait=5s", nil)
	if status, text := roundTrip(t, req); status != 200 {
		t.Errorf("GET got %d %s", status, text)
	}
	if status, text := post(t, url+"/v1/writes?wait=applied", `{"table":"posts","key":1,"add":{"likes":1}}`); status != 200 {
		t.Errorf("POST got %d %s", status, text)
	}
}
