package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
)

// random applies random batches to the shard and to the model, with cancelled
// applies and restarts between them. A drainer's rule is all it follows: after
// any error, Take, and go on from the cursor.
type random struct {
	*fixture
	rng    *rand.Rand
	models map[sluice.GroupID]*model
	events int
}

func testRandom(f *fixture) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("STORETEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	f.Logf("seed %d (STORETEST_SEED repeats it)", seed)
	f.start()
	r := &random{fixture: f, rng: rand.New(rand.NewPCG(seed, 1)), models: map[sluice.GroupID]*model{}}
	names := []string{"counters", "pairs", "places", "prices", "kinds", "logs.clicks"}
	for _, name := range names {
		g := f.group(name)
		r.models[g.ID] = &model{group: g, rows: map[string]*modelRow{}}
	}
	for range f.o.rounds() {
		g := f.group(names[r.rng.IntN(len(names))])
		r.step(g)
		if r.rng.IntN(8) == 0 {
			r.check(g)
		}
		if r.rng.IntN(10) == 0 {
			f.restart()
		}
	}
	for _, name := range names {
		r.check(f.group(name))
	}
	if n := f.db.CountRows(f.T, f.group("logs.clicks")); n != r.events {
		f.Errorf("%d events, want %d", n, r.events)
	}
}

// step applies one batch of one to three commits; one in four under a context
// that ends at a random moment.
func (r *random) step(g *schema.Group) {
	r.Helper()
	if _, ok := r.cursors[g.ID]; !ok {
		r.take(g)
	}
	b := r.batch(g)
	b.Next.Commit += r.rng.Uint64N(3)
	// Few keys or many, all columns or those whose merges any order of statements
	// would get right: stores have fast ways for the latter.
	wide, plain := []int{4, 20, 400}[r.rng.IntN(3)], r.rng.IntN(2) == 0
	for n := range 1 + r.rng.IntN(3*wide)%150 {
		e := r.randomEntry(g, wide, plain)
		e.Commit, e.Ordinal = b.Prev.Commit+1+r.rng.Uint64N(b.Next.Commit-b.Prev.Commit), uint32(n)
		b.Entries = append(b.Entries, e)
	}
	slices.SortStableFunc(b.Entries, func(x, y sluice.Entry) int {
		if c := bytes.Compare(x.Key, y.Key); c != 0 && !g.Events {
			return c
		}
		return int(x.Commit) - int(y.Commit)
	})
	next := r.models[g.ID].clone()
	for i := range b.Entries {
		if !g.Events {
			next.apply(&b.Entries[i])
		}
	}
	ctx, cancel := r.ctx, context.CancelFunc(func() {})
	if r.rng.IntN(4) == 0 {
		ctx, cancel = context.WithTimeout(r.ctx, time.Duration(r.rng.IntN(1500))*time.Microsecond)
	}
	res, err := r.shard.Apply(ctx, b)
	cancel()
	if err == nil && len(res.Rejected)+len(res.Parked) > 0 {
		r.Fatalf("rejected %+v, parked %+v", res.Rejected, res.Parked)
	}
	if err == nil {
		r.cursors[g.ID] = b.Next
	} else if ctx == r.ctx || errors.Is(err, store.ErrFenced) {
		r.Fatalf("Apply: %v", err)
	} else if cur := r.take(g); cur.Commit == b.Prev.Commit {
		return // nothing of it happened
	} else if cur.Commit != b.Next.Commit {
		r.Fatalf("after %v the cursor is at %d, want %d or %d", err, cur.Commit, b.Prev.Commit, b.Next.Commit)
	}
	r.models[g.ID] = next
	if g.Events {
		r.events += len(b.Entries)
	}
}

func (r *random) randomEntry(g *schema.Group, wide int, plain bool) sluice.Entry {
	key := keys{r.rng.IntN(wide)}
	switch len(g.Table.Key) {
	case 2:
		key = keys{fmt.Sprint("user", r.rng.IntN(4)), r.rng.IntN(wide)}
	case 1:
		if g.Table.Key[0].Type.Kind == sluice.Text {
			key = keys{fmt.Sprint("driver", r.rng.IntN(wide))}
		}
	}
	c := cells{}
	for _, col := range g.Columns {
		skip := plain && !g.Events && g.LatestBy == nil && (col.Merge == schema.Set || col.Merge == schema.Unique || col.Type.Kind == sluice.Decimal)
		if col == g.LatestBy || r.rng.IntN(3) == 0 && !skip {
			c[col.Name] = r.randomValue(g, col)
		}
	}
	if len(c) == 0 {
		c[g.Columns[0].Name] = r.randomValue(g, g.Columns[0])
	}
	e := r.entry(g, key, c)
	if !g.Events && r.rng.IntN(12) == 0 {
		e.Reset = true
		if r.rng.IntN(2) == 0 {
			e.Cells = nil
		}
	}
	e.Writes = uint32(1 + r.rng.IntN(3))
	return e
}

func (r *random) randomValue(g *schema.Group, col *schema.Column) any {
	if col.Merge == schema.Unique {
		return []string{fmt.Sprint(r.rng.IntN(40)), fmt.Sprint(r.rng.IntN(40))}
	}
	if col.Merge == schema.Set && col != g.LatestBy && r.rng.IntN(10) == 0 {
		return nil
	}
	n := r.rng.IntN(2000) - 1000
	switch col.Type.Kind {
	case sluice.Decimal:
		return canonical(fmt.Sprintf("%d.%d", n, r.rng.IntN(1000)))
	case sluice.Float64:
		return float64(n) / 8
	case sluice.Bool:
		return n > 0
	case sluice.Text:
		return fmt.Sprintf("text' %d é", n)
	case sluice.UUID:
		return fmt.Sprintf("%016d", n+1000)
	case sluice.JSON:
		return fmt.Sprintf(`{"n":%d}`, n)
	case sluice.TextArray:
		return fmt.Sprintf(`["%d","x"]`, n)
	case sluice.Bytes:
		return fmt.Sprintf("\x00\xff%d", n)
	}
	return n
}

// canonical is the one spelling of a decimal.
func canonical(text string) string {
	return string(add(sluice.Value{Kind: sluice.Decimal, Bytes: []byte("0")}, sluice.Value{Kind: sluice.Decimal, Bytes: []byte(text)}).Bytes)
}

// check compares every row of the group with the model.
func (r *random) check(g *schema.Group) {
	r.Helper()
	if g.Events {
		return
	}
	m := r.models[g.ID]
	var keys [][]byte
	for k := range m.rows {
		keys = append(keys, []byte(k))
	}
	rows, _, err := r.shard.Read(r.ctx, g, keys)
	if err != nil {
		r.Fatalf("Read: %v", err)
	}
	for i, row := range rows {
		want := m.rows[string(keys[i])]
		if !row.Found {
			r.Fatalf("%s %q: no row, want %v", g.FullName(), keys[i], want.values)
		}
		for _, col := range g.Columns {
			got := row.Values[col.Index]
			if got.Kind == sluice.Null && col.Merge != schema.Set {
				got = zeroOf(col) // an untouched sum may be read as null or 0
			}
			if !equal(got, want.values[col.Index]) {
				r.Fatalf("%s %q: %s is %s, want %s", g.FullName(), keys[i], col.Name, show(got), show(want.values[col.Index]))
			}
		}
	}
	if n := r.db.CountRows(r.T, g); n != len(m.rows) {
		r.Fatalf("%s has %d rows, want %d", g.FullName(), n, len(m.rows))
	}
}
