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
	"sluice.dev/sluice/internal/node"
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

// A database that is restored from nothing stops its streams until somebody
// accepts what is missing. What the journal still has is not missing.
func TestS4_WhatIsRetainedIsReplayedAfterAcceptance(t *testing.T) {
	file := writeConfig(t, testConfig)
	n, stop := start(t, file)
	c := once(t, n)
	old := applied(t, c, add("posts", 1, "likes", 5))
	if err := n.Resume(t.Context(), "local", "", true); sluice.CodeOf(err) != sluice.Conflict {
		t.Errorf("without a gap: %v", err)
	}
	stop()
	removeDB(t, file)
	n, _ = start(t, file)
	c = once(t, n)
	untilStopped(t, n)
	queued := durable(t, c, add("posts", 1, "likes", 1))
	if err := c.Drain(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "--accept-gap") {
		t.Errorf("a drain says %v", err)
	}
	if err := n.Resume(t.Context(), "local", "", true); err != nil {
		t.Fatal(err)
	}
	for _, a := range []client.Accepted{queued, old} {
		if st, err := c.Receipt(t.Context(), a.Receipt, 30*time.Second); err != nil || st.State != sluice.StateApplied {
			t.Errorf("after the gap was accepted: %+v %v", st, err)
		}
	}
	if got := row(t, c, "posts", 1)["likes"]; got != "6" {
		t.Errorf("likes %s", got)
	}
}

// What was trimmed cannot be replayed: its receipts say so.
func TestS4_AnAcceptedGapIsToldAsLost(t *testing.T) {
	file := writeConfig(t, trimConfig)
	n, stop := start(t, file)
	c := once(t, n)
	old := applied(t, c, add("posts", 1, "likes", 5))
	fillUntilTrimmed(t, n, c, old)
	stop()
	removeDB(t, file)
	n, stop = start(t, file)
	c = once(t, n)
	untilStopped(t, n)
	if err := n.Resume(t.Context(), "local", "", true); err != nil {
		t.Fatal(err)
	}
	after := durable(t, c, add("posts", 1, "likes", 1))
	if st, err := c.Receipt(t.Context(), after.Receipt, 30*time.Second); err != nil || st.State != sluice.StateApplied {
		t.Errorf("after the gap: %+v %v", st, err)
	}
	for range 2 {
		if st, err := c.Receipt(t.Context(), old.Receipt, 0); err != nil || st.State != sluice.StateLost {
			t.Errorf("R1: the receipt of what was lost says %+v %v", st, err)
		}
		if got := row(t, c, "posts", 1)["likes"]; got != "1" {
			t.Errorf("likes %s", got)
		}
		stop()
		n, stop = start(t, file)
		c = once(t, n)
		applied(t, c, add("posts", 2, "likes", 1))
	}
}

func removeDB(t *testing.T, file string) {
	t.Helper()
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(filepath.Dir(file), "app.db"+part)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func untilStopped(t *testing.T, n *node.Node) {
	t.Helper()
	until(t, "stop for the missing cursor", func() bool {
		st := n.Status().Streams
		return len(st) == 1 && st[0].State == "stopped" && strings.Contains(st[0].Error, "--accept-gap")
	})
}
