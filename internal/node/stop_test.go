package node_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
)

// Doors close first, accepted requests finish, then all is drained: at the end
// the database has exactly what was acknowledged.
func TestStopDrainsWhatWasAcknowledged(t *testing.T) {
	file := writeConfig(t, strings.Replace(testConfig, "flush: 10ms", "flush: 10m", 1))
	n, stop := start(t, file)
	var acked, unknown atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		c := once(t, n)
		clients.Go(func() {
			for {
				_, err := c.WriteMany(t.Context(), []sluice.Write{add("posts", 1, "likes", 1)}, client.WriteOptions{})
				var refused *sluice.Error
				switch {
				case err == nil:
					acked.Add(1)
				case errors.As(err, &refused) && refused.Reason != "unknown":
					return
				default: // the connection was refused, or ended without an answer
					unknown.Add(1)
					return
				}
			}
		})
	}
	until(t, "some writes", func() bool { return acked.Load() > 100 })
	stop()
	clients.Wait()
	got := ask(t, filepath.Join(filepath.Dir(file), "app.db"), "SELECT likes FROM posts WHERE id = 1")
	var likes int64
	if _, err := fmt.Sscan(got, &likes); err != nil {
		t.Fatal(err)
	}
	if likes < acked.Load() || likes > acked.Load()+unknown.Load() {
		t.Errorf("the database has %d, acknowledged were %d, and of %d nobody knows", likes, acked.Load(), unknown.Load())
	}
	if n.Close() != nil {
		t.Error("closing after the stop is an error")
	}
}

func TestS4_AnAcceptedGapIsToldAsLost(t *testing.T) {
	file := writeConfig(t, testConfig)
	db := filepath.Join(filepath.Dir(file), "app.db")
	n, stop := start(t, file)
	c := dial(t, n)
	old := applied(t, c, add("posts", 1, "likes", 5))
	if err := n.AcceptGap("local", "main"); sluice.CodeOf(err) != sluice.NotFound {
		t.Errorf("without a gap: %v", err)
	}
	shard := n.Status().Streams[0].Shard
	stop()
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(db + part); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	n, _ = start(t, file)
	c = dial(t, n)
	until(t, "stop for the missing cursor", func() bool {
		st := n.Status().Streams
		return len(st) == 1 && st[0].State == "stopped" && strings.Contains(st[0].Error, "--accept-gap")
	})
	queued := durable(t, c, add("posts", 1, "likes", 1))
	if err := c.Drain(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "--accept-gap") {
		t.Errorf("a drain says %v", err)
	}
	if err := n.AcceptGap("local", shard); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Receipt(t.Context(), queued.Receipt, 30*time.Second); err != nil || st.State != sluice.StateApplied {
		t.Fatalf("after the gap was accepted: %+v %v", st, err)
	}
	t.Logf("after the gap: %v, receipt of before: %s", row(t, c, "posts", 1), old.Receipt)
}
