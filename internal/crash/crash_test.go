// Package crash_test runs the real binary under load from clients that retry,
// kills it with -9 (and PostgreSQL under it) at random moments, and compares
// what the databases hold at the end with what the clients know was
// acknowledged: every sum exact, every acknowledged row there, nothing double,
// every receipt truthful.
package crash_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/store/pgtest"
)

var (
	rounds = flag.Int("rounds", 7, "how often each scenario kills the server")
	seed   = flag.Uint64("seed", 0, "of the moments of death; 0: a new one, printed")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := pgtest.Main(m)
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

const (
	workers  = 4
	hotKeys  = 5
	writesIn = 8 // in one request
)

const tables = `
  posts:
    key: {post_id: int64}
    groups:
      content:  {store: main, flush: 20ms, columns: {title: text}}
      metrics:  {store: main, flush: 50ms, columns: {likes: int64 sum, cost: decimal sum, high: int64 max}}
      comments: {store: main, kind: events, flush: 20ms, columns: {worker: int64, n: int64}}
  cars:
    key: {id: int64}
    store: main
    latest_by: at
    flush: 20ms
    columns: {place: text, at: int64}
  old:
    existing: {table: old_posts, missing_row: insert}
    key: {id: int64}
    store: main
    flush: 20ms
    columns: {n: {type: int64, merge: sum, column: like_count}}
`

// database is what the binary drains to, read here without it.
type database interface {
	config() string
	prepare(t *testing.T)
	kill(t *testing.T, rnd *rand.Rand) // nothing for SQLite
	query(t *testing.T, sql string) string
}

func TestS2_CrashWithSQLite(t *testing.T) {
	run(t, &sqliteDB{file: filepath.Join(t.TempDir(), "app.db")})
}

func TestS3_CrashWithPostgres(t *testing.T) {
	run(t, newPostgres(t, false))
}

func TestS5_CrashWithAsynchronousPostgresKilledToo(t *testing.T) {
	run(t, newPostgres(t, true))
}

func run(t *testing.T, db database) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("again: go test ./internal/crash -run %s -seed %d -rounds %d", t.Name(), s, *rounds)
	rnd := rand.New(rand.NewPCG(s, 1))
	db.prepare(t)
	srv := newServer(t, db)
	srv.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	stop := make(chan struct{})
	accounts := make([]*account, workers)
	var wg sync.WaitGroup
	for i := range accounts {
		accounts[i] = newAccount(i, s)
		wg.Go(func() { accounts[i].work(ctx, t, srv.url, stop) })
	}
	for range *rounds {
		time.Sleep(time.Duration(30+rnd.IntN(400)) * time.Millisecond) // the moment of death is the test's random input
		if rnd.IntN(2) == 0 {
			db.kill(t, rnd)
		}
		if rnd.IntN(4) > 0 {
			srv.kill(t)
			srv.start(t)
		}
	}
	close(stop)
	wg.Wait()
	if t.Failed() {
		return
	}
	c := srv.client(t)
	if err := c.Drain(ctx, func(uint64) {}); err != nil {
		st, _ := c.Status(ctx)
		t.Fatalf("drain: %v\n%+v", err, st.Streams)
	}
	verify(ctx, t, c, db, accounts)
	srv.stop(t)
}

// account is what one client knows was acknowledged.
type account struct {
	id       int
	rnd      *rand.Rand
	likes    map[int64]int64
	cents    map[int64]int64
	old      map[int64]int64
	high     map[int64]int64
	comments int64
	title    string // last acknowledged of the worker's own key
	place    string
	receipts []string
}

func newAccount(id int, seed uint64) *account {
	return &account{id: id, rnd: rand.New(rand.NewPCG(seed, uint64(id)+10)), likes: map[int64]int64{}, cents: map[int64]int64{}, old: map[int64]int64{}, high: map[int64]int64{}}
}

// own is a key that only this worker sets, so that the last acknowledged value is known.
func (a *account) own() int64 { return int64(1000 + a.id) }

func (a *account) work(ctx context.Context, t *testing.T, url string, stop <-chan struct{}) {
	c, err := client.New(client.Options{URL: url, RetryBudget: 2 * time.Minute, AttemptTimeout: 10 * time.Second})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		writes, books := a.batch(n)
		got, err := c.WriteMany(ctx, writes, client.WriteOptions{})
		if err != nil {
			t.Errorf("worker %d: %v", a.id, err)
			return
		}
		refused := map[int]bool{}
		for _, o := range got.Outcomes {
			refused[o.Line] = true
			if o.Reason != sluice.BacklogMax.String() {
				t.Errorf("worker %d: refused: %+v", a.id, o)
			}
		}
		for i, book := range books {
			if !refused[i+1] {
				book()
			}
		}
		if got.Receipt != "" {
			a.receipts = append(a.receipts, got.Receipt)
		}
	}
}

// batch makes a request, and for each of its writes what goes into the books
// once it is acknowledged: a shard that is far behind may refuse a part.
func (a *account) batch(n int) ([]sluice.Write, []func()) {
	var writes []sluice.Write
	var books []func()
	add := func(w sluice.Write, book func()) {
		writes = append(writes, w)
		books = append(books, book)
	}
	for range writesIn {
		key := int64(a.rnd.IntN(hotKeys))
		amount := int64(1 + a.rnd.IntN(9))
		add(sluice.Write{Table: "posts", Key: key, Add: map[string]any{"likes": amount, "cost": fmt.Sprintf("0.%02d", amount)}, Max: map[string]any{"high": amount * int64(n)}}, func() {
			a.likes[key] += amount
			a.cents[key] += amount
			a.high[key] = max(a.high[key], amount*int64(n))
		})
		add(sluice.Write{Table: "old", Key: key, Add: map[string]any{"n": amount}}, func() { a.old[key] += amount })
	}
	title := fmt.Sprintf("w%d-%d", a.id, n)
	add(sluice.Write{Table: "posts", Key: a.own(), Set: map[string]any{"title": title}}, func() { a.title = title })
	add(sluice.Write{Table: "posts", Key: a.own(), Append: map[string]map[string]any{"comments": {"worker": a.id, "n": n}}}, func() { a.comments++ })
	add(sluice.Write{Table: "cars", Key: a.own(), Set: map[string]any{"place": title, "at": n}}, func() { a.place = title })
	return writes, books
}

func verify(ctx context.Context, t *testing.T, c *client.Client, db database, accounts []*account) {
	t.Helper()
	requests := 0
	for key := range int64(hotKeys) {
		var likes, cents, old, high int64
		for _, a := range accounts {
			likes += a.likes[key]
			cents += a.cents[key]
			old += a.old[key]
			high = max(high, a.high[key])
		}
		same(t, db, fmt.Sprintf("likes of %d", key), fmt.Sprintf("SELECT likes FROM posts_metrics WHERE post_id = %d", key), fmt.Sprint(likes))
		same(t, db, fmt.Sprintf("high of %d", key), fmt.Sprintf("SELECT high FROM posts_metrics WHERE post_id = %d", key), fmt.Sprint(high))
		same(t, db, fmt.Sprintf("cents of %d", key), fmt.Sprintf("SELECT CAST(round(cost * 100) AS bigint) FROM posts_metrics WHERE post_id = %d", key), fmt.Sprint(cents))
		same(t, db, fmt.Sprintf("old likes of %d", key), fmt.Sprintf("SELECT like_count FROM old_posts WHERE id = %d", key), fmt.Sprint(old))
	}
	for _, a := range accounts {
		requests += len(a.receipts)
		same(t, db, "title", fmt.Sprintf("SELECT title FROM posts_content WHERE post_id = %d", a.own()), a.title)
		same(t, db, "place", fmt.Sprintf("SELECT place FROM cars WHERE id = %d", a.own()), a.place)
		same(t, db, "comments", fmt.Sprintf("SELECT count(*) FROM posts_comments WHERE worker = %d", a.id), fmt.Sprint(a.comments))
		same(t, db, "distinct comments", fmt.Sprintf("SELECT count(DISTINCT n) FROM posts_comments WHERE worker = %d", a.id), fmt.Sprint(a.comments))
		for i := 0; i < len(a.receipts); i += 1 + len(a.receipts)/50 {
			st, err := c.Receipt(ctx, a.receipts[i], 0)
			if err != nil || st.State != sluice.StateApplied {
				t.Errorf("R1: receipt %d of worker %d: %s %v", i, a.id, st.State, err)
			}
		}
	}
	rows, err := c.Ledger(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.Acked != row.Applied || row.Queued+row.Lost+row.Rejected != 0 {
			t.Errorf("R2: ledger after the drain: %+v", row)
		}
	}
	t.Logf("%d requests acknowledged by %d clients", requests, len(accounts))
}

func same(t *testing.T, db database, what, sql, want string) {
	t.Helper()
	if got := db.query(t, sql); got != want {
		t.Errorf("%s: the database has %s, acknowledged were %s", what, got, want)
	}
}

var builtIn string // folder of the binary; "" when it was not needed

// binary is built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-crash-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	out := filepath.Join(dir, "sluice")
	if text, err := exec.Command("go", "build", "-o", out, "sluice.dev/sluice/cmd/sluice").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return out, nil
})
