package api

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// TestHTTPScripts plays testdata/http/*: each command is a request, and what
// comes back is the answer as it went over the wire. -rewrite writes them anew.
func TestHTTPScripts(t *testing.T) {
	datadriven.Walk(t, filepath.Join("testdata", "http"), func(t *testing.T, path string) {
		clients := filepath.Base(path) == "auth"
		b := NewHTTPBackend(t, clients)
		url := b.Serve(t, func(o *Options) {
			o.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
			o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "sluice_up 1\n") })
		})
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "backend":
				return b.command(t, strings.Fields(d.Input))
			case "http":
				return scriptRequest(t, url, d.Input)
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

// command changes what the backend does next.
func (b *HTTPBackend) command(t *testing.T, words []string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch words[0] {
	case "accept":
		b.Refuse, b.Fail, b.State = nil, nil, sluice.StateApplied
	case "refuse": // refuse KEYHASHBIT reason: the first entry of each key's text
		reason := map[string]sluice.Reason{"rate_limit": sluice.RateLimit, "sampled": sluice.Sampled, "journal_full": sluice.JournalFull}[words[2]]
		b.Refuse = func(e *sluice.Entry) sluice.Reason {
			g := b.schema.Group(e.Group)
			if words[1] == "all" || string(g.Table.AppendKeyJSON(nil, e.Key)) == words[1] {
				return reason
			}
			return sluice.Accepted
		}
	case "fail":
		e := sluice.Errorf(sluice.Code(words[1]), words[2], "the backend fails with %s", words[2])
		if len(words) > 3 {
			e.RetryAfter, _ = time.ParseDuration(words[3])
		}
		b.Fail = e
	case "fault":
		b.Fail = fmt.Errorf("reload: %w", schema.Faults{{File: "sluice.yaml", Line: 3, Column: 5, What: "no such type", Cure: "use int64"}})
	case "broken":
		b.Fail = fmt.Errorf("disk /secret/path burns")
	case "state":
		b.State = words[1]
	case "sums":
		return fmt.Sprintln(b.Sums)
	case "order":
		s := strings.Join(b.Order, "\n") + "\n"
		b.Order = nil
		return s
	default:
		t.Fatalf("unknown backend command %s", words[0])
	}
	return "ok\n"
}

// scriptRequest sends a request as it is written: method and path, headers, an
// empty line, the body. Content-Encoding: gzip packs the body first.
func scriptRequest(t *testing.T, url, text string) string {
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	method, path, _ := strings.Cut(lines[0], " ")
	header := http.Header{}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		header.Set(name, value)
	}
	if header.Get("Content-Encoding") == "gzip" {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		z.Write([]byte(body))
		z.Close()
		body = packed.String()
	}
	req, err := http.NewRequest(method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header, req.Host = header, header.Get("Host")
	h, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Body.Close()
	answer, err := io.ReadAll(h.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%d %s\n", h.StatusCode, h.Header.Get("Content-Type"))
	for _, name := range []string{"Retry-After", "Allow", "WWW-Authenticate"} {
		if v := h.Header.Get(name); v != "" {
			out += name + ": " + v + "\n"
		}
	}
	return out + string(answer)
}
