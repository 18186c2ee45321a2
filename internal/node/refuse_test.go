package node_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/node"
	"sluice.dev/sluice/internal/store/pgtest"
)

// refusal gives the refusal that a write meets, when it meets one.
func refusal(t *testing.T, c *client.Client, w sluice.Write) *sluice.Error {
	t.Helper()
	_, err := c.WriteMany(t.Context(), []sluice.Write{w}, client.WriteOptions{})
	var e *sluice.Error
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return e
}

// Below disk_reserve writes are refused, reads and draining go on, and it opens
// again by itself. The reserve is moved, and not the disk filled.
func TestJ4_BelowTheDiskReserveOnlyWritesAreRefused(t *testing.T) {
	file := writeConfig(t, testConfig)
	n, _ := start(t, file)
	c := once(t, n)
	release := lock(t, filepath.Join(filepath.Dir(file), "app.db"))
	durable(t, c, add("posts", 1, "likes", 1))
	change(t, file, strings.Replace(testConfig, "disk_reserve: 1MiB", "disk_reserve: 1TiB", 1))
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	var e *sluice.Error
	until(t, "refuse", func() bool { e = refusal(t, c, add("posts", 2, "likes", 1)); return e != nil })
	if e.Reason != "disk_reserve" || e.Code != sluice.Unavailable || e.RetryAfter <= 0 || !strings.Contains(e.Detail, "journal.disk_reserve") {
		t.Errorf("refused with %+v", e)
	}
	if st := n.Status(); !strings.Contains(st.Journal.Refusing, "disk_reserve") {
		t.Errorf("status says %q", st.Journal.Refusing)
	}
	release()
	if err := c.Drain(t.Context(), nil); err != nil {
		t.Fatalf("draining stopped too: %v", err)
	}
	if got := row(t, c, "posts", 1)["likes"]; got != "1" {
		t.Errorf("a read says %s", got)
	}
	change(t, file, testConfig)
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "accept again", func() bool { return refusal(t, c, add("posts", 3, "likes", 1)) == nil })
	rows, err := c.Ledger(t.Context())
	if err != nil || rows[0].Refused["disk_reserve"] == 0 {
		t.Errorf("R2: the ledger does not show the refusals: %+v %v", rows, err)
	}
}

const backlogConfig = `
listen: {http: "127.0.0.1:0", resp: "off"}
journal: {dir: "DIR/journal", segment_bytes: 128KiB, backlog_max: 1MiB, bytes_max: 16MiB, disk_reserve: 1MiB}
limits: {commit_bytes: 64KiB, value_bytes: 64KiB}
stores: {local: "sqlite:DIR/app.db", other: "sqlite:DIR/other.db"}
tables:
  posts: {key: {id: int64}, store: local, flush: 10ms, columns: {text: text}}
  notes: {key: {id: int64}, store: other, flush: 10ms, columns: {text: text}}
`

// A shard that takes nothing is not written for any more at backlog_max; others
// are, reads go on, and it opens again by itself.
func TestJ5_AtBacklogMaxOnlyThatShardsWritesAreRefused(t *testing.T) {
	file := writeConfig(t, backlogConfig)
	n, _ := start(t, file)
	c := once(t, n)
	large := strings.Repeat("x", 32<<10)
	set := func(table string, id int) sluice.Write {
		return sluice.Write{Table: table, Key: id, Set: map[string]any{"text": large}}
	}
	applied(t, c, set("posts", 0))
	release := lock(t, filepath.Join(filepath.Dir(file), "app.db"))
	var e *sluice.Error
	accepted := 0
	until(t, "refuse", func() bool {
		if e = refusal(t, c, set("posts", accepted+1)); e == nil {
			accepted++
		}
		return e != nil
	})
	if e.Reason != "backlog_max" || e.Code != sluice.Overloaded || e.RetryAfter <= 0 || !strings.Contains(e.Detail, "shard") || !strings.Contains(e.Detail, "local") {
		t.Errorf("refused with %+v", e)
	}
	applied(t, c, set("notes", 1))
	if got := row(t, c, "posts", 0)["text"]; len(got) != len(large)+2 {
		t.Errorf("a read gives %d bytes", len(got))
	}
	a, err := c.WriteMany(t.Context(), []sluice.Write{set("posts", 9999), set("notes", 2)}, client.WriteOptions{})
	if err != nil || a.Accepted != 1 || len(a.Outcomes) != 1 || a.Outcomes[0].Reason != "backlog_max" {
		t.Errorf("of two writes one is refused: %+v %v", a, err)
	}
	release()
	until(t, "accept again", func() bool { return refusal(t, c, set("posts", accepted+1)) == nil })
	if err := c.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, filepath.Join(filepath.Dir(file), "app.db"), "SELECT count(*) FROM posts"); got != fmt.Sprint(accepted+2) {
		t.Errorf("%s rows, acknowledged were %d", got, accepted+2)
	}
}

func TestASecondProcessOnTheJournalIsRefused(t *testing.T) {
	file := writeConfig(t, testConfig)
	n, _ := start(t, file)
	second, err := node.Open(t.Context(), node.Options{File: file})
	if err == nil {
		_ = second.Close()
		t.Fatal("two processes write one journal")
	}
	if !strings.Contains(err.Error(), "journal") {
		t.Errorf("the reason: %v", err)
	}
	applied(t, dial(t, n), add("posts", 1, "likes", 1))
}

// A shard that is down at the start holds up nobody else, and is drained to when
// it is there.
func TestS4_AShardThatIsDownAtTheStartComesLater(t *testing.T) {
	pg := pgtest.Start(t)
	dsn := pg.NewDatabase(t)
	pg.Stop()
	file := writeConfig(t, strings.Replace(backlogConfig, `other: "sqlite:DIR/other.db"`, fmt.Sprintf("other: {url: %q, ddl: auto}", dsn), 1))
	n, stop := start(t, file)
	c := dial(t, n)
	applied(t, c, sluice.Write{Table: "posts", Key: 1, Set: map[string]any{"text": "here"}})
	late := durable(t, c, sluice.Write{Table: "notes", Key: 1, Set: map[string]any{"text": "late"}})
	if st, err := c.Receipt(t.Context(), late.Receipt, 0); err != nil || st.State != sluice.StateQueued {
		t.Errorf("its receipt says %s, %v", st.State, err)
	}
	if _, err := once(t, n).ReadMany(t.Context(), "notes", []any{1}, client.ReadOptions{}); sluice.CodeOf(err) != sluice.Unavailable {
		t.Errorf("a read of it says %v", err)
	}
	until(t, "status with the reason", func() bool {
		for _, st := range n.Status().Streams {
			if st.Store == "other" && st.Error != "" {
				return true
			}
		}
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := n.Drain(ctx, func(uint64) {}); sluice.CodeOf(err) != sluice.Unavailable {
		t.Errorf("a drain says %v", err)
	}
	if err := pg.Start(); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Receipt(t.Context(), late.Receipt, 30*time.Second); err != nil || st.State != sluice.StateApplied {
		t.Errorf("its receipt says %s, %v", st.State, err)
	}
	if got := pg.Query(t, dsn, "SELECT text FROM notes"); got != "late" {
		t.Errorf("the row is %q", got)
	}
	stop()
}
