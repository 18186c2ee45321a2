package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/node"
)

const hotConfig = `
listen: {http: "127.0.0.1:0", resp: "off"}
journal: {dir: "DIR/journal", segment_bytes: 1MiB, disk_reserve: 1MiB}
stores: {local: "sqlite:DIR/app.db"}
tables:
  posts:
    key: {id: int64}
    groups:
      metrics: {store: local, flush: 1s, columns: {likes: int64 sum, title: text}}
      clicks:  {store: local, kind: events, columns: {what: text}}
  cars:
    key: {name: text}
    store: local
    latest_by: at
    columns: {at: timestamp, lat: float64}
`

// logged keeps what is logged, line by line.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func TestHotKeyIsListedMeasuredAndLoggedOnce(t *testing.T) {
	t.Parallel() // it waits until a key is cool
	log := &logged{}
	n, err := node.Open(t.Context(), node.Options{File: writeConfig(t, hotConfig), Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	until(t, "ready", func() bool { return get(t, n, "/readyz") != "" })
	c := dial(t, n)
	var writes []sluice.Write
	for i := range 100 {
		writes = append(writes, add("posts", 42, "likes", 1), sluice.Write{Table: "posts", Key: 7, Append: map[string]map[string]any{"clicks": {"what": "x"}}},
			sluice.Write{Table: "cars", Key: "kitt", Set: map[string]any{"at": "2026-01-31T12:00:00Z", "lat": i}})
	}
	var keys []sluice.HotKey
	until(t, "three hot keys", func() bool {
		if _, err := c.WriteMany(t.Context(), writes, client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if keys, err = c.Hot(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(keys) == 3
	})
	got := ""
	for _, k := range keys {
		got += fmt.Sprintf("%s.%s %s %s %.0f%% %s: %s\n", k.Table, k.Group, k.Key, k.State, 100*k.Share, k.Rule, k.Detail)
	}
	for _, want := range []string{
		"posts.metrics 42 hot 100% folded: folds, set columns to the last: one entry per commit, one row update per flush (1s)\n",
		"posts.clicks 7 hot 100% batched: each event is a row: written in batches, never folded\n",
		`cars. "kitt" hot 100% last: folds to the row with the highest at: one entry per commit, one row update per flush (`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%sit lacks\n%s", got, want)
		}
	}
	metrics := get(t, n, "/metrics")
	for _, want := range []string{`sluice_hot_keys{group="clicks",table="posts"} 1`, `sluice_hot_key_share{group="metrics",table="posts"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	until(t, "all are cool", func() bool { return log.count(`msg="hot key is cool"`) == 3 })
	if hot := log.count(`msg="hot key" `); hot != 3 {
		t.Errorf("%d hot keys were logged, there are 3", hot)
	}
	if text := get(t, n, "/v1/hot"); strings.TrimSpace(text) != `{"hot":[]}` {
		t.Errorf("when all are cool: %s", text)
	}
	if got := get(t, n, "/metrics"); !strings.Contains(got, `sluice_hot_key_share{group="metrics",table="posts"} 0`) {
		t.Error("metrics still say hot")
	}
}
