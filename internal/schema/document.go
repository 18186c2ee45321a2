package schema

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"sluice.dev/sluice"
)

// jsonDepthMax bounds how deep objects and arrays lie within each other.
const jsonDepthMax = 64

// parseDocument reads a json or text[] value: valid, without white space, and
// with nothing in it that PostgreSQL's jsonb would refuse later.
func parseDocument(dst []byte, kind sluice.Kind, raw []byte) (sluice.Value, []byte, error) {
	if !jsontext.Value(raw).IsValid() {
		return sluice.Value{}, dst, badValue("not valid JSON: %v", jsonFault(raw))
	}
	raw = trimSpace(raw)
	if kind == sluice.TextArray && !isStrings(raw) {
		return sluice.Value{}, dst, badValue("%.40s is not a text[]; write an array of strings, like [\"a\",\"b\"]", raw)
	}
	from := len(dst)
	out, err := appendCompact(dst, raw)
	if err != nil {
		return sluice.Value{}, dst, err
	}
	return bytesValue(kind, out, from)
}

// appendCompact appends valid JSON without white space.
func appendCompact(dst, raw []byte) ([]byte, error) {
	depth := 0
	for i := 0; i < len(raw); {
		end := i + 1
		switch c := raw[i]; {
		case c == '"':
			end = skipString(raw, i)
			if holdsNUL(raw[i:end]) {
				return dst, badValue("a string holds \\u0000, which databases cannot keep; remove it")
			}
		case c == '{' || c == '[':
			if depth++; depth > jsonDepthMax {
				return dst, badValue("JSON is nested deeper than %d; flatten it", jsonDepthMax)
			}
		case c == '}' || c == ']':
			depth--
		case c == '-' || '0' <= c && c <= '9':
			end = skipScalar(raw, i)
			var buf [decimalDigitsMax + 3]byte
			if n, ok := parseNumber(raw[i:end]); ok {
				if _, ok = n.appendDecimal(buf[:0]); !ok {
					return dst, badValue("%.40s has more than %d digits; write it as a string", raw[i:end], decimalDigitsMax)
				}
			}
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i = end
			continue
		}
		dst = append(dst, raw[i:end]...)
		i = end
	}
	return dst, nil
}

// isStrings tells whether valid JSON is an array of strings.
func isStrings(raw []byte) bool {
	if raw[0] != '[' {
		return false
	}
	w := walkArray(raw)
	for {
		item, ok := w.item()
		if !ok {
			return true
		}
		if item[0] != '"' {
			return false
		}
	}
}

// holdsNUL tells whether a valid JSON string has the escape of NUL.
func holdsNUL(quoted []byte) bool {
	for {
		i := bytes.IndexByte(quoted, '\\')
		if i < 0 || i+1 >= len(quoted) {
			return false
		}
		if bytes.HasPrefix(quoted[i:], []byte(`\u0000`)) {
			return true
		}
		quoted = quoted[i+2:]
	}
}

// walk goes over the members of an object or the items of an array. The JSON has
// been found valid before by jsontext, which is what makes so little code right;
// for JSON that is not valid it gives nonsense, but stays within its bytes.
type walk struct {
	raw []byte
	at  int
}

func walkObject(raw []byte) walk { return walk{raw: raw, at: 1} }
func walkArray(raw []byte) walk  { return walk{raw: raw, at: 1} }

// member is the next member: the name with its quotes, and the value.
func (w *walk) member() (name, value []byte, ok bool) {
	if name, ok = w.item(); !ok {
		return nil, nil, false
	}
	w.skip(':')
	value, ok = w.item()
	return name, value, ok
}

// item is the next value.
func (w *walk) item() ([]byte, bool) {
	w.skip(',')
	if w.at >= len(w.raw) || w.raw[w.at] == '}' || w.raw[w.at] == ']' {
		return nil, false
	}
	from := w.at
	w.at = skipValue(w.raw, from)
	return w.raw[from:w.at], true
}

func (w *walk) skip(sep byte) {
	for w.at < len(w.raw) && (isSpace(w.raw[w.at]) || w.raw[w.at] == sep) {
		w.at++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func trimSpace(raw []byte) []byte { return bytes.Trim(raw, " \t\r\n") }

// skipValue is where the value at i ends.
func skipValue(raw []byte, i int) int {
	switch raw[i] {
	case '"':
		return skipString(raw, i)
	case '{', '[':
	default:
		return skipScalar(raw, i)
	}
	for depth := 0; i < len(raw); {
		switch raw[i] {
		case '"':
			i = skipString(raw, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		i++
		if depth == 0 {
			return i
		}
	}
	return len(raw)
}

func skipString(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw)
}

func skipScalar(raw []byte, i int) int {
	from := i
	for i < len(raw) && !isSpace(raw[i]) && raw[i] != ',' && raw[i] != '}' && raw[i] != ']' && raw[i] != ':' {
		i++
	}
	return max(i, from+1)
}

// jsonFault is what is wrong with JSON that is not valid, for people.
func jsonFault(raw []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	if _, err := d.ReadValue(); err != nil {
		return err
	}
	return errTrailing
}
