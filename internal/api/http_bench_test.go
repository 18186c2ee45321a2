package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice.dev/sluice"
)

// parseOnly parses and accepts, and does nothing else.
type parseOnly struct{ *HTTPBackend }

func (parseOnly) Submit(_ context.Context, c *sluice.Chunk) (sluice.Ack, error) {
	return sluice.Ack{Commit: 1, Receipt: "AQAAAAAAAAAHAAAAAAAAAAEBAAAAAgF9AA"}, c.Fill(c)
}

// BenchmarkHTTPWrite is one write a request over 256 connections, with a client
// that costs as little as a client can.
func BenchmarkHTTPWrite(b *testing.B) {
	back := NewHTTPBackend(b, false)
	url := back.Serve(b, func(o *Options) { o.Writes = parseOnly{back} })
	body := `{"table":"posts","key":42,"add":{"likes":1}}`
	request := fmt.Appendf(nil, "POST /v1/writes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			answer := bufio.NewReader(c)
			for left.Add(-1) >= 0 {
				c.Write(request)
				for { // the head, then the body, which ends its only line
					line, err := answer.ReadSlice('\n')
					if err != nil {
						b.Error(err)
						return
					}
					if line[0] == '{' {
						break
					}
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkHTTPLines is NDJSON; an operation is one line.
func BenchmarkHTTPLines(b *testing.B) {
	back := NewHTTPBackend(b, false)
	url := back.Serve(b, func(o *Options) { o.Writes = parseOnly{back} })
	var lines bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&lines, `{"table":"posts","key":%d,"add":{"likes":1}}`+"\n", i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	body := &repeat{text: lines.Bytes(), times: max(1, b.N/1000)}
	h, err := http.Post(url+"/v1/writes", "application/x-ndjson", body)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Body.Close()
	answer, err := io.ReadAll(h.Body)
	if err != nil || !strings.Contains(lastLine(string(answer)), `"refused":0`) {
		b.Fatalf("%s, %v", answer, err)
	}
}

// repeat reads a text some times over.
type repeat struct {
	text  []byte
	at    int
	times int
}

func (r *repeat) Read(b []byte) (int, error) {
	if r.times == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.text[r.at:])
	if r.at += n; r.at == len(r.text) {
		r.at, r.times = 0, r.times-1
	}
	return n, nil
}
