package schema

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json/jsontext"

	"sluice.dev/sluice"
)

func badValue(format string, args ...any) error {
	return sluice.Errorf(sluice.Invalid, "bad_value", format, args...)
}

// ParseText reads a value as RESP and the command line write it. Its Bytes, if
// it has any, are appended to dst, which is given back.
func ParseText(dst []byte, t Type, text []byte) (sluice.Value, []byte, error) {
	switch t.Kind {
	case sluice.Text, sluice.Native:
		if err := checkText(text); err != nil {
			return sluice.Value{}, dst, err
		}
		return bytesValue(t.Kind, append(dst, text...), len(dst))
	case sluice.Bytes:
		return bytesValue(t.Kind, append(dst, text...), len(dst))
	case sluice.JSON, sluice.TextArray:
		return parseDocument(dst, t.Kind, text)
	case sluice.Bool:
		switch string(text) {
		case "true", "1":
			return sluice.Value{Kind: sluice.Bool, Num: 1}, dst, nil
		case "false", "0":
			return sluice.Value{Kind: sluice.Bool}, dst, nil
		}
		return sluice.Value{}, dst, badValue("%.40q is not a bool; write true or false", text)
	}
	return parseScalar(dst, t.Kind, text)
}

// ParseJSON reads a value as JSON writes it. null is the Null value of every
// type; whether the column may be null is the caller's to know.
func ParseJSON(dst []byte, t Type, raw []byte) (sluice.Value, []byte, error) {
	if string(raw) == "null" {
		return sluice.Value{}, dst, nil
	}
	if len(raw) == 0 {
		return sluice.Value{}, dst, badValue("no value; write JSON")
	}
	quoted := raw[0] == '"'
	switch t.Kind {
	case sluice.JSON, sluice.TextArray:
		return parseDocument(dst, t.Kind, raw)
	case sluice.Bool:
		if s := string(raw); s != "true" && s != "false" {
			return sluice.Value{}, dst, badValue("%.40s is not a bool; write true or false", raw)
		}
		return ParseText(dst, t, raw)
	case sluice.Text:
		if !quoted {
			return sluice.Value{}, dst, badValue("%.40s is not text; write it in quotes", raw)
		}
		return unquoteText(dst, t.Kind, raw)
	case sluice.Native:
		if quoted {
			return unquoteText(dst, t.Kind, raw)
		}
		if raw[0] == '{' || raw[0] == '[' {
			return sluice.Value{}, dst, badValue("%.40s is not text; write what the database shall parse in quotes", raw)
		}
		return ParseText(dst, t, raw)
	case sluice.Bytes:
		return parseBase64(dst, raw)
	case sluice.Float64:
		if quoted {
			return sluice.Value{}, dst, badValue("%.40s is not a number; write it without quotes", raw)
		}
		return parseScalar(dst, t.Kind, raw)
	case sluice.Int64, sluice.Decimal: // also quoted: a JavaScript number holds only 53 bits
	default:
		if !quoted {
			return sluice.Value{}, dst, badValue("%.40s is not %s; %s, in quotes", raw, t.article(), cureOf(t.Kind))
		}
	}
	text, err := unquoted(raw)
	if err != nil {
		return sluice.Value{}, dst, err
	}
	return parseScalar(dst, t.Kind, text)
}

func cureOf(kind sluice.Kind) string {
	switch kind {
	case sluice.Int64:
		return "write a whole number from -9223372036854775808 to 9223372036854775807"
	case sluice.Float64:
		return "write a finite number like -1.5 or 2e9"
	case sluice.Decimal:
		return "write a number like -12.50, of at most " + strconv.Itoa(decimalDigitsMax) + " digits"
	case sluice.Timestamp:
		return timestampCure
	case sluice.Date:
		return dateCure
	case sluice.UUID:
		return "write it like 0198c7ba-7f00-7000-8000-000000000000"
	}
	return "see the list of types in the manual"
}

// parseScalar reads the kinds whose text is the same in JSON, between quotes or not.
func parseScalar(dst []byte, kind sluice.Kind, text []byte) (sluice.Value, []byte, error) {
	v, ok := sluice.Value{Kind: kind}, false
	switch kind {
	case sluice.Int64:
		v.Num, ok = parseInt(text)
	case sluice.Float64:
		v.Num, ok = parseFloat(text)
	case sluice.Timestamp:
		v.Num, ok = parseTimestamp(text)
	case sluice.Date:
		v.Num, ok = parseDate(text)
	case sluice.UUID:
		from := len(dst)
		if dst, ok = appendUUID(dst, text); ok {
			return bytesValue(kind, dst, from)
		}
	case sluice.Decimal:
		from := len(dst)
		var n number
		if n, ok = parseNumber(text); ok {
			if dst, ok = n.appendDecimal(dst); ok {
				return bytesValue(kind, dst, from)
			}
		}
	}
	if !ok {
		return sluice.Value{}, dst, badValue("%.60q is not %s; %s", text, Type{Kind: kind}.article(), cureOf(kind))
	}
	return v, dst, nil
}

// bytesValue is the value whose bytes are what dst holds since from. Capacity is
// cut, so that nobody who appends to a value writes into its neighbour.
func bytesValue(kind sluice.Kind, dst []byte, from int) (sluice.Value, []byte, error) {
	return sluice.Value{Kind: kind, Bytes: dst[from:len(dst):len(dst)]}, dst, nil
}

func checkText(text []byte) error {
	if !utf8.Valid(text) {
		return badValue("text is not valid UTF-8; send UTF-8, or declare the column as bytes")
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return badValue("text holds a NUL character, which databases cannot keep; remove it, or declare the column as bytes")
	}
	return nil
}

func unquoteText(dst []byte, kind sluice.Kind, raw []byte) (sluice.Value, []byte, error) {
	from := len(dst)
	out, err := jsontext.AppendUnquote(dst, raw)
	if err != nil {
		return sluice.Value{}, dst, badValue("not a valid JSON string: %v", err)
	}
	if err := checkText(out[from:]); err != nil {
		return sluice.Value{}, dst, err
	}
	return bytesValue(kind, out, from)
}

// unquoted is the content of a JSON string, or raw itself when it is none.
func unquoted(raw []byte) ([]byte, error) {
	if raw[0] != '"' {
		return raw, nil
	}
	if len(raw) >= 2 && raw[len(raw)-1] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	out, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return nil, badValue("not a valid JSON string: %v", err)
	}
	return out, nil
}

func parseBase64(dst, raw []byte) (sluice.Value, []byte, error) {
	if raw[0] != '"' {
		return sluice.Value{}, dst, badValue("%.40s is not bytes; write base64 in quotes", raw)
	}
	text, err := unquoted(raw)
	if err != nil {
		return sluice.Value{}, dst, err
	}
	from := len(dst)
	out, err := base64.StdEncoding.AppendDecode(dst, text)
	if err != nil {
		return sluice.Value{}, dst, badValue("bytes are not valid base64 (%v); use the standard alphabet with padding", err)
	}
	return bytesValue(sluice.Bytes, out, from)
}

// parseFloat reads a finite number as its bits. -0 becomes 0, so that equal
// values have equal bits.
func parseFloat(text []byte) (bits int64, ok bool) {
	if _, ok := parseNumber(text); !ok { // ParseFloat alone would take inf, nan, 0x1p4 and 1_000
		return 0, false
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0, false
	}
	if f == 0 {
		f = 0
	}
	return int64(math.Float64bits(f)), true
}

// appendUUID reads a UUID with or without hyphens, in either case.
func appendUUID(dst, text []byte) ([]byte, bool) {
	var hexes [32]byte
	switch {
	case len(text) == 32:
		copy(hexes[:], text)
	case len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-':
		copy(hexes[:], text[:8])
		copy(hexes[8:], text[9:13])
		copy(hexes[12:], text[14:18])
		copy(hexes[16:], text[19:23])
		copy(hexes[20:], text[24:])
	default:
		return dst, false
	}
	var id [16]byte
	if _, err := hex.Decode(id[:], hexes[:]); err != nil {
		return dst, false
	}
	return append(dst, id[:]...), true
}

func appendUUIDText(dst, id []byte) []byte {
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, "0123456789abcdef"[b>>4], "0123456789abcdef"[b&15])
	}
	return dst
}

// AppendJSON appends a value as JSON. Numbers of every size are JSON numbers,
// as PostgreSQL's to_json writes them; a unique column's delta is only counted,
// since its elements are not kept.
func AppendJSON(dst []byte, _ Type, v sluice.Value) []byte {
	switch v.Kind {
	case sluice.Int64:
		return strconv.AppendInt(dst, v.Num, 10)
	case sluice.Float64:
		return jsontext.AppendFloat(dst, math.Float64frombits(uint64(v.Num)), 64)
	case sluice.Bool:
		return strconv.AppendBool(dst, v.Num != 0)
	case sluice.Timestamp:
		return append(appendTimestamp(append(dst, '"'), v.Num), '"')
	case sluice.Date:
		return append(appendDate(append(dst, '"'), v.Num), '"')
	case sluice.UUID:
		return append(appendUUIDText(append(dst, '"'), v.Bytes), '"')
	case sluice.Bytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v.Bytes), '"')
	case sluice.Decimal, sluice.JSON, sluice.TextArray:
		return append(dst, v.Bytes...)
	case sluice.Text, sluice.Native:
		out, err := jsontext.AppendQuote(dst, v.Bytes)
		if err != nil { // not UTF-8: only a database's own value can be so; the invalid bytes came out as U+FFFD
			return out
		}
		return out
	case sluice.Hashes:
		return append(strconv.AppendInt(append(dst, `{"elements":`...), int64(len(v.Bytes)/8), 10), '}')
	case sluice.Sketch:
		return append(strconv.AppendInt(append(dst, `{"sketch_bytes":`...), int64(len(v.Bytes)), 10), '}')
	}
	return append(dst, "null"...)
}

// HashElement is an element of a unique column in 8 bytes: xxhash64 of its kind
// and its canonical form. It is part of the journal's format.
func HashElement(t Type, v sluice.Value) uint64 {
	var fixed [9]byte
	fixed[0] = byte(t.Kind)
	var d xxhash.Digest
	d.Reset()
	if v.Bytes != nil {
		d.Write(fixed[:1])
		d.Write(v.Bytes)
		return d.Sum64()
	}
	binary.LittleEndian.PutUint64(fixed[1:], uint64(v.Num))
	if v.Kind == sluice.Text || v.Kind == sluice.Bytes {
		d.Write(fixed[:1]) // nil and empty bytes are one element
	} else {
		d.Write(fixed[:])
	}
	return d.Sum64()
}
