package sim_test

import (
	"fmt"
	"strings"
)

// line is one write of a chunk. But for deletes it appends an event with its own
// name, so that a commit says which lines it holds.
type line struct {
	name string
	key  int64
	del  bool
	cols []field
	json string
}

// field is one column that a line changes.
type field struct {
	group, column string
	text          string // JSON
	num           int64
}

// Verbs of columns, as clients say them.
var verbs = map[string]string{"content": "set", "tag": "set", "note": "set", "likes": "add", "shares": "add", "spent": "add", "n": "add",
	"high": "max", "low": "min", "viewers": "unique", "spot": "set", "at": "set", "title": "set"}

// columnLevels are the levels of the config that have a column, where not all have it.
var columnLevels = map[string][2]int{"tag": {0, 0}, "shares": {1, 2}, "note": {2, 2}}

// huge makes sums whose parts overflow when they fold, though the row never does.
const huge = int64(6e18)

// hugeKey is written by client 1 only, always in pairs, so that its sum stays in range.
const hugeKey = 900

// counterKey is only ever counted up, by all clients: its reads are judged as a
// history.
const counterKey = 901

func (w *world) newLine(name string, mayDelete bool) line {
	l := line{name: name, key: int64(w.rng.IntN(int(w.keysMax)))}
	if w.chance(30) {
		l.key = 0 // hot
	}
	if mayDelete && w.chance(w.profile.deletes) && w.proc.gate.Refusing() == nil && len(w.proc.gate.Blocks()) == 0 {
		l.del = true
		l.json = fmt.Sprintf(`{"table":"posts","key":%d,"delete":true}`, l.key)
		return l
	}
	if w.chance(12) {
		l.key = counterKey
		l.sum("metrics", "likes", 1)
		l.encode()
		return l
	}
	if w.chance(45) {
		l.sum("metrics", "likes", 1+int64(w.rng.IntN(9)))
	}
	if w.chance(15) {
		l.sum("metrics", "high", int64(w.rng.IntN(1000)))
		l.sum("metrics", "low", int64(w.rng.IntN(1000)))
	}
	if w.chance(15) {
		l.add("metrics", "spent", fmt.Sprintf(`"%d.%02d"`, w.rng.IntN(50), 1+w.rng.IntN(98)))
	}
	if w.chance(15) {
		l.add("metrics", "viewers", fmt.Sprintf(`"u%d"`, w.rng.IntN(12)))
	}
	if w.chance(40) {
		size := 1
		if w.chance(20) {
			size = 100 + w.rng.IntN(900) // many sectors in one commit
		}
		l.add("text", "content", `"`+strings.Repeat(name+" ", size/len(name)+1)+`"`)
	}
	if w.chance(20) {
		at := int64(w.rng.IntN(400))
		l.sum("place", "at", at)
		l.add("place", "spot", `"`+name+`"`)
	}
	l.mapped(w)
	for _, c := range []struct{ group, column string }{{"text", "tag"}, {"text", "note"}, {"metrics", "shares"}} {
		if levels := columnLevels[c.column]; w.level < levels[0] || w.level > levels[1] || !w.chance(25) {
			continue
		}
		if c.group == "text" {
			l.add(c.group, c.column, `"`+c.column+" of "+name+`"`)
		} else {
			l.sum(c.group, c.column, 1+int64(w.rng.IntN(5)))
		}
	}
	l.encode()
	return l
}

// mapped changes the row of a table that others own and that may refuse it.
func (l *line) mapped(w *world) {
	if w.chance(20) {
		l.sum("old", "n", int64(w.rng.IntN(11))-3)
	}
	if w.chance(15) {
		title := `"` + l.name + `"`
		if w.chance(w.profile.refuse) {
			title = `"bad ` + l.name + `"`
		}
		l.add("old", "title", title)
	}
}

func (l *line) add(group, column, text string) {
	l.cols = append(l.cols, field{group: group, column: column, text: text})
}

func (l *line) sum(group, column string, n int64) {
	l.cols = append(l.cols, field{group: group, column: column, text: fmt.Sprint(n), num: n})
}

// touches tells whether the line changes the group.
func (l *line) touches(group string) bool {
	if l.del || group == "clicks" {
		return l.del != (group == "clicks")
	}
	for i := range l.cols {
		if l.cols[i].group == group {
			return true
		}
	}
	return false
}

func (l *line) encode() {
	byVerb := map[string][]string{}
	for _, f := range l.cols {
		v := verbs[f.column]
		byVerb[v] = append(byVerb[v], fmt.Sprintf(`"%s":%s`, f.column, f.text))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{"table":"posts","key":%d`, l.key)
	for _, v := range []string{"set", "add", "max", "min", "unique"} {
		if len(byVerb[v]) > 0 {
			fmt.Fprintf(&b, `,"%s":{%s}`, v, strings.Join(byVerb[v], ","))
		}
	}
	fmt.Fprintf(&b, `,"append":{"clicks":{"what":"%s"}}}`, l.name)
	l.json = b.String()
}

func (l *line) String() string {
	if l.del {
		return fmt.Sprintf("delete %d", l.key)
	}
	var parts []string
	for _, f := range l.cols {
		text := f.text
		if len(text) > 24 {
			text = fmt.Sprintf("%s...(%d)", text[:12], len(text))
		}
		parts = append(parts, f.column+"="+text)
	}
	return fmt.Sprintf("%d{%s}", l.key, strings.Join(parts, " "))
}
