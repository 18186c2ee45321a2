// Package oracle_test compares Sluice with a plain database: the same random
// writes go through Sluice and, as single SQL statements in the same order,
// straight into PostgreSQL. At the end both hold the same tables, and what a plain
// statement is refused for is a reject, key by key.
package oracle_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/store/pgtest"
	"sluice.dev/sluice/server"
)

var (
	seed     = flag.Uint64("seed", 0, "of the writes; 0: a new one, printed")
	requests = flag.Int("requests", 12, "of each worker and run")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(pgtest.Main(m))
}

const (
	workers  = 3
	writesIn = 20 // in one request, at most
)

func TestS11_TwoShardsHoldWhatPlainSQLMakes(t *testing.T) {
	compare(t, run{target: newPostgres(t), door: overHTTP, workers: workers})
}

func TestS9_EmbeddedHoldsWhatPlainSQLMakes(t *testing.T) {
	compare(t, run{target: newPostgres(t), door: embedded, workers: workers})
}

func TestS11_SQLiteHoldsWhatPlainSQLMakes(t *testing.T) {
	compare(t, run{target: newSQLite(t), door: overHTTP, workers: workers})
}

// One write at a time, each awaited: what is refused may then depend on the row.
func TestS10_EachWriteAloneIsOnePlainStatement(t *testing.T) {
	compare(t, run{target: newPostgres(t), door: overHTTP, workers: 1, alone: true})
}

// run is one comparison.
type run struct {
	target  target
	door    func(*testing.T, *server.Server) door
	workers int
	alone   bool // one write a request, and each is awaited
}

// door takes a request and gives its receipt.
type door func(ctx context.Context, writes []sluice.Write) (string, error)

// target is the database that Sluice writes to.
type target interface {
	config() string
	prepare(t *testing.T, statements []string)
	rows(t *testing.T, g *group) []string
	estimates(t *testing.T, g *group, column string) map[string]int64
}

// asked is one request, and what came of it.
type asked struct {
	writes  []sluice.Write
	receipt string
}

func compare(t *testing.T, r run) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("again: go test ./internal/oracle -run '%s$' -seed %d -requests %d", t.Name(), s, *requests)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r.target.prepare(t, existing)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := fmt.Sprintf("listen: {http: \"127.0.0.1:0\", resp: \"off\"}\njournal: {dir: %q, segment_bytes: 1MiB, disk_reserve: 1MiB}\nstores:\n  main: %s\ntables:%s",
		filepath.Join(filepath.Dir(file), "journal"), r.target.config(), config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	logs := make([][]asked, r.workers)
	for half := range 2 { // a stop and a new start in the middle
		srv, stop := start(t, file)
		submit := r.door(t, srv)
		var wg sync.WaitGroup
		for w := range r.workers {
			rnd := &random{rand.New(rand.NewPCG(s, uint64(w+1+half*100))), w, r.workers, r.alone}
			wg.Go(func() { logs[w] = append(logs[w], work(ctx, t, rnd, submit, srv)...) })
		}
		wg.Wait()
		if err := srv.Drain(ctx); err != nil {
			t.Fatalf("drain: %v", err)
		}
		if half == 1 {
			check(ctx, t, r.target, srv, logs)
		}
		stop()
	}
}

// start runs Sluice inside this process.
func start(t *testing.T, file string) (*server.Server, func()) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	srv, err := server.Open(t.Context(), server.Options{File: file, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return srv, stop
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func work(ctx context.Context, t *testing.T, rnd *random, submit door, srv *server.Server) []asked {
	var out []asked
	most, times := writesIn, *requests
	if rnd.alone {
		most, times = 1, *requests*writesIn/2
	}
	for range times {
		writes := make([]sluice.Write, 1+rnd.IntN(most))
		for i := range writes {
			writes[i] = rnd.write()
		}
		receipt, err := submit(ctx, writes)
		if err != nil {
			t.Errorf("worker %d: %v", rnd.worker, err)
			return out
		}
		out = append(out, asked{writes, receipt})
		if rnd.alone {
			if _, err := srv.Receipt(ctx, receipt, time.Minute); err != nil {
				t.Errorf("worker %d: %v", rnd.worker, err)
				return out
			}
		}
	}
	return out
}

// overHTTP goes through the door with a network that loses answers and requests.
func overHTTP(t *testing.T, srv *server.Server) door {
	t.Helper()
	lossy := &lossyNetwork{rnd: rand.New(rand.NewPCG(1, 2)), next: &http.Transport{}}
	t.Cleanup(lossy.next.CloseIdleConnections)
	c, err := client.New(client.Options{URL: "http://" + srv.HTTPAddr(), HTTP: &http.Client{Transport: lossy}})
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, writes []sluice.Write) (string, error) {
		said := make([]sluice.Write, len(writes))
		for i, w := range writes {
			said[i] = w
			said[i].Set = maps.Clone(w.Set)
			for name, v := range said[i].Set {
				said[i].Set[name] = inJSON(v)
			}
		}
		a, err := c.WriteMany(ctx, said, client.WriteOptions{})
		return a.Receipt, err
	}
}

type lossyNetwork struct {
	mu   sync.Mutex
	rnd  *rand.Rand
	next *http.Transport
}

func (l *lossyNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	luck := l.rnd.IntN(10)
	l.mu.Unlock()
	if luck == 0 {
		return nil, fmt.Errorf("the request is lost")
	}
	h, err := l.next.RoundTrip(r)
	if err == nil && luck == 1 {
		h.Body.Close()
		return nil, fmt.Errorf("the answer is lost")
	}
	return h, err
}

// embedded hands writes over in memory.
func embedded(t *testing.T, srv *server.Server) door {
	t.Helper()
	n := 0
	var mu sync.Mutex
	return func(ctx context.Context, writes []sluice.Write) (string, error) {
		mu.Lock()
		n++
		key := fmt.Sprint(t.Name(), srv.HTTPAddr(), n)
		mu.Unlock()
		first, err := srv.WriteOnce(ctx, key, writes...)
		if err != nil {
			return "", err
		}
		again, err := srv.WriteOnce(ctx, key, writes...)
		if err == nil && again != first {
			err = fmt.Errorf("a retry got receipt %s, the original %s", again, first)
		}
		return first, err
	}
}

// check runs the same writes as plain SQL and compares.
func check(ctx context.Context, t *testing.T, db target, srv *server.Server, logs [][]asked) {
	t.Helper()
	plain := newPlain(t)
	total := 0
	for _, log := range logs {
		for i := range log {
			refused := plain.apply(t, log[i].writes)
			total += len(log[i].writes)
			plain.receipts(ctx, t, srv, &log[i], refused)
		}
	}
	for _, g := range specs {
		want, got := plain.rows(t, g), db.rows(t, g)
		if !slices.Equal(want, got) {
			t.Errorf("%s differs:\n%s", g.physical, difference(want, got))
		}
	}
	plain.compareEstimates(t, db)
	plain.compareRejects(ctx, t, srv)
	t.Logf("%d writes, %d refused by the database", total, plain.refusedWrites)
}

// difference lists what only one side has.
func difference(want, got []string) string {
	var out []string
	for _, row := range want {
		if !slices.Contains(got, row) {
			out = append(out, "plain SQL  "+row)
		}
	}
	for _, row := range got {
		if !slices.Contains(want, row) {
			out = append(out, "Sluice     "+row)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(a[11:], b[11:]) })
	if len(out) == 0 {
		return fmt.Sprintf("the same rows, %d and %d times", len(want), len(got))
	}
	return strings.Join(out[:min(len(out), 30)], "\n")
}

func keyText(key any) string {
	text, _ := json.Marshal(key)
	return sameJSON(string(text))
}
