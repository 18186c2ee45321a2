package fold_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/apd/v3"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/schema"
)

const config = `
stores: {local: "sqlite:app.db"}
tables:
  posts:
    key: {post_id: int64}
    store: local
    columns: {content: text, likes: int64 sum, cost: decimal sum, high: int64 max, low: float64 min, viewers: text unique}
  cars:
    key: {id: text}
    store: local
    latest_by: at
    columns: {lat: float64, at: int64}
  clicks:
    key: {id: int64}
    store: local
    kind: events
    columns: {what: text}
  old:
    existing: {table: old_posts, missing_row: reject}
    key: {id: int64}
    store: local
    columns: {title: text, likes: int64 sum}
`

func testSchema(t testing.TB) *schema.Schema {
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

// row is a row of the model: what a database would hold, with sums unbounded.
type row struct {
	set  map[sluice.ColumnID]sluice.Value
	sums map[sluice.ColumnID]*apd.Decimal
	seen map[sluice.ColumnID]map[uint64]bool
}

type model map[string]*row

// apply does to the model what an entry means, cell by cell.
func (m model) apply(g *schema.Group, e *sluice.Entry) {
	name := fmt.Sprint(e.Group, e.Key)
	if e.Reset {
		delete(m, name)
		if len(e.Cells) == 0 {
			return
		}
	}
	r := m[name]
	if r == nil {
		r = &row{map[sluice.ColumnID]sluice.Value{}, map[sluice.ColumnID]*apd.Decimal{}, map[sluice.ColumnID]map[uint64]bool{}}
		m[name] = r
	}
	if g.LatestBy != nil {
		r.latest(g, e)
		return
	}
	for _, c := range e.Cells {
		r.apply(g.ByID(c.Column).Merge, c)
	}
}

func (r *row) latest(g *schema.Group, e *sluice.Entry) {
	for _, c := range e.Cells {
		if was, ok := r.set[g.LatestBy.ID]; ok && c.Column == g.LatestBy.ID && c.Value.Num < was.Num {
			return
		}
	}
	clear(r.set)
	for _, c := range e.Cells {
		r.set[c.Column] = c.Value
	}
}

func (r *row) apply(m schema.Merge, c sluice.Cell) {
	was, there := r.set[c.Column]
	switch m {
	case schema.Set:
		r.set[c.Column] = c.Value
	case schema.Max:
		if !there || fold.CompareValues(c.Value, was) > 0 {
			r.set[c.Column] = c.Value
		}
	case schema.Min:
		if !there || fold.CompareValues(c.Value, was) < 0 {
			r.set[c.Column] = c.Value
		}
	case schema.Sum:
		amount := apd.New(c.Value.Num, 0)
		if c.Value.Kind == sluice.Decimal {
			amount, _, _ = apd.NewFromString(string(c.Value.Bytes))
		}
		if r.sums[c.Column] == nil {
			r.sums[c.Column] = new(apd.Decimal)
		}
		_, _ = apd.BaseContext.Add(r.sums[c.Column], r.sums[c.Column], amount)
	case schema.Unique:
		if r.seen[c.Column] == nil {
			r.seen[c.Column] = map[uint64]bool{}
		}
		for b := c.Value.Bytes; len(b) >= 8; b = b[8:] {
			r.seen[c.Column][binary.LittleEndian.Uint64(b)] = true
		}
	}
}

func (m model) String() string {
	var lines []string
	for k, r := range m {
		line := k
		for id := range sluice.ColumnID(9) {
			if v, ok := r.set[id]; ok {
				line += fmt.Sprintf(" %d=%d/%s", id, v.Num, v.Bytes)
			}
			if d := r.sums[id]; d != nil {
				line += fmt.Sprintf(" %d+%s", id, reduced(d))
			}
			if s := r.seen[id]; s != nil {
				line += fmt.Sprintf(" %d~%d", id, len(s))
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return fmt.Sprint(lines)
}

func randomEntry(r *rand.Rand, s *schema.Schema) sluice.Entry {
	names := []string{"posts", "posts", "posts", "cars", "clicks", "old"}
	t := s.Tables[names[r.IntN(len(names))]]
	g := t.Groups[0]
	e := sluice.Entry{Group: g.ID, Key: []byte{byte(r.IntN(6))}, Slot: uint16(r.IntN(3) * 1000), Writes: 1}
	e.Slot = uint16(e.Key[0]) * 997
	if !g.Events && r.IntN(12) == 0 {
		e.Reset = true
		return e
	}
	for _, c := range g.Columns {
		if g.LatestBy == nil && !g.Events && r.IntN(3) > 0 && (len(e.Cells) > 0 || c.Index < len(g.Columns)-1) {
			continue
		}
		v := sluice.IntValue(int64(r.IntN(20) - 5))
		switch {
		case c.Merge == schema.Unique:
			v = sluice.Value{Kind: sluice.Hashes, Bytes: binary.LittleEndian.AppendUint64(nil, uint64(r.IntN(40)))}
		case c.Type.Kind == sluice.Text:
			v = sluice.TextValue(fmt.Sprint("text ", r.IntN(1000000)))
		case c.Type.Kind == sluice.Decimal:
			v = sluice.Value{Kind: sluice.Decimal, Bytes: fmt.Appendf(nil, "%d.%d", r.IntN(9)-4, 1+r.IntN(9))}
		case c.Type.Kind == sluice.Float64:
			v = sluice.Value{Kind: sluice.Float64, Num: int64(math.Float64bits(float64(r.IntN(9)) / 2))}
		case c.Merge == schema.Sum && r.IntN(10) == 0:
			v.Num = math.MaxInt64 - int64(r.IntN(2))
		}
		e.Cells = append(e.Cells, sluice.Cell{Column: c.ID, Value: v})
	}
	return e
}

// Folding never changes an answer: folded entries, applied in order, leave the
// same rows as the unfolded ones, in both modes and both orders.
func TestS11_FoldingNeverChangesAnAnswer(t *testing.T) {
	s := testSchema(t)
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		plain, folded := model{}, model{}
		events, eventsAfter := 0, 0
		mode := fold.Mode(seed % 2)
		f := fold.New(mode, s.Group)
		for range 1 + r.IntN(200) {
			e := randomEntry(r, s)
			g := s.Group(e.Group)
			if g.Events {
				events++
			} else {
				plain.apply(g, &e)
			}
			if err := f.Add(&e); err != nil {
				t.Fatal(err)
			}
		}
		writes := uint32(0)
		if err := f.Each(fold.Order(seed/2%2), func(e *sluice.Entry) error {
			writes += e.Writes
			if g := s.Group(e.Group); g.Events {
				eventsAfter++
			} else {
				folded.apply(g, e)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if plain.String() != folded.String() || events != eventsAfter {
			t.Fatalf("seed %d, mode %d:\n%s\n%s", seed, mode, plain, folded)
		}
		if uint64(writes) != f.Writes() {
			t.Fatalf("seed %d: entries hold %d writes, %d went in", seed, writes, f.Writes())
		}
	}
}

func entry(s *schema.Schema, table string, key byte, cells ...sluice.Cell) *sluice.Entry {
	return &sluice.Entry{Group: s.Tables[table].Groups[0].ID, Key: []byte{key}, Cells: cells, Writes: 1}
}

func cell(s *schema.Schema, table, column string, v sluice.Value) sluice.Cell {
	return sluice.Cell{Column: s.Tables[table].Groups[0].Column([]byte(column)).ID, Value: v}
}

func TestS11_OverflowOpensANewEntry(t *testing.T) {
	s := testSchema(t)
	f := fold.New(fold.Drain, s.Group)
	for _, n := range []int64{math.MaxInt64, 1, math.MinInt64, -1} {
		if err := f.Add(entry(s, "posts", 1, cell(s, "posts", "likes", sluice.IntValue(n)))); err != nil {
			t.Fatal(err)
		}
	}
	var got []int64
	for _, e := range f.Entries(fold.ByKey) {
		got = append(got, e.Cells[0].Value.Num)
	}
	if want := []int64{math.MaxInt64, math.MinInt64}; !slices.Equal(got, want) {
		t.Errorf("got %d, want %d", got, want)
	}
}

// In a mapped table the database may refuse a set: folded with a neighbour's
// sum, one bad title would take the likes of others with it.
func TestS10_MappedSetsStayApartInACommit(t *testing.T) {
	s := testSchema(t)
	add := func(f *fold.Folder, cells ...sluice.Cell) {
		if err := f.Add(entry(s, "old", 1, cells...)); err != nil {
			t.Fatal(err)
		}
	}
	like, title := cell(s, "old", "likes", sluice.IntValue(1)), cell(s, "old", "title", sluice.TextValue("x"))
	for mode, want := range map[fold.Mode]int{fold.Commit: 3, fold.Drain: 1} {
		f := fold.New(mode, s.Group)
		add(f, like)
		add(f, title)
		add(f, like)
		add(f, title, like)
		if f.Len() != want {
			t.Errorf("mode %d: %d entries, want %d", mode, f.Len(), want)
		}
	}
}

func TestS10_ReplayStandsAlone(t *testing.T) {
	s := testSchema(t)
	f := fold.New(fold.Drain, s.Group)
	for _, replay := range []uint64{0, 7, 0} {
		e := entry(s, "posts", 1, cell(s, "posts", "likes", sluice.IntValue(1)))
		e.Replay = replay
		if err := f.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	var got []uint64
	for _, e := range f.Entries(fold.ByKey) {
		got = append(got, e.Replay)
	}
	if !slices.Equal(got, []uint64{0, 7, 0}) {
		t.Errorf("replays %d: one folded with a neighbour, or order was lost", got)
	}
}

func TestS11_ManyElementsBecomeASketch(t *testing.T) {
	s := testSchema(t)
	f := fold.New(fold.Drain, s.Group)
	const elements = 20000
	for i := range elements {
		h := binary.LittleEndian.AppendUint64(nil, rand.New(rand.NewPCG(uint64(i), 3)).Uint64())
		for range 2 {
			if err := f.Add(entry(s, "posts", 1, cell(s, "posts", "viewers", sluice.Value{Kind: sluice.Hashes, Bytes: h}))); err != nil {
				t.Fatal(err)
			}
		}
	}
	e := f.Entries(fold.ByKey)[0]
	if e.Cells[0].Value.Kind != sluice.Sketch {
		t.Fatalf("kind %d", e.Cells[0].Value.Kind)
	}
	state, n, err := fold.MergeSketch(nil, e.Cells[0].Value)
	if err != nil || math.Abs(float64(n)-elements) > elements*0.06 {
		t.Fatalf("estimate %d of %d, %v", n, elements, err)
	}
	if _, again, err := fold.MergeSketch(state, e.Cells[0].Value); err != nil || again != n {
		t.Errorf("the same elements again: %d, was %d, %v", again, n, err)
	}
}

func TestAddDecimalIsExactAndCanonical(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"0.1", "0.2", "0.3"}, {"1", "-1.00", "0"}, {"99999999999999999999.5", "0.5", "100000000000000000000"}, {"-0.05", "0.04", "-0.01"},
	} {
		got, err := fold.AddDecimal([]byte(c.a), []byte(c.b))
		if err != nil || !bytes.Equal(got, []byte(c.want)) {
			t.Errorf("%s + %s = %s, want %s (%v)", c.a, c.b, got, c.want, err)
		}
	}
}

func BenchmarkFoldHotAndCold(b *testing.B) {
	s := testSchema(b)
	for _, keys := range []int{1, 1_000_000} {
		b.Run(fmt.Sprint("keys=", keys), func(b *testing.B) {
			f := fold.New(fold.Commit, s.Group)
			e := entry(s, "posts", 1, cell(s, "posts", "likes", sluice.IntValue(1)))
			e.Key = make([]byte, 8)
			r := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				binary.BigEndian.PutUint64(e.Key, r.Uint64N(uint64(keys)))
				if i%6400 == 0 {
					_ = f.Each(fold.ByStream, func(*sluice.Entry) error { return nil })
					f.Reset()
				}
				if err := f.Add(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func reduced(d *apd.Decimal) string {
	var out apd.Decimal
	out.Reduce(d)
	return out.Text('f')
}
