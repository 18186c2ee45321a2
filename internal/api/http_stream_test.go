package api

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

func likeLines(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, `{"table":"posts","key":%d,"add":{"likes":1}}`+"\n", i)
	}
	return b.String()
}

func postLines(t *testing.T, url string, body io.Reader, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("POST", url+"/v1/writes", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return roundTrip(t, req)
}

func roundTrip(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	h, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Body.Close()
	text, err := io.ReadAll(h.Body)
	if err != nil {
		t.Fatal(err)
	}
	return h.StatusCode, string(text)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// The lines of a body are journaled in their order, chunk by chunk.
func TestHTTPStreamKeepsOrder(t *testing.T) {
	b := NewHTTPBackend(t, false)
	status, text := postLines(t, b.Serve(t, nil), strings.NewReader(likeLines(0, 5500)), keyHeader, `"k"`)
	if status != 200 || lastLine(text) != `{"accepted":5500,"refused":0}` {
		t.Fatalf("got %d %s", status, lastLine(text))
	}
	for i, entry := range b.Order {
		if want := fmt.Sprintf("posts.metrics %d", i); entry != want {
			t.Fatalf("entry %d is %s, want %s", i, entry, want)
		}
	}
	if len(b.Chunks) != 6 {
		t.Fatalf("%d chunks, want 6", len(b.Chunks))
	}
	for i, c := range b.Chunks {
		if c.Identity.Chunk != uint64(i) || c.Identity.Format != sluice.ChunkFormat {
			t.Errorf("chunk %d has identity %+v", i, c.Identity)
		}
	}
}

// A retry of a long body counts what the first try did not, and nothing twice.
func TestI2_RetryOfBrokenStream(t *testing.T) {
	b := NewHTTPBackend(t, false)
	url := b.Serve(t, nil)
	body := likeLines(0, 2500)
	breaks := io.MultiReader(strings.NewReader(body[:len(body)*2/3]), errReader{})
	req, _ := http.NewRequest("POST", url+"/v1/writes", breaks)
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set(keyHeader, `"k"`)
	if h, err := http.DefaultTransport.RoundTrip(req); err == nil {
		text, _ := io.ReadAll(h.Body)
		h.Body.Close()
		if strings.Contains(string(text), `{"accepted":`) {
			t.Fatalf("a broken body got a last line: %s", text)
		}
	}
	for range 2 {
		status, text := postLines(t, url, strings.NewReader(body), keyHeader, `"k"`)
		if status != 200 || lastLine(text) != `{"accepted":2500,"refused":0}` {
			t.Fatalf("got %d %s", status, lastLine(text))
		}
	}
	for key, n := range b.Sums {
		if n != 1 {
			t.Fatalf("%s counts %d times", key, n)
		}
	}
	if len(b.Sums) != 2500 {
		t.Fatalf("%d keys, want 2500", len(b.Sums))
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// The answer comes while the body is still being sent.
func TestHTTPStreamAnswersWhileSending(t *testing.T) {
	b := NewHTTPBackend(t, false)
	url := b.Serve(t, nil)
	body, send := io.Pipe()
	req, _ := http.NewRequest("POST", url+"/v1/writes", body)
	req.Header.Set("Content-Type", "application/x-ndjson")
	go io.WriteString(send, likeLines(0, 1000))
	h, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Body.Close()
	answer := bufio.NewReader(h.Body)
	if line, err := answer.ReadString('\n'); err != nil || !strings.Contains(line, `"first":1,"last":1000`) {
		t.Fatalf("got %q, %v", line, err)
	}
	go func() {
		io.WriteString(send, likeLines(0, 7))
		send.Close()
	}()
	rest, err := io.ReadAll(answer)
	if err != nil || lastLine(string(rest)) != `{"accepted":1007,"refused":0}` {
		t.Fatalf("got %q, %v", rest, err)
	}
}

// The chunk after one that failed is not submitted, and there is no last line.
func TestHTTPStreamStopsAtFailedChunk(t *testing.T) {
	b := NewHTTPBackend(t, false)
	b.Refuse = func(e *sluice.Entry) sluice.Reason {
		if len(b.Order) >= 1000 {
			return sluice.JournalFull
		}
		return sluice.Accepted
	}
	status, text := postLines(t, b.Serve(t, nil), strings.NewReader(likeLines(0, 50_000)))
	if status != 200 || !strings.HasPrefix(lastLine(text), `{"error":{"code":"overloaded","reason":"journal_full"`) {
		t.Fatalf("got %d %s", status, text)
	}
	if len(b.Order) != 1000 {
		t.Fatalf("%d entries, want 1000", len(b.Order))
	}
}

func TestI3_ProducerBodyIsOneChunk(t *testing.T) {
	b := NewHTTPBackend(t, false)
	url := b.Serve(t, nil)
	status, text := postLines(t, url, strings.NewReader(likeLines(0, 1001)), producerHeader, "1;1;1")
	if status != 413 || !strings.Contains(text, "producer_chunk") || len(b.Order) > 0 {
		t.Fatalf("got %d %s, %d entries", status, text, len(b.Order))
	}
	status, text = postLines(t, url, strings.NewReader(likeLines(0, 1000)), producerHeader, "1;1;1")
	if status != 200 || lastLine(text) != `{"accepted":1000,"refused":0}` {
		t.Fatalf("got %d %s", status, lastLine(text))
	}
}

// A reload in the middle of a body takes effect with the next chunk.
func TestHTTPStreamFollowsReload(t *testing.T) {
	b := NewHTTPBackend(t, true)
	url := b.Serve(t, nil)
	body, send := io.Pipe()
	req, _ := http.NewRequest("POST", url+"/v1/writes", body)
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Authorization", "Bearer load-token-0123456789abcde")
	go io.WriteString(send, likeLines(0, 1000))
	h, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Body.Close()
	answer := bufio.NewReader(h.Body)
	if _, err := answer.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	b.Change(func(s *schema.Schema) { s.Clients = map[string]*schema.Client{"other": {Name: "other", Token: "t"}} })
	go func() {
		// One chunk may be in the reader's hands already; it was sent before.
		io.WriteString(send, likeLines(0, 3000))
		send.Close()
	}()
	rest, _ := io.ReadAll(answer)
	if !strings.Contains(lastLine(string(rest)), `"reason":"unauthenticated"`) {
		t.Fatalf("got %s", lastLine(string(rest)))
	}
	if n := len(b.Order); n > 2000 {
		t.Fatalf("%d entries of a client that is gone", n)
	}
}

// A client that stops sending, or sends bytes but never a line, is cut off.
func TestHTTPSlowClientsAreCutOff(t *testing.T) {
	b := NewHTTPBackend(t, false)
	b.Change(func(s *schema.Schema) { s.Limits.ReadTimeout = 50 * time.Millisecond })
	url := b.Serve(t, nil)
	for name, c := range map[string]struct{ send, drip, want string }{
		"silent":        {"", "", ""},
		"head":          {"POST /v1/writes HTTP/1.1\r\nHost: localhost\r\n", "X: y\r\n", ""},
		"body":          {"POST /v1/writes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{", "{", "HTTP/1.1 408"},
		"silent stream": {"POST /v1/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n{", "", "HTTP/1.1 408"},
		"drip stream":   {"POST /v1/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n{", "x", "HTTP/1.1 408"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, c.send)
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				for c.drip != "" {
					if _, err := io.WriteString(conn, c.drip); err != nil {
						return
					}
					time.Sleep(time.Millisecond) // the drip itself, not a wait for something
				}
			}()
			answer, _ := io.ReadAll(conn) // ends when the door closes the connection
			if !bytes.HasPrefix(answer, []byte(c.want)) {
				t.Errorf("got %q, want %q", answer, c.want)
			}
			conn.Close()
			<-gone
		})
	}
	if len(b.Order) > 0 {
		t.Errorf("something was accepted: %v", b.Order)
	}
}

// A stream may last as long as it likes while lines come.
func TestHTTPStreamOutlivesReadTimeout(t *testing.T) {
	b := NewHTTPBackend(t, false)
	b.Change(func(s *schema.Schema) { s.Limits.ReadTimeout = 40 * time.Millisecond })
	url := b.Serve(t, nil)
	body, send := io.Pipe()
	go func() {
		for range 30 {
			io.WriteString(send, likeLines(0, 1))
			time.Sleep(5 * time.Millisecond) // the client's pace
		}
		send.Close()
	}()
	if status, text := postLines(t, url, body); status != 200 || lastLine(text) != `{"accepted":30,"refused":0}` {
		t.Fatalf("got %d %s", status, text)
	}
}
