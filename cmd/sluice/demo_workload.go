package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
)

// The size of the demo's world.
const (
	demoPosts      = 1000
	demoUsers      = 50_000
	demoDrivers    = 500
	demoChunkLines = 500
)

// demoTime has a fixed width, as the column in SQLite has it.
const demoTime = "2006-01-02T15:04:05.000000Z"

const demoConfig = `# The social workload of sluice demo. Start it again with: sluice serve -c %s
listen: {http: "%s", resp: off}
journal: {dir: journal, bytes_max: 4GiB, disk_reserve: 64MiB}
stores:
  local: "sqlite:demo.db"
tables:
  posts:
    key: {post_id: int64}
    groups:
      content:  {columns: {content: text}}
      metrics:  {flush: 1s, columns: {likes: int64 sum, views: int64 sum, viewers: text unique}}
      comments: {kind: events, columns: {comment_id: text, user_id: int64, body: text}}
  driver_locations:
    key: {driver_id: text}
    latest_by: at
    columns: {lat: float64, lon: float64, at: timestamp}
`

// demoTotals is what was accepted, by the answers: the truth that the database
// is compared with.
type demoTotals struct {
	likes, views [demoPosts]int64
	viewers      [][]uint64 // by post, a bit for each user
	content      [demoPosts]string
	comments     map[string]struct{}
	locations    map[string]location
	accepted     int64
	refused      int64
}

type location struct {
	lat, lon float64
	at       string
}

func newDemoTotals() *demoTotals {
	t := &demoTotals{viewers: make([][]uint64, demoPosts), comments: map[string]struct{}{}, locations: map[string]location{}}
	for i := range t.viewers {
		t.viewers[i] = make([]uint64, (demoUsers+63)/64)
	}
	return t
}

// add takes over the totals of a worker. Posts' contents and drivers belong to
// one worker each.
func (t *demoTotals) add(o *demoTotals) {
	for i := range demoPosts {
		t.likes[i] += o.likes[i]
		t.views[i] += o.views[i]
		for j, bits := range o.viewers[i] {
			t.viewers[i][j] |= bits
		}
		if o.content[i] != "" {
			t.content[i] = o.content[i]
		}
	}
	for id := range o.comments {
		t.comments[id] = struct{}{}
	}
	for id, at := range o.locations {
		t.locations[id] = at
	}
	t.accepted += o.accepted
	t.refused += o.refused
}

// demoWorker is one connection: it makes writes, numbers its chunks, and sends
// a chunk again until it is answered.
type demoWorker struct {
	c        *client.Client
	index, n int // this worker, of so many
	rand     *rand.Rand
	posts    *rand.Zipf
	id       sluice.Identity
	body     []byte
	then     []func(*demoTotals) // what each line of the chunk adds to the totals
	serial   int64
	clock    time.Time
	totals   *demoTotals
	accepted *atomic.Int64 // of all workers
}

func newDemoWorker(c *client.Client, index, n int, accepted *atomic.Int64) *demoWorker {
	r := rand.New(rand.NewPCG(uint64(index), 1))
	return &demoWorker{c: c, index: index, n: n, rand: r, posts: rand.NewZipf(r, 1.1, 1, demoPosts-1), totals: newDemoTotals(), accepted: accepted}
}

// run sends chunks until the time is over, and the last one until it is answered.
func (w *demoWorker) run(ctx context.Context, until time.Time) error {
	producer, err := w.c.NewProducer(ctx)
	if err != nil {
		return fmt.Errorf("get a producer id: %w", err)
	}
	w.id = sluice.Identity{Producer: producer, Chunk: 1, Lowest: 1}
	for time.Now().Before(until) {
		w.fill()
		a, err := w.c.WriteChunk(ctx, w.id, w.body)
		if err != nil {
			return fmt.Errorf("connection %d: %w", w.index, err)
		}
		w.settle(&a)
		w.id.Chunk++
		w.id.Lowest++
	}
	return nil
}

// settle adds to the totals what the answer says was accepted.
func (w *demoWorker) settle(a *client.Accepted) {
	for _, r := range a.Outcomes {
		if r.Line >= 1 && r.Line <= len(w.then) {
			w.then[r.Line-1] = nil
		}
	}
	for _, add := range w.then {
		if add != nil {
			add(w.totals)
		}
	}
	w.totals.accepted += int64(a.Accepted)
	w.totals.refused += int64(a.Refused)
	w.accepted.Add(int64(a.Accepted))
}

func (w *demoWorker) fill() {
	w.body, w.then = w.body[:0], w.then[:0]
	for range demoChunkLines {
		post := int(w.posts.Uint64())
		switch dice := w.rand.IntN(100); {
		case dice < 55:
			w.view(post)
		case dice < 85:
			w.like(post)
		case dice < 93:
			w.drive()
		case dice < 98:
			w.comment(post)
		default:
			w.edit(post)
		}
	}
}

func (w *demoWorker) line(add func(*demoTotals), format string, args ...any) {
	w.body = append(fmt.Appendf(w.body, format, args...), '\n')
	w.then = append(w.then, add)
}

func (w *demoWorker) view(post int) {
	user := w.rand.IntN(demoUsers)
	w.line(func(t *demoTotals) {
		t.views[post]++
		t.viewers[post][user/64] |= 1 << (user % 64)
	}, `{"table":"posts","key":%d,"add":{"views":1},"unique":{"viewers":"u%d"}}`, post, user)
}

func (w *demoWorker) like(post int) {
	w.line(func(t *demoTotals) { t.likes[post]++ }, `{"table":"posts","key":%d,"add":{"likes":1}}`, post)
}

func (w *demoWorker) comment(post int) {
	w.serial++
	id := fmt.Sprintf("c%d-%d", w.index, w.serial)
	w.line(func(t *demoTotals) { t.comments[id] = struct{}{} },
		`{"table":"posts","key":%d,"append":{"comments":{"comment_id":%q,"user_id":%d,"body":"nice one, number %d"}}}`, post, id, w.rand.IntN(demoUsers), w.serial)
}

// edit changes the content of a post that belongs to this worker, so that its
// last text is known.
func (w *demoWorker) edit(post int) {
	w.serial++
	if post += w.index - post%w.n; post >= demoPosts {
		post = w.index
	}
	text := "edit " + strconv.FormatInt(w.serial, 10) + " of post " + strconv.Itoa(post)
	w.line(func(t *demoTotals) { t.content[post] = text }, `{"table":"posts","key":%d,"set":{"content":%q}}`, post, text)
}

// drive reports where one of this worker's drivers is. Times only go up, so that
// the last one sent is the latest.
func (w *demoWorker) drive() {
	id := fmt.Sprintf("d%d-%d", w.index, w.rand.IntN(demoDrivers))
	if now := time.Now().UTC().Truncate(time.Microsecond); now.After(w.clock) {
		w.clock = now
	} else {
		w.clock = w.clock.Add(time.Microsecond)
	}
	at := location{lat: 52 + float64(w.rand.IntN(1_000_000))/1e6, lon: 13 + float64(w.rand.IntN(1_000_000))/1e6, at: w.clock.Format(demoTime)}
	w.line(func(t *demoTotals) { t.locations[id] = at },
		`{"table":"driver_locations","key":%q,"set":{"lat":%v,"lon":%v,"at":%q}}`, id, at.lat, at.lon, at.at)
}
