package schema

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"sluice.dev/sluice"
)

// Limits of keys: constants of the format.
const (
	keyBytesMax   = 1 << 10 // of the encoded key
	keyColumnsMax = 8
)

func badKey(format string, args ...any) error {
	return sluice.Errorf(sluice.Invalid, "bad_key", format, args...)
}

// AppendKey appends the encoding of a key. It is self-delimiting, two keys are
// equal when their bytes are, and bytes.Compare gives the order of the types,
// column by column (text bytewise), but for decimal.
//
//	int64, timestamp, date  8 bytes big-endian, sign bit flipped
//	bool                    1 byte
//	uuid                    16 bytes
//	text, decimal           the bytes, then 0x00 (text holds no NUL)
//	bytes                   the bytes with 0x00 as 0x00 0xFF, then 0x00 0x01
func (t *Table) AppendKey(dst []byte, key []sluice.Value) ([]byte, error) {
	if len(key) != len(t.Key) {
		return dst, badKey("a key of %s has %d columns, not %d; %s", t.Name, len(t.Key), len(key), t.keyCure())
	}
	from := len(dst)
	for i, v := range key {
		if v.Kind != t.Key[i].Type.Kind {
			return dst[:from], badKey("key column %s of %s is a %s", t.Key[i].Name, t.Name, t.Key[i].Type)
		}
		dst = appendKeyValue(dst, v)
	}
	if len(dst)-from > keyBytesMax {
		return dst[:from], badKey("key of %s takes %d bytes, the limit is %d; use a shorter key", t.Name, len(dst)-from, keyBytesMax)
	}
	return dst, nil
}

const signBit = 1 << 63

func appendKeyValue(dst []byte, v sluice.Value) []byte {
	switch v.Kind {
	case sluice.Int64, sluice.Timestamp, sluice.Date:
		return binary.BigEndian.AppendUint64(dst, uint64(v.Num)^signBit)
	case sluice.Bool:
		return append(dst, byte(v.Num))
	case sluice.UUID:
		return append(dst, v.Bytes...)
	case sluice.Bytes:
		rest := v.Bytes
		for {
			i := bytes.IndexByte(rest, 0)
			if i < 0 {
				return append(append(dst, rest...), 0, 1)
			}
			dst = append(append(dst, rest[:i]...), 0, 0xFF)
			rest = rest[i+1:]
		}
	}
	return append(append(dst, v.Bytes...), 0)
}

// DecodeKey appends the values of an encoded key to dst. Their Bytes point into key.
func (t *Table) DecodeKey(key []byte, dst []sluice.Value) ([]sluice.Value, error) {
	rest := key
	for i := range t.Key {
		v, next, ok := cutKeyValue(t.Key[i].Type.Kind, rest)
		if !ok {
			return dst, badKey("key %x of %s is damaged at its column %s; it was not made for this table", key, t.Name, t.Key[i].Name)
		}
		dst, rest = append(dst, v), next
	}
	if len(rest) > 0 {
		return dst, badKey("key %x of %s has %d bytes too many; it was not made for this table", key, t.Name, len(rest))
	}
	return dst, nil
}

func cutKeyValue(kind sluice.Kind, key []byte) (v sluice.Value, rest []byte, ok bool) {
	v.Kind = kind
	n := 0
	switch kind {
	case sluice.Int64, sluice.Timestamp, sluice.Date:
		if n = 8; len(key) >= n {
			v.Num = int64(binary.BigEndian.Uint64(key) ^ signBit)
		}
	case sluice.Bool:
		if n = 1; len(key) >= n {
			if v.Num = int64(key[0]); v.Num > 1 {
				return v, nil, false
			}
		}
	case sluice.UUID:
		if n = 16; len(key) >= n {
			v.Bytes = key[:n:n]
		}
	case sluice.Bytes:
		return cutKeyBytes(key)
	default:
		end := bytes.IndexByte(key, 0)
		if end < 0 {
			return v, nil, false
		}
		v.Bytes, n = key[:end:end], end+1
	}
	if len(key) < n {
		return v, nil, false
	}
	return v, key[n:], true
}

func cutKeyBytes(key []byte) (v sluice.Value, rest []byte, ok bool) {
	v = sluice.Value{Kind: sluice.Bytes, Bytes: []byte{}}
	for from := 0; ; {
		i := bytes.IndexByte(key[from:], 0)
		if i < 0 || from+i+1 >= len(key) {
			return v, nil, false
		}
		v.Bytes = append(v.Bytes, key[from:from+i]...)
		from += i + 2
		switch key[from-1] {
		case 1:
			return v, key[from:], true
		case 0xFF:
			v.Bytes = append(v.Bytes, 0)
		default:
			return v, nil, false
		}
	}
}

// canonicalSeparator stands between the canonical bytes of several columns (S7).
const canonicalSeparator = ':'

// SlotOfKey is the slot of an encoded key: of its partition_by columns, in the
// order of partition_by.
func (t *Table) SlotOfKey(key []byte) (uint16, error) {
	if len(t.Key) == 1 { // the hot path
		if v, rest, ok := cutKeyValue(t.Key[0].Type.Kind, key); ok && len(rest) == 0 {
			var buf [64]byte
			return SlotOf(appendCanonical(buf[:0], v)), nil
		}
	}
	var values [keyColumnsMax]sluice.Value
	parts, err := t.DecodeKey(key, values[:0])
	if err != nil {
		return 0, err
	}
	var buf [128]byte
	canonical := buf[:0]
	for n, i := range t.PartitionBy {
		if n > 0 {
			canonical = append(canonical, canonicalSeparator)
		}
		canonical = appendCanonical(canonical, parts[i])
	}
	return SlotOf(canonical), nil
}

// appendCanonical appends the bytes that a key column gives to the slot (S7):
// one form for each value, whatever door it came through.
func appendCanonical(dst []byte, v sluice.Value) []byte {
	switch v.Kind {
	case sluice.Int64:
		return strconv.AppendInt(dst, v.Num, 10)
	case sluice.Bool:
		return strconv.AppendBool(dst, v.Num != 0)
	case sluice.Timestamp:
		return appendTimestamp(dst, v.Num)
	case sluice.Date:
		return appendDate(dst, v.Num)
	case sluice.UUID:
		return appendUUIDText(dst, v.Bytes)
	}
	return append(dst, v.Bytes...)
}

// KeyFromText appends the encoding of a key as RESP and the command line write
// it: the plain value, or a JSON array or object when the key has several columns.
func (t *Table) KeyFromText(dst, text []byte) ([]byte, error) {
	if len(t.Key) > 1 {
		return t.KeyFromJSON(dst, text)
	}
	v, arena, err := ParseText(dst, t.Key[0].Type, text)
	if err != nil {
		return dst, t.keyFault(0, err)
	}
	return t.appendParsed(dst, arena, []sluice.Value{v})
}

// appendParsed appends the encoding of values whose bytes were parsed behind
// dst, as arena: the arena is its own scratch space, so nothing is allocated.
func (t *Table) appendParsed(dst, arena []byte, key []sluice.Value) ([]byte, error) {
	out, err := t.AppendKey(arena, key)
	if err != nil {
		return dst, err
	}
	n := copy(out[len(dst):], out[len(arena):])
	return out[:len(dst)+n], nil
}

// KeyFromJSON appends the encoding of a key as JSON writes it: the value alone
// when the key has one column, else an object, or an array in the key's order.
func (t *Table) KeyFromJSON(dst, raw []byte) ([]byte, error) {
	if !jsontext.Value(raw).IsValid() {
		return dst, badKey("key of %s is not valid JSON: %v; %s", t.Name, jsonFault(raw), t.keyCure())
	}
	return t.keyFromValid(dst, trimSpace(raw))
}

// keyFromValid is KeyFromJSON for JSON that was found valid.
func (t *Table) keyFromValid(dst, raw []byte) ([]byte, error) {
	var values [keyColumnsMax]sluice.Value
	key, arena, err := values[:len(t.Key)], dst, error(nil)
	switch {
	case raw[0] == '{':
		arena, err = t.keyFromObject(arena, raw, key)
	case raw[0] == '[':
		arena, err = t.keyFromArray(arena, raw, key)
	case len(key) > 1:
		err = badKey("key %.40s of %s names one value of %d; %s", raw, t.Name, len(key), t.keyCure())
	default:
		arena, err = t.keyColumn(arena, 0, raw, key)
	}
	if err != nil {
		return dst, err
	}
	return t.appendParsed(dst, arena, key)
}

func (t *Table) keyFromObject(arena, raw []byte, key []sluice.Value) ([]byte, error) {
	for w := walkObject(raw); ; {
		quoted, value, ok := w.member()
		if !ok {
			break
		}
		name, err := unquoted(quoted)
		if err != nil {
			return arena, err
		}
		i := t.keyIndex(name)
		if i < 0 {
			return arena, badKey("key of %s has no column %.40q; %s", t.Name, name, t.keyCure())
		}
		if arena, err = t.keyColumn(arena, i, value, key); err != nil {
			return arena, err
		}
	}
	for i := range key {
		if key[i].Kind == sluice.Null {
			return arena, badKey("key of %s lacks its column %s; %s", t.Name, t.Key[i].Name, t.keyCure())
		}
	}
	return arena, nil
}

func (t *Table) keyFromArray(arena, raw []byte, key []sluice.Value) ([]byte, error) {
	w, n := walkArray(raw), 0
	for ; ; n++ {
		value, ok := w.item()
		if !ok {
			break
		}
		if n >= len(key) {
			continue
		}
		var err error
		if arena, err = t.keyColumn(arena, n, value, key); err != nil {
			return arena, err
		}
	}
	if n != len(key) {
		return arena, badKey("key of %s has %d columns, not %d; %s", t.Name, len(key), n, t.keyCure())
	}
	return arena, nil
}

// keyColumn reads one value of a key into key[i].
func (t *Table) keyColumn(arena []byte, i int, raw []byte, key []sluice.Value) ([]byte, error) {
	v, arena, err := ParseJSON(arena, t.Key[i].Type, raw)
	if err != nil {
		return arena, t.keyFault(i, err)
	}
	if v.Kind == sluice.Null {
		return arena, badKey("key column %s of %s is null; a key has a value in every column", t.Key[i].Name, t.Name)
	}
	key[i] = v
	return arena, nil
}

func (t *Table) keyIndex(name []byte) int {
	for i := range t.Key {
		if t.Key[i].Name == string(name) {
			return i
		}
	}
	return -1
}

func (t *Table) keyFault(i int, err error) error {
	return badKey("key column %s of %s: %w", t.Key[i].Name, t.Name, err)
}

// keyCure says how a key of the table is written.
func (t *Table) keyCure() string {
	if len(t.Key) == 1 {
		return "its key is one " + t.Key[0].Type.String()
	}
	names := t.Key[0].Name
	for _, k := range t.Key[1:] {
		names += "," + k.Name
	}
	return "write it as [" + names + "], or as an object of these"
}

// AppendKeyJSON appends a key as KeyFromJSON reads it. A damaged key, which only
// a damaged database can give, comes out as a string of its hex digits.
func (t *Table) AppendKeyJSON(dst, key []byte) []byte {
	var buf [keyColumnsMax]sluice.Value
	values, err := t.DecodeKey(key, buf[:0])
	if err != nil {
		return append(hex.AppendEncode(append(dst, '"'), key), '"')
	}
	if len(values) == 1 {
		return AppendJSON(dst, t.Key[0].Type, values[0])
	}
	for i, v := range values {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		dst = append(append(append(dst, sep, '"'), t.Key[i].Name...), '"', ':')
		dst = AppendJSON(dst, t.Key[i].Type, v)
	}
	return append(dst, '}')
}
