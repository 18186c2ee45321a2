package schema

import (
	"strings"

	"sluice.dev/sluice"
)

var typeNames = map[string]sluice.Kind{
	"text": sluice.Text, "int64": sluice.Int64, "float64": sluice.Float64, "decimal": sluice.Decimal,
	"bool": sluice.Bool, "timestamp": sluice.Timestamp, "date": sluice.Date, "uuid": sluice.UUID,
	"json": sluice.JSON, "bytes": sluice.Bytes, "text[]": sluice.TextArray,
}

// typeList is what a fault says when a type is not known.
const typeList = "text, int64, float64, decimal, bool, timestamp, date, uuid, json, bytes, text[] or native(NAME)"

// String is the type as the config writes it.
func (t Type) String() string {
	if t.Kind == sluice.Native {
		return "native(" + t.Native + ")"
	}
	for name, kind := range typeNames {
		if kind == t.Kind {
			return name
		}
	}
	return "unknown"
}

// article is the type in a sentence.
func (t Type) article() string {
	if t.Kind == sluice.Int64 {
		return "an int64"
	}
	return "a " + t.String()
}

// typeOf reads a type as the config writes it.
func typeOf(text string) (Type, bool) {
	if kind, ok := typeNames[text]; ok {
		return Type{Kind: kind}, true
	}
	name, ok := strings.CutPrefix(text, "native(")
	if !ok || !strings.HasSuffix(name, ")") {
		return Type{}, false
	}
	name = strings.TrimSpace(strings.TrimSuffix(name, ")"))
	return Type{Kind: sluice.Native, Native: name}, nativeName(name)
}

// nativeName tells whether a name may stand unquoted in a CREATE TABLE: the one
// piece of the config that does. Letters, digits and what `numeric(10, 2)` or
// `double precision` need, with balanced parentheses: nothing that could end the
// column's definition.
func nativeName(name string) bool {
	depth := 0
	for i, c := range name {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',':
			if depth == 0 {
				return false
			}
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_':
		case i > 0 && ('0' <= c && c <= '9' || c == ' ' || c == '.' || c == '[' || c == ']'):
		default:
			return false
		}
		if depth < 0 {
			return false
		}
	}
	return name != "" && depth == 0 && len(name) <= nameBytesMax
}

// isKey tells whether a key column may have this type: equal values must have
// one form in every database, and the codec must keep them apart.
func (t Type) isKey() bool {
	switch t.Kind {
	case sluice.Text, sluice.Int64, sluice.Decimal, sluice.Bool, sluice.Timestamp, sluice.Date, sluice.UUID, sluice.Bytes:
		return true
	}
	return false
}

// isOrdered tells whether max, min and latest_by may compare it. Text is not:
// databases order it by collations of their own, and a fold must give the
// answer that the database would.
func (t Type) isOrdered() bool {
	switch t.Kind {
	case sluice.Int64, sluice.Float64, sluice.Decimal, sluice.Timestamp, sluice.Date:
		return true
	}
	return false
}

// isHashable tells whether equal values have equal bytes, so that unique can count them.
func (t Type) isHashable() bool { return t.isKey() || t.Kind == sluice.Float64 }

var mergeNames = [...]string{"set", "sum", "max", "min", "unique"}

func (m Merge) String() string {
	if int(m) < len(mergeNames) {
		return mergeNames[m]
	}
	return "unknown"
}

func mergeOf(text string) (Merge, bool) {
	for i, name := range mergeNames {
		if name == text {
			return Merge(i), true
		}
	}
	return Set, false
}
