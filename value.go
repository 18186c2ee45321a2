package sluice

// Kind says how a Value is held. The numbers are part of the journal's format.
type Kind uint8

// The kinds, with the field of Value that holds them.
const (
	Null      Kind = 0
	Int64     Kind = 1  // Num
	Float64   Kind = 2  // Num: math.Float64bits; never NaN or an infinity
	Decimal   Kind = 3  // Bytes: canonical text, `-?digits[.digits]` without trailing zeros, exponent or -0
	Bool      Kind = 4  // Num: 0 or 1
	Timestamp Kind = 5  // Num: microseconds since 1970-01-01 UTC
	Date      Kind = 6  // Num: days since 1970-01-01
	Text      Kind = 7  // Bytes: UTF-8 without NUL
	UUID      Kind = 8  // Bytes: 16 bytes
	JSON      Kind = 9  // Bytes: valid JSON as the client wrote it, white space removed
	Bytes     Kind = 10 // Bytes
	TextArray Kind = 11 // Bytes: a JSON array of strings
	Native    Kind = 12 // Bytes: text that the database itself parses
	Hashes    Kind = 13 // Bytes: 8-byte little-endian element hashes, sorted, distinct (a small `unique` delta)
	Sketch    Kind = 14 // Bytes: a HyperLogLog sketch (a large `unique` delta)
)

// Value is one typed value. It is small and holds no pointer but Bytes, so that
// millions of them cost the garbage collector little.
type Value struct {
	Kind  Kind
	Num   int64
	Bytes []byte
}

// IntValue, TextValue and friends make values for tests and for callers that
// already hold the Go type; parsing of client input lives in schema.
func IntValue(n int64) Value { return Value{Kind: Int64, Num: n} }

// TextValue makes a Text value that shares no memory with s's owner.
func TextValue(s string) Value { return Value{Kind: Text, Bytes: []byte(s)} }
