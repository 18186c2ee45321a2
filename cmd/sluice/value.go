package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// valueHelp says how values are written at the terminal.
const valueHelp = `Values are JSON where they are valid JSON and text where they are not: 42, true,
null, ["a","b"] and {"a":1} mean what they say, u7 and 2026-01-31 are text. To
write the text 42, quote it: --set 'code="42"'. A key is written as it is: 42 or
u7; a composite key as column=value,column=value or as a JSON object.`

// parseValue reads a value of the command line.
func parseValue(text string) any {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

// parseKey reads a key of the command line. A single value is sent as text
// whatever it looks like: the server reads int64 and the others from text too,
// and so the text key 42 needs no quotes.
func parseKey(text string) any {
	switch {
	case text == "true" || text == "false":
		return json.RawMessage(text)
	case text != "" && strings.Contains(`{["`, text[:1]) && json.Valid([]byte(text)):
		return json.RawMessage(text)
	case !strings.Contains(text, "="):
		return text
	}
	key := map[string]any{}
	for _, pair := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return text
		}
		key[name] = parseKey(value)
	}
	return key
}

// parseAssign reads column=value.
func parseAssign(flag, text string) (column string, value any, err error) {
	column, rest, ok := strings.Cut(text, "=")
	if !ok || column == "" {
		return "", nil, usage("--%s %s: write it as column=value", flag, text)
	}
	return column, parseValue(rest), nil
}

// assigns collects repeated column=value flags.
func assigns(flag string, texts []string) (map[string]any, error) {
	var out map[string]any
	for _, text := range texts {
		column, value, err := parseAssign(flag, text)
		if err != nil {
			return nil, err
		}
		if _, twice := out[column]; twice {
			return nil, usage("--%s names column %s twice", flag, column)
		}
		if out == nil {
			out = map[string]any{}
		}
		out[column] = value
	}
	return out, nil
}

// elements collects --unique flags: a column named again gets one more element.
func elements(texts []string) (map[string]any, error) {
	var out map[string]any
	for _, text := range texts {
		column, value, err := parseAssign("unique", text)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]any{}
		}
		switch before := out[column].(type) {
		case nil:
			out[column] = value
		case []any:
			out[column] = append(before, value)
		default:
			out[column] = []any{before, value}
		}
	}
	return out, nil
}

// events collects --append group:column=value flags; those of one group are one event.
func events(texts []string) (map[string]map[string]any, error) {
	var out map[string]map[string]any
	for _, text := range texts {
		group, rest, ok := strings.Cut(text, ":")
		if !ok || group == "" || strings.Contains(group, "=") {
			return nil, usage("--append %s: write it as group:column=value", text)
		}
		column, value, err := parseAssign("append", rest)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]map[string]any{}
		}
		if out[group] == nil {
			out[group] = map[string]any{}
		}
		out[group][column] = value
	}
	return out, nil
}

// showJSON writes a JSON value for people: text without its quotes.
func showJSON(raw json.RawMessage) string {
	var s string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// showKey writes a key for people: 42, abc, user_id=1,post_id=2.
func showKey(raw json.RawMessage) string {
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return showJSON(raw)
	}
	var parts []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return string(raw)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return string(raw)
		}
		parts = append(parts, fmt.Sprintf("%v=%s", name, showJSON(value)))
	}
	return strings.Join(parts, ",")
}
