package schema

import (
	"math"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"sluice.dev/sluice"
)

// TestValues: what each type takes as text (t) and as JSON (j), and how it is
// answered. An empty answer means a fault, which holds the words of fault.
func TestValues(t *testing.T) {
	for _, c := range []struct{ typ, door, in, answer, fault string }{
		{"int64", "tj", "0", "0", ""},
		{"int64", "tj", "-1", "-1", ""},
		{"int64", "tj", "1e3", "1000", ""},
		{"int64", "tj", "1.0", "1", ""},
		{"int64", "tj", "-0", "0", ""},
		{"int64", "tj", "9223372036854775807", "9223372036854775807", ""},
		{"int64", "tj", "-9.223372036854775808e18", "-9223372036854775808", ""},
		{"int64", "j", `"12"`, "12", ""},
		{"int64", "tj", "9223372036854775808", "", "whole number"},
		{"int64", "tj", "1.5", "", "whole number"},
		{"int64", "tj", "1e-1", "", "whole number"},
		{"int64", "tj", "1e999999999999", "", "whole number"},
		{"int64", "tj", "007", "", "whole number"},
		{"int64", "tj", "+1", "", "whole number"},
		{"int64", "tj", "", "", ""},
		{"int64", "tj", "true", "", "whole number"},
		{"float64", "tj", "1.5", "1.5", ""},
		{"float64", "tj", "-0", "0", ""},
		{"float64", "tj", "1e308", "1e+308", ""},
		{"float64", "tj", "1e309", "", "finite"},
		{"float64", "tj", "NaN", "", "finite"},
		{"float64", "tj", "inf", "", "finite"},
		{"float64", "tj", "0x1p4", "", "finite"},
		{"float64", "j", `"1.5"`, "", "without quotes"},
		{"decimal", "tj", "1.50", "1.5", ""},
		{"decimal", "tj", "-0.000", "0", ""},
		{"decimal", "tj", "12e3", "12000", ""},
		{"decimal", "tj", "12e-4", "0.0012", ""},
		{"decimal", "tj", "120.0e-1", "12", ""},
		{"decimal", "tj", "0.1e1", "1", ""},
		{"decimal", "j", `"99999999999999999999.99"`, "99999999999999999999.99", ""},
		{"decimal", "tj", strings.Repeat("9", 1000), strings.Repeat("9", 1000), ""},
		{"decimal", "tj", strings.Repeat("9", 1001), "", "1000 digits"},
		{"decimal", "tj", "1e999", "1" + strings.Repeat("0", 999), ""},
		{"decimal", "tj", "1e1000", "", "1000 digits"},
		{"decimal", "tj", "1e-999", "0." + strings.Repeat("0", 998) + "1", ""},
		{"decimal", "tj", "-1e-1000", "-0." + strings.Repeat("0", 999) + "1", ""},
		{"decimal", "tj", "1e-1001", "", "1000 digits"},
		{"decimal", "tj", "1e-99999999999999999999", "", "1000 digits"},
		{"decimal", "tj", ".5", "", "number like"},
		{"bool", "tj", "true", "true", ""},
		{"bool", "t", "0", "false", ""},
		{"bool", "j", "1", "", "true or false"},
		{"bool", "tj", "yes", "", "true or false"},
		{"timestamp", "t", "2026-01-31T12:30:00Z", `"2026-01-31T12:30:00.000000Z"`, ""},
		{"timestamp", "j", `"2026-01-31T12:30:00.5-05:00"`, `"2026-01-31T17:30:00.500000Z"`, ""},
		{"timestamp", "t", "2026-01-31 12:30:00.1234567", `"2026-01-31T12:30:00.123456Z"`, ""},
		{"timestamp", "t", "1969-12-31T23:59:59.999999Z", `"1969-12-31T23:59:59.999999Z"`, ""},
		{"timestamp", "t", "9999-12-31T23:59:59.999999Z", `"9999-12-31T23:59:59.999999Z"`, ""},
		{"timestamp", "t", "9999-12-31T23:59:59-01:00", "", "RFC 3339"},
		{"timestamp", "t", "0000-01-01T00:00:00Z", "", "RFC 3339"},
		{"timestamp", "t", "2026-01-31T12:30:00", "", "RFC 3339"},
		{"timestamp", "t", "2026-01-31T12:30:60Z", "", "RFC 3339"},
		{"timestamp", "t", "2026-01-31T12:30:00.Z", "", "RFC 3339"},
		{"timestamp", "t", "2026-01-31T12:30:00+0100", "", "RFC 3339"},
		{"timestamp", "tj", "1769860800", "", "RFC 3339"},
		{"date", "t", "2024-02-29", `"2024-02-29"`, ""},
		{"date", "j", `"1969-12-31"`, `"1969-12-31"`, ""},
		{"date", "t", "2023-02-29", "", "2026-01-31"},
		{"date", "t", "2026-1-31", "", "2026-01-31"},
		{"uuid", "t", "0198C7BA-7F00-7000-8000-0000000000FF", `"0198c7ba-7f00-7000-8000-0000000000ff"`, ""},
		{"uuid", "t", "0198c7ba-7f00-7000-8000-0000000000fg", "", "write it like"},
		{"uuid", "t", "0198c7ba_7f00_7000_8000_0000000000ff", "", "write it like"},
		{"text", "t", `a"b`, `"a\"b"`, ""},
		{"text", "j", `"\u00e9\ud83d\ude00"`, `"é😀"`, ""},
		{"text", "t", "a\x00", "", "NUL"},
		{"text", "t", "a\xff", "", "UTF-8"},
		{"text", "j", `"\ud800"`, "", "not a valid JSON string"},
		{"text", "j", `"a`, "", "not a valid JSON string"},
		{"text", "j", `1`, "", "in quotes"},
		{"bytes", "t", "\x00\xff", `"AP8="`, ""},
		{"bytes", "j", `"AP8="`, `"AP8="`, ""},
		{"bytes", "j", `"AP8"`, "", "base64"},
		{"json", "tj", ` { "a" : [ 1 , "x y" ] } `, `{"a":[1,"x y"]}`, ""},
		{"json", "tj", `1.50`, `1.50`, ""},
		{"json", "tj", `{"a":1,"a":2}`, "", "duplicate"},
		{"json", "tj", `{"a":"\u0000"}`, "", "u0000"},
		{"json", "tj", `{"a":"\\u0000"}`, `{"a":"\\u0000"}`, ""},
		{"json", "tj", `{"a":1e2000}`, "", "1000 digits"},
		{"json", "tj", `{"a":`, "", "not valid JSON"},
		{"json", "tj", strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 64) + strings.Repeat("]", 64), ""},
		{"json", "tj", strings.Repeat("[", 65) + strings.Repeat("]", 65), "", "deeper than 64"},
		{"text[]", "tj", `[ "a", "b\"]" ]`, `["a","b\"]"]`, ""},
		{"text[]", "tj", `[]`, `[]`, ""},
		{"text[]", "tj", `["a",1]`, "", "array of strings"},
		{"text[]", "tj", `["a",null]`, "", "array of strings"},
		{"text[]", "tj", `"a"`, "", "array of strings"},
		{"text[]", "tj", `["\u0000"]`, "", "u0000"},
		{"native(inet)", "t", "10.0.0.1", `"10.0.0.1"`, ""},
		{"native(inet)", "j", `"10.0.0.1"`, `"10.0.0.1"`, ""},
		{"native(int4)", "j", `7`, `"7"`, ""},
		{"native(int4)", "j", `[7]`, "", "in quotes"},
	} {
		typ, ok := typeOf(c.typ)
		if !ok {
			t.Fatalf("no type %s", c.typ)
		}
		for _, door := range c.door {
			parse := ParseText
			if door == 'j' {
				parse = ParseJSON
			}
			v, arena, err := parse([]byte("kept"), typ, []byte(c.in))
			if c.answer == "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) || sluice.CodeOf(err) != sluice.Invalid {
					t.Errorf("%s %c %.60q: %v %v, want a fault with %q", c.typ, door, c.in, v, err, c.fault)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s %c %.60q: %v", c.typ, door, c.in, err)
				continue
			}
			if got := string(AppendJSON(nil, typ, v)); got != c.answer {
				t.Errorf("%s %c %.60q: %s, want %s", c.typ, door, c.in, got, c.answer)
			}
			if string(arena[:4]) != "kept" || string(arena[4:]) != string(v.Bytes) || v.Kind != typ.Kind {
				t.Errorf("%s %c %.60q: arena %q, value %+v", c.typ, door, c.in, arena, v)
			}
		}
	}
}

func TestNullIsNull(t *testing.T) {
	for _, kind := range typeNames {
		v, _, err := ParseJSON(nil, Type{Kind: kind}, []byte("null"))
		if err != nil || v.Kind != sluice.Null || string(AppendJSON(nil, Type{Kind: kind}, v)) != "null" {
			t.Errorf("%v: %v %v", Type{Kind: kind}, v, err)
		}
	}
}

// FuzzParseValue: every type answers any bytes with a value that it reads back
// as the same value, or with a fault.
func FuzzParseValue(f *testing.F) {
	for _, seed := range []string{"1", "-1.50e-3", `"a\n"`, `{"a":[1,"\u0000"]}`, "2026-01-31 12:30:00.5+01", `["a"]`, "true", "AP8=", "0198c7ba7f00700080000000000000ff", "\xff\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, kind := range typeNames {
			typ := Type{Kind: kind}
			for _, parse := range []func([]byte, Type, []byte) (sluice.Value, []byte, error){ParseText, ParseJSON} {
				v, _, err := parse(nil, typ, in)
				if err != nil {
					if sluice.CodeOf(err) != sluice.Invalid {
						t.Fatalf("%v %q: %v", typ, in, err)
					}
					continue
				}
				again, _, err := ParseJSON(nil, typ, AppendJSON(nil, typ, v))
				if err != nil || again.Kind != v.Kind || again.Num != v.Num || string(again.Bytes) != string(v.Bytes) {
					t.Fatalf("%v %q: %+v came back as %+v (%v)", typ, in, v, again, err)
				}
			}
		}
	})
}

// TestHashElementIsFixed: the hashes are in journals, so they never change.
func TestHashElementIsFixed(t *testing.T) {
	seen := map[uint64]string{}
	for _, c := range []struct {
		typ, in string
		want    uint64
	}{
		{"text", "alice", 0x726eaffb12a2269c},
		{"text", "", 0xa96c7f0ce858bbb7},
		{"int64", "42", 0xee536f9035b71091},
		{"int64", "0", 0xa2443c71157cb676},
		{"bool", "0", 0x78e4ab900e95271},
		{"bytes", "alice", 0xd84fdb4d4ff1f924},
		{"decimal", "42", 0x746f7fc43effbaac},
		{"float64", "42", 0x40102b0ebccc7e2f},
	} {
		typ, _ := typeOf(c.typ)
		v, _, err := ParseText(nil, typ, []byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		got := HashElement(typ, v)
		if got != c.want {
			t.Errorf("HashElement(%s %q) = %#x, want %#x", c.typ, c.in, got, c.want)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%s %q hashes as %s", c.typ, c.in, other)
		}
		seen[got] = c.typ + " " + c.in
	}
	if got, want := HashElement(Type{Kind: sluice.Text}, sluice.TextValue("alice")), xxhash.Sum64String("\x07alice"); got != want {
		t.Errorf("the hash of text is %#x, not xxhash64 of its kind and bytes, %#x", got, want)
	}
	if HashElement(Type{Kind: sluice.Text}, sluice.Value{Kind: sluice.Text}) != HashElement(Type{Kind: sluice.Text}, sluice.TextValue("")) {
		t.Error("nil and empty text differ")
	}
	if v, _, _ := ParseText(nil, Type{Kind: sluice.Float64}, []byte("-0")); v.Num != int64(math.Float64bits(0)) {
		t.Error("-0 and 0 are two elements")
	}
}
