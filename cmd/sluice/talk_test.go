package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

// door stands for a server: it answers what it was given, and remembers what
// it was asked.
type door struct {
	*httptest.Server
	mu      sync.Mutex
	asked   []string          // "METHOD path body"
	answers map[string]string // by "METHOD path"; "422 {...}" has a status
	auth    string
}

func newDoor(t *testing.T, answers map[string]string) *door {
	d := &door{answers: answers}
	d.Server = httptest.NewServer(http.HandlerFunc(d.serve))
	t.Cleanup(d.Close)
	return d
}

func (d *door) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.auth = r.Header.Get("Authorization")
	d.asked = append(d.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	answer, ok := d.answers[r.Method+" "+r.URL.Path]
	if !ok {
		answer = `404 {"code":"not_found","reason":"no_route","detail":"nothing is here"}`
	}
	status := http.StatusOK
	if code, err := strconv.Atoi(answer[:min(3, len(answer))]); err == nil {
		status, answer = code, answer[4:]
	}
	w.Header().Set("Content-Type", "application/json")
	if status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(status)
	io.WriteString(w, answer)
}

// last is what was asked last.
func (d *door) last() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[len(d.asked)-1]
}

func TestWrite_FlagsBecomeAWrite(t *testing.T) {
	d := newDoor(t, map[string]string{"POST /v1/writes": `{"receipt":"R1","accepted":1}`})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"posts", "42", "--add", "likes=1", "--unique", "viewers=u7"}, `[{"table":"posts","key":"42","add":{"likes":1},"unique":{"viewers":"u7"}}]`},
		{[]string{"posts", "42", "--unique", "viewers=a", "--unique", "viewers=b", "--unique", "viewers=7"}, `[{"table":"posts","key":"42","unique":{"viewers":["a","b",7]}}]`},
		{[]string{"posts", "42", "--set", "content=a=b c", "--set", `code="42"`, "--set", "n=null"}, `[{"table":"posts","key":"42","set":{"code":"42","content":"a=b c","n":null}}]`},
		{[]string{"posts", "42", "--append", "clicks:element=x", "--append", "clicks:n=9007199254740993"}, `[{"table":"posts","key":"42","append":{"clicks":{"element":"x","n":9007199254740993}}}]`},
		{[]string{"timeline", "user_id=7,post_id=42", "--max", "at=2026-01-31T00:00:00Z", "--min", "x=-1.50"}, `[{"table":"timeline","key":{"post_id":"42","user_id":"7"},"max":{"at":"2026-01-31T00:00:00Z"},"min":{"x":-1.50}}]`},
		{[]string{"timeline", `{"user_id":7}`, "--delete"}, `[{"table":"timeline","key":{"user_id":7},"delete":true}]`},
		{[]string{"--json-write", `{"table":"t","key":9007199254740993,"add":{"n":9007199254740993}}`}, `[{"table":"t","key":9007199254740993,"add":{"n":9007199254740993}}]`},
	} {
		run(t, append([]string{"write", "--url", d.URL}, c.args...)...).wants(t, exitDone, "1 write, durable", "R1")
		if got := d.last(); got != "POST /v1/writes "+c.want {
			t.Errorf("%q\ngot  %s\nwant %s", c.args, got, c.want)
		}
	}
}

func TestWrite_FromStandardInput(t *testing.T) {
	d := newDoor(t, map[string]string{"POST /v1/writes": `{"receipt":"R1","accepted":3}`})
	in := `{"table":"t","key":1,"add":{"n":1}} [{"table":"t","key":2,"add":{"n":1}},{"table":"t","key":3,"delete":true}]`
	runWith(t, nil, in, "write", "-", "--url", d.URL).wants(t, exitDone, "3 writes")
	if got := d.last(); strings.Count(got, `"table"`) != 3 {
		t.Errorf("asked %s", got)
	}
	runWith(t, nil, `{"table":"t","key":1,"increment":{"n":1}}`, "write", "-", "--url", d.URL).wants(t, exitFailed, `write 1: json: unknown field "increment"`)
	runWith(t, nil, `{"table":`, "write", "-", "--url", d.URL).wants(t, exitFailed, "standard input: write 1 is not JSON")
	runWith(t, nil, ``, "write", "-", "--url", d.URL).wants(t, exitUsage, "standard input is empty")
}

func TestWrite_SaysWhatBecameOfIt(t *testing.T) {
	d := newDoor(t, map[string]string{})
	at := func(answer string) { d.answers["POST /v1/writes"] = answer }
	at(`{"receipt":"R1","accepted":1,"state":"applied","groups":[{"table":"posts","state":"applied"}]}`)
	run(t, "write", "posts", "1", "--add", "n=1", "--wait", "2s", "--url", d.URL).wants(t, exitDone, "applied")
	if got := d.last(); !strings.HasPrefix(got, "POST /v1/writes?wait=applied&timeout=2s ") {
		t.Errorf("asked %s", got)
	}
	at(`{"receipt":"R1","accepted":1,"state":"rejected","groups":[{"table":"posts","group":"metrics","state":"rejected","rejects":[{"id":"7.1","key":1,"reason":"check n >= 0"}]}]}`)
	run(t, "write", "posts", "1", "--add", "n=1", "--wait", "2s", "--url", d.URL).wants(t, exitPartly, "rejected", "check n >= 0 (reject 7.1)")
	at(`207 {"receipt":"R1","accepted":1,"refused":1,"outcomes":[{"line":2,"reason":"thinned"}]}`)
	run(t, "write", "posts", "1", "--add", "n=1", "--url", d.URL).wants(t, exitPartly, "write 2", "thinned")
	at(`422 {"code":"invalid","reason":"wrong_verb","detail":"posts.likes is a sum: use add","faults":[{"line":1,"reason":"wrong_verb","detail":"posts.likes is a sum: use add"}]}`)
	run(t, "write", "posts", "1", "--set", "likes=1", "--url", d.URL).wants(t, exitFailed, "posts.likes is a sum: use add")
	at(`{"receipt":"R1","accepted":1,"duplicate":true}`)
	run(t, "write", "posts", "1", "--add", "n=1", "--idempotency-key", "k", "--url", d.URL).wants(t, exitDone, "this was a retry")
}

func TestGet(t *testing.T) {
	d := newDoor(t, map[string]string{"POST /v1/reads": `{"rows":[{"table":"posts","key":42,"found":true,"columns":{"likes":12,"content":"a \"b\"\u001b[2J","tags":["x"],"gone":null},"stale_by_ns":1200000000}]}`})
	r := run(t, "get", "posts", "42", "--url", d.URL)
	r.wants(t, exitDone)
	want := "posts 42\n  content  a \"b\"␦[2J\n  gone     -\n  likes    12\n  tags     [\"x\"]\nwrites of the last 1.2 s may not be in it\n"
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	d.answers["POST /v1/reads"] = `{"rows":[{"table":"posts","key":42,"found":true,"columns":{"likes":12}},{"table":"posts","key":43,"found":false}]}`
	run(t, "get", "posts", "42", "43", "--receipt", "R1", "--url", d.URL).wants(t, exitDone, "KEY  likes", "42   12", "43", "no such row")
	if got := d.last(); got != `POST /v1/reads {"table":"posts","keys":["42","43"],"receipt":"R1","wait":"5s"}` {
		t.Errorf("asked %s", got)
	}
	d.answers["POST /v1/reads"] = `{"rows":[{"table":"posts","key":43,"found":false}]}`
	run(t, "get", "posts", "43", "--url", d.URL).wants(t, exitFailed, "no such row")
	run(t, "get", "posts", "43", "--json", "--url", d.URL).wants(t, exitFailed, `"found":false`)
}

func TestReceipt(t *testing.T) {
	d := newDoor(t, map[string]string{"GET /v1/receipts/R1": `{"receipt":"R1","state":"lost","groups":[{"table":"posts","group":"content","state":"applied"},{"table":"posts","group":"metrics","state":"lost"}]}`})
	run(t, "receipt", "R1", "--wait", "5s", "--url", d.URL).wants(t, exitFailed, "posts  content  applied", "posts  metrics  lost")
	if got := d.last(); got != "GET /v1/receipts/R1?wait=5s" {
		t.Errorf("asked %s", got)
	}
	run(t, "receipt", "R2", "--url", d.URL).wants(t, exitFailed, "nothing is here")
}

func TestRejects(t *testing.T) {
	one := `{"id":"7.1","table":"posts","group":"metrics","store":"main","shard":"a","key":{"a":1,"b":"x"},"change":{"add":{"n":-5}},"sqlstate":"23514","reason":"check n >= 0","state":"open","at":"2026-01-31T12:00:00Z","writes":3}`
	d := newDoor(t, map[string]string{"GET /v1/rejects": `{"rejects":[` + one + `]}`, "POST /v1/rejects/7.1/replay": "{}"})
	run(t, "rejects", "ls", "--table", "posts", "--url", d.URL).wants(t, exitDone, "7.1", "a=1,b=x", "check n >= 0")
	if got := d.last(); got != "GET /v1/rejects?max=100&state=open&table=posts" {
		t.Errorf("asked %s", got)
	}
	run(t, "rejects", "show", "7.1", "--url", d.URL).wants(t, exitDone, "main/a", "23514", `"n": -5`, "sluice rejects replay 7.1")
	run(t, "rejects", "show", "9.9", "--url", d.URL).wants(t, exitFailed, "no reject has id 9.9")
	r := run(t, "rejects", "replay", "9.9", "7.1", "--url", d.URL)
	r.wants(t, exitFailed, "replay 9.9: nothing is here", "7.1: journaled again")
	d.answers["GET /v1/rejects"] = `{"rejects":[]}`
	run(t, "rejects", "ls", "--all", "--url", d.URL).wants(t, exitDone, "no rejects")
	if got := d.last(); got != "GET /v1/rejects?max=100" {
		t.Errorf("asked %s", got)
	}
}

func TestLedger_MarksWhatDoesNotBalance(t *testing.T) {
	rows := []sluice.LedgerRow{
		{Table: "posts", Group: "content", Offered: 1500, Acked: 1000, Duplicate: 300, Shed: map[string]uint64{"sampled": 150}, Refused: map[string]uint64{"overload": 50}, Applied: 900, Queued: 100},
		{Table: "posts", Group: "metrics", Offered: 11, Acked: 10, Applied: 9},
	}
	text, _ := json.Marshal(map[string]any{"ledger": rows})
	d := newDoor(t, map[string]string{"GET /v1/ledger": string(text)})
	r := run(t, "ledger", "--url", d.URL)
	r.wants(t, exitDone)
	want := "" +
		"TABLE  GROUP    OFFERED  ACKED  DUPLICATE  SHED  REFUSED  APPLIED  QUEUED  NOTES\n" +
		"posts  content    1,500  1,000        300   150       50      900     100  sampled 150, overload 50\n" +
		"       metrics       11     10                                  9       -  offered is off by 1, acked is off by 1\n"
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
}

func TestDrain(t *testing.T) {
	d := newDoor(t, map[string]string{"POST /v1/drain": "{\"queued\":1200}\n{\"queued\":300}\n{\"done\":true}\n"})
	run(t, "drain", "--url", d.URL).wants(t, exitDone, "the database has everything", "1,200 writes")
	d.answers["POST /v1/drain"] = "{\"queued\":1200}\n{\"error\":{\"code\":\"unavailable\",\"reason\":\"stream_stopped\",\"detail\":\"shard a is stopped\"}}\n"
	run(t, "drain", "--url", d.URL).wants(t, exitLater, "shard a is stopped")
}

func TestReload(t *testing.T) {
	d := newDoor(t, map[string]string{"POST /v1/reload": "{}"})
	run(t, "reload", "--url", d.URL, "--token", "secret").wants(t, exitDone, "in force")
	if d.auth != "Bearer secret" {
		t.Errorf("authorization %q", d.auth)
	}
	d.answers["POST /v1/reload"] = `409 {"code":"conflict","reason":"bad_reload","detail":"the config was not reloaded: sluice.yaml:3:1: no"}`
	runWith(t, map[string]string{"SLUICE_TOKEN": "other"}, "", "reload", "--url", d.URL).wants(t, exitFailed, "sluice.yaml:3:1")
	if d.auth != "Bearer other" {
		t.Errorf("authorization %q", d.auth)
	}
}

var someStatus = sluice.Status{Version: "0.1.0", Ready: true, Uptime: 3725, Memory: 81 << 20,
	Journal: sluice.JournalStatus{ID: "aa", Head: 41234, First: 1200, Bytes: 3 << 30, BytesMax: 16 << 30, Segments: 48, Accepted: 12_345_678, Commits: 41234,
		PerSecond: 20312, Refusing: "free disk is below disk_reserve", RetainNote: "bytes win over time: 9 m kept"},
	Streams: []sluice.StreamStatus{
		{Table: "posts", Group: "metrics", Store: "main", Shard: "b", State: "retrying", Error: "connect: refused\x1b[31m", Queued: 812_345, AgeSec: 61.2, Rows: 91_000, RowsPerS: 1523, FoldRatio: 42.31},
		{Table: "posts", Group: "metrics", Store: "main", Shard: "a", State: "draining", Queued: 12, AgeSec: 0.4, Rows: 91_000, RowsPerS: 1523, FoldRatio: 42.31, Parked: 3},
		{Table: "driver_locations", Store: "local", Shard: "main", State: "idle", Rows: 500, FoldRatio: 120},
		{Table: "posts", Group: "content", Store: "local", Shard: "main", State: "stopped", Error: "1,024 rejects", Queued: 7, AgeSec: 3, Rejected: 1024},
	}}

func TestStatus(t *testing.T) {
	text, _ := json.Marshal(someStatus)
	d := newDoor(t, map[string]string{"GET /v1/status": string(text)})
	r := run(t, "status", "--url", d.URL)
	r.wants(t, exitDone)
	golden(t, "status.txt", r.out)
	r = run(t, "status", "--url", d.URL, "--json")
	var back sluice.Status
	if err := json.Unmarshal([]byte(r.out), &back); err != nil || back.Journal.Head != 41234 {
		t.Errorf("%v %s", err, r.out)
	}
}

func TestStatus_ColoursOnATerminal(t *testing.T) {
	var b bytes.Buffer
	if err := renderStatus(&console.Console{W: &b, Color: true, Terminal: true, Width: 200}, &someStatus); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x1b[31mstopped\x1b[0m", "\x1b[33mretrying\x1b[0m", "\x1b[31mfree disk is below disk_reserve\x1b[0m", "refused␦[31m"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in %q", want, b.String())
		}
	}
}

func TestStatus_WatchShowsTheRatesOfTheMoment(t *testing.T) {
	at := func(uptime float64, accepted, rows uint64) sluice.Status {
		return sluice.Status{Uptime: uptime, Journal: sluice.JournalStatus{Accepted: accepted, PerSecond: 1},
			Streams: []sluice.StreamStatus{{Table: "a", Rows: 7, RowsPerS: 1}, {Table: "t", Shard: "x", Rows: rows, RowsPerS: 1}}}
	}
	for _, c := range []struct {
		name        string
		before, now sluice.Status
		writes      float64
		rows        float64
	}{
		{"half a second", at(10, 1000, 100), at(10.5, 1200, 150), 400, 100},
		{"the first look", sluice.Status{}, at(10.5, 1200, 150), 1, 1},
		{"after a restart", at(10, 1000, 100), at(0.5, 20, 3), 1, 1},
		{"after a restart that took long", at(10, 1000, 100), at(20, 20, 3), 1, 1},
	} {
		rates(&c.now, &c.before)
		if c.now.Journal.PerSecond != c.writes || c.now.Streams[1].RowsPerS != c.rows {
			t.Errorf("%s: %v writes/s, %v rows/s", c.name, c.now.Journal.PerSecond, c.now.Streams[1].RowsPerS)
		}
	}
}

// A server that is gone does not end a watch, and ctrl-C ends it without an error.
func TestStatus_WatchGoesOn(t *testing.T) {
	text, _ := json.Marshal(someStatus)
	d := newDoor(t, map[string]string{"GET /v1/status": `503 {"code":"unavailable","reason":"starting","detail":"recovering"}`})
	out := &cancelling{}
	ctx, cancel := contextOf(t)
	out.on = func(s string) {
		d.mu.Lock()
		d.answers["GET /v1/status"] = string(text)
		d.mu.Unlock()
		if strings.Contains(s, "TABLE") {
			cancel()
		}
	}
	m := &Main{Stdin: strings.NewReader(""), Stdout: out, Stderr: io.Discard, Env: noEnv}
	if code := m.Run(ctx, []string{"status", "-w", "--every", "1ms", "--url", d.URL}); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if got := out.String(); !strings.HasPrefix(got, "no answer: recovering\n") || !strings.Contains(got, "TABLE") {
		t.Errorf("got %s", got)
	}
}

// TestLoad_ThroughTheDoor loads through HTTP, with the headers and answers of
// the real one.
func TestLoad_ThroughTheDoor(t *testing.T) {
	j := newJudge(t, 3)
	j.harsh, j.full = true, true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveJudge(j, w, r) }))
	defer srv.Close()
	lines := []string{"id,n"}
	for i := range 3000 {
		n := "1"
		if i%1000 == 7 {
			n = "bad"
		}
		lines = append(lines, fmt.Sprintf("%d,%s", i, n))
	}
	file := writeFile(t, "x.csv", lines)
	tmpl := writeFile(t, "t.json", []string{`{"table":"t","key":"$id:int64","set":{"n":"$n"}}`})
	r := run(t, "load", file, "--template", tmpl, "--url", srv.URL)
	r.wants(t, exitPartly, "accepted  2,997 writes", "refused   3 (bad_line 3), see "+file+".sluice-faults.ndjson")
	for line, times := range j.counts {
		if times != 1 {
			t.Fatalf("counted %d times: %s", times, line)
		}
	}
	run(t, "load", file, "--template", tmpl, "--url", srv.URL).wants(t, exitDone, "was loaded before", "--restart")
	run(t, "load", file, "--url", srv.URL).wants(t, exitUsage, "a CSV needs --template")
	r = runWith(t, nil, `{"a":1}`+"\n"+`{"a":2}`, "load", "-", "--json", "--url", srv.URL)
	r.wants(t, exitDone, `"state":"done","accepted":2`)
}

// serveJudge is the HTTP door before a judge.
func serveJudge(j *judge, w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/v1/producers":
		j.chunks, j.lowest = map[uint64]judged{}, 0
		io.WriteString(w, `{"producer":7}`)
	case "/v1/status":
		io.WriteString(w, `{"journal":{"id":"aa"}}`)
	case "/v1/writes":
		body, _ := io.ReadAll(r.Body)
		var id sluice.Identity
		fmt.Sscanf(r.Header.Get("Sluice-Producer"), "%d;%d;%d", &id.Producer, &id.Chunk, &id.Lowest)
		out, err := j.send(r.Context(), id, body)
		if err != nil {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"code":"unavailable","reason":"test","detail":"down","retry_after_ms":1}`)
			return
		}
		for _, f := range out.faults {
			fmt.Fprintf(w, "{\"line\":%d,\"reason\":%q,\"detail\":%q}\n", f.index+1, f.reason, f.detail)
		}
		fmt.Fprintf(w, "{\"receipt\":\"R\",\"accepted\":%d,\"refused\":%d}\n{\"accepted\":%d,\"refused\":%d}\n", out.accepted, len(out.faults), out.accepted, len(out.faults))
	}
}

func TestLoad_MeetsAnotherServer(t *testing.T) {
	file := writeFile(t, "x.ndjson", []string{`{"a":1}`})
	st := &loadState{Version: loadStateVersion, Journal: "bb", Producer: 7, Next: 5, path: file + ".sluice-load.json"}
	in, err := openInput(file, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	st.File, _ = in.fingerprint()
	in.Close()
	if err := st.save(); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveJudge(newJudge(t, 1), w, r) }))
	defer srv.Close()
	run(t, "load", file, "--url", srv.URL).wants(t, exitFailed, "another journal (bb)", "--restart")
}

func TestLoad_GivesUpInTheEnd(t *testing.T) {
	d := newDoor(t, map[string]string{"POST /v1/producers": `{"producer":1}`, "GET /v1/status": `{}`,
		"POST /v1/writes": `503 {"code":"overloaded","reason":"journal_full","detail":"the journal is full","retry_after_ms":1}`})
	file := writeFile(t, "x.ndjson", []string{`{"a":1}`})
	began := time.Now()
	run(t, "load", file, "--patience", "10ms", "--url", d.URL).wants(t, exitLater, "the server took nothing for 10ms", "the journal is full", "run the same command again")
	if _, err := os.Stat(file + ".sluice-load.json"); err != nil {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}
