package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/store/pgtest"
)

var rewrite = flag.Bool("rewrite", false, "write the files of testdata anew")

// runsMain makes the test binary be the program, for tests that start it as
// another process (the demo starts itself).
const runsMain = "SLUICE_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runsMain) != "" {
		main()
	}
	os.Exit(pgtest.Main(m)) // the bench's server goes with the tests
}

// result is what one command line did.
type result struct {
	code     int
	out, err string
}

// run runs a command line with nothing on standard input and an environment of its own.
func run(t *testing.T, args ...string) result {
	t.Helper()
	return runWith(t, nil, "", args...)
}

func runWith(t *testing.T, env map[string]string, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	m := &Main{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Env: func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}}
	code := m.Run(t.Context(), args)
	return result{code, out.String(), errs.String()}
}

// wants checks the exit code, and that texts are in what was printed.
func (r result) wants(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("%q is missing in:\n%s%s", text, r.out, r.err)
		}
	}
}

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs; go test -rewrite writes it anew\n%s", file, d)
	}
}

func TestHelp_OfEveryCommand(t *testing.T) {
	var text strings.Builder
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "completion" || cmd.Name() == "help" {
			return
		}
		path := strings.Fields(cmd.CommandPath())
		r := run(t, append(path[1:], "--help")...)
		r.wants(t, exitDone)
		text.WriteString("$ " + strings.Join(path, " ") + " --help\n" + r.out + "\n")
		if cmd.Name() != "sluice" && !cmd.HasExample() {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newProgram(&Main{Env: noEnv}).root())
	golden(t, "help.txt", text.String())
}

func TestUsage_IsAnsweredWithTheCure(t *testing.T) {
	for _, c := range []struct {
		line string
		want string
	}{
		{"wirte posts 42", `there is no command "wirte"; did you mean write?`},
		{"status now", "sluice status takes no arguments, 1 given"},
		{"status --nope", "unknown flag: --nope"},
		{"rejects drop 1.2", `sluice rejects has no command "drop"`},
		{"get posts", "takes a table and one or more keys, 1 given"},
		{"write posts", "write takes a table and a key"},
		{"write posts 42", "nothing to write to posts 42; say what with --set"},
		{"write posts 42 --add likes", "--add likes: write it as column=value"},
		{"write posts 42 --add likes=1 --add likes=2", "--add names column likes twice"},
		{"write posts 42 --append clicks", "--append clicks: write it as group:column=value"},
		{"write posts 42 --delete --add likes=1", "--delete stands alone"},
		{"write posts 42 --json-write {}", "--json-write says all of the write"},
		{"load x.csv --format xml", "use ndjson, csv or tsv"},
		{"demo --connections 0", "--connections 1 to 256"},
		{"status --url ftp://x", "is not one of an HTTP door"},
		{"status --url http://x --cert a.pem", "--cert and --key go together"},
		{"serve --log xml", "use text or json"},
	} {
		r := run(t, strings.Fields(c.line)...)
		r.wants(t, exitUsage, c.want)
		if r.out != "" {
			t.Errorf("%s: a wrong command line prints to standard output: %s", c.line, r.out)
		}
	}
}

func TestErrors_AreJSONWhenAskedFor(t *testing.T) {
	r := run(t, "status", "--json", "--url", "http://127.0.0.1:1")
	if r.code != exitLater || !strings.HasPrefix(r.err, `{"error":{"code":"unavailable","reason":"unreachable","detail":"no answer from http://127.0.0.1:1`) {
		t.Errorf("%d %s", r.code, r.err)
	}
	r = run(t, "write", "posts", "--json")
	if r.code != exitUsage || !strings.HasPrefix(r.err, `{"error":{"code":"usage"`) {
		t.Errorf("%d %s", r.code, r.err)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	m := &Main{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Env: noEnv}
	if code := m.Run(ctx, []string{"status", "--url", "http://127.0.0.1:1"}); code != exitInterrupted || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("%d %s", code, errs.String())
	}
}

func TestInit_NeverOverwrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.yaml")
	run(t, "init", "-c", file).wants(t, exitDone, "wrote "+file, "sluice check -c "+file)
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "init", "-c", file).wants(t, exitFailed, "is there already and stays as it is")
	if text, _ := os.ReadFile(file); string(text) != "mine" {
		t.Errorf("the file now holds %q", text)
	}
}

// What init writes must pass check; what check prints is its interface.
func TestCheck_OfTheExample(t *testing.T) {
	t.Chdir(t.TempDir())
	run(t, "init").wants(t, exitDone)
	r := run(t, "check")
	r.wants(t, exitDone, "sluice.yaml has no faults")
	t.Chdir(origin)
	golden(t, "check.txt", r.out)
}

var origin, _ = os.Getwd()

func TestCheck_EveryFaultAtOnce(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	text := "stores: {local: \"sqlite:app.db\"}\ntables:\n  posts:\n    key: {id: int46}\n    columns: {likes: int64 summ}\n"
	if err := os.WriteFile("sluice.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, "check")
	r.wants(t, exitFailed, "sluice.yaml:4:", "sluice.yaml:5:", "2 faults")
	r = run(t, "check", "--json")
	r.wants(t, exitFailed, `"line":4`, `"line":5`, `"cure":`)
}

func TestConfig_WhereItIsLookedFor(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, port := range map[string]string{"sluice.yaml": "1", "env.yaml": "2", "flag.yaml": "3", "off.yaml": "off"} {
		listen := "127.0.0.1:" + port
		if port == "off" {
			listen = "off"
		}
		text := "listen: {http: \"" + listen + "\", resp: off}\nstores: {l: \"sqlite:a.db\"}\ntables: {t: {key: {id: int64}, columns: {n: int64 sum}}}\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{}
	runWith(t, env, "", "status").wants(t, exitLater, "no answer from http://127.0.0.1:1:")
	env["SLUICE_CONFIG"] = "env.yaml"
	runWith(t, env, "", "status").wants(t, exitLater, "http://127.0.0.1:2:")
	runWith(t, env, "", "status", "-c", "flag.yaml").wants(t, exitLater, "http://127.0.0.1:3:")
	env["SLUICE_URL"] = "127.0.0.1:4"
	runWith(t, env, "", "status", "-c", "flag.yaml").wants(t, exitLater, "http://127.0.0.1:4:")
	runWith(t, env, "", "status", "--url", "http://127.0.0.1:5").wants(t, exitLater, "http://127.0.0.1:5:")
	delete(env, "SLUICE_URL")
	runWith(t, env, "", "status", "-c", "off.yaml").wants(t, exitFailed, "closes the HTTP door")
	runWith(t, env, "", "status", "-c", "none.yaml").wants(t, exitFailed, "none.yaml", "--url or SLUICE_URL")
}
