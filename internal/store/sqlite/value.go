package sqlite

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// timestampForm has a fixed width and one zone, so that text order is time order.
const timestampForm = "2006-01-02T15:04:05.000000Z"

// encode gives what a column holds for a value: int64 and bool as integers,
// float64 as real, bytes as blob, and all else as text that people can read.
func encode(v sluice.Value) driver.Value {
	switch v.Kind {
	case sluice.Null:
		return nil
	case sluice.Int64, sluice.Bool:
		return v.Num
	case sluice.Float64:
		return math.Float64frombits(uint64(v.Num))
	case sluice.Timestamp:
		return time.UnixMicro(v.Num).UTC().Format(timestampForm)
	case sluice.Date:
		return time.Unix(v.Num*86400, 0).UTC().Format(time.DateOnly)
	case sluice.UUID:
		return uuidText(v.Bytes)
	case sluice.Bytes:
		if v.Bytes == nil {
			return []byte{} // nil would be NULL
		}
		return v.Bytes
	}
	return string(v.Bytes)
}

func uuidText(b []byte) string {
	var t [36]byte
	if len(b) != 16 {
		return string(b)
	}
	hex.Encode(t[0:], b[:4])
	hex.Encode(t[9:], b[4:6])
	hex.Encode(t[14:], b[6:8])
	hex.Encode(t[19:], b[8:10])
	hex.Encode(t[24:], b[10:])
	t[8], t[13], t[18], t[23] = '-', '-', '-', '-'
	return string(t[:])
}

// decode reads a column as a value of the type. Other programs write to mapped
// tables, and a SQLite column holds whatever it was given, so it takes every
// form of the value that has one meaning.
func decode(t schema.Type, v driver.Value) (sluice.Value, error) {
	switch x := v.(type) {
	case nil:
		return sluice.Value{}, nil
	case int64:
		switch t.Kind {
		case sluice.Int64, sluice.Bool:
			return sluice.Value{Kind: t.Kind, Num: x}, nil
		case sluice.Float64:
			return sluice.Value{Kind: t.Kind, Num: int64(math.Float64bits(float64(x)))}, nil
		case sluice.Timestamp, sluice.Date:
			return sluice.Value{}, fmt.Errorf("%d is a number, not a %s as text", x, t)
		}
		return decodeText(t, strconv.AppendInt(nil, x, 10))
	case float64:
		if t.Kind == sluice.Float64 {
			return sluice.Value{Kind: t.Kind, Num: int64(math.Float64bits(x))}, nil
		}
		return decodeText(t, strconv.AppendFloat(nil, x, 'f', -1, 64))
	case string:
		return decodeText(t, []byte(x))
	case []byte:
		if t.Kind == sluice.Bytes || t.Kind == sluice.UUID && len(x) == 16 {
			return sluice.Value{Kind: t.Kind, Bytes: append([]byte{}, x...)}, nil
		}
		return decodeText(t, x)
	}
	return sluice.Value{}, fmt.Errorf("%v (%T) is no %s", v, v, t)
}

func decodeText(t schema.Type, b []byte) (sluice.Value, error) {
	switch t.Kind {
	case sluice.Text, sluice.JSON, sluice.TextArray, sluice.Bytes, sluice.Native:
		return sluice.Value{Kind: t.Kind, Bytes: b}, nil
	}
	v, _, err := schema.ParseText(nil, t, b)
	return v, err
}
