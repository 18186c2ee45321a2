package schema

import (
	"encoding/json"
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"sluice.dev/sluice"
)

var errTrailing = errors.New("something follows the first JSON value")

func badLine(format string, args ...any) error {
	return sluice.Errorf(sluice.Invalid, "bad_json", format, args...)
}

// writeJSON is the members of a write, raw.
type writeJSON struct {
	table, key, delete []byte
	verbs              [verbCount][]byte
}

const writeShape = `a write looks like {"table":"posts","key":42,"add":{"likes":1}}`

// AddJSON adds one whole write (DESIGN section 7). On a fault nothing of it is
// added and the earlier writes stay.
//
// The line is found valid as a whole by jsontext first (syntax, UTF-8, names
// named once), and then walked; so one strict reader decides what JSON is. Verbs
// are taken in the order of VerbNames, whatever the order of the members.
func (b *Builder) AddJSON(line []byte) error {
	b.Cancel()
	if !jsontext.Value(line).IsValid() {
		return badLine("not valid JSON: %v; %s", jsonFault(line), writeShape)
	}
	var w writeJSON
	if err := w.read(trimSpace(line)); err != nil {
		return err
	}
	if err := b.beginJSON(&w); err != nil {
		b.Cancel()
		return err
	}
	for v := range verbCount {
		if w.verbs[v] == nil {
			continue
		}
		if err := b.putMembers(v, w.verbs[v]); err != nil {
			b.Cancel()
			return err
		}
	}
	return b.End()
}

// AddWrite adds one write as Go programs say it. It is what AddJSON does with
// the same write in JSON, so that both mean the same.
func (b *Builder) AddWrite(w *sluice.Write) error {
	b.Cancel()
	line, err := json.Marshal(w)
	if err != nil {
		return badValue("write to %s: %v; use values that JSON can hold", w.Table, err)
	}
	return b.AddJSON(line)
}

func (w *writeJSON) read(line []byte) error {
	if line[0] != '{' {
		return badLine("%.40s is not an object; %s", line, writeShape)
	}
	for m := walkObject(line); ; {
		quoted, value, ok := m.member()
		if !ok {
			break
		}
		name, err := unquoted(quoted)
		if err != nil {
			return err
		}
		switch string(name) {
		case "table":
			w.table = value
		case "key":
			w.key = value
		case "delete":
			w.delete = value
		case "set":
			w.verbs[VerbSet] = value
		case "add":
			w.verbs[VerbAdd] = value
		case "max":
			w.verbs[VerbMax] = value
		case "min":
			w.verbs[VerbMin] = value
		case "unique":
			w.verbs[VerbUnique] = value
		case "append":
			w.verbs[VerbAppend] = value
		default:
			known := append([]string{"table", "key", "delete"}, JSONVerbs[:]...)
			return sluice.Errorf(sluice.Invalid, "unknown_member", "a write has no member %.60q; %s", name, oneOf(string(name), known))
		}
	}
	if w.table == nil || w.table[0] != '"' {
		return badLine("table is missing or not a string; %s", writeShape)
	}
	if w.key == nil {
		return badKey("key is missing; %s", writeShape)
	}
	return nil
}

func (b *Builder) beginJSON(w *writeJSON) error {
	name, err := unquoted(w.table)
	if err != nil {
		return err
	}
	t := b.schema.Table(name)
	if t == nil {
		return b.noTable(name)
	}
	b.begin(t)
	arena, err := t.keyFromValid(b.arena, w.key)
	if err := b.setKey(arena, err); err != nil {
		return err
	}
	switch string(w.delete) {
	case "", "false":
	case "true":
		return b.Delete()
	default:
		return badLine("delete is %.40s; write true, or leave it out", w.delete)
	}
	return nil
}

// putMembers puts what stands under one verb.
func (b *Builder) putMembers(v Verb, raw []byte) error {
	if raw[0] != '{' {
		return badLine("%s is %.40s, not an object; write \"%s\":{\"column\":value}", v, raw, v)
	}
	for w := walkObject(raw); ; {
		quoted, value, ok := w.member()
		if !ok {
			return nil
		}
		name, err := unquoted(quoted)
		if err != nil {
			return err
		}
		switch {
		case v == VerbAppend:
			err = b.putEvent(name, value)
		case v == VerbUnique && value[0] == '[':
			err = b.putElements(name, value)
		default:
			err = b.putJSON(nil, v, name, value)
		}
		if err != nil {
			return err
		}
	}
}

func (b *Builder) putEvent(group, raw []byte) error {
	g := b.table.Group(group)
	if g == nil || !g.Events {
		return b.noEvents(b.table, group)
	}
	if raw[0] != '{' {
		return badLine("the event for %s is %.40s, not an object; name its columns", g.FullName(), raw)
	}
	w, n := walkObject(raw), 0
	for ; ; n++ {
		quoted, value, ok := w.member()
		if !ok {
			break
		}
		name, err := unquoted(quoted)
		if err != nil {
			return err
		}
		if err := b.putJSON(g, VerbAppend, name, value); err != nil {
			return err
		}
	}
	if n == 0 {
		return sluice.Errorf(sluice.Invalid, "empty_write", "the event for %s has no column; name one", g.FullName())
	}
	return nil
}

func (b *Builder) putElements(column, raw []byte) error {
	w, n := walkArray(raw), 0
	for ; ; n++ {
		item, ok := w.item()
		if !ok {
			break
		}
		if err := b.putJSON(nil, VerbUnique, column, item); err != nil {
			return err
		}
	}
	if n > 0 {
		return nil
	}
	_, _, err := b.target(nil, VerbUnique, column)
	return err
}

func (b *Builder) putJSON(event *Group, v Verb, column, raw []byte) error {
	g, c, err := b.target(event, v, column)
	if err != nil {
		return err
	}
	from := len(b.arena)
	value, arena, err := ParseJSON(b.arena, c.Type, raw)
	if err != nil {
		return valueFault(c, err)
	}
	b.arena = arena
	return b.put(g, c, value, from)
}
