package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const shopConfig = `
listen: {http: "127.0.0.1:0", resp: off}
journal: {dir: journal, segment_bytes: 1MiB, disk_reserve: 1MiB}
stores: {local: "sqlite:app.db"}
tables:
  posts:
    key: {post_id: int64}
    groups:
      metrics: {flush: 10ms, columns: {likes: int64 sum, viewers: text unique, last_seen: timestamp max}}
      clicks:  {kind: events, columns: {element: text}}
  names:
    key: {code: text}
    flush: 10ms
    columns: {name: text}
`

// served is a server that runs in this process until stop.
type served struct {
	url, config string
	stop        func() int
}

// serve starts `sluice serve` and waits until it says where its door is.
func serve(t *testing.T, config string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	says := make(chan string, 1)
	out := &cancelling{on: func(s string) {
		select {
		case says <- s:
		default:
		}
	}}
	errs := &cancelling{on: func(string) {}}
	m := &Main{Stdin: strings.NewReader(""), Stdout: out, Stderr: errs, Env: noEnv}
	done := make(chan int, 1)
	go func() { done <- m.Run(ctx, []string{"serve", "-c", config, "--json"}) }()
	s := &served{config: config}
	select {
	case line := <-says:
		var doors struct{ HTTP, Journal string }
		if err := json.Unmarshal([]byte(line), &doors); err != nil || doors.HTTP == "" || doors.Journal != filepath.Join(filepath.Dir(config), "journal") {
			t.Fatalf("%v: %s", err, line)
		}
		s.url = doors.HTTP
	case code := <-done:
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	code := -1
	s.stop = func() int {
		cancel()
		if code < 0 {
			code = <-done
		}
		if t.Failed() {
			t.Log(errs.String())
		}
		return code
	}
	t.Cleanup(func() { s.stop() })
	return s
}

// run runs a command against the server, once it takes requests.
func (s *served) run(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, append(args, "--url", s.url)...)
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestServe_FromWriteToDrain goes the way of the README, with every command.
func TestServe_FromWriteToDrain(t *testing.T) {
	config := writeConfig(t, shopConfig)
	s := serve(t, config)
	s.run(t, "write", "posts", "42", "--add", "likes=2", "--unique", "viewers=u7", "--max", "last_seen=2026-01-31T12:00:00Z", "--wait", "10s").wants(t, exitDone, "applied")
	s.run(t, "write", "posts", "42", "--append", "clicks:element=buy").wants(t, exitDone, "durable")
	s.run(t, "write", "names", "7", "--set", "name=seven").wants(t, exitDone)
	s.run(t, "write", "posts", "42", "--set", "likes=2").wants(t, exitFailed, "likes")
	s.run(t, "write", "posts", "42", "--add", "like=2").wants(t, exitFailed, "like")

	receipt := field(t, s.run(t, "write", "posts", "42", "--add", "likes=3", "--json"), "receipt")
	s.run(t, "receipt", receipt, "--wait", "10s").wants(t, exitDone, "posts  metrics  applied")
	s.run(t, "get", "posts", "42", "--receipt", receipt).wants(t, exitDone, "likes      5", "viewers    1")
	s.run(t, "get", "posts", "43").wants(t, exitFailed, "no such row")

	s.run(t, "drain").wants(t, exitDone, "the database has everything")
	s.run(t, "get", "names", "7").wants(t, exitDone, "seven")
	s.run(t, "status").wants(t, exitDone, "ready", "posts", "metrics", "clicks", "names")
	s.run(t, "ledger").wants(t, exitDone, "posts", "metrics", "names")
	s.run(t, "rejects", "ls").wants(t, exitDone, "no rejects")
	if code := s.stop(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	run(t, "journal", "verify", "-c", config).wants(t, exitDone, "whole")
	run(t, "journal", "dump", "-c", config, "--entries").wants(t, exitDone, "commit 1 ", `"writes":1`)
	run(t, "journal", "dump", "-c", config, "--max", "1", "--json").wants(t, exitDone, `"commit":1`)
}

func field(t *testing.T, r result, name string) string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatalf("%v: %s%s", err, r.out, r.err)
	}
	s, _ := v[name].(string)
	return s
}

func TestServe_Reloads(t *testing.T) {
	config := writeConfig(t, shopConfig)
	s := serve(t, config)
	s.run(t, "write", "posts", "1", "--add", "shares=1").wants(t, exitFailed, "shares")
	more := strings.Replace(shopConfig, "likes: int64 sum,", "likes: int64 sum, shares: int64 sum,", 1)
	if err := os.WriteFile(config, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, "reload").wants(t, exitDone, "in force")
	s.run(t, "write", "posts", "1", "--add", "shares=1", "--wait", "10s").wants(t, exitDone, "applied")
	if err := os.WriteFile(config, []byte("tables: 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, "reload").wants(t, exitFailed, "the old one stays in force", "sluice.yaml:1:")
	s.run(t, "write", "posts", "1", "--add", "shares=1").wants(t, exitDone)
}

// SIGHUP is a reload too; it reaches this process, in which the server runs.
func TestServe_HangupReloads(t *testing.T) {
	config := writeConfig(t, shopConfig)
	s := serve(t, config)
	more := strings.Replace(shopConfig, "likes: int64 sum,", "likes: int64 sum, shares: int64 sum,", 1)
	if err := os.WriteFile(config, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, "status").wants(t, exitDone)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for s.run(t, "write", "posts", "1", "--add", "shares=1").code != exitDone {
		if t.Context().Err() != nil {
			t.Fatal("the reload never came")
		}
	}
}

func TestServe_SaysWhatKeepsItFromStarting(t *testing.T) {
	run(t, "serve", "-c", filepath.Join(t.TempDir(), "none.yaml")).wants(t, exitFailed, "none.yaml", "sluice init")
	config := writeConfig(t, shopConfig)
	s := serve(t, config)
	run(t, "serve", "-c", config).wants(t, exitFailed, "journal")
	s.stop()
}

// A server that was started with its standard input stops with it.
func TestServe_StopsWithStandardInput(t *testing.T) {
	r, w := io.Pipe()
	out := &cancelling{on: func(string) { w.Close() }}
	m := &Main{Stdin: r, Stdout: out, Stderr: io.Discard, Env: noEnv}
	if code := m.Run(t.Context(), []string{"serve", "-c", writeConfig(t, shopConfig), "--stop-with-stdin"}); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"http://127.0.0.1:", "journal", "app.db"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %s", want, out.String())
		}
	}
}

func TestLoad_IntoARealServer(t *testing.T) {
	s := serve(t, writeConfig(t, shopConfig))
	lines := []string{"post,user"}
	for i := range 5000 {
		user := "u" + strings.Repeat("x", i%7)
		if i == 4000 {
			lines = append(lines, "none,u")
			continue
		}
		lines = append(lines, string(rune('0'+i%10))+","+user)
	}
	file := writeFile(t, "likes.csv.gz", lines)
	tmpl := writeFile(t, "t.json", []string{
		`{"table":"posts","key":"$post:int64","add":{"likes":1},"unique":{"viewers":"$user"}}`, `{"table":"posts","key":"$post:int64","append":{"clicks":{"element":"$user"}}}`})
	s.run(t, "load", file, "--template", tmpl).wants(t, exitPartly, "accepted  9,998 writes", "refused   1 (bad_record 1)")
	s.run(t, "load", file, "--template", tmpl).wants(t, exitDone, "was loaded before")
	s.run(t, "drain").wants(t, exitDone)
	s.run(t, "get", "posts", "0", "1").wants(t, exitDone, "KEY  last_seen  likes  viewers", "0    -          499    7", "1    -          500    7")
}

func TestMigrate(t *testing.T) {
	config := writeConfig(t, strings.Replace(shopConfig, `local: "sqlite:app.db"`, `local: {url: "sqlite:app.db", ddl: print}`, 1))
	run(t, "migrate", "-c", config).wants(t, exitDone, "-- store local", `CREATE TABLE "posts_metrics"`, "sluice_cursor")
	run(t, "migrate", "-c", config, "--apply").wants(t, exitDone, "ran ")
	run(t, "migrate", "-c", config, "--print").wants(t, exitDone, "the databases have all tables")
	s := serve(t, config)
	s.run(t, "write", "posts", "42", "--add", "likes=2", "--wait", "10s").wants(t, exitDone, "applied")
	s.stop()
	run(t, "migrate", "-c", config, "--down").wants(t, exitDone, `DROP TABLE "posts_metrics"`)
	run(t, "migrate", "-c", config, "--down", "--apply").wants(t, exitUsage, "--yes")
	run(t, "migrate", "-c", config, "--down", "--apply", "--yes", "--json").wants(t, exitDone, `"applied":true`)
	run(t, "migrate", "-c", config, "--down").wants(t, exitDone, "no database has tables of Sluice")
	run(t, "migrate", "--print", "--apply").wants(t, exitUsage, "give one of them")
}

// A byte that flips in the middle is damage; adopt goes on without what is lost.
func TestJournal_DamageIsShownAndAdopted(t *testing.T) {
	config := writeConfig(t, shopConfig)
	s := serve(t, config)
	for range 20 {
		s.run(t, "write", "posts", "42", "--add", "likes=1").wants(t, exitDone)
	}
	s.run(t, "drain").wants(t, exitDone)
	s.stop()
	run(t, "journal", "adopt", "-c", config).wants(t, exitDone, "whole", "nothing was changed")

	segments, _ := filepath.Glob(filepath.Join(filepath.Dir(config), "journal", "*.seg"))
	if len(segments) == 0 {
		entries, _ := os.ReadDir(filepath.Join(filepath.Dir(config), "journal"))
		t.Fatalf("no segments: %v", entries)
	}
	dump := run(t, "journal", "dump", "-c", config, "--from", "10", "--to", "10", "--json")
	var at struct{ Offset int64 }
	if err := json.Unmarshal([]byte(dump.out), &at); err != nil {
		t.Fatal(err, dump.out)
	}
	flip(t, segments[0], at.Offset+40)

	run(t, "journal", "verify", "-c", config).wants(t, exitFailed, "damaged", "offset", "sluice journal adopt")
	run(t, "journal", "verify", "-c", config, "--json").wants(t, exitFailed, `"whole":false`)
	run(t, "serve", "-c", config).wants(t, exitFailed, "sluice journal adopt")
	run(t, "journal", "adopt", "-c", config, "--yes").wants(t, exitDone, "adopted", "kept aside")
	run(t, "journal", "verify", "-c", config).wants(t, exitDone, "whole", "hole")
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}
