package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/sluice"
)

// TestWrites runs the scripts of testdata/write against the social schema with
// the clock at 2026-01-31 12:00 UTC:
//
//	json   one write in JSON in each line
//	text   one write in each line: TABLE KEY then VERB COLUMN VALUE ... or delete,
//	       or TABLE GROUP KEY event COLUMN VALUE ...
//
// The answer to each line is its entries, or its fault.
func TestWrites(t *testing.T) {
	s := mustSchema(t, social)
	datadriven.Walk(t, "testdata/write", func(t *testing.T, path string) {
		b := NewBuilder(s, clock)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			b.Names = JSONVerbs
			if d.HasArg("redis") {
				b.Names = VerbNames{"HSET", "HINCRBY", "HSET", "HSET", "PFADD", "XADD"}
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				line = strings.TrimSuffix(line, "\n")
				from := b.Len()
				var err error
				switch d.Cmd {
				case "json":
					err = b.AddJSON([]byte(line))
				case "text":
					err = addText(b, s, strings.Fields(line))
				default:
					t.Fatalf("%s: no command %s", d.Pos, d.Cmd)
				}
				if err != nil {
					e := err.(*sluice.Error)
					fmt.Fprintf(&out, "%s %s: %s\n", e.Code, e.Reason, e.Detail)
				} else {
					for _, e := range b.Entries()[from:] {
						out.WriteString(entryText(s, &e) + "\n")
					}
				}
				if err != nil && b.Len() != from {
					t.Errorf("%s: a fault left %d entries", d.Pos, b.Len()-from)
				}
			}
			return out.String()
		})
	})
}

func addText(b *Builder, s *Schema, words []string) error {
	t := s.Table([]byte(words[0]))
	next := words[2:]
	if len(words) > 3 && words[3] == "event" {
		if err := b.BeginEvent(t, []byte(strings.Trim(words[1], "-")), []byte(words[2])); err != nil {
			return err
		}
		next = words[4:]
		for ; len(next) >= 2; next = next[2:] {
			if err := b.Put(VerbAppend, []byte(next[0]), []byte(next[1])); err != nil {
				return b.End()
			}
		}
		return b.End()
	}
	if err := b.Begin(t, []byte(words[1])); err != nil {
		return err
	}
	for len(next) > 0 {
		if next[0] == "delete" {
			next = next[1:]
			_ = b.Delete()
			continue
		}
		for v, name := range JSONVerbs {
			if name == next[0] {
				_ = b.Put(Verb(v), []byte(next[1]), []byte(next[2])) // End gives the first fault again
			}
		}
		next = next[3:]
	}
	return b.End()
}

// entryText is an entry as the scripts show it.
func entryText(s *Schema, e *sluice.Entry) string {
	g := s.Group(e.Group)
	out := fmt.Sprintf("%s %s slot %d", g.FullName(), g.Table.AppendKeyJSON(nil, e.Key), e.Slot)
	if e.Reset {
		out += " reset"
	}
	for _, c := range e.Cells {
		col := g.ByID(c.Column)
		if c.Value.Kind == sluice.Hashes {
			out += fmt.Sprintf(" %s=%x", col.Name, c.Value.Bytes)
			continue
		}
		out += fmt.Sprintf(" %s=%s", col.Name, AppendJSON(nil, col.Type, c.Value))
	}
	if e.Writes != 1 {
		out += fmt.Sprintf(" writes %d", e.Writes)
	}
	return out
}

func TestNoAllocationInSteadyState(t *testing.T) {
	s := mustSchema(t, social)
	b := NewBuilder(s, clock)
	put := func(v Verb, pairs ...string) func() error {
		words := make([][]byte, len(pairs))
		for i := range pairs {
			words[i] = []byte(pairs[i])
		}
		return func() error {
			for i := 0; i < len(words); i += 2 {
				if err := b.Put(v, words[i], words[i+1]); err != nil {
					return err
				}
			}
			return b.End()
		}
	}
	text := func(table, key string, then func() error) func() error {
		t, k := s.Table([]byte(table)), []byte(key)
		return func() error {
			if err := b.Begin(t, k); err != nil {
				return err
			}
			return then()
		}
	}
	line := func(text string) func() error {
		raw := []byte(text)
		return func() error { return b.AddJSON(raw) }
	}
	posts, analytics, key, click := s.Table([]byte("posts")), []byte("analytics"), []byte("42"), put(VerbAppend, "event_type", "click")
	for name, write := range map[string]func() error{
		"text":      text("posts", "42", put(VerbAdd, "likes", "1")),
		"unique":    text("posts", "42", put(VerbUnique, "viewers", "b", "viewers", "a", "viewers", "c")),
		"composite": text("timeline", "[42,7]", put(VerbSet, "added_at", "2026-01-31T12:00:00Z")),
		"latest":    text("locations", "driver-7", put(VerbSet, "at", "2026-01-31T12:00:00Z", "lat", "1.5")),
		"delete": text("posts", "42", func() error {
			if err := b.Delete(); err != nil {
				return err
			}
			return b.End()
		}),
		"event": func() error {
			if err := b.BeginEvent(posts, analytics, key); err != nil {
				return err
			}
			return click()
		},
		"json":           line(`{"table":"posts","key":42,"add":{"likes":1}}`),
		"json set":       line(`{"table":"posts","key":42,"set":{"content":"hello","meta":{"a":1}}}`),
		"json composite": line(`{"table":"timeline","key":{"user_id":1,"post_id":2},"set":{"added_at":null}}`),
		"json several":   line(`{"table":"posts","key":42,"add":{"likes":1,"spent":0.5},"unique":{"viewers":["a","b"]},"append":{"analytics":{"event_type":"x"}}}`),
	} {
		fault := error(nil)
		allocs := testing.AllocsPerRun(200, func() {
			b.Reset(s)
			for range 10 {
				if err := write(); err != nil {
					fault = err
				}
			}
		})
		if fault != nil || b.Len() == 0 {
			t.Errorf("%s: %d entries, %v", name, b.Len(), fault)
		}
		if raceDetector && (strings.HasPrefix(name, "json") || name == "composite") {
			continue // under the race detector the pools of jsontext forget on purpose
		}
		if allocs != 0 {
			t.Errorf("%s allocates %v times in ten writes", name, allocs)
		}
	}
}

// TestS12_SkewFollowsTheClock: a time that was too far ahead is taken later.
func TestS12_SkewFollowsTheClock(t *testing.T) {
	s := mustSchema(t, social)
	now := noon
	b := NewBuilder(s, func() time.Time { return now })
	line := []byte(`{"table":"locations","key":"d","set":{"at":"2026-01-31T12:05:00Z"}}`)
	if err := b.AddJSON(line); err == nil || !strings.Contains(err.Error(), "skew_max") {
		t.Fatalf("five minutes ahead: %v", err)
	}
	now = now.Add(4 * time.Minute)
	if err := b.AddJSON(line); err != nil {
		t.Fatalf("one minute ahead: %v", err)
	}
}

func TestLimitsOfValues(t *testing.T) {
	s := mustSchema(t, "limits: {value_bytes: 64}"+social)
	b := NewBuilder(s, clock)
	if err := b.AddJSON([]byte(`{"table":"posts","key":1,"set":{"content":"` + strings.Repeat("x", 64) + `"}}`)); err != nil {
		t.Errorf("64 bytes: %v", err)
	}
	err := b.AddJSON([]byte(`{"table":"posts","key":1,"set":{"content":"` + strings.Repeat("x", 65) + `"}}`))
	if err == nil || !strings.Contains(err.Error(), "limits.value_bytes") {
		t.Errorf("65 bytes: %v", err)
	}
	nine := `["a","b","c","d","e","f","g","h","i"]`
	if err := b.AddJSON([]byte(`{"table":"posts","key":1,"unique":{"viewers":` + nine + `}}`)); err == nil || !strings.Contains(err.Error(), "more than 8 elements") {
		t.Errorf("nine elements: %v", err)
	}
	if b.Len() != 1 {
		t.Errorf("%d entries", b.Len())
	}
}

// TestUniqueElementsAcrossColumns: elements of two unique columns that take
// turns, in many orders, come out as the sorted distinct hashes of each.
func TestUniqueElementsAcrossColumns(t *testing.T) {
	s := mustSchema(t, `
stores: {s: "mem:"}
tables: {t: {key: {k: int64}, columns: {a: text unique, b: int64 unique, c: text}}}
`)
	table, rnd := s.Table([]byte("t")), rand.New(rand.NewPCG(1, 2))
	b := NewBuilder(s, clock)
	for range 200 {
		want := map[string]map[uint64]bool{"a": {}, "b": {}}
		if err := b.Begin(table, []byte("1")); err != nil {
			t.Fatal(err)
		}
		for i := range 1 + rnd.IntN(100) {
			name, text := "a", fmt.Sprint(rnd.IntN(50))
			if i%7 == rnd.IntN(7) {
				name = "b"
			}
			_, c := table.Column([]byte(name))
			v, _, _ := ParseText(nil, c.Type, []byte(text))
			want[name][HashElement(c.Type, v)] = true
			if err := b.Put(VerbUnique, []byte(name), []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.End(); err != nil {
			t.Fatal(err)
		}
		e := b.Entries()[b.Len()-1]
		for _, cell := range e.Cells {
			c := table.Groups[0].ByID(cell.Column)
			last := uint64(0)
			for i := 0; i < len(cell.Value.Bytes); i += 8 {
				h := uint64(0)
				for j := 7; j >= 0; j-- {
					h = h<<8 | uint64(cell.Value.Bytes[i+j])
				}
				if i > 0 && h <= last || !want[c.Name][h] {
					t.Fatalf("%s: hash %x after %x", c.Name, h, last)
				}
				last = h
			}
			if n := len(cell.Value.Bytes) / 8; n != len(want[c.Name]) {
				t.Fatalf("%s: %d hashes, want %d", c.Name, n, len(want[c.Name]))
			}
		}
	}
}

// TestEntriesShareNoCapacity: who appends to a key, a value or the cells of one
// entry does not change another.
func TestEntriesShareNoCapacity(t *testing.T) {
	s := mustSchema(t, social)
	b := NewBuilder(s, clock)
	for range 3 {
		if err := b.AddJSON([]byte(`{"table":"posts","key":1,"set":{"content":"abc","media":["x"],"meta":{}},"add":{"likes":1,"spent":2},"unique":{"viewers":["u","v"]}}`)); err != nil {
			t.Fatal(err)
		}
	}
	before := fmt.Sprintf("%+v", b.Entries())
	for _, e := range b.Entries() {
		_ = append(e.Key, "!!!!!!!!!"...)
		_ = append(e.Cells, sluice.Cell{Column: 99})
		for _, c := range e.Cells {
			_ = append(c.Value.Bytes, "!!!!!!!!!"...)
		}
	}
	if after := fmt.Sprintf("%+v", b.Entries()); after != before {
		t.Errorf("entries share memory:\n%s\n%s", before, after)
	}
}

func TestAddWriteIsAddJSON(t *testing.T) {
	s := mustSchema(t, social)
	a, b := NewBuilder(s, clock), NewBuilder(s, clock)
	for _, w := range []sluice.Write{
		{Table: "posts", Key: 42, Add: map[string]any{"likes": int64(1) << 60, "spent": json.Number("0.10")}, Max: map[string]any{"last": noon}},
		{Table: "posts", Key: uint32(7), Set: map[string]any{"content": "a<b", "media": []string{"x"}, "meta": map[string]any{"a": nil}, "created_at": nil}},
		{Table: "posts", Key: 7, Unique: map[string]any{"viewers": []string{"a", "b"}}, Append: map[string]map[string]any{"analytics": {"at": noon}}},
		{Table: "timeline", Key: map[string]any{"user_id": 1, "post_id": 2}, Delete: true},
		{Table: "clicks", Key: "home", Append: map[string]map[string]any{"": {"at": noon}}},
	} {
		if err := a.AddWrite(&w); err != nil {
			t.Errorf("%+v: %v", w, err)
		}
		line, _ := json.Marshal(w)
		if err := b.AddJSON(line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if !reflect.DeepEqual(a.Entries(), b.Entries()) {
		t.Errorf("%+v\n%+v", a.Entries(), b.Entries())
	}
	for _, w := range []sluice.Write{
		{Table: "posts", Key: 42, Add: map[string]any{"likes": 1.5}},
		{Table: "posts", Key: func() {}},
		{Table: "posts", Add: map[string]any{"likes": 1}},
	} {
		if err := a.AddWrite(&w); sluice.CodeOf(err) != sluice.Invalid {
			t.Errorf("%+v: %v", w, err)
		}
	}
}

// TestStepsWithoutWrite: a door that goes on after a fault gets the fault again,
// and one that forgot Begin an error, never a panic.
func TestStepsWithoutWrite(t *testing.T) {
	s := mustSchema(t, social)
	b := NewBuilder(s, clock)
	for _, err := range []error{b.Put(VerbSet, nil, nil), b.Delete(), b.End()} {
		if sluice.CodeOf(err) != sluice.Internal {
			t.Errorf("without Begin: %v", err)
		}
	}
	b.Cancel()
	posts := s.Table([]byte("posts"))
	first := b.Begin(posts, []byte("x"))
	if err := b.Put(VerbAdd, []byte("likes"), []byte("1")); err == nil || err != first {
		t.Errorf("Put after a fault: %v, want %v", err, first)
	}
	if err := b.End(); err != first || b.Len() != 0 {
		t.Errorf("End after a fault: %v, %d entries", err, b.Len())
	}
	if err := b.Begin(posts, []byte("1")); err != nil {
		t.Fatal(err)
	}
	_ = b.Put(VerbAdd, []byte("likes"), []byte("1"))
	if err := b.BeginEvent(posts, []byte("nope"), []byte("1")); err == nil {
		t.Error("an event for no group")
	}
	if err := b.End(); err == nil || b.Len() != 0 {
		t.Errorf("the write before was finished by the next one's End: %d entries", b.Len())
	}
}

// FuzzAddJSON: no line panics, a fault adds nothing, and what was added before stays.
func FuzzAddJSON(f *testing.F) {
	for _, seed := range []string{
		`{"table":"posts","key":42,"add":{"likes":1,"spent":"1.50"},"max":{"best":3},"min":{"worst":-3}}`,
		`{"table":"posts","key":{"post_id":1},"set":{"content":"\u00e9","media":["a"],"meta":{"a":[1,2,{}]},"created_at":null}}`,
		`{"table":"posts","key":[1],"unique":{"viewers":["a","b"]},"append":{"analytics":{"event_type":"x","at":"2026-01-31T12:00:00Z"}}}`,
		`{"table":"timeline","key":{"user_id":1,"post_id":2},"set":{"added_at":"2026-01-31 12:00:00"}}`,
		`{"table":"locations","key":"d","set":{"at":"2026-01-31T12:00:00Z","lat":1e-5}}`,
		`{"delete":true,"key":"x","table":"locations"}`,
		`{"table":"posts","key":1,"delete":true,"add":{"likes":1}}`,
		`{"table":"clicks","key":"p","append":{"":{"at":null}}}`,
		`{"t\u0061ble":"posts","key":4.2e1,"add":{"l\u0069kes":1e0}}`,
		`[`, `{"table":`, "\x00", `{"table":"posts","key":1,"add":{"likes":1},"add":{}}`,
	} {
		f.Add([]byte(seed))
	}
	s := mustSchema(f, social)
	good := []byte(`{"table":"posts","key":42,"set":{"content":"stays"},"add":{"likes":1}}`)
	f.Fuzz(func(t *testing.T, line []byte) {
		b := NewBuilder(s, clock)
		if err := b.AddJSON(good); err != nil {
			t.Fatal(err)
		}
		before := fmt.Sprintf("%+v", b.Entries())
		err := b.AddJSON(line)
		if after := fmt.Sprintf("%+v", b.Entries()[:2]); after != before {
			t.Fatalf("the earlier write changed:\n%s\n%s", before, after)
		}
		if (err == nil) != (b.Len() > 2) {
			t.Fatalf("%d entries with %v", b.Len(), err)
		}
		if err != nil && sluice.CodeOf(err) != sluice.Invalid {
			t.Fatalf("a fault of the server: %v", err)
		}
		for _, e := range b.Entries() {
			checkEntry(t, s, &e)
		}
	})
}

// checkEntry holds what every entry of a Builder is.
func checkEntry(t *testing.T, s *Schema, e *sluice.Entry) {
	g := s.Group(e.Group)
	slot, err := g.Table.SlotOfKey(e.Key)
	if err != nil || slot != e.Slot || e.Writes != 1 || e.Commit != 0 || len(e.Key) > keyBytesMax {
		t.Fatalf("entry %+v (%v)", e, err)
	}
	if e.Reset == (len(e.Cells) > 0) || e.Reset && g.Events {
		t.Fatalf("entry %+v neither deletes nor changes", e)
	}
	for i, c := range e.Cells {
		col := g.ByID(c.Column)
		want := col.Type.Kind
		if col.Merge == Unique {
			want = sluice.Hashes
		}
		if i > 0 && e.Cells[i-1].Column >= c.Column || c.Value.Kind != want && (c.Value.Kind != sluice.Null || col.Merge != Set) {
			t.Fatalf("cells of %+v", e)
		}
		if (c.Value.Kind == sluice.Text || c.Value.Kind == sluice.JSON) && bytes.IndexByte(c.Value.Bytes, 0) >= 0 {
			t.Fatalf("NUL in %+v", c)
		}
	}
	if g.LatestBy != nil && len(e.Cells) != len(g.Live()) && !e.Reset {
		t.Fatalf("a row of %s is not whole: %+v", g.FullName(), e)
	}
}
