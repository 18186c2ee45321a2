package node_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/node"
)

const testConfig = `
listen: {http: "127.0.0.1:0", resp: "127.0.0.1:0"}
journal: {dir: "DIR/journal", segment_bytes: 1MiB, disk_reserve: 1MiB}
stores: {local: "sqlite:DIR/app.db"}
tables:
  posts:
    key: {id: int64}
    store: local
    flush: 10ms
    columns: {content: text, likes: int64 sum, viewers: text unique}
`

// start runs a node until the test ends, or until the function given back is
// called, and waits until it is ready.
func start(t *testing.T, file string) (*node.Node, func()) {
	t.Helper()
	n, stop := run(t, file)
	for get(t, n, "/readyz") == "" {
		time.Sleep(time.Millisecond)
	}
	return n, stop
}

// run is start without waiting.
func run(t *testing.T, file string) (*node.Node, func()) {
	t.Helper()
	n, err := node.Open(t.Context(), node.Options{File: file, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return n, stop
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// get gives the body of a 200, else "".
func get(t *testing.T, n *node.Node, path string) string {
	t.Helper()
	res, err := http.Get("http://" + n.HTTPAddr() + path)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

func post(t *testing.T, n *node.Node, path, body string) string {
	t.Helper()
	res, err := http.Post("http://"+n.HTTPAddr()+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return fmt.Sprint(res.StatusCode, " ", string(text))
}

func TestOneWriteFromTheDoorToTheRow(t *testing.T) {
	file := writeConfig(t, testConfig)
	n, stop := start(t, file)
	if got := post(t, n, "/v1/writes?wait=applied", `[{"table":"posts","key":42,"set":{"content":"hi"},"add":{"likes":2},"unique":{"viewers":["a","b"]}}]`); !strings.HasPrefix(got, "200") {
		t.Fatal(got)
	}
	for _, want := range []string{`"likes":2`, `"content":"hi"`, `"viewers":2`} {
		if got := get(t, n, "/v1/tables/posts/42"); !strings.Contains(got, want) {
			t.Errorf("row %s lacks %s", got, want)
		}
	}
	if got := get(t, n, "/metrics"); !strings.Contains(got, "sluice_writes_accepted_total 1") {
		t.Errorf("metrics: %s", got)
	}
	stop()
	n, _ = start(t, file)
	if got := row(t, dial(t, n), "posts", 42); got["likes"] != "2" {
		t.Errorf("after a restart the row is %s", got)
	}
	if got := get(t, n, "/v1/status"); !strings.Contains(got, `"head":1`) {
		t.Errorf("status %s", got)
	}
}
