package storetest

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/fold"
	"sluice.dev/sluice/internal/schema"
)

func testTypes(f *fixture) {
	f.start()
	g := f.group("kinds")
	uuid := "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
	rows := []cells{
		{"i": 42, "f": 1.5, "d": "12.340000000000000000000000000056", "b": true, "ts": int64(1767323045123456), "dt": 20455,
			"t": "plain", "u": uuid, "j": `{"a":[1,2,{"b":null}],"c":"é"}`, "raw": "\x00\x01\xff", "ta": `["a","b"]`},
		{"i": int64(math.MinInt64), "f": -math.MaxFloat64, "d": "-0.5", "b": false, "ts": -1, "dt": -719162,
			"t": `quotes ' " \ and { } , and ü 日本`, "u": "0123456789abcdef", "j": `"text"`, "raw": "", "ta": `[]`},
		{"i": int64(math.MaxInt64), "f": math.SmallestNonzeroFloat64, "d": "99999999999999999999999999999999999999", "ts": int64(253402300799999999),
			"t": "", "j": `null`, "ta": `["","with \"quotes\"","{brace},comma","NULL","null"]`},
		{"i": nil, "f": nil, "d": nil, "b": nil, "ts": nil, "dt": nil, "t": nil, "u": nil, "j": nil, "raw": nil, "ta": nil},
		{"f": 0.1, "t": "line\nbreak\ttab\x01\x7f", "d": "0", "j": `[1.0,1e5,"\u0041"]`},
	}
	var entries []sluice.Entry
	for i, c := range rows {
		entries = append(entries, f.entry(g, keys{i}, c))
	}
	f.apply(g, entries...)
	for i, c := range rows {
		f.wantRow(g, keys{i}, c)
	}
	// Each over each: nothing of the old value may be left.
	for i := range rows {
		entries[i] = f.entry(g, keys{i}, rows[(i+1)%len(rows)])
	}
	f.apply(g, entries...)
	for i := range rows {
		f.wantRow(g, keys{i}, rows[(i+1)%len(rows)])
	}
}

func testKeyTypes(f *fixture) {
	f.start()
	g := f.group("keys")
	var all []keys
	for _, t := range []string{"", "a", "A", "a\x01", "é", `'"\`, "a b", "ab"} {
		for _, i := range []int64{0, -1, math.MaxInt64, math.MinInt64} {
			all = append(all, keys{t, i, "0123456789abcdef", i / 1e12, int(i % 1000)})
		}
	}
	var entries []sluice.Entry
	for n, k := range all {
		entries = append(entries, f.entry(g, k, cells{"v": fmt.Sprint(n)}))
	}
	f.apply(g, entries...)
	for n, k := range all {
		f.wantRow(g, k, cells{"v": fmt.Sprint(n)})
	}
	f.wantNone(g, "nobody", 0, "0123456789abcdef", 0, 0)
	if n := f.db.CountRows(f.T, g); n != len(all) {
		f.Errorf("%d rows, want %d", n, len(all))
	}
}

func testPartialRows(f *fixture) {
	f.start()
	g := f.group("counters")
	f.apply(g, f.entry(g, keys{1}, cells{"n": 1}), f.entry(g, keys{2}, cells{"name": "two"}))
	f.apply(g, f.entry(g, keys{1}, cells{"name": "one", "hi": 3}), f.entry(g, keys{2}, cells{"n": 4}))
	f.wantRow(g, keys{1}, cells{"n": 1, "name": "one", "hi": 3, "lo": nil})
	f.wantRow(g, keys{2}, cells{"n": 4, "name": "two", "hi": nil})
	f.apply(g, f.entry(g, keys{1}, cells{"name": nil}))
	f.wantRow(g, keys{1}, cells{"n": 1, "name": nil, "hi": 3})
}

func testSums(f *fixture) {
	f.start()
	g, x := f.group("counters"), f.group("extremes")
	for range 3 {
		f.apply(g, f.entry(g, keys{1}, cells{"n": 5, "d": "0.1"}), f.entry(g, keys{2}, cells{"n": -7, "d": "-100"}))
		f.apply(x, f.entry(x, keys{1}, cells{"x": 0.5}))
	}
	f.wantRow(g, keys{1}, cells{"n": 15, "d": "0.3"})
	f.wantRow(g, keys{2}, cells{"n": -21, "d": "-300"})
	f.wantRow(x, keys{1}, cells{"x": 1.5})
}

func testMaxMin(f *fixture) {
	f.start()
	g, x := f.group("counters"), f.group("extremes")
	f.apply(g, f.entry(g, keys{1}, cells{"n": 1})) // the row is there, its extremes are not
	for _, v := range []int{5, -3, 9, 2} {
		f.apply(g, f.entry(g, keys{1}, cells{"hi": v, "lo": v, "last": int64(v) * 1e15}))
	}
	f.wantRow(g, keys{1}, cells{"hi": 9, "lo": -3, "last": int64(9e15)})
	// By value, not by text: "9.5" < "10", and "-0.5" < "-0.25".
	for _, v := range []string{"10", "9.5", "-0.25", "-0.5", "100"} {
		f.apply(g, f.entry(g, keys{1}, cells{"low": v}))
	}
	f.wantRow(g, keys{1}, cells{"low": "-0.5"})
	for _, v := range []cells{{"f": -1e300, "dt": 5}, {"f": 2.5, "dt": -5}, {"f": 2.25, "dt": 0}, {"f": 0.0, "dt": 9}} {
		f.apply(x, f.entry(x, keys{1}, v))
	}
	f.wantRow(x, keys{1}, cells{"f": 2.5, "dt": -5})
}

func testSameKey(f *fixture) {
	f.start()
	g := f.group("counters")
	r := f.apply(g,
		f.entry(g, keys{1}, cells{"n": int64(math.MaxInt64), "name": "a"}),
		f.entry(g, keys{1}, cells{"n": -5, "name": "b"}),
		f.entry(g, keys{1}, cells{"n": 3, "name": "c"}),
		f.entry(g, keys{2}, cells{"n": 5, "name": "x"}),
		f.reset(g, keys{2}, cells{"n": 2}),
		f.entry(g, keys{2}, cells{"n": 1}),
		f.entry(g, keys{3}, cells{"n": 1}),
		f.reset(g, keys{3}, nil))
	f.wantRow(g, keys{1}, cells{"n": int64(math.MaxInt64 - 2), "name": "c"})
	f.wantRow(g, keys{2}, cells{"n": 3, "name": nil})
	f.wantNone(g, 3)
	if len(r.Rejected)+len(r.Parked) > 0 {
		f.Errorf("rejected %v, parked %v", r.Rejected, r.Parked)
	}
}

func testDecimals(f *fixture) {
	f.start()
	g := f.group("counters")
	for range 10 {
		f.apply(g, f.entry(g, keys{1}, cells{"d": "0.1", "low": "0.0000000000000000000001"}), f.entry(g, keys{2}, cells{"d": "123456789012345678901234567890.000000001"}))
	}
	f.apply(g, f.entry(g, keys{1}, cells{"d": "-1"}))
	f.wantRow(g, keys{1}, cells{"d": "0", "low": "0.0000000000000000000001"})
	f.wantRow(g, keys{2}, cells{"d": "1234567890123456789012345678900.00000001"})
}

func testInt64Limits(f *fixture) {
	f.start()
	g := f.group("counters")
	f.apply(g, f.entry(g, keys{int64(math.MaxInt64)}, cells{"n": int64(math.MaxInt64 - 1), "hi": int64(math.MaxInt64), "lo": int64(math.MinInt64)}),
		f.entry(g, keys{int64(math.MinInt64)}, cells{"n": int64(math.MinInt64)}))
	f.apply(g, f.entry(g, keys{int64(math.MaxInt64)}, cells{"n": 1, "hi": int64(math.MaxInt64 - 1), "lo": int64(math.MinInt64 + 1)}))
	f.wantRow(g, keys{int64(math.MaxInt64)}, cells{"n": int64(math.MaxInt64), "hi": int64(math.MaxInt64), "lo": int64(math.MinInt64)})
	f.wantRow(g, keys{int64(math.MinInt64)}, cells{"n": int64(math.MinInt64)})
	f.apply(g, f.entry(g, keys{int64(math.MinInt64)}, cells{"n": int64(math.MaxInt64)}))
	f.wantRow(g, keys{int64(math.MinInt64)}, cells{"n": -1})
}

func testLatestBy(f *fixture) {
	f.start()
	g, p := f.group("places"), f.group("prices")
	f.apply(g, f.entry(g, keys{"ann"}, cells{"lat": 1.0, "lon": 1.0, "at": 100}))
	f.apply(g, f.entry(g, keys{"ann"}, cells{"lat": 2.0, "at": 99})) // older: never
	f.wantRow(g, keys{"ann"}, cells{"lat": 1.0, "lon": 1.0, "at": 100})
	f.apply(g, f.entry(g, keys{"ann"}, cells{"lat": 3.0, "at": 100})) // a tie: the later in the journal, and the whole row
	f.wantRow(g, keys{"ann"}, cells{"lat": 3.0, "lon": nil, "at": 100})
	f.apply(g, f.entry(g, keys{"ann"}, cells{"lat": 4.0, "lon": 4.0, "at": 101}), f.entry(g, keys{"ann"}, cells{"lat": 5.0, "at": 50}))
	f.wantRow(g, keys{"ann"}, cells{"lat": 4.0, "lon": 4.0, "at": 101})
	f.apply(g, f.reset(g, keys{"ann"}, cells{"lat": 6.0, "at": 1})) // a delete clears the memory of what was fresh
	f.wantRow(g, keys{"ann"}, cells{"lat": 6.0, "lon": nil, "at": 1})
	f.apply(g, f.reset(g, keys{"ann"}, nil))
	f.wantNone(g, "ann")
	f.apply(p, f.entry(p, keys{1}, cells{"price": "9.99", "version": 9}), f.entry(p, keys{1}, cells{"price": "10", "version": 10}))
	f.wantRow(p, keys{1}, cells{"price": "10", "version": 10})
}

func testReset(f *fixture) {
	f.start()
	g := f.group("counters")
	f.apply(g, f.entry(g, keys{1}, cells{"n": 5, "name": "x", "hi": 9, "seen": []string{"a", "b"}}), f.entry(g, keys{2}, cells{"n": 5}))
	f.apply(g, f.reset(g, keys{1}, cells{"n": 3, "seen": []string{"c"}}), f.reset(g, keys{2}, nil), f.reset(g, keys{3}, nil))
	f.wantRow(g, keys{1}, cells{"n": 3, "name": nil, "hi": nil, "seen": 1})
	f.wantNone(g, 2)
	f.wantNone(g, 3)
	f.apply(g, f.entry(g, keys{2}, cells{"n": 1}))
	f.wantRow(g, keys{2}, cells{"n": 1})
}

func testEvents(f *fixture) {
	f.start()
	g := f.group("logs.clicks")
	ev := func(id int, what string) sluice.Entry {
		return f.entry(g, keys{id}, cells{"what": what, "at": 5, "n": id, "meta": `{"a":1}`})
	}
	f.apply(g, ev(2, "a"), ev(1, "b"), ev(2, "a"), f.entry(g, keys{3}, cells{"what": nil}))
	f.apply(g, ev(2, "c"))
	if n := f.db.CountRows(f.T, g); n != 5 {
		f.Errorf("%d events, want 5", n)
	}
	f.apply(g, f.reset(g, keys{2}, nil)) // events are not deleted
	if n := f.db.CountRows(f.T, g); n != 5 {
		f.Errorf("%d events after a delete of their key, want 5", n)
	}
}

// elements makes a delta of the elements from..to-1.
func elements(from, to int) sluice.Value {
	var hashes []uint64
	for i := from; i < to; i++ {
		hashes = append(hashes, schema.HashElement(schema.Type{Kind: sluice.Text}, sluice.TextValue(fmt.Sprint("user", i))))
	}
	slices.Sort(hashes)
	v := sluice.Value{Kind: sluice.Hashes}
	for _, h := range hashes {
		v.Bytes = binary.LittleEndian.AppendUint64(v.Bytes, h)
	}
	return v
}

func testUnique(f *fixture) {
	f.start()
	g := f.group("counters")
	estimate := func(id int) int64 { return f.row(g, id).Values[g.Column([]byte("seen")).Index].Num }
	f.apply(g, f.entry(g, keys{1}, cells{"seen": []string{"a", "b", "c"}}), f.entry(g, keys{2}, cells{"n": 1}))
	f.wantRow(g, keys{1}, cells{"seen": 3})
	for i := range 20 {
		f.apply(g, f.entry(g, keys{2}, cells{"seen": elements(i*200, i*200+250)}))
	}
	sketch, _, err := fold.MergeSketch(nil, elements(4000, 6000))
	if err != nil {
		f.Fatal(err)
	}
	f.apply(g, f.entry(g, keys{2}, cells{"seen": sluice.Value{Kind: sluice.Sketch, Bytes: sketch}}))
	if n := estimate(2); math.Abs(float64(n)-6000) > 6000*0.08 {
		f.Errorf("estimate of 6000 is %d", n)
	}
	before := estimate(2)
	f.apply(g, f.entry(g, keys{2}, cells{"seen": elements(0, 250)}), f.entry(g, keys{1}, cells{"seen": []string{"c", "a"}}))
	if after := estimate(2); after != before {
		f.Errorf("the same elements again moved the estimate from %d to %d", before, after)
	}
	f.wantRow(g, keys{1}, cells{"seen": 3})
}

func testRead(f *fixture) {
	f.start()
	g := f.group("counters")
	if _, cur, err := f.shard.Read(f.ctx, g, nil); err != nil || cur.Found {
		f.Errorf("Read before Take: cursor %+v, %v; want none found", cur, err)
	}
	f.apply(g, f.entry(g, keys{1}, cells{"n": 1}), f.entry(g, keys{3}, cells{"n": 1}))
	k := func(id int) []byte { return f.key(g, keys{id}) }
	rows, cur, err := f.shard.Read(f.ctx, g, [][]byte{k(3), k(2), k(1), k(3)})
	if err != nil || len(rows) != 4 || !rows[0].Found || rows[1].Found || !rows[2].Found || !rows[3].Found {
		f.Fatalf("Read gave %+v, %v; want found, none, found, found", rows, err)
	}
	if !cur.Found || cur.Commit != 1 || cur.Owner != "owner" || cur.Group != g.ID {
		f.Errorf("Read gave cursor %+v", cur)
	}
	// Every commit adds one to row 1, so a row and a cursor of one snapshot are equal.
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			rows, cur, err := f.shard.Read(f.ctx, g, [][]byte{k(1)})
			if err != nil || rows[0].Values[g.Column([]byte("n")).Index].Num != int64(cur.Commit) {
				f.Errorf("row %+v beside cursor %+v, %v", rows, cur, err)
				return
			}
		}
	}()
	for range 50 {
		f.apply(g, f.entry(g, keys{1}, cells{"n": 1}))
	}
	close(stop)
	wg.Wait()
}

func testManyRows(f *fixture) {
	f.start()
	g, clicks := f.group("pairs"), f.group("logs.clicks")
	// More than a store takes one by one, then fewer, half of them on rows that are there.
	const many, few, from = 11000, 2000, 10000
	for _, r := range []struct{ first, n int }{{0, many}, {from, few}} {
		var entries, events []sluice.Entry
		for i := r.first; i < r.first+r.n; i++ {
			c := cells{"n": 1}
			if i%3 == 0 {
				c["note"] = "third"
			}
			entries = append(entries, f.entry(g, keys{fmt.Sprint("u", i%100), i}, c))
			events = append(events, f.entry(clicks, keys{i}, cells{"what": "view", "n": i}))
		}
		f.apply(g, entries...)
		f.apply(clicks, events...)
	}
	if n := f.db.CountRows(f.T, g); n != from+few {
		f.Errorf("%d rows, want %d", n, from+few)
	}
	if n := f.db.CountRows(f.T, clicks); n != many+few {
		f.Errorf("%d events, want %d", n, many+few)
	}
	f.wantRow(g, keys{"u2", 10002}, cells{"n": 2, "note": "third"})
	f.wantRow(g, keys{"u1", 1}, cells{"n": 1, "note": nil})
}
