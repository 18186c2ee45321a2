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
	json  []jsonField
	text  bytes.Buffer
	dec   jsontext.Decoder
	arena []byte // names and values of json, and what find makes
}

type jsonField struct{ name, value []byte }

// set takes a record apart.
func (f *fields) set(in *input, rec record) (err error) {
	f.arena = f.arena[:0]
	if in.csv {
		return f.setCSV(in, rec)
	}
	f.text = *bytes.NewBuffer(rec.text)
	f.dec.Reset(&f.text)
	if f.dec.PeekKind() != '{' {
		return errors.New("not a JSON object")
	}
	if f.json, err = f.members(f.json[:0], &f.dec); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if _, err := f.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object; one record a line")
	}
	return nil
}

// members appends the members of an object, copied into the arena.
func (f *fields) members(dst []jsonField, dec *jsontext.Decoder) ([]jsonField, error) {
	if _, err := dec.ReadToken(); err != nil {
		return dst, noEnd(err)
	}
	for dec.PeekKind() != '}' {
		quoted, err := dec.ReadValue()
		if err != nil {
			return dst, noEnd(err)
		}
		var m jsonField
		begin := len(f.arena)
		if f.arena, err = jsontext.AppendUnquote(f.arena, quoted); err != nil {
			return dst, err
		}
		m.name = f.arena[begin:len(f.arena):len(f.arena)]
		value, err := dec.ReadValue()
		if err != nil {
			return dst, noEnd(err)
		}
		m.value = f.keep(value)
		dst = append(dst, m)
	}
	_, err := dec.ReadToken()
	return dst, noEnd(err)
}

// keep copies into the arena.
func (f *fields) keep(b []byte) []byte {
	begin := len(f.arena)
	f.arena = append(f.arena, b...)
	return f.arena[begin:len(f.arena):len(f.arena)]
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
		begin := len(f.arena)
		f.arena, _ = jsontext.AppendQuote(f.arena, strings.ToValidUTF8(f.cells[i], "\ufffd"))
		return f.arena[begin:], true
	}
	if v, ok := among(f.json, path[0]); ok || len(path) == 1 {
		return v, ok
	}
	at := f.json
	for i, name := range path[1:] {
		v, ok := among(at, name)
		if !ok || i == len(path)-2 {
			return v, ok
		}
		dec := jsontext.NewDecoder(bytes.NewReader(v))
		if dec.PeekKind() != '{' {
			return nil, false
		}
		var err error
		if at, err = f.members(nil, dec); err != nil {
			return nil, false
		}
	}
	return nil, false
}

// among is a loop since records have few fields: it needs no memory.
func among(fields []jsonField, name string) (jsontext.Value, bool) {
	for i := range fields {
		if string(fields[i].name) == name {
			return fields[i].value, true
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
		begin := len(f.arena)
		var err error
		if f.arena, err = jsontext.AppendUnquote(f.arena, v); err != nil {
			return dst, false, fmt.Errorf("field %q: %w", r.path[0], err)
		}
		text = f.arena[begin:]
	}
	next, err := r.convert(dst, text)
	if err != nil {
		return dst, false, fmt.Errorf("field %q: %.60q is not %s", r.path[0], text, r.typeName)
	}
	return next, true, nil
}
