package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// template turns one record of an input into writes. It is JSON in which a
// string "$name" stands for the record's field of that name. Members keep their
// order, so that the same record gives the same bytes: a repeated chunk is
// known by its bytes.
type template struct {
	writes []part
}

// part is a value of a template: a constant, a field or a composite.
type part struct {
	constant jsontext.Value
	field    *fieldRef
	kind     jsontext.Kind // '{' or '[' of a composite, else 0
	members  []member
}

type member struct {
	name string // quoted, as JSON; "" for the element of an array
	part part
}

// fieldRef is "$name", "$name:type", with "?" at the end for "leave it out when
// it is not there".
type fieldRef struct {
	path     []string
	convert  conversion // nil: as it is
	typeName string
	optional bool
}

// parseTemplate reads writes, one after the other or in an array.
func parseTemplate(file string, text []byte) (*template, error) {
	t := new(template)
	dec := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		p, err := parsePart(dec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			at := dec.InputOffset()
			var syntax *jsontext.SyntacticError
			if errors.As(err, &syntax) {
				at = syntax.ByteOffset
			}
			return nil, fmt.Errorf("%s:%d: %w", file, 1+bytes.Count(text[:at], []byte{'\n'}), err)
		}
		if p.kind == '[' {
			for _, m := range p.members {
				t.writes = append(t.writes, m.part)
			}
			continue
		}
		t.writes = append(t.writes, p)
	}
	if len(t.writes) == 0 {
		return nil, fmt.Errorf(`%s: no write in it; for example {"table":"posts","key":"$post_id","add":{"likes":1}}`, file)
	}
	for i, p := range t.writes {
		if p.kind != '{' {
			return nil, fmt.Errorf("%s: value %d is not a JSON object; each is one write", file, i+1)
		}
	}
	return t, nil
}

func parsePart(dec *jsontext.Decoder) (part, error) {
	switch dec.PeekKind() {
	case '"':
		v, err := dec.ReadValue()
		if err != nil {
			return part{}, err
		}
		return parseString(v.Clone())
	case '{', '[':
		return parseComposite(dec)
	default:
		v, err := dec.ReadValue()
		return part{constant: v.Clone()}, err
	}
}

func parseComposite(dec *jsontext.Decoder) (part, error) {
	open, err := dec.ReadToken()
	p := part{kind: open.Kind()}
	for err == nil && dec.PeekKind() != '}' && dec.PeekKind() != ']' {
		var m member
		if p.kind == '{' {
			var name jsontext.Value
			name, err = dec.ReadValue()
			m.name = string(name)
		}
		if err == nil {
			m.part, err = parsePart(dec)
		}
		p.members = append(p.members, m)
	}
	if err == nil {
		_, err = dec.ReadToken()
	}
	return p, noEnd(err)
}

// noEnd keeps an end inside a value from being taken for the end of the file.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func parseString(quoted jsontext.Value) (part, error) {
	text, err := jsontext.AppendUnquote(nil, quoted)
	if err != nil {
		return part{}, err
	}
	s, found := strings.CutPrefix(string(text), "$")
	if !found {
		return part{constant: quoted}, nil
	}
	if strings.HasPrefix(s, "$") { // "$$5" is the text "$5"
		plain, err := jsontext.AppendQuote(nil, s)
		return part{constant: plain}, err
	}
	ref := &fieldRef{}
	s, ref.optional = strings.CutSuffix(s, "?")
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		s, ref.typeName = s[:i], s[i+1:]
		if ref.convert = conversions[ref.typeName]; ref.convert == nil {
			return part{}, fmt.Errorf("%s: no conversion %q; there are %s", quoted, ref.typeName, conversionNames)
		}
	}
	if s == "" {
		return part{}, fmt.Errorf(`%s names no field; write "$name", or "$$" for a dollar sign`, quoted)
	}
	ref.path = []string{s}
	if strings.Contains(s, ".") {
		ref.path = append(ref.path, strings.Split(s, ".")...)
	}
	return part{field: ref}, nil
}
