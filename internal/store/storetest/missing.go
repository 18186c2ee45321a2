package storetest

import (
	"maps"
	"slices"

	"sluice.dev/sluice"
)

// changes are the writes that make a row of the table starts. Two of the values
// lose against the column's default, two win, and one column has none.
var changes = []cells{
	{"n": 3, "small": 4}, {"title": "x"}, {"hi": 9, "top": 90}, {"lo": -5, "least": 6}, {"plain": 2}, {"x": 0.5, "f": 1.5},
	{"at": int64(1767323045123456), "day": 20455}, {"who": []string{"a", "b"}},
}

// testMissingRowBegins makes rows in every order of writes and of folding.
func testMissingRowBegins(f *fixture) {
	f.needMapped()
	f.start()
	want := cells{"title": "x", "n": 3, "small": 4, "hi": 9, "top": 90, "lo": -5, "least": 6, "plain": 2, "x": 0.5, "f": 1.5,
		"at": int64(1767323045123456), "day": 20455, "who": 2}
	if f.db.Exec != nil { // else there is nobody who gave the table defaults
		maps.Copy(want, cells{"n": 10, "small": 7, "hi": 50, "lo": -5, "least": 1, "x": 3.0, "f": 2.5, "at": int64(1800000000000000)})
	}
	for first := range changes {
		order := append(slices.Clone(changes[first:]), changes[:first]...)
		f.begin(4*first, order)
		for id := 4 * first; id < 4*first+4; id++ {
			f.wantRow(f.group("starts"), keys{id}, want)
		}
	}
}

// begin makes four rows of the same writes: one by one, folded, as entries of one
// key that did not fold, and folded beside a row that is refused.
func (f *fixture) begin(id int, order []cells) {
	f.Helper()
	g := f.group("starts")
	folded := cells{}
	var apart []sluice.Entry
	for _, c := range order {
		f.apply(g, f.entry(g, keys{id}, c))
		maps.Copy(folded, c)
		apart = append(apart, f.entry(g, keys{id + 2}, c))
	}
	f.apply(g, f.entry(g, keys{id + 1}, folded))
	f.apply(g, apart...)
	beside := []sluice.Entry{f.entry(g, keys{id + 3}, folded)}
	if f.db.Exec != nil {
		beside = append(beside, f.entry(g, keys{1000 + id}, cells{"title": "far too long", "n": 1}))
	}
	if r := f.apply(g, beside...); len(r.Rejected) != len(beside)-1 {
		f.Errorf("rejected %+v, want the title that is too long", r.Rejected)
	}
}

// testMissingRowAfterDelete: what was deleted begins anew, row or defaults.
func testMissingRowAfterDelete(f *fixture) {
	f.needSQL()
	f.start()
	g := f.group("starts")
	f.db.Exec(f.T, `INSERT INTO starts (id, n, hi) VALUES (1, 100, 100), (2, 100, 100)`)
	f.apply(g, f.reset(g, keys{1}, nil))
	f.apply(g, f.entry(g, keys{1}, cells{"n": 3, "hi": 9}))
	f.apply(g, f.reset(g, keys{2}, cells{"n": 3, "hi": 9}), f.reset(g, keys{3}, cells{"n": 3, "hi": 9}))
	for id := 1; id <= 3; id++ {
		f.wantRow(g, keys{id}, cells{"n": 10, "hi": 50, "title": "untitled"})
	}
}
