package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

const respTestConfig = `
stores:
  local: "mem:"
tables:
  posts:
    key: {post_id: int64}
    groups:
      content: {store: local, columns: {user_id: int64, content: text, meta: json, raw: bytes, live: bool}}
      metrics: {store: local, columns: {likes: int64 sum, cost: decimal sum, best: int64 max, worst: int64 min, viewers: text unique}}
      analytics: {store: local, kind: events, columns: {event_type: text, user_id: int64}}
  likes:
    key: {user_id: int64, post_id: int64}
    store: local
    columns: {at: int64, n: int64 sum}
  secrets:
    key: {name: text}
    store: local
    columns: {n: int64 sum}
  clicks:
    key: {page: text}
    store: local
    kind: events
    columns: {at: int64}
`

const respTestClients = `
clients:
  web: {token: "web-token-0123456789abcdef", allow: [write, read], tables: [posts, likes]}
  viewer: {token: "viewer-token-0123456789abc", allow: [read], tables: [posts]}
`

func respTestSchema(t testing.TB, config string) *schema.Schema {
	t.Helper()
	c, faults := schema.Parse("sluice.yaml", []byte(config), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s, _, faults := c.Resolve(nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return s
}

// respBackend accepts at once and applies at once, to maps. Tests tell it whom
// to refuse and when to wait.
type respBackend struct {
	mu       sync.Mutex
	schema   *schema.Schema
	refuse   map[string]sluice.Reason // by key as JSON
	fail     error                    // of the next Submit
	gate     chan struct{}            // not nil: Submit waits until it is closed
	entered  chan struct{}            // not nil: gets one for each Submit that waits
	state    string                   // of receipts
	receipts []sluice.Receipt         // asked for
	waits    []time.Duration
	entries  []string // accepted, in order
	chunks   int
	rows     map[string]map[string]json.RawMessage
	sums     map[string]int64
	seen     map[string]map[uint64]bool
}

// respTestCommit is the number of every commit: what a pipeline is cut into does
// not show in the answers then.
const respTestCommit = 7

func newRESPBackend(s *schema.Schema) *respBackend {
	return &respBackend{schema: s, refuse: map[string]sluice.Reason{}, state: sluice.StateApplied,
		rows: map[string]map[string]json.RawMessage{}, sums: map[string]int64{}, seen: map[string]map[uint64]bool{}}
}

func (b *respBackend) Schema() *schema.Schema {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.schema
}

func (b *respBackend) Submit(ctx context.Context, c *sluice.Chunk) (sluice.Ack, error) {
	b.mu.Lock()
	gate, entered := b.gate, b.entered
	b.mu.Unlock()
	if gate != nil {
		if entered != nil {
			entered <- struct{}{}
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return sluice.Ack{}, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chunks++
	if err := b.fail; err != nil {
		return sluice.Ack{}, err
	}
	for i := range c.Entries {
		if r := b.refuse[b.keyOf(&c.Entries[i])]; r != sluice.Accepted {
			c.Refuse(i, r)
		}
	}
	for i := range c.Entries {
		if c.Accepts(i) {
			b.apply(&c.Entries[i])
		}
	}
	ack := sluice.Ack{Commit: respTestCommit, Outcomes: c.Outcomes}
	if !c.AnyAccepted() {
		ack.Commit = 0
	} else if c.WantReceipt {
		r := sluice.Receipt{Journal: 99, Commit: ack.Commit}
		ack.Receipt = r.String()
	}
	return ack, nil
}

func (b *respBackend) keyOf(e *sluice.Entry) string {
	t := b.schema.Group(e.Group).Table
	return t.Name + ":" + string(t.AppendKeyJSON(nil, e.Key))
}

func (b *respBackend) apply(e *sluice.Entry) {
	g := b.schema.Group(e.Group)
	key := b.keyOf(e)
	said := []string{g.FullName(), string(g.Table.AppendKeyJSON(nil, e.Key))}
	if e.Reset {
		said = append(said, "delete")
		delete(b.rows, key)
	}
	if b.rows[key] == nil && !e.Reset && !g.Events {
		b.rows[key] = map[string]json.RawMessage{}
	}
	for _, cell := range e.Cells {
		col := g.ByID(cell.Column)
		text := string(schema.AppendJSON(nil, col.Type, cell.Value))
		if cell.Value.Kind == sluice.Hashes {
			text = fmt.Sprintf("%d elements", len(cell.Value.Bytes)/8)
		}
		said = append(said, col.Name+"="+text)
		if !g.Events {
			b.rows[key][col.Name] = b.merge(key, col, cell.Value)
		}
	}
	b.entries = append(b.entries, strings.Join(said, " "))
}

func (b *respBackend) merge(key string, col *schema.Column, v sluice.Value) json.RawMessage {
	id := key + "." + col.Name
	switch {
	case col.Merge == schema.Sum && v.Kind == sluice.Int64:
		b.sums[id] += v.Num
		return fmt.Appendf(nil, "%d", b.sums[id])
	case col.Merge == schema.Unique:
		if b.seen[id] == nil {
			b.seen[id] = map[uint64]bool{}
		}
		for i := 0; i < len(v.Bytes); i += 8 {
			b.seen[id][uint64(v.Bytes[i])|uint64(v.Bytes[i+1])<<8|uint64(v.Bytes[i+2])<<16] = true
		}
		return fmt.Appendf(nil, "%d", len(b.seen[id]))
	}
	return schema.AppendJSON(nil, col.Type, v)
}

func (b *respBackend) NewProducer(context.Context) (uint64, error) { return 1, nil }

func (b *respBackend) Read(_ context.Context, q sluice.ReadQuery) ([]sluice.Row, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.schema.Tables[q.Table]
	var out []sluice.Row
	for _, key := range q.Keys {
		text := t.AppendKeyJSON(nil, key)
		columns, found := b.rows[t.Name+":"+string(text)]
		out = append(out, sluice.Row{Table: t.Name, Key: text, Found: found, Columns: maps.Clone(columns), StaleBy: 1500 * time.Millisecond})
	}
	return out, nil
}

func (b *respBackend) Receipt(ctx context.Context, r *sluice.Receipt, wait time.Duration) (sluice.ReceiptStatus, error) {
	b.mu.Lock()
	b.receipts = append(b.receipts, *r)
	b.waits = append(b.waits, wait)
	state := b.state
	gate, entered := b.gate, b.entered
	b.mu.Unlock()
	if gate != nil {
		entered <- struct{}{}
		select {
		case <-gate:
		case <-ctx.Done():
			return sluice.ReceiptStatus{}, ctx.Err()
		}
	}
	return sluice.ReceiptStatus{State: state}, nil
}

func (b *respBackend) Route(*schema.Table, []byte) sluice.RouteInfo { return sluice.RouteInfo{} }

func (b *respBackend) Status() sluice.Status {
	return sluice.Status{Version: "1.2.3", Ready: true, Uptime: 61.5, Memory: 4096,
		Journal: sluice.JournalStatus{ID: "0011223344556677", Head: 9, First: 1, Bytes: 1000, BytesMax: 5000, Segments: 1, Accepted: 12, Commits: 9},
		Streams: []sluice.StreamStatus{
			{Table: "posts", Group: "metrics", Store: "local", Shard: "main", State: "draining", Queued: 3, Applied: 9, Rows: 2, FoldRatio: 4.5},
			{Table: "secrets", Store: "local", Shard: "main", State: "idle"},
		}}
}

func (b *respBackend) Hot() []sluice.HotKey       { return nil }
func (b *respBackend) Ledger() []sluice.LedgerRow { return nil }
func (b *respBackend) Rejects(context.Context, RejectsQuery) ([]sluice.Reject, error) {
	return nil, nil
}
func (b *respBackend) Resume(context.Context, string, string, bool) error { return nil }

func (b *respBackend) DecideReject(context.Context, string, string) error { return nil }
func (b *respBackend) Reload(context.Context) error                       { return nil }
func (b *respBackend) Drain(context.Context, func(uint64)) error          { return nil }

func (b *respBackend) set(change func(*respBackend)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

func (b *respBackend) takeEntries() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := slices.Clone(b.entries)
	b.entries = nil
	return out
}

// serveRESP opens the door on loopback for the length of the test.
func serveRESP(t testing.TB, b *respBackend, change func(*RESPOptions)) (*RESP, string) {
	t.Helper()
	o := RESPOptions{Writes: b, Reads: b, Admin: b, Version: "1.2.3"}
	if change != nil {
		change(&o)
	}
	d, err := NewRESP(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return d, ln.Addr().String()
}
