package api_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/api"
)

// badNetwork loses requests and answers, and cuts answers short.
type badNetwork struct {
	mu   sync.Mutex
	r    *rand.Rand
	lost int
}

var errLost = errors.New("the network lost it")

func (n *badNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	fate := n.r.IntN(12)
	if fate < 3 {
		n.lost++
	}
	n.mu.Unlock()
	if fate == 0 {
		return nil, errLost
	}
	h, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch fate {
	case 1:
		io.Copy(io.Discard, h.Body)
		h.Body.Close()
		return nil, errLost
	case 2:
		h.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(h.Body, 10), broken{}), h.Body}
	}
	return h, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errLost }

func newClient(t *testing.T, url string, transport http.RoundTripper) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: url, HTTP: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Over a network that loses a quarter of everything, each write counts once.
func TestClientCountsOnceOverABadNetwork(t *testing.T) {
	b := api.NewHTTPBackend(t, false)
	url := b.Serve(t, nil)
	for seed := range uint64(3) {
		network := &badNetwork{r: rand.New(rand.NewPCG(seed, 3))}
		c := newClient(t, url, network)
		batcher, err := c.NewBatcher(t.Context(), client.BatcherOptions{LinesMax: 40, InFlight: 1 + 15*int(seed%2), Delay: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		key := int(seed)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					if err := batcher.Add(t.Context(), &sluice.Write{Table: "posts", Key: key, Add: map[string]any{"likes": 1}}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 20 {
			if _, err := c.Write(t.Context(), &sluice.Write{Table: "posts", Key: key, Add: map[string]any{"likes": 1}}); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if err := batcher.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.Sums[fmt.Sprintf("posts %d likes", key)]; got != 420 {
			t.Errorf("seed %d: %d likes, want 420", seed, got)
		}
		if p := batcher.Position(); p.Writes != 400 || p.Accepted != 400 {
			t.Errorf("seed %d: position %+v", seed, p)
		}
		if network.lost == 0 {
			t.Errorf("seed %d: the network lost nothing", seed)
		}
	}
}

// A load that is interrupted anywhere and resumed from what it saved counts once.
func TestI3_BatcherResumes(t *testing.T) {
	b := api.NewHTTPBackend(t, false)
	c := newClient(t, b.Serve(t, nil), http.DefaultTransport)
	var lines [][]byte
	for i := range 1000 {
		lines = append(lines, fmt.Appendf(nil, `{"table":"posts","key":%d,"add":{"likes":1}}`, i))
	}
	var abandoned []*client.Batcher
	saved, done := client.Position{}, uint64(0)
	for run := 0; done < uint64(len(lines)); run++ {
		batcher, err := c.NewBatcher(t.Context(), client.BatcherOptions{Producer: saved.Producer, Next: saved.Next, LinesMax: 10, InFlight: 8, Delay: -1})
		if err != nil {
			t.Fatal(err)
		}
		from := done
		for i, line := range lines[from:] {
			if err := batcher.AddJSON(t.Context(), line); err != nil {
				t.Fatal(err)
			}
			if i == 137 && run < 5 {
				break // dies here, with requests under way and one half full
			}
		}
		if run < 5 {
			// What was saved may be older than what was answered, and the old
			// process's last requests may come after the new one's first.
			abandoned = append(abandoned, batcher)
			saved = batcher.Position()
			done = from + saved.Writes
			continue
		}
		if err := batcher.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		saved = batcher.Position()
		done = from + saved.Writes
	}
	for _, old := range abandoned {
		_ = old.Close(t.Context()) // its last, half full request is refused: the number names other lines by now
	}
	if len(b.Sums) != len(lines) {
		t.Errorf("%d keys, want %d", len(b.Sums), len(lines))
	}
	for key, n := range b.Sums {
		if n != 1 {
			t.Errorf("%s counts %d times", key, n)
		}
	}
}

func TestClientAgainstTheDoor(t *testing.T) {
	b := api.NewHTTPBackend(t, false)
	c := newClient(t, b.Serve(t, nil), http.DefaultTransport)
	ctx := t.Context()
	a, err := c.WriteMany(ctx, []sluice.Write{{Table: "posts", Key: 1, Add: map[string]any{"likes": 2}}, {Table: "timeline", Key: map[string]any{"user_id": 1, "post_id": 2}, Add: map[string]any{"n": 3}}},
		client.WriteOptions{Wait: time.Second})
	if err != nil || a.Accepted != 2 || a.State != sluice.StateApplied || len(a.Groups) != 2 {
		t.Fatalf("WriteMany: %+v, %v", a, err)
	}
	row, err := c.Read(ctx, "timeline", []any{1, 2}, client.ReadOptions{Receipt: a.Receipt, Wait: time.Second})
	if err != nil || !row.Found || string(row.Columns["n"]) != "3" {
		t.Errorf("Read: %+v, %v", row, err)
	}
	if row, err := c.Read(ctx, "posts", 9, client.ReadOptions{}); err != nil || row.Found {
		t.Errorf("Read of nothing: %+v, %v", row, err)
	}
	if r, err := c.Receipt(ctx, a.Receipt, time.Second); err != nil || r.State != sluice.StateApplied {
		t.Errorf("Receipt: %+v, %v", r, err)
	}
	if r, err := c.Route(ctx, "timeline", "1,2"); err != nil || r.Table != "timeline" {
		t.Errorf("Route: %+v, %v", r, err)
	}
	if s, err := c.Status(ctx); err != nil || s.Version != "test" {
		t.Errorf("Status: %+v, %v", s, err)
	}
	if l, err := c.Ledger(ctx); err != nil || len(l) != 1 || l[0].Offered != 3 {
		t.Errorf("Ledger: %+v, %v", l, err)
	}
	if r, err := c.Rejects(ctx, client.RejectsQuery{Table: "posts", Max: 5}); err != nil || len(r) != 1 || r[0].Table != "posts" || r[0].Writes != 5 {
		t.Errorf("Rejects: %+v, %v", r, err)
	}
	if err := errors.Join(c.DecideReject(ctx, "9.1", "discard"), c.Reload(ctx), c.Ready(ctx)); err != nil || !slices.Equal(b.Decided, []string{"discard 9.1"}) {
		t.Errorf("%v, decided %v", err, b.Decided)
	}
	var queued []uint64
	if err := c.Drain(ctx, func(n uint64) { queued = append(queued, n) }); err != nil || !slices.Equal(queued, []uint64{12, 3}) {
		t.Errorf("Drain: %v, %v", queued, err)
	}
	chunk := sluice.Identity{Producer: 3, Chunk: 2, Lowest: 1}
	for _, again := range []bool{false, true} {
		a, err := c.WriteChunk(ctx, chunk, []byte("{}\n{\"table\":\"pages\",\"key\":\"x\",\"add\":{\"n\":1}}\n"))
		if err != nil || a.Accepted != 1 || a.Refused != 1 || a.Outcomes[0].Line != 1 || a.Duplicate != again || b.Sums[`pages "x" n`] != 1 {
			t.Errorf("WriteChunk: %+v, %v", a, err)
		}
	}
	_, err = c.Write(ctx, &sluice.Write{Table: "post", Key: 1})
	var w *client.WriteError
	if !errors.As(err, &w) || w.Cause.Reason != "no_table" {
		t.Errorf("a wrong write: %v", err)
	}
}
