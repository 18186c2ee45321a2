package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

const httpTestConfig = `
stores:
  local: "mem:"
tables:
  posts:
    key: {post_id: int64}
    groups:
      content: {store: local, columns: {user_id: int64, content: text}}
      metrics: {store: local, columns: {likes: int64 sum, best: int64 max}}
      analytics: {store: local, kind: events, columns: {event_type: text, user_id: int64}}
  timeline:
    key: {user_id: int64, post_id: int64}
    store: local
    columns: {n: int64 sum}
  pages:
    key: {path: text}
    store: local
    columns: {n: int64 sum}
`

const httpTestClients = `
clients:
  web: {token: "web-token-0123456789abcdef", allow: [write, read], tables: [posts, timeline]}
  load: {token: "load-token-0123456789abcde", allow: [write]}
  ops: {token: "ops-token-0123456789abcdef", allow: [admin]}
`

// HTTPBackend accepts at once and keeps sums and sets in maps. It remembers
// identities as the pipeline does. Tests tell it what to refuse.
type HTTPBackend struct {
	mu       sync.Mutex
	schema   *schema.Schema
	commit   uint64
	producer uint64
	known    map[string]backendRecord
	Order    []string          // of entries: "posts.metrics 42"
	Sums     map[string]int64  // "posts 42 likes"
	Sets     map[string]string // the same, as JSON
	Chunks   []sluice.Chunk    // as submitted, without entries

	Refuse     func(e *sluice.Entry) sluice.Reason
	Fail       error         // of Submit and of everything else
	Hold       chan struct{} // Submit waits for it to be closed
	Submitting chan struct{} // gets a token for each Submit, when there is room
	State      string        // of receipts
	Decided    []string
	Cold       bool // no key is hot
	LastWait   time.Duration
	LastRead   sluice.ReadQuery
	Slow       time.Duration // of Receipt
}

type backendRecord struct {
	hash [16]byte
	ack  sluice.Ack
}

// NewHTTPBackend makes a backend over the tests' tables, and clients if wanted.
func NewHTTPBackend(t testing.TB, clients bool) *HTTPBackend {
	config := httpTestConfig
	if clients {
		config += httpTestClients
	}
	return &HTTPBackend{schema: respTestSchema(t, config), known: map[string]backendRecord{}, Sums: map[string]int64{}, Sets: map[string]string{},
		Submitting: make(chan struct{}, 100), State: sluice.StateApplied}
}

func (b *HTTPBackend) Schema() *schema.Schema {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.schema
}

// Change runs f while nothing else happens. A changed schema is another one.
func (b *HTTPBackend) Change(f func(s *schema.Schema)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := *b.schema
	f(&s)
	b.schema = &s
}

func (b *HTTPBackend) Submit(ctx context.Context, c *sluice.Chunk) (sluice.Ack, error) {
	select {
	case b.Submitting <- struct{}{}:
	default:
	}
	if b.Hold != nil {
		select {
		case <-b.Hold:
		case <-ctx.Done():
			return sluice.Ack{}, sluice.Errorf(sluice.Unavailable, "unknown", "gave up")
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Fail != nil {
		return sluice.Ack{}, b.Fail
	}
	id := ""
	if c.Identity != nil {
		id = fmt.Sprintf("%d %q %d", c.Identity.Producer, c.Identity.Key, c.Identity.Chunk)
		if r, ok := b.known[id]; ok {
			if r.hash != c.Hash {
				return sluice.Ack{}, sluice.Errorf(sluice.Conflict, "identity_reused", "used for another body")
			}
			ack := r.ack
			ack.Duplicate = true
			return ack, nil
		}
	}
	if err := c.Fill(c); err != nil {
		return sluice.Ack{}, err
	}
	kept := *c
	kept.Entries, kept.EntryLine = nil, nil
	if c.Identity != nil {
		id := *c.Identity // the door uses its own again
		kept.Identity = &id
	}
	b.Chunks = append(b.Chunks, kept)
	receipt := sluice.Receipt{Journal: 7, Commit: b.commit + 1}
	for i := range c.Entries {
		e := &c.Entries[i]
		if b.Refuse != nil && c.Accepts(i) {
			if r := b.Refuse(e); r != sluice.Accepted {
				c.Refuse(i, r)
			}
		}
		if c.Accepts(i) {
			b.apply(e)
			nameGroup(&receipt, e)
		}
	}
	if !c.AnyAccepted() {
		return sluice.Ack{Outcomes: c.Outcomes}, nil
	}
	b.commit++
	ack := sluice.Ack{Commit: b.commit, Receipt: receipt.String(), Outcomes: c.Outcomes}
	if id != "" {
		b.known[id] = backendRecord{c.Hash, ack}
	}
	return ack, nil
}

func nameGroup(r *sluice.Receipt, e *sluice.Entry) {
	i := slices.IndexFunc(r.Groups, func(g sluice.ReceiptGroup) bool { return g.Group == e.Group })
	if i < 0 {
		i = len(r.Groups)
		r.Groups = append(r.Groups, sluice.ReceiptGroup{Group: e.Group})
	}
	r.Groups[i].Partitions.Add(e.Partition())
}

func (b *HTTPBackend) apply(e *sluice.Entry) {
	g := b.schema.Group(e.Group)
	key := string(g.Table.AppendKeyJSON(nil, e.Key))
	b.Order = append(b.Order, g.FullName()+" "+key)
	for _, cell := range e.Cells {
		col := g.ByID(cell.Column)
		at := g.Table.Name + " " + key + " " + col.Name
		if col.Merge == schema.Sum {
			b.Sums[at] += cell.Value.Num
		} else {
			b.Sets[at] = string(schema.AppendJSON(nil, col.Type, cell.Value))
		}
	}
}

func (b *HTTPBackend) NewProducer(context.Context) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.producer++
	return b.producer, b.Fail
}

func (b *HTTPBackend) Read(_ context.Context, q sluice.ReadQuery) ([]sluice.Row, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Fail != nil {
		return nil, b.Fail
	}
	b.LastRead = q
	t := b.schema.Tables[q.Table]
	rows := make([]sluice.Row, len(q.Keys))
	for i, k := range q.Keys {
		key := t.AppendKeyJSON(nil, k)
		rows[i] = sluice.Row{Table: q.Table, Key: key, StaleBy: 5 * time.Millisecond}
		for _, g := range t.Groups {
			for _, c := range g.Columns {
				if n, ok := b.Sums[q.Table+" "+string(key)+" "+c.Name]; ok {
					rows[i].Found = true
					rows[i].Columns = map[string]json.RawMessage{c.Name: fmt.Append(nil, n)}
				}
			}
		}
	}
	return rows, nil
}

func (b *HTTPBackend) Receipt(ctx context.Context, r *sluice.Receipt, wait time.Duration) (sluice.ReceiptStatus, error) {
	select {
	case <-time.After(b.Slow):
	case <-ctx.Done():
		return sluice.ReceiptStatus{}, ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.LastWait = wait
	s := sluice.ReceiptStatus{Receipt: r.String(), State: b.State}
	for _, g := range r.Groups {
		s.Groups = append(s.Groups, sluice.GroupStatus{Table: b.schema.Group(g.Group).Table.Name, Group: b.schema.Group(g.Group).Name, State: b.State,
			Rejects: []sluice.Reject{{ID: "1.0", Key: []byte("42"), Change: []byte("{}")}}})
	}
	return s, b.Fail
}

func (b *HTTPBackend) Route(t *schema.Table, key []byte) sluice.RouteInfo {
	slot, _ := t.SlotOfKey(key)
	return sluice.RouteInfo{Table: t.Name, Key: string(t.AppendKeyJSON(nil, key)), Slot: slot}
}

func (b *HTTPBackend) Status() sluice.Status {
	return sluice.Status{Version: "test", Ready: b.Fail == nil, Streams: []sluice.StreamStatus{{Table: "posts"}, {Table: "pages"}}}
}
func (b *HTTPBackend) Ledger() []sluice.LedgerRow {
	return []sluice.LedgerRow{{Table: "posts", Offered: 3}}
}
func (b *HTTPBackend) Hot() []sluice.HotKey {
	if b.Cold {
		return nil
	}
	return []sluice.HotKey{{Table: "posts", Group: "metrics", Key: []byte("42"), State: "hot", Share: .5, Rule: "folded"}, {Table: "pages", Key: []byte(`"a"`), State: "hot"}}
}
func (b *HTTPBackend) Rejects(_ context.Context, q RejectsQuery) ([]sluice.Reject, error) {
	return []sluice.Reject{{ID: "9.1", Table: q.Table, State: q.State, Key: []byte("1"), Change: []byte("{}"), Writes: uint32(q.Max)}}, b.Fail
}

// Resume knows one store.
func (b *HTTPBackend) Resume(_ context.Context, store, _ string, _ bool) error {
	if store != "local" {
		return sluice.Errorf(sluice.NotFound, "no_store", "no store %q", store)
	}
	return nil
}

func (b *HTTPBackend) DecideReject(_ context.Context, id, decision string) error {
	b.Decided = append(b.Decided, decision+" "+id)
	return b.Fail
}
func (b *HTTPBackend) Reload(context.Context) error { return b.Fail }
func (b *HTTPBackend) Drain(_ context.Context, progress func(uint64)) error {
	progress(12)
	progress(3)
	return b.Fail
}

// Serve opens a door over b on loopback until the test ends, and gives its URL.
func (b *HTTPBackend) Serve(t testing.TB, change func(*Options)) string {
	t.Helper()
	o := Options{Writes: b, Reads: b, Admin: b, Auth: NewAuth(b.Schema)}
	scheme := "http://"
	if change != nil {
		change(&o)
	}
	if o.TLS != nil {
		scheme = "https://"
	}
	h, err := NewHTTP(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return scheme + l.Addr().String()
}
