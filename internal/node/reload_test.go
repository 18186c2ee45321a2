package node_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/node"
)

const reloadHead = `
listen: {http: "127.0.0.1:0", resp: "off"}
journal: {dir: "DIR/journal", segment_bytes: 1MiB, disk_reserve: 1MiB}
stores: {local: "sqlite:DIR/app.db"}
tables:
  posts:
    key: {id: int64}
    groups:
      metrics: {store: local, flush: 10ms, columns: {likes: int64 sum}}
`

func TestJ6_ReloadAddsWhileWritesGoOn(t *testing.T) {
	file := writeConfig(t, reloadHead)
	n, _ := start(t, file)
	stop := make(chan struct{})
	var sent [4]int
	var writers sync.WaitGroup
	for i := range sent {
		writers.Go(func() {
			c := dial(t, n)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.WriteMany(t.Context(), []sluice.Write{add("posts", int64(i%2), "likes", 1)}, client.WriteOptions{}); err != nil {
					t.Error(err)
					return
				}
				sent[i]++
			}
		})
	}
	c := dial(t, n)
	for _, more := range []struct {
		config string
		write  sluice.Write
	}{
		{strings.Replace(reloadHead, "likes: int64 sum", "likes: int64 sum, shares: int64 sum", 1), add("posts", 7, "shares", 2)},
		{strings.Replace(reloadHead, "likes: int64 sum}}", "likes: int64 sum, shares: int64 sum}}\n      text: {store: local, flush: 10ms, columns: {title: text}}", 1),
			sluice.Write{Table: "posts", Key: 7, Set: map[string]any{"title": "x"}}},
		{strings.Replace(reloadHead, "likes: int64 sum}}", "likes: int64 sum, shares: int64 sum}}\n      text: {store: local, flush: 10ms, columns: {title: text}}\n"+
			"  pages: {key: {id: int64}, store: local, flush: 10ms, columns: {views: int64 sum}}", 1), add("pages", 1, "views", 3)},
	} {
		if _, err := c.WriteMany(t.Context(), []sluice.Write{more.write}, client.WriteOptions{}); sluice.CodeOf(err) != sluice.Invalid {
			t.Errorf("before the reload: %v", err)
		}
		change(t, file, more.config)
		if err := c.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		applied(t, c, more.write)
	}
	close(stop)
	writers.Wait()
	if err := c.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for key := range int64(2) {
		if got, want := row(t, c, "posts", key)["likes"], fmt.Sprint(sent[key]+sent[key+2]); got != want {
			t.Errorf("likes of %d: %s, acknowledged were %s", key, got, want)
		}
	}
	if got := row(t, c, "posts", 7); got["shares"] != "2" || got["title"] != `"x"` || row(t, c, "pages", 1)["views"] != "3" {
		t.Errorf("what was added: %v", got)
	}
}

func TestJ6_ReloadRefusesWhatMakesOldCommitsUnreadable(t *testing.T) {
	file := writeConfig(t, reloadHead)
	n, _ := start(t, file)
	c := dial(t, n)
	applied(t, c, add("posts", 1, "likes", 1))
	for name, bad := range map[string]struct{ config, reason string }{
		"another merge": {strings.Replace(reloadHead, "likes: int64 sum", "likes: int64 max", 1), "was merged by sum and is by max"},
		"another type":  {strings.Replace(reloadHead, "likes: int64 sum", "likes: decimal sum", 1), "its values in the journal could not be read"},
		"another key":   {strings.Replace(reloadHead, "key: {id: int64}", "key: {id: text}", 1), "key"},
		"another store": {strings.Replace(strings.Replace(reloadHead, "app.db\"}", "app.db\", other: \"sqlite:DIR/other.db\"}", 1), "store: local", "store: other", 1), "store"},
		"not a config":  {"tables: 7", "sluice.yaml:1:"},
	} {
		change(t, file, bad.config)
		err := c.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), bad.reason) {
			t.Errorf("%s: %v", name, err)
		}
		durable(t, c, add("posts", 1, "likes", 1))
	}
	change(t, file, reloadHead)
	if err := c.Reload(t.Context()); err != nil {
		t.Errorf("the config as it was: %v", err)
	}
	if err := c.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := row(t, c, "posts", 1)["likes"]; got != "6" {
		t.Errorf("likes %s, want 6", got)
	}
}

const mappedConfig = `
listen: {http: "127.0.0.1:0", resp: "off"}
journal: {dir: "DIR/journal", segment_bytes: 1MiB, disk_reserve: 1MiB}
stores: {local: "sqlite:DIR/app.db"}
tables:
  old:
    existing: {table: old_posts}
    key: {id: int64}
    store: local
    flush: 10ms
    columns: {n: int64 sum, title: text}
`

// A mapped column that left the config comes back only when everything of it
// reached the database: else its old and its new entries would change places.
func TestJ6_ADroppedColumnComesBackOnceItIsDrained(t *testing.T) {
	file := writeConfig(t, mappedConfig)
	db := filepath.Join(filepath.Dir(file), "app.db")
	exec(t, db, "CREATE TABLE old_posts (id bigint PRIMARY KEY, n bigint, title text)")
	n, _ := start(t, file)
	c := dial(t, n)
	applied(t, c, add("old", 1, "n", 1))
	release := lock(t, db)
	durable(t, c, sluice.Write{Table: "old", Key: 1, Set: map[string]any{"title": "before"}})
	change(t, file, strings.Replace(mappedConfig, ", title: text", "", 1))
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	change(t, file, mappedConfig)
	if err := c.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "run `sluice drain`, then add it") {
		t.Errorf("while its entry waits: %v", err)
	}
	release()
	if err := c.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Reload(t.Context()); err != nil {
		t.Fatalf("after the drain: %v", err)
	}
	if got := ask(t, db, "SELECT title FROM old_posts WHERE id = 1"); got != "before" {
		t.Errorf("what was queued for the column is %s", got)
	}
	applied(t, c, sluice.Write{Table: "old", Key: 1, Set: map[string]any{"title": "after"}})
	if got := ask(t, db, "SELECT title || n FROM old_posts WHERE id = 1"); got != "after1" {
		t.Errorf("the row is %s", got)
	}
}

// A store leaves the config at a reload after all for it was drained.
func TestJ6_AStoreLeavesOnceItIsDrained(t *testing.T) {
	two := strings.Replace(reloadHead, "app.db\"}", "app.db\", spare: \"sqlite:DIR/spare.db\"}", 1) +
		"  logs: {key: {id: int64}, store: spare, flush: 10ms, columns: {n: int64 sum}}\n"
	file := writeConfig(t, two)
	n, stop := start(t, file)
	c := dial(t, n)
	applied(t, c, add("posts", 1, "likes", 1))
	release := lock(t, filepath.Join(filepath.Dir(file), "spare.db"))
	durable(t, c, add("logs", 1, "n", 5))
	change(t, file, reloadHead)
	if err := c.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "store spare left the config") {
		t.Errorf("with writes queued for the store: %v", err)
	}
	release()
	withoutTable, _, _ := strings.Cut(two, "  logs:")
	change(t, file, withoutTable)
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	durable(t, c, add("posts", 1, "likes", 1))
	change(t, file, reloadHead)
	if err := c.Reload(t.Context()); err != nil {
		t.Fatalf("after it was drained: %v", err)
	}
	stop()
	n, _ = start(t, file)
	if got := ask(t, filepath.Join(filepath.Dir(file), "spare.db"), "SELECT n FROM logs WHERE id = 1"); got != "5" {
		t.Errorf("the store that left has %s", got)
	}
	c = dial(t, n)
	if got := row(t, c, "posts", 1)["likes"]; got != "2" {
		t.Errorf("likes %s", got)
	}
	durable(t, c, add("posts", 1, "likes", 1))
	if err := c.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

// At the start no shard was asked yet, so a store does not leave then.
func TestJ6_AStoreDoesNotLeaveAtTheStart(t *testing.T) {
	two := strings.Replace(reloadHead, "app.db\"}", "app.db\", spare: \"sqlite:DIR/spare.db\"}", 1) +
		"  logs: {key: {id: int64}, store: spare, flush: 10ms, columns: {n: int64 sum}}\n"
	file := writeConfig(t, two)
	n, stop := start(t, file)
	applied(t, dial(t, n), add("logs", 1, "n", 5))
	stop()
	change(t, file, reloadHead)
	if n, err := node.Open(context.Background(), node.Options{File: file}); err == nil || !strings.Contains(err.Error(), "store spare left the config") {
		if n != nil {
			_ = n.Close()
		}
		t.Fatalf("got %v", err)
	}
	change(t, file, two)
	start(t, file)
}
