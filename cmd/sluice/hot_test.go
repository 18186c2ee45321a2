package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
)

func TestHot_ShowsWhatIsDoneAboutEachKey(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	keys := []sluice.HotKey{
		{Table: "posts", Group: "clicks", Key: json.RawMessage(`42`), State: "hot", PerSecond: 51_234, Share: .5, Since: now.Add(-90 * time.Second), Rule: "batched", Detail: "each event is a row"},
		{Table: "posts", Group: "metrics", Key: json.RawMessage(`{"a":1,"b":"x"}`), State: "cooling", PerSecond: 30, Share: .004, ShareError: .0012, Since: now.Add(-3 * time.Second), Detail: "folds\x1b[2J"},
	}
	var out bytes.Buffer
	if err := renderHot(&console.Console{W: &out}, keys, now); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"TABLE  GROUP    KEY      WRITES/S   SHARE     ERROR     SINCE  STATE    WHAT IS DONE\n" +
		"posts  clicks   42          51.2k  50.0 %            1 m 30 s           each event is a row\n" +
		"       metrics  a=1,b=x        30   0.4 %  +0.120 %     3.0 s  cooling  folds␦[2J\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestHot(t *testing.T) {
	d := newDoor(t, map[string]string{"GET /v1/hot": `{"hot":[{"table":"posts","key":42,"state":"hot","writes_per_s":100,"share":1,"rule":"folded","detail":"folds"}]}`})
	run(t, "hot", "--url", d.URL).wants(t, exitDone, "posts", "42", "100.0 %", "folds")
	run(t, "hot", "--json", "--url", d.URL).wants(t, exitDone, `"rule":"folded"`)
	d.answers["GET /v1/hot"] = `{"hot":[]}`
	run(t, "hot", "--url", d.URL).wants(t, exitDone, "no key takes 1 %")
	run(t, "hot", "--json", "--url", d.URL).wants(t, exitDone, "[]\n")
	d.answers["GET /v1/hot"] = `403 {"code":"denied","reason":"not_allowed","detail":"client may not read"}`
	run(t, "hot", "--watch", "--url", d.URL).wants(t, exitFailed, "may not read")
	run(t, "hot", "now").wants(t, exitUsage, "sluice hot takes no arguments")
}

func TestHot_WatchShowsAgainUntilInterrupted(t *testing.T) {
	d := newDoor(t, map[string]string{"GET /v1/hot": `{"hot":[]}`})
	ctx, cancel := contextOf(t)
	shown := 0
	out := &cancelling{on: func(string) {
		if shown++; shown == 4 {
			cancel()
		}
	}}
	m := &Main{Stdin: &bytes.Buffer{}, Stdout: out, Stderr: &bytes.Buffer{}, Env: func(string) (string, bool) { return "", false }}
	m.Run(ctx, []string{"hot", "-w", "--every", "50ms", "--url", d.URL})
	if got := bytes.Count([]byte(out.String()), []byte("no key takes")); got < 2 {
		t.Errorf("shown %d times:\n%s", got, out.String())
	}
}
