package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// fields gives a record's field. A name with dots is first looked for as it is,
// then as a path into objects.
type fields struct {
	csv   map[string]int // name to position; nil for JSON
	cells []string
	json  map[string]jsontext.Value
}

// set takes a record apart.
func (f *fields) set(in *input, rec record) error {
	if in.csv {
		return f.setCSV(in, rec)
	}
	f.json = make(map[string]jsontext.Value, 16)
	dec := jsontext.NewDecoder(bytes.NewBuffer(rec.text))
	if dec.PeekKind() != '{' {
		return errors.New("not a JSON object")
	}
	if err := readMembers(dec, f.json); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object; one record a line")
	}
	return nil
}

func readMembers(dec *jsontext.Decoder, into map[string]jsontext.Value) error {
	if _, err := dec.ReadToken(); err != nil {
		return noEnd(err)
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return noEnd(err)
		}
		key := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return noEnd(err)
		}
		into[key] = value.Clone()
	}
	_, err := dec.ReadToken()
	return noEnd(err)
}

func (f *fields) setCSV(in *input, rec record) (err error) {
	if f.csv == nil {
		f.csv = make(map[string]int, len(in.header))
		for i, name := range in.header {
			f.csv[strings.TrimSpace(name)] = i
		}
	}
	if f.cells, err = splitCSV(string(rec.text), in.comma); err != nil {
		return err
	}
	if len(f.cells) != len(in.header) {
		return fmt.Errorf("%d fields, the header names %d", len(f.cells), len(in.header))
	}
	return nil
}

func splitCSV(line string, comma byte) ([]string, error) {
	if strings.IndexByte(line, '"') < 0 {
		return strings.Split(line, string(comma)), nil
	}
	r := csv.NewReader(strings.NewReader(line))
	r.Comma = rune(comma)
	cells, err := r.Read()
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return nil, fmt.Errorf("not CSV: column %d: %w", parse.Column, parse.Err)
	}
	return cells, err
}

// find gives the value of a field as JSON; ok is false when it is not there.
func (f *fields) find(path []string) (v jsontext.Value, ok bool) {
	if f.csv != nil {
		i, ok := f.csv[path[0]]
		if !ok || f.cells[i] == "" {
			return nil, false
		}
		v, err := jsontext.AppendQuote(nil, strings.ToValidUTF8(f.cells[i], "\ufffd"))
		return v, err == nil
	}
	if v, ok := f.json[path[0]]; ok || len(path) == 1 {
		return v, ok
	}
	at := f.json
	for i, name := range path[1:] {
		v, ok := at[name]
		if !ok || i == len(path)-2 {
			return v, ok
		}
		at = make(map[string]jsontext.Value)
		dec := jsontext.NewDecoder(bytes.NewReader(v))
		if dec.PeekKind() != '{' || readMembers(dec, at) != nil {
			return nil, false
		}
	}
	return nil, false
}

// render appends the writes of a record, one a line, and counts them.
func (t *template) render(dst []byte, f *fields) ([]byte, int, error) {
	n, begin := 0, len(dst)
	for i := range t.writes {
		next, there, err := t.writes[i].appendWrite(dst, f)
		if err != nil {
			return dst[:begin], 0, err
		}
		if there {
			dst = append(next, '\n')
			n++
		}
	}
	return dst, n, nil
}

// appendWrite renders a write; there is false when all that it would change was
// left out.
func (p *part) appendWrite(dst []byte, f *fields) (out []byte, there bool, err error) {
	changes, begin := 0, len(dst)
	dst = append(dst, '{')
	for i := range p.members {
		m := &p.members[i]
		if dst, there, err = m.append(dst, f); err != nil {
			return dst, false, err
		}
		if there && m.name != `"table"` && m.name != `"key"` {
			changes++
		}
	}
	return append(dst, '}'), changes > 0 && len(dst) > begin, nil
}

// append renders `"name":value` behind what the object holds so far. An element
// of an array has no name.
func (m *member) append(dst []byte, f *fields) ([]byte, bool, error) {
	begin := len(dst)
	if last := dst[begin-1]; last != '{' && last != '[' {
		dst = append(dst, ',')
	}
	if m.name != "" {
		dst = append(append(dst, m.name...), ':')
	}
	dst, there, err := m.part.append(dst, f)
	if !there {
		return dst[:begin], false, err
	}
	return dst, true, nil
}

// append renders a value; there is false when it is to be left out: an optional
// field that is missing, or an object or array whose members are all left out.
func (p *part) append(dst []byte, f *fields) (out []byte, there bool, err error) {
	switch {
	case p.field != nil:
		return p.field.append(dst, f)
	case p.kind == 0:
		return append(dst, p.constant...), true, nil
	}
	n, begin := 0, len(dst)
	dst = append(dst, byte(p.kind))
	for i := range p.members {
		if dst, there, err = p.members[i].append(dst, f); err != nil {
			return dst, false, err
		}
		if there {
			n++
		}
	}
	if n == 0 && len(p.members) > 0 {
		return dst[:begin], false, nil
	}
	if p.kind == '{' {
		return append(dst, '}'), true, nil
	}
	return append(dst, ']'), true, nil
}

func (r *fieldRef) append(dst []byte, f *fields) ([]byte, bool, error) {
	v, ok := f.find(r.path)
	if !ok || r.optional && v.Kind() == 'n' {
		if r.optional {
			return dst, false, nil
		}
		return dst, false, fmt.Errorf(`no field %q; write "$%s?" in the template to leave it out where it is not there`, r.path[0], r.path[0])
	}
	if r.convert == nil || v.Kind() == 'n' {
		return append(dst, v...), true, nil
	}
	text := []byte(v)
	if v.Kind() == '"' {
		var err error
		if text, err = jsontext.AppendUnquote(nil, v); err != nil {
			return dst, false, fmt.Errorf("field %q: %w", r.path[0], err)
		}
	}
	next, err := r.convert(dst, text)
	if err != nil {
		return dst, false, fmt.Errorf("field %q: %.60q is not %s", r.path[0], text, r.typeName)
	}
	return next, true, nil
}
