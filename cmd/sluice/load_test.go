package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

// judge stands for a server: it counts what it accepts, knows a chunk by its
// number and bytes, and forgets what the client no longer needs.
type judge struct {
	t      *testing.T
	rand   *rand.Rand
	chunks map[uint64]judged
	lowest uint64
	counts map[string]int // accepted, by write
	harsh  bool           // fails and loses answers
	full   bool           // refuses parts for a while
	onSend func()
}

type judged struct {
	body string
	out  sent
}

var errDown = sluice.Errorf(sluice.Unavailable, "test", "the server is down")

func (j *judge) send(ctx context.Context, id sluice.Identity, body []byte) (sent, error) {
	if err := ctx.Err(); err != nil {
		return sent{}, err
	}
	if j.onSend != nil {
		j.onSend()
	}
	if id.Chunk < j.lowest || id.Lowest > id.Chunk || id.Chunk-id.Lowest >= sluice.ProducerInFlightMax {
		j.t.Errorf("chunk %d with lowest %d, after lowest %d: the server may have forgotten it", id.Chunk, id.Lowest, j.lowest)
		return sent{}, sluice.Errorf(sluice.Invalid, "forgotten", "forgotten")
	}
	j.lowest = max(j.lowest, id.Lowest)
	if old, ok := j.chunks[id.Chunk]; ok {
		if old.body != string(body) {
			return sent{}, sluice.Errorf(sluice.Conflict, "identity_reused", "chunk %d came with other bytes", id.Chunk)
		}
		return old.out, nil
	}
	if j.harsh && j.rand.IntN(8) == 0 {
		return sent{}, errDown
	}
	out := j.judge(body)
	if out.accepted > 0 {
		j.chunks[id.Chunk] = judged{string(body), out}
	}
	if j.harsh && j.rand.IntN(8) == 0 {
		return sent{}, errDown // accepted, and the answer is lost
	}
	return out, nil
}

func (j *judge) judge(body []byte) (out sent) {
	overloaded := j.full && j.rand.IntN(4) == 0
	for i, line := range strings.Split(strings.TrimSuffix(string(body), "\n"), "\n") {
		switch {
		case strings.Contains(line, "bad"):
			out.faults = append(out.faults, lineFault{index: i, reason: "bad_line", detail: "it says bad"})
		case overloaded && j.rand.IntN(3) > 0:
			out.faults = append(out.faults, lineFault{index: i, reason: "overload", detail: "too much"})
		default:
			j.counts[line]++
			out.accepted++
		}
	}
	return out
}

func newJudge(t *testing.T, seed uint64) *judge {
	return &judge{t: t, rand: rand.New(rand.NewPCG(seed, 1)), chunks: map[uint64]judged{}, counts: map[string]int{}}
}

// load runs one load of a file as the command does, but for the connection.
func load(ctx context.Context, j *judge, file string, tmpl string) (*loader, error) {
	in, err := openInput(file, "", nil)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	l := &loader{in: in, send: j.send, patience: time.Minute, say: console.New(io.Discard, noEnv), faults: faultsFile{path: file + ".faults", own: true}}
	if tmpl != "" {
		if l.tmpl, err = parseTemplate("template", []byte(tmpl)); err != nil {
			return nil, err
		}
	}
	l.pause = func(context.Context, time.Duration) error { return ctx.Err() }
	st, err := (&program{}).loadState(in, loadFlags{}, "")
	if err != nil {
		return nil, err
	}
	st.Producer = 7
	l.st = st
	return l, l.run(ctx)
}

func noEnv(string) (string, bool) { return "", false }

func writeFile(t *testing.T, name string, lines []string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	text := []byte(strings.Join(lines, "\n") + "\n")
	if strings.HasSuffix(name, ".gz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(text)
		z.Close()
		text = b.Bytes()
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestLoad_InterruptedAnywhere stops a load at random moments, by a signal (the
// state is saved) or as kill -9 and power cuts do (the state on disk is an older
// one), with a server that is down, refuses parts and loses answers.
func TestLoad_InterruptedAnywhere(t *testing.T) {
	for seed := range uint64(6) {
		name := []string{"writes.ndjson", "writes.ndjson.gz", "writes.csv"}[seed%3]
		t.Run(fmt.Sprintf("seed %d %s", seed, name), func(t *testing.T) {
			j := newJudge(t, seed)
			j.harsh, j.full = true, seed%2 == 0
			n := 70_000 // more chunks than may be in flight
			if j.full {
				n = 20_000
			}
			var lines []string
			tmpl, bad := "", 0
			if strings.Contains(name, "csv") {
				lines, tmpl = append(lines, "id,text"), `{"table":"t","key":"$id:int64","set":{"text":"$text?"}}`
			}
			for i := range n {
				word := "good"
				if j.rand.IntN(500) == 0 {
					word, bad = "bad", bad+1
				}
				if tmpl != "" {
					lines = append(lines, fmt.Sprintf("%d,\"%s\nand more\"", i, word))
				} else {
					lines = append(lines, fmt.Sprintf(`{"id":%d,"say":%q}`, i, word))
				}
			}
			file := writeFile(t, name, lines)
			for tries := 0; ; tries++ {
				ctx, cancel := context.WithCancel(t.Context())
				stopAt, kill, sends := 1+j.rand.IntN(n/1000), j.rand.IntN(2) == 0, 0
				var crashed map[string][]byte
				j.onSend = func() {
					if sends++; sends != stopAt {
						return
					}
					if kill {
						crashed = snapshot(t, file)
					}
					cancel()
				}
				l, err := load(ctx, j, file, tmpl)
				cancel()
				if err == nil {
					if l.st.Accepted != int64(n-bad) || l.st.Refused != int64(bad) {
						t.Errorf("accepted %d and refused %d, want %d and %d", l.st.Accepted, l.st.Refused, n-bad, bad)
					}
					if tries == 0 {
						t.Error("the load was never interrupted")
					}
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				restore(t, crashed)
			}
			if len(j.counts) != n-bad {
				t.Errorf("%d different writes counted, want %d", len(j.counts), n-bad)
			}
			for line, times := range j.counts {
				if times != 1 {
					t.Fatalf("counted %d times: %s", times, line)
				}
			}
			faults, _ := os.ReadFile(file + ".faults")
			if got := bytes.Count(faults, []byte("\n")); got != bad {
				t.Errorf("%d lines in the faults file, want %d", got, bad)
			}
		})
	}
}

// snapshot keeps the files that a load writes; restore brings them back.
func snapshot(t *testing.T, file string) map[string][]byte {
	kept := map[string][]byte{}
	for _, name := range []string{file + ".sluice-load.json", file + ".faults"} {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		kept[name] = text
	}
	return kept
}

func restore(t *testing.T, kept map[string][]byte) {
	for name, text := range kept {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoad_FaultsNameTheLine(t *testing.T) {
	file := writeFile(t, "x.csv", []string{"id,n", "1,5", "2,many", "3,7,8", `4,"6`, `x"`, "5,9"})
	j := newJudge(t, 1)
	l, err := load(t.Context(), j, file, `{"table":"t","key":"$id:int64","add":{"n":"$n:int64"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if l.st.Accepted != 2 || l.st.Refused != 3 {
		t.Errorf("accepted %d, refused %d", l.st.Accepted, l.st.Refused)
	}
	text, _ := os.ReadFile(file + ".faults")
	var got []loadFault
	for line := range strings.Lines(string(text)) {
		var f loadFault
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
	want := []loadFault{
		{3, "bad_record", `field "n": "many" is not int64`, "2,many"},
		{4, "bad_record", "3 fields, the header names 2", "3,7,8"},
		{5, "bad_record", `field "n": "6\nx" is not int64`, "4,\"6\nx\""},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLoad_TooLongRecordHarmsNoOther(t *testing.T) {
	file := writeFile(t, "x.ndjson", []string{`{"a":1}`, strings.Repeat("x", recordBytesMax+5), `{"a":2}`})
	j := newJudge(t, 1)
	l, err := load(t.Context(), j, file, "")
	if err != nil {
		t.Fatal(err)
	}
	if l.st.Accepted != 2 || l.st.Refused != 1 || j.counts[`{"a":1}`] != 1 || j.counts[`{"a":2}`] != 1 {
		t.Errorf("accepted %d, refused %d: %v", l.st.Accepted, l.st.Refused, j.counts)
	}
}

func TestLoad_AnotherFileOrTemplateIsRefused(t *testing.T) {
	file := writeFile(t, "x.ndjson", []string{`{"a":1}`})
	j := newJudge(t, 1)
	if _, err := load(t.Context(), j, file, ""); err != nil {
		t.Fatal(err)
	}
	in, err := openInput(file, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p := &program{}
	st, err := p.loadState(in, loadFlags{}, "")
	if err != nil || st.Done.IsZero() {
		t.Errorf("a file that was loaded is not known: %+v, %v", st, err)
	}
	if _, err = p.loadState(in, loadFlags{}, "other"); err == nil || !strings.Contains(err.Error(), "--restart") {
		t.Errorf("another template: %v", err)
	}
	if err := os.WriteFile(file, []byte("{}\n{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err := openInput(file, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer changed.Close()
	if _, err = p.loadState(changed, loadFlags{}, ""); err == nil || !strings.Contains(err.Error(), "--restart") {
		t.Errorf("another content: %v", err)
	}
	if st, err = p.loadState(changed, loadFlags{restart: true}, ""); err != nil || st.Next != 1 {
		t.Errorf("--restart: %+v, %v", st, err)
	}
}

func TestTemplate(t *testing.T) {
	for _, c := range []struct{ name, tmpl, record, want string }{
		{"type stays", `{"table":"t","key":"$k","set":{"a":"$a","b":"$b","c":"$c"}}`, `{"k":42,"a":1.50,"b":null,"c":{"x":[1]}}`,
			`{"table":"t","key":42,"set":{"a":1.50,"b":null,"c":{"x":[1]}}}`},
		{"conversions", `{"key":"$k:text","add":{"n":"$n:int64","f":"$f:float64","d":"$d:decimal"},"set":{"b":"$b:bool","t":"$t:timestamp","u":"$u:unix","m":"$m:unix_ms","y":"$y:date","j":"$j:json"}}`,
			`{"k":42,"n":" 7 ","f":"1e3","d":"1.10","b":"yes","t":"2001/01/14 21:55","u":0.5,"m":"1500","y":"2001-01-14T21:55:00Z","j":"{\"a\": 1}"}`,
			`{"key":"42","add":{"n":7,"f":1000,"d":1.10},"set":{"b":true,"t":"2001-01-14T21:55:00Z","u":"1970-01-01T00:00:00.5Z","m":"1970-01-01T00:00:01.5Z","y":"2001-01-14","j":{"a":1}}}`},
		{"optional is left out", `{"key":1,"set":{"a":"$a?","b":"$b?"},"append":{"e":{"c":"$c?"}}}`, `{"a":null,"b":2}`, `{"key":1,"set":{"b":2}}`},
		{"a write that changes nothing is left out", `{"key":1,"set":{"a":"$a?"}} {"key":"$k","add":{"n":1}}`, `{"k":5}`, `{"key":5,"add":{"n":1}}`},
		{"several in an array", `[{"key":1,"add":{"n":1}},{"key":2,"delete":true}]`, `{}`, "{\"key\":1,\"add\":{\"n\":1}}\n{\"key\":2,\"delete\":true}"},
		{"dollar itself", `{"key":"$$k","add":{"price$":1}}`, `{}`, `{"key":"$k","add":{"price$":1}}`},
		{"inside an object", `{"key":"$a.b.c","add":{"n":"$x.y"}}`, `{"a":{"b":{"c":3}},"x.y":4}`, `{"key":3,"add":{"n":4}}`},
		{"unknown types pass", `{"key":"$k","unique":{"u":["$a","$b?"]}}`, `{"k":"é\u0001","a":"<&>"}`, `{"key":"é\u0001","unique":{"u":["<&>"]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmpl, err := parseTemplate("t.json", []byte(c.tmpl))
			if err != nil {
				t.Fatal(err)
			}
			var f fields
			if err := f.set(&input{}, record{text: []byte(c.record)}); err != nil {
				t.Fatal(err)
			}
			out, n, err := tmpl.render(nil, &f)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(string(out), "\n"); got != c.want || n != strings.Count(c.want, "\n")+1 {
				t.Errorf("%d writes\ngot  %s\nwant %s", n, got, c.want)
			}
		})
	}
}

func TestTemplate_Faults(t *testing.T) {
	for tmpl, want := range map[string]string{
		"":                         "no write in it",
		"42":                       "value 1 is not a JSON object",
		"{\n\"key\":\"$k:int\"}":   `t.json:2: "$k:int": no conversion "int"; there are int64`,
		`{"key":"$"}`:              "names no field",
		`{"key":"$?"}`:             "names no field",
		"{\"key\":1,\n\"key\":2}":  "t.json:2: ",
		"{\"table\":\"t\",":        "unexpected",
		`{"add":{"n":"$n:int64"}}`: "",
	} {
		_, err := parseTemplate("t.json", []byte(tmpl))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", tmpl, err, want)
		}
	}
	tmpl, _ := parseTemplate("t.json", []byte(`{"key":"$k:int64","add":{"n":"$n"}}`))
	for record, want := range map[string]string{
		`{"k":1}`:               `no field "n"; write "$n?" in the template`,
		`{"k":"x","n":1}`:       `field "k": "x" is not int64`,
		`{"k":1.5,"n":1}`:       `is not int64`,
		`[1]`:                   "not a JSON object",
		`{"k":1,"n":1} {"k":2}`: "something follows",
		`{"k":1,"n":`:           "not JSON",
		`{"k":1,"k":2,"n":1}`:   "duplicate",
	} {
		var f fields
		err := f.set(&input{}, recordOf(record))
		if err == nil {
			_, _, err = tmpl.render(nil, &f)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", record, err, want)
		}
	}
}

func recordOf(text string) record { return record{text: []byte(text)} }

func TestTemplate_UnitsThatDoNotFit(t *testing.T) {
	for _, c := range []struct{ typ, text string }{
		{"float64", "NaN"}, {"float64", "1e999"}, {"decimal", "1e3"}, {"decimal", ".5"}, {"decimal", "0x1"}, {"bool", "maybe"},
		{"timestamp", "01/02/03"}, {"timestamp", "99"}, {"unix", "1e30"}, {"unix", "soon"}, {"json", "{"}, {"int64", "9223372036854775808"},
	} {
		if out, err := conversions[c.typ](nil, []byte(c.text)); err == nil {
			t.Errorf("%s of %q gives %s", c.typ, c.text, out)
		}
	}
}

func TestInput_KnowsJSONArraysAndByteOrderMarks(t *testing.T) {
	in, err := openInput(writeFile(t, "x.json", []string{"[", "1]"}), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := in.begin(); err == nil || !strings.Contains(err.Error(), "jq -c '.[]'") {
		t.Errorf("an array: %v", err)
	}
	marked, err := openInput(writeFile(t, "x.csv", []string{"\xef\xbb\xbfid,n", "1,2"}), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer marked.Close()
	if err := marked.begin(); err != nil || marked.header[0] != "id" {
		t.Errorf("header %q, %v", marked.header, err)
	}
}
