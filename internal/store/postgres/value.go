package postgres

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"sluice.dev/sluice"
)

// Type ids of PostgreSQL, fixed for ever.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidJSON        = 114
	oidFloat8      = 701
	oidDate        = 1082
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidUUID        = 2950
	oidJSONB       = 3802
)

var typeNames = map[uint32]string{
	oidBool: "boolean", oidBytea: "bytea", oidInt8: "bigint", oidInt2: "smallint", oidInt4: "integer", oidText: "text", oidJSON: "json",
	oidFloat8: "double precision", oidDate: "date", oidTimestamptz: "timestamp with time zone", oidNumeric: "numeric", oidUUID: "uuid", oidJSONB: "jsonb",
}

// Days and microseconds from 1970 to 2000, where PostgreSQL counts from.
const (
	epochDays   = 10957
	epochMicros = epochDays * 86400 * 1000000
)

// wireOf is the type in which a value of this kind travels.
func wireOf(kind sluice.Kind) uint32 {
	switch kind {
	case sluice.Int64:
		return oidInt8
	case sluice.Float64:
		return oidFloat8
	case sluice.Decimal:
		return oidNumeric
	case sluice.Bool:
		return oidBool
	case sluice.Timestamp:
		return oidTimestamptz
	case sluice.Date:
		return oidDate
	case sluice.UUID:
		return oidUUID
	case sluice.JSON:
		return oidJSONB
	case sluice.Bytes:
		return oidBytea
	}
	return oidText // also text[] and native types: as text that the database parses
}

// typeOf is the type of a column of Sluice's own tables.
func typeOf(kind sluice.Kind, native string) string {
	switch kind {
	case sluice.TextArray:
		return "text[]"
	case sluice.Native:
		return native
	}
	return typeNames[wireOf(kind)]
}

// appendNull and appendValue write a value as arrays, parameters and COPY all
// hold it in binary form: four bytes of length, then the bytes.
func appendNull(dst []byte) []byte { return append(dst, 0xff, 0xff, 0xff, 0xff) }

func appendInt8(dst []byte, n int64) []byte {
	dst = append(dst, 0, 0, 0, 8)
	return binary.BigEndian.AppendUint64(dst, uint64(n))
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// appendValue: wire decides the form; direct says that the value goes into its
// column by COPY and not through a cast.
func appendValue(dst []byte, wire uint32, v sluice.Value, direct bool) ([]byte, error) {
	switch v.Kind {
	case sluice.Null:
		return appendNull(dst), nil
	case sluice.Int64, sluice.Float64:
		if wire == oidNumeric {
			return appendNumeric(dst, fmt.Appendf(nil, "%d", v.Num))
		}
		return appendInt8(dst, v.Num), nil
	case sluice.Timestamp:
		return appendInt8(dst, v.Num-epochMicros), nil
	case sluice.Date:
		dst = append(dst, 0, 0, 0, 4)
		return binary.BigEndian.AppendUint32(dst, uint32(int32(v.Num-epochDays))), nil
	case sluice.Bool:
		return append(dst, 0, 0, 0, 1, byte(v.Num)), nil
	case sluice.Decimal:
		return appendNumeric(dst, v.Bytes)
	case sluice.JSON:
		if wire == oidJSONB {
			dst = binary.BigEndian.AppendUint32(dst, uint32(len(v.Bytes)+1))
			return append(append(dst, 1), v.Bytes...), nil
		}
	case sluice.TextArray:
		return appendTextArray(dst, v.Bytes, direct)
	case sluice.Text, sluice.UUID, sluice.Bytes, sluice.Native:
	default:
		return nil, fmt.Errorf("a value of kind %d has no column here", v.Kind)
	}
	return appendBytes(dst, v.Bytes), nil
}

// appendNumeric writes a decimal, whose text is canonical, as numeric: digits
// to the base 10,000, the weight of the first one, sign and scale.
func appendNumeric(dst, text []byte) ([]byte, error) {
	sign := uint16(0)
	if len(text) > 0 && text[0] == '-' {
		sign, text = 0x4000, text[1:]
	}
	whole, frac, _ := bytes.Cut(text, []byte{'.'})
	if len(whole) == 0 || len(whole) > 131072 || len(frac) > 16383 {
		return nil, fmt.Errorf("decimal %.40q is none that numeric can hold", text)
	}
	at := len(dst)
	dst = append(dst, make([]byte, 12)...)
	groups, weight := 0, (len(whole)+3)/4-1
	digit := func(i int) uint16 { // i-th decimal digit counted from the point; whole ones are negative
		switch {
		case i < 0 && -i <= len(whole):
			return uint16(whole[len(whole)+i] - '0')
		case i >= 0 && i < len(frac):
			return uint16(frac[i] - '0')
		}
		return 0
	}
	for i := -(weight + 1) * 4; i < len(frac); i += 4 {
		d := digit(i)*1000 + digit(i+1)*100 + digit(i+2)*10 + digit(i+3)
		if groups == 0 && d == 0 { // leading zeros are not stored
			weight--
			continue
		}
		dst = binary.BigEndian.AppendUint16(dst, d)
		groups++
	}
	if groups == 0 {
		weight = 0
	}
	b := dst[at:]
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	binary.BigEndian.PutUint16(b[4:], uint16(groups))
	binary.BigEndian.PutUint16(b[6:], uint16(int16(weight)))
	binary.BigEndian.PutUint16(b[8:], sign)
	binary.BigEndian.PutUint16(b[10:], uint16(len(frac)))
	return dst, nil
}

// appendTextArray turns a JSON array of strings into text[]: as a literal
// where a cast follows, since arrays of arrays do not unnest into rows.
func appendTextArray(dst, raw []byte, direct bool) ([]byte, error) {
	var items []string
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("text[] value: %w", err)
	}
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	if direct {
		dst = appendArrayHead(dst, oidText, len(items), false)
		for _, s := range items {
			dst = appendBytes(dst, []byte(s))
		}
	} else {
		dst = append(dst, '{')
		for i, s := range items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, '"')
			for j := range len(s) {
				if s[j] == '"' || s[j] == '\\' {
					dst = append(dst, '\\')
				}
				dst = append(dst, s[j])
			}
			dst = append(dst, '"')
		}
		dst = append(dst, '}')
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst, nil
}

// appendArrayHead begins an array of n elements in binary form.
func appendArrayHead(dst []byte, oid uint32, n int, nulls bool) []byte {
	dims, flags := uint32(1), uint32(0)
	if n == 0 {
		dims = 0
	}
	if nulls {
		flags = 1
	}
	dst = binary.BigEndian.AppendUint32(dst, dims)
	dst = binary.BigEndian.AppendUint32(dst, flags)
	dst = binary.BigEndian.AppendUint32(dst, oid)
	if n > 0 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(n))
		dst = binary.BigEndian.AppendUint32(dst, 1)
	}
	return dst
}

// parseValue reads a result in binary form; the statement has cast it to the
// type that resultType names. What has no value in Sluice (infinity, NaN) is Null.
func parseValue(kind sluice.Kind, b []byte) (sluice.Value, error) {
	if b == nil {
		return sluice.Value{}, nil
	}
	want, ok := map[sluice.Kind]int{sluice.Int64: 8, sluice.Float64: 8, sluice.Timestamp: 8, sluice.Date: 4, sluice.Bool: 1, sluice.UUID: 16}[kind]
	if ok && len(b) != want {
		return sluice.Value{}, fmt.Errorf("a value of kind %d has %d bytes, want %d", kind, len(b), want)
	}
	v := sluice.Value{Kind: kind}
	switch kind {
	case sluice.Int64:
		v.Num = int64(binary.BigEndian.Uint64(b))
	case sluice.Float64:
		v.Num = int64(binary.BigEndian.Uint64(b))
		if f := math.Float64frombits(uint64(v.Num)); math.IsNaN(f) || math.IsInf(f, 0) {
			return sluice.Value{}, nil
		}
	case sluice.Timestamp:
		n := int64(binary.BigEndian.Uint64(b))
		if n == math.MaxInt64 || n == math.MinInt64 {
			return sluice.Value{}, nil
		}
		v.Num = n + epochMicros
	case sluice.Date:
		n := int32(binary.BigEndian.Uint32(b))
		if n == math.MaxInt32 || n == math.MinInt32 {
			return sluice.Value{}, nil
		}
		v.Num = int64(n) + epochDays
	case sluice.Bool:
		v.Num = int64(b[0])
	case sluice.Decimal:
		if c := b[0]; c != '-' && (c < '0' || c > '9') || bytes.HasPrefix(b, []byte("-I")) {
			return sluice.Value{}, nil
		}
		v.Bytes = b
	case sluice.JSON:
		var out bytes.Buffer
		if err := json.Compact(&out, b); err != nil {
			return v, err
		}
		v.Bytes = out.Bytes()
	default:
		v.Bytes = b
	}
	return v, nil
}

// resultExpr casts a column to the form that parseValue reads.
func resultExpr(kind sluice.Kind, f *field, expr string) string {
	switch kind {
	case sluice.Decimal:
		return "trim_scale(" + expr + "::numeric)::text"
	case sluice.TextArray:
		return "to_json(" + expr + ")::text"
	case sluice.Timestamp:
		if f.typ == "timestamp without time zone" {
			return "(" + expr + " AT TIME ZONE 'UTC')"
		}
		return expr
	case sluice.Text, sluice.JSON, sluice.Native:
		return expr + "::text"
	}
	return expr + "::" + typeNames[wireOf(kind)]
}
