package oracle_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// asText is a value of a write as the text that PostgreSQL reads; nil is NULL.
func asText(v any) any {
	switch x := v.(type) {
	case nil:
		return nil
	case string:
		return x
	case []byte: // JSON gives and takes base64
		return `\x` + hex.EncodeToString(x)
	case []string:
		quoted := make([]string, len(x))
		for i, s := range x {
			quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
		}
		return "{" + strings.Join(quoted, ",") + "}"
	case map[string]any:
		text, _ := json.Marshal(x)
		return string(text)
	}
	return fmt.Sprint(v)
}

// canonical is a value as both databases and both languages must show it.
func canonical(typ string, v any) string {
	if raw, ok := v.([]byte); ok {
		if typ == "bytea" {
			return hex.EncodeToString(raw)
		}
		v = string(raw)
	}
	if v == nil {
		return "NULL"
	}
	text := fmt.Sprint(v)
	switch typ {
	case "numeric":
		if r, ok := new(big.Rat).SetString(text); ok {
			return r.RatString()
		}
	case "timestamptz":
		if t, ok := v.(time.Time); ok {
			return fmt.Sprint(t.UnixMicro())
		}
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return fmt.Sprint(t.UnixMicro())
		}
	case "boolean":
		switch text {
		case "1":
			return "true"
		case "0":
			return "false"
		}
	case "jsonb", "text[]":
		if _, isText := v.(string); !isText {
			out, _ := json.Marshal(v)
			text = string(out)
		}
		return sameJSON(text)
	case "bytea":
		return strings.TrimPrefix(text, `\x`)
	}
	return text
}

// sameJSON writes JSON with sorted members and numbers as they were.
func sameJSON(text string) string {
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return text
	}
	out, _ := json.Marshal(v)
	return string(out)
}

// inJSON is a value as a client says it: bytes are base64 there.
func inJSON(v any) any {
	if raw, ok := v.([]byte); ok {
		return base64.StdEncoding.EncodeToString(raw)
	}
	return v
}
