package schema

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice"
)

// TestS7_SlotIsRedisClusterKeyslot: the vectors are those of the Redis Cluster
// specification and of CLUSTER KEYSLOT.
func TestS7_SlotIsRedisClusterKeyslot(t *testing.T) {
	for key, want := range map[string]uint16{
		"123456789": 0x31C3, // the check value of CRC16/XMODEM, below 16384
		"foo":       12182,
		"bar":       5061,
		"hello":     866,
		"42":        8000,
		"":          0,
	} {
		if got := SlotOf([]byte(key)); got != want {
			t.Errorf("SlotOf(%q) = %d, want %d", key, got, want)
		}
	}
	for key, tag := range map[string]string{
		"{user1000}.following": "user1000",
		"foo{bar}{zap}":        "bar",
		"foo{{bar}}zap":        "{bar",
	} {
		if SlotOf([]byte(key)) != SlotOf([]byte(tag)) {
			t.Errorf("the hash tag of %q is not %q", key, tag)
		}
	}
	whole := "foo{}{bar}"
	if SlotOf([]byte(whole)) == SlotOf([]byte("bar")) {
		t.Errorf("an empty hash tag of %q was skipped", whole)
	}
}

const keyed = `
stores: {s: "mem:"}
tables:
  int:   {key: {k: int64}, columns: {n: int64}}
  text:  {key: {k: text}, columns: {n: int64}}
  dec:   {key: {k: decimal}, columns: {n: int64}}
  flag:  {key: {k: bool}, columns: {n: int64}}
  time:  {key: {k: timestamp}, columns: {n: int64}}
  day:   {key: {k: date}, columns: {n: int64}}
  id:    {key: {k: uuid}, columns: {n: int64}}
  raw:   {key: {k: bytes}, columns: {n: int64}}
  pair:  {key: {user: int64, name: text}, columns: {n: int64}}
  by:    {key: {user: int64, name: text}, partition_by: user, columns: {n: int64}}
  swap:  {key: {user: int64, name: text}, partition_by: [name, user], columns: {n: int64}}
`

// TestS7_OneKeyOneSlot: however a key is written, and through whichever door,
// its bytes and its slot are the same.
func TestS7_OneKeyOneSlot(t *testing.T) {
	s := mustSchema(t, keyed)
	for _, c := range []struct {
		table, canonical string
		texts, jsons     []string
		answer           string
	}{
		{"int", "42", []string{"42", "42.0", "4.2e1"}, []string{"42", "42.0", "4.2e1", `"42"`, `{"k":42}`, "[42]", " 42 "}, "42"},
		{"int", "-9223372036854775808", []string{"-9223372036854775808"}, []string{"-9223372036854775808"}, "-9223372036854775808"},
		{"text", "a b", []string{"a b"}, []string{`"a b"`, `"\u0061 b"`, `{"k":"a b"}`}, `"a b"`},
		{"text", "{u}x", []string{"{u}x"}, []string{`"{u}x"`}, `"{u}x"`},
		{"text", "", []string{""}, []string{`""`}, `""`},
		{"dec", "1", []string{"1.00", "1", "0.1e1", "10e-1"}, []string{"1.0", `"1.00"`, "1e0"}, "1"},
		{"dec", "0", []string{"-0.0", "0e5"}, []string{"-0", "0.000"}, "0"},
		{"dec", "-12.5", []string{"-12.50"}, []string{"-1.25e1"}, "-12.5"},
		{"flag", "true", []string{"true", "1"}, []string{"true"}, "true"},
		{"time", "2026-01-31T11:30:00.123456Z",
			[]string{"2026-01-31T11:30:00.123456Z", "2026-01-31 11:30:00.123456", "2026-01-31 12:30:00.1234569+01"},
			[]string{`"2026-01-31T12:30:00.123456+01:00"`, `"2026-01-31t11:30:00.123456999z"`}, `"2026-01-31T11:30:00.123456Z"`},
		{"day", "0001-01-01", []string{"0001-01-01"}, []string{`"0001-01-01"`}, `"0001-01-01"`},
		{"id", "0198c7ba-7f00-7000-8000-0000000000ff", []string{"0198C7BA-7F00-7000-8000-0000000000FF", "0198c7ba7f00700080000000000000ff"},
			[]string{`"0198c7ba-7f00-7000-8000-0000000000ff"`}, `"0198c7ba-7f00-7000-8000-0000000000ff"`},
		{"raw", "\x00\xff", []string{"\x00\xff"}, []string{`"AP8="`}, `"AP8="`},
		{"pair", "7:x", []string{`[7,"x"]`, `{"name":"x","user":7}`}, []string{`[7,"x"]`, ` {"name" : "x", "user":7.0}`}, `{"user":7,"name":"x"}`},
		{"by", "7", []string{`[7,"x"]`}, []string{`[7,"x"]`}, `{"user":7,"name":"x"}`},
		{"swap", "x:7", []string{`[7,"x"]`}, []string{`[7,"x"]`}, `{"user":7,"name":"x"}`},
	} {
		table := s.Table([]byte(c.table))
		var first []byte
		check := func(key []byte, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s %q: %v", c.table, c.canonical, err)
				return
			}
			if key = key[1:]; first == nil {
				first = key
			}
			slot, err := table.SlotOfKey(key)
			if err != nil || slot != SlotOf([]byte(c.canonical)) || !bytes.Equal(key, first) {
				t.Errorf("%s %q: key %x slot %d (%v), want %x slot %d", c.table, c.canonical, key, slot, err, first, SlotOf([]byte(c.canonical)))
			}
			if got := string(table.AppendKeyJSON(nil, key)); got != c.answer {
				t.Errorf("%s %q: AppendKeyJSON = %s, want %s", c.table, c.canonical, got, c.answer)
			}
		}
		for _, text := range c.texts {
			check(table.KeyFromText([]byte{'!'}, []byte(text)))
		}
		for _, raw := range c.jsons {
			check(table.KeyFromJSON([]byte{'!'}, []byte(raw)))
		}
	}
}

func TestBadKeys(t *testing.T) {
	s := mustSchema(t, keyed)
	long := strings.Repeat("x", keyBytesMax)
	for _, c := range []struct{ table, json, want string }{
		{"int", `"a"`, "whole number"},
		{"int", `9223372036854775808`, "whole number"},
		{"int", `1.5`, "whole number"},
		{"int", `null`, "is null"},
		{"int", `[1,2]`, "has 1 columns, not 2"},
		{"int", `{"k":1,"j":2}`, "no column \"j\""},
		{"int", `{}`, "lacks its column k"},
		{"int", `1 2`, "not valid JSON"},
		{"int", ``, "not valid JSON"},
		{"int", `{"k":1,"k":2}`, "duplicate"},
		{"text", `42`, "in quotes"},
		{"text", `"a\u0000b"`, "NUL"},
		{"text", `"` + long + `"`, "the limit is 1024"},
		{"text", "\"\xff\"", "not valid JSON"},
		{"dec", `1e1000`, "1000 digits"},
		{"flag", `1`, "true or false"},
		{"time", `1769860800`, "RFC 3339"},
		{"time", `"2026-02-30T00:00:00Z"`, "RFC 3339"},
		{"id", `"0198c7ba"`, "0198c7ba-7f00"},
		{"raw", `"?"`, "base64"},
		{"pair", `7`, "[user,name]"},
		{"pair", `[7]`, "[user,name]"},
		{"pair", `{"user":7}`, "lacks its column name"},
	} {
		key, err := s.Table([]byte(c.table)).KeyFromJSON([]byte("kept"), []byte(c.json))
		if err == nil || !strings.Contains(err.Error(), c.want) || sluice.CodeOf(err) != sluice.Invalid {
			t.Errorf("%s %.60s: %v, want %q", c.table, c.json, err, c.want)
		}
		if string(key) != "kept" {
			t.Errorf("%s %.60s: a fault left %q", c.table, c.json, key)
		}
	}
}

func TestDamagedKeysAreFaults(t *testing.T) {
	s := mustSchema(t, keyed)
	for table, keys := range map[string][]string{
		"int": {"", "1234567", "123456789"}, "text": {"abc", "", "a\x00b\x00"}, "flag": {"\x02", ""}, "id": {"short"},
		"raw": {"a", "a\x00", "a\x00\x02", "a\x00\xff"}, "pair": {"12345678", "12345678a"},
	} {
		for _, key := range keys {
			if _, err := s.Table([]byte(table)).DecodeKey([]byte(key), nil); err == nil {
				t.Errorf("%s: %q was decoded", table, key)
			}
			if _, err := s.Table([]byte(table)).SlotOfKey([]byte(key)); err == nil {
				t.Errorf("%s: %q has a slot", table, key)
			}
		}
	}
}

// compareKeys is the order of the types, written anew for the test.
func compareKeys(a, b []sluice.Value) int {
	return slices.CompareFunc(a, b, func(x, y sluice.Value) int {
		if x.Bytes != nil || y.Bytes != nil {
			return bytes.Compare(x.Bytes, y.Bytes)
		}
		switch {
		case x.Num < y.Num:
			return -1
		case x.Num > y.Num:
			return 1
		}
		return 0
	})
}

func FuzzKeyCodec(f *testing.F) {
	f.Add(int64(1), "a", []byte{0}, int64(2), "a\x01", []byte{0, 1})
	f.Add(int64(-1), "", []byte{0, 0xff}, int64(math.MinInt64), "ab", []byte{})
	f.Add(int64(math.MaxInt64), "b", []byte{0xff, 0, 0}, int64(0), "b", []byte{0xff, 0})
	s := mustSchema(f, `
stores: {s: "mem:"}
tables: {t: {key: {b: bytes, n: int64, s: text, f: bool}, columns: {n1: int64}}}
`)
	t := s.Table([]byte("t"))
	key := func(n int64, s string, b []byte) []sluice.Value {
		if b == nil {
			b = []byte{}
		}
		return []sluice.Value{{Kind: sluice.Bytes, Bytes: b}, {Kind: sluice.Int64, Num: n}, {Kind: sluice.Text, Bytes: []byte(s)}, {Kind: sluice.Bool, Num: n & 1}}
	}
	f.Fuzz(func(tt *testing.T, n1 int64, s1 string, b1 []byte, n2 int64, s2 string, b2 []byte) {
		if strings.ContainsRune(s1+s2, 0) {
			return
		}
		k1, k2 := key(n1, s1, b1), key(n2, s2, b2)
		e1, err1 := t.AppendKey(nil, k1)
		e2, err2 := t.AppendKey(nil, k2)
		if err1 != nil || err2 != nil {
			return // too long
		}
		back, err := t.DecodeKey(e1, nil)
		if err != nil || compareKeys(back, k1) != 0 {
			tt.Fatalf("%v came back as %v (%v)", k1, back, err)
		}
		if got, want := bytes.Compare(e1, e2), compareKeys(k1, k2); got != want {
			tt.Fatalf("order of %v and %v is %d, want %d", k1, k2, got, want)
		}
	})
}

// FuzzDecodeKey: bytes that are no key give a fault, never a panic, and what
// decodes encodes to the same bytes.
func FuzzDecodeKey(f *testing.F) {
	s := mustSchema(f, `
stores: {s: "mem:"}
tables: {t: {key: {s: text, b: bytes, u: uuid, d: date, o: bool}, columns: {n: int64}}}
`)
	t := s.Table([]byte("t"))
	f.Add([]byte("a\x00b\x00\xffc\x00\x010123456789abcdef\x80\x00\x00\x00\x00\x00\x00\x01\x01"))
	f.Fuzz(func(tt *testing.T, key []byte) {
		values, err := t.DecodeKey(key, nil)
		if err != nil {
			return
		}
		again, err := t.AppendKey(nil, values)
		if err != nil && len(key) <= keyBytesMax || err == nil && !bytes.Equal(again, key) {
			tt.Fatalf("%x came back as %x (%v)", key, again, err)
		}
		t.AppendKeyJSON(nil, key)
	})
}
