package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/node"
)

const trimConfig = `
listen: {http: "127.0.0.1:0", resp: "off"}
journal: {dir: "DIR/journal", segment_bytes: 128KiB, bytes_max: 16MiB, disk_reserve: 1MiB, retain: {time: 0s, bytes: 0B}}
limits: {commit_bytes: 64KiB, value_bytes: 64KiB}
stores: {local: "sqlite:DIR/app.db"}
tables:
  posts: {key: {id: int64}, store: local, flush: 10ms, columns: {text: text, likes: int64 sum}}
`

// fillUntilTrimmed writes until the segment with the given write is gone.
func fillUntilTrimmed(t *testing.T, n *node.Node, c *client.Client, first client.Accepted) {
	t.Helper()
	r, err := sluice.ParseReceipt(first.Receipt)
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 20<<10)
	until(t, "trim", func() bool {
		durable(t, c, sluice.Write{Table: "posts", Key: 100, Set: map[string]any{"text": large}})
		return n.Status().Journal.First > r.Commit
	})
}

// Segments go when all in them is applied; identities outlive them (I4), counts
// too (R2), and a receipt of a trimmed commit says applied.
func TestJ5_SegmentsGoAndTheirIdentitiesStay(t *testing.T) {
	file := writeConfig(t, trimConfig)
	n, stop := start(t, file)
	c := once(t, n)
	writes := []sluice.Write{add("posts", 1, "likes", 5)}
	key := client.WriteOptions{Key: "the first"}
	first, err := c.WriteMany(t.Context(), writes, key)
	if err != nil {
		t.Fatal(err)
	}
	fillUntilTrimmed(t, n, c, first)
	until(t, "trim of all but the newest", func() bool { return n.Status().Journal.Segments <= 3 })
	for range 2 {
		again, err := c.WriteMany(t.Context(), writes, key)
		if err != nil || !again.Duplicate || again.Receipt != first.Receipt {
			t.Errorf("I4: a retry after the trim: %+v %v", again, err)
		}
		if st, err := c.Receipt(t.Context(), first.Receipt, 0); err != nil || st.State != sluice.StateApplied {
			t.Errorf("R1: the receipt of a trimmed commit: %+v %v", st, err)
		}
		stop()
		n, stop = start(t, file)
		c = once(t, n)
		applied(t, c, add("posts", 2, "likes", 1)) // the shard is reached
	}
	if got := row(t, c, "posts", 1)["likes"]; got != "5" {
		t.Errorf("likes %s", got)
	}
	rows, err := c.Ledger(t.Context())
	if err != nil || rows[0].Acked != rows[0].Applied || rows[0].Duplicate != 2 {
		t.Errorf("R2: %+v %v", rows, err)
	}
}

// A group that the catalog forgot pins nothing, also after the next start.
func TestJ5_AForgottenGroupPinsNothing(t *testing.T) {
	more := trimConfig + "  notes: {key: {id: int64}, store: local, flush: 10ms, columns: {text: text}}\n"
	file := writeConfig(t, more)
	n, stop := start(t, file)
	c := once(t, n)
	first := applied(t, c, sluice.Write{Table: "notes", Key: 1, Set: map[string]any{"text": "x"}})
	change(t, file, trimConfig)
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop() // keeps in the catalog that notes are drained
	n, _ = start(t, file)
	fillUntilTrimmed(t, n, once(t, n), first)
	segments, err := filepath.Glob(filepath.Join(filepath.Dir(file), "journal", "*.seg"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(file), "journal", "catalog.sav")); err != nil || !strings.Contains(string(text), `"gone": true`) {
		t.Errorf("the catalog does not say gone: %v", fmt.Sprint(err))
	}
}
