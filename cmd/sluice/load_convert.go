package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// conversion appends the JSON of a field's text in another type.
type conversion func(dst, text []byte) ([]byte, error)

var errNot = errors.New("is not")

const conversionNames = "int64, float64, decimal, bool, text, json, timestamp, date, unix (seconds) and unix_ms"

var conversions = map[string]conversion{
	"int64": func(dst, text []byte) ([]byte, error) {
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return strconv.AppendInt(dst, n, 10), err
	},
	"float64": func(dst, text []byte) ([]byte, error) {
		n, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
		if math.IsNaN(n) || math.IsInf(n, 0) {
			return dst, errNot
		}
		return strconv.AppendFloat(dst, n, 'g', -1, 64), err
	},
	// A decimal stays text as it is written: a float on the way would change it.
	"decimal": func(dst, text []byte) ([]byte, error) {
		s := strings.TrimSpace(string(text))
		if strings.ContainsAny(s, "eE") || jsontext.Value(s).Kind() != '0' || !jsontext.Value(s).IsValid() {
			return dst, errNot
		}
		return append(dst, s...), nil
	},
	"bool": func(dst, text []byte) ([]byte, error) {
		switch s := strings.ToLower(strings.TrimSpace(string(text))); s {
		case "yes", "y":
			return append(dst, "true"...), nil
		case "no", "n":
			return append(dst, "false"...), nil
		default:
			b, err := strconv.ParseBool(s)
			return strconv.AppendBool(dst, b), err
		}
	},
	"text": func(dst, text []byte) ([]byte, error) { return jsontext.AppendQuote(dst, text) },
	"json": func(dst, text []byte) ([]byte, error) {
		v := jsontext.Value(text)
		if err := v.Compact(); err != nil {
			return dst, err
		}
		return append(dst, v...), nil
	},
	"timestamp": func(dst, text []byte) ([]byte, error) { return appendTime(dst, text, timeLayouts, time.RFC3339Nano) },
	"date":      func(dst, text []byte) ([]byte, error) { return appendTime(dst, text, timeLayouts, time.DateOnly) },
	"unix":      func(dst, text []byte) ([]byte, error) { return appendUnix(dst, text, 1e6) },
	"unix_ms":   func(dst, text []byte) ([]byte, error) { return appendUnix(dst, text, 1e3) },
}

// timeLayouts are forms that mean one moment. Forms whose day and month could
// be told apart only by luck are not among them. Without a zone it is UTC.
var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999",
	"2006-01-02 15:04", time.DateOnly, "2006/01/02 15:04:05", "2006/01/02 15:04", "2006/01/02", time.RFC1123Z, time.RFC1123,
}

func appendTime(dst, text []byte, layouts []string, form string) ([]byte, error) {
	s := strings.TrimSpace(string(text))
	for _, layout := range layouts {
		if at, err := time.Parse(layout, s); err == nil {
			return append(at.UTC().AppendFormat(append(dst, '"'), form), '"'), nil
		}
	}
	return dst, errNot
}

// appendUnix takes a count of units of `micros` microseconds since 1970.
func appendUnix(dst, text []byte, micros float64) ([]byte, error) {
	s := strings.TrimSpace(string(text))
	var at time.Time
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n < math.MaxInt64/int64(micros) && n > math.MinInt64/int64(micros) {
		at = time.UnixMicro(n * int64(micros))
	} else if x, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(x)*micros < math.MaxInt64/2 {
		at = time.UnixMicro(int64(math.Round(x * micros)))
	} else {
		return dst, errNot
	}
	return append(at.UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano), '"'), nil
}
