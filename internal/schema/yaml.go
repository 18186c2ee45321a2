package schema

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// configBytesMax bounds the config file.
const configBytesMax = 1 << 20

// reader reads YAML nodes, so that every fault has its line and column, and goes
// on after a fault, so that all are found at once.
type reader struct {
	faults
	// written is what the file says where the environment filled something in:
	// faults show this and never the value, which may be a secret.
	written map[*yaml.Node]string
}

func at(n *yaml.Node) position { return position{n.Line, n.Column} }

var yamlLine = regexp.MustCompile(`line (\d+): `)

// document reads the text as one YAML document; nil after a fault, and for an empty one.
func (r *reader) document(text []byte) *yaml.Node {
	if len(text) > configBytesMax {
		r.add(position{}, "split it, or remove what is generated", "the file has %d bytes, the limit is %d", len(text), configBytesMax)
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.add(position{1, 1}, "`sluice init` writes an example", "the file is empty")
		return nil
	case err != nil:
		what, place := strings.TrimPrefix(err.Error(), "yaml: "), position{1, 1}
		if m := yamlLine.FindStringSubmatch(what); m != nil {
			place.line, _ = strconv.Atoi(m[1])
			what = strings.Replace(what, m[0], "", 1)
		}
		r.add(place, "mind indentation, colons and quotes", "not valid YAML: %s", what)
		return nil
	}
	if d.Decode(&second) == nil {
		r.add(at(&second), "keep one document in the file", "a second YAML document is not read")
	}
	return doc.Content[0]
}

// fill puts the environment into the scalars below n: ${VAR}, and $${ for ${ itself.
func (r *reader) fill(n *yaml.Node, env func(string) (string, bool)) {
	if n.Kind == yaml.ScalarNode {
		r.fillScalar(n, env)
	}
	for i, child := range n.Content {
		if n.Kind != yaml.MappingNode || i%2 == 1 {
			r.fill(child, env)
		}
	}
}

func (r *reader) fillScalar(n *yaml.Node, env func(string) (string, bool)) {
	text := n.Value
	var out strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			break
		}
		if i > 0 && text[i-1] == '$' {
			out.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		end := strings.IndexByte(text[i:], '}')
		if end < 0 || !isVariable(text[i+2:i+end]) {
			r.add(at(n), "write ${NAME}, or $${ for the characters ${ themselves", "%q is not a variable of the environment", text[i:])
			n.Tag = faultyTag
			break
		}
		name := text[i+2 : i+end]
		value, ok := env(name)
		if !ok {
			r.add(at(n), "set it, or write $${ for the characters ${ themselves", "the variable %s is not in the environment", name)
			n.Tag = faultyTag
		}
		out.WriteString(text[:i] + value)
		text = text[i+end+1:]
		r.written[n] = n.Value
	}
	n.Value = out.String() + text
}

// faultyTag marks a scalar that had a fault already, so that it gets no second one.
const faultyTag = "!faulty"

func isVariable(name string) bool {
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// show is a scalar as the file writes it.
func (r *reader) show(n *yaml.Node) string {
	if text, ok := r.written[n]; ok {
		return strconv.Quote(text)
	}
	return strconv.Quote(n.Value)
}

// follow is what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for range 10 {
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	return n
}

// scalar is the text of a scalar; path is what faults call it.
func (r *reader) scalar(n *yaml.Node, path string) (string, bool) {
	n = follow(n)
	switch {
	case n.Kind != yaml.ScalarNode:
		r.add(at(n), "write a single value", "%s is a list or a mapping", path)
	case n.Tag == faultyTag:
	case n.Tag == "!!null" && n.Value != "null":
		r.add(at(n), "give it one, or remove the line", "%s has no value", path)
	default:
		return n.Value, true
	}
	return "", false
}

// list is the items of a list of scalars; a single scalar is a list of one.
func (r *reader) list(n *yaml.Node, path string) (texts []string, nodes []*yaml.Node) {
	n = follow(n)
	items := n.Content
	if n.Kind != yaml.SequenceNode {
		items = []*yaml.Node{n}
	}
	for _, item := range items {
		if text, ok := r.scalar(item, path); ok {
			texts, nodes = append(texts, text), append(nodes, item)
		}
	}
	return texts, nodes
}

// object is a mapping whose members are asked for by name.
type object struct {
	r     *reader
	node  *yaml.Node
	path  string
	place position // of its name
	names []string // in the order of the file
	keys  map[string]*yaml.Node
	value map[string]*yaml.Node
	known []string // names asked for
}

// object reads a mapping; an empty one after a fault, and for nil.
func (r *reader) object(n *yaml.Node, path string) *object {
	o := &object{r: r, node: n, path: path, place: position{1, 1}, keys: map[string]*yaml.Node{}, value: map[string]*yaml.Node{}}
	if n == nil {
		o.node = &yaml.Node{}
		return o
	}
	o.place = at(n)
	n = follow(n)
	o.node = n
	if n.Kind != yaml.MappingNode {
		if n.Tag != faultyTag {
			r.add(at(n), "write `name: value` lines below it", "%s is not a mapping", cmp.Or(path, "the config"))
		}
		return o
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			r.add(at(key), "write a plain name", "a name in %s is not a plain word", path)
			continue
		}
		if first, ok := o.keys[key.Value]; ok {
			r.add(at(key), "remove one of them", "%s stands twice, first in line %d", o.member(key.Value), first.Line)
			continue
		}
		o.names = append(o.names, key.Value)
		o.keys[key.Value], o.value[key.Value] = key, n.Content[i+1]
	}
	return o
}

// at is where the member stands, or the object when it does not.
func (o *object) at(name string) position {
	if k := o.keys[name]; k != nil {
		return at(k)
	}
	return o.place
}

func (o *object) member(name string) string {
	if o.path == "" {
		return name
	}
	return o.path + "." + name
}

func (o *object) has(name string) bool {
	_, ok := o.value[name]
	return ok
}

// get is the value of a member, nil when it is not there.
func (o *object) get(name string) *yaml.Node {
	o.known = append(o.known, name)
	return o.value[name]
}

// object is a member that is an object; empty when it is not there.
func (o *object) object(name string) *object {
	m := o.r.object(o.get(name), o.member(name))
	m.place = o.at(name)
	return m
}

// isMapping tells whether the object was written as one: then it is worth a
// fault that something is missing in it.
func (o *object) isMapping() bool { return o.node.Kind == yaml.MappingNode }

// done faults the members that nobody asked for.
func (o *object) done() {
	for _, name := range o.names {
		if !slices.Contains(o.known, name) {
			o.r.add(o.at(name), oneOf(name, o.known), "%s is not known", o.member(name))
		}
	}
}

func (o *object) text(name string, dst *string) {
	if n := o.get(name); n != nil {
		if text, ok := o.r.scalar(n, o.member(name)); ok {
			*dst = text
		}
	}
}

// choice reads one word of a few.
func (o *object) choice(name string, dst *string, words ...string) {
	n := o.get(name)
	if n == nil {
		return
	}
	text, ok := o.r.scalar(n, o.member(name))
	if ok && !slices.Contains(words, text) {
		o.r.add(at(n), "write "+strings.Join(words, " or "), "%s is %s", o.member(name), o.r.show(follow(n)))
		return
	}
	if ok {
		*dst = text
	}
}

func (o *object) boolean(name string, dst *bool) {
	word := ""
	o.choice(name, &word, "true", "false", "on", "off")
	if word != "" {
		*dst = word == "true" || word == "on"
	}
}
