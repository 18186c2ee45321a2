package sluice_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The house rules, as data. Changing one is a decision: docs/decisions.

const module = "sluice.dev/sluice"

// floors: a package imports only from floors below its own, so packages of one
// floor are strangers. A pattern is a folder, or all folders in one ("x/*").
var floors = map[string]int{
	".":                0,
	"internal/observe": 1, "internal/schema": 1, "internal/vfs": 1,
	"internal/dedup": 2, "internal/admit": 2, "internal/fold": 2, "internal/hotkey": 2, "internal/route": 2,
	"internal/advise": 2, "internal/journal": 2, "internal/store": 2, "internal/live": 2,
	"internal/reshard":  3,
	"internal/pipeline": 4, "internal/journal/*": 4, "internal/store/*": 4, "internal/api": 4, "internal/console": 4,
	"client":        4, // but it imports only the root package: see only
	"internal/node": 5,
	"server":        6,
	"cmd/*":         7,
	"bench":         8,                                                  // measures all of it
	"bench/*":       8, "bench/rivals/door": 7, "bench/rivals/batch": 6, // what rivals share
	"bench/measure":  7, // what programs that measure share
	"internal/crash": 8, // tests of the real binary
	"internal/sim":   8,
	"examples/*":     8,
}

// only limits a package further: of this module it imports nothing else.
var only = map[string][]string{
	"client": {"."},
}

// testOnly packages are imported by tests alone, or by each other.
var testOnly = []string{"internal/journal/journaltest", "internal/store/storetest", "internal/store/pgtest", "internal/sim"}

// homes: a dependency that only these packages know, so that it can be replaced there.
var homes = map[string][]string{
	"log/slog":                               {"internal/node", "server", "cmd/*"},
	"github.com/prometheus/":                 {"internal/node"},
	"github.com/jackc/pgx/":                  {"internal/store/postgres", "internal/store/pgtest", "bench", "bench/*", "cmd/*"}, // bench is the direct client
	"modernc.org/sqlite":                     {"internal/store/sqlite", "bench", "bench/*", "cmd/*"},                            // demo looks with its own eyes
	"github.com/tidwall/redcon":              {"internal/api"},
	"github.com/spf13/cobra":                 {"cmd/*"},
	"github.com/vbauerster/mpb/":             {"internal/console"},
	"github.com/axiomhq/hyperloglog":         {"internal/fold"},
	"github.com/cockroachdb/apd/":            {"internal/fold", "internal/schema"},
	"go.yaml.in/yaml/":                       {"internal/schema"},
	"github.com/failsafe-go/":                {"internal/admit"},
	"golang.org/x/sys/":                      {"internal/vfs", "internal/console", "internal/node", "cmd/*"},
	"github.com/redis/go-redis/":             {"bench", "bench/*"},
	"github.com/anishathalye/porcupine":      {},
	"github.com/cockroachdb/datadriven":      {"internal/journal/journaltest", "internal/store/storetest"},
	"github.com/google/go-cmp/":              {"internal/journal/journaltest", "internal/store/storetest"},
	"testing":                                {"internal/journal/journaltest", "internal/store/storetest", "internal/store/pgtest"},
	"github.com/stretchr/testify":            {},
	"github.com/golang/mock":                 {},
	"math/rand":                              {}, // math/rand/v2 is a path of its own
	"io/ioutil":                              {},
	module + "/internal/store/pgtest":        {"bench/measure", "internal/store/storetest"}, // one way to start PostgreSQL
	module + "/internal/store/storetest":     {},
	module + "/internal/journal/journaltest": {},
}

// pure packages have no clock, no I/O and no goroutine: what is to be done is a return value.
var pure = []string{".", "internal/fold", "internal/route", "internal/reshard", "internal/advise"}

var impureImports = []string{"os", "net", "net/http", "io/fs", "os/exec", "math/rand", "math/rand/v2", "syscall", "sync/atomic"}

// goroutines may be started in these files, for these reasons. "dir/*" is every file of a folder.
var goroutines = map[string]string{
	"internal/node/*":             "the owner of all loops: starts them and waits for them",
	"internal/api/resp.go":        "one for each connection, which Shutdown waits for",
	"internal/api/http_stream.go": "reads the body while earlier chunks commit; ends before the handler returns",
	"client/batcher.go":           "one for each request in flight, which Close waits for",
	"cmd/*":                       "a program may wait for signals and draw progress",
	"bench/*":                     "load generators",
}

const (
	fileLinesMax     = 600 // of code, without blank lines and comments
	functionLinesMax = 70
)

// Longer than allowed, for these reasons. "file" or "file:function".
var longer = map[string]string{}

// unwanted words in what people read, with the reason.
var unwanted = map[string]string{
	`/work/|/root/`: "a path of one machine",
	`registry\.npmjs|proxy\.golang\.org|deb\.debian\.org|pypi\.org`: "a host of a registry",
	`\b(TODO|FIXME|XXX)\b`: "unfinished work",
}

type source struct {
	path string // slashes, from the root of the module
	pkg  string // folder of path
	test bool
	file *ast.File
	set  *token.FileSet
}

func (s *source) line(pos token.Pos) int { return s.set.Position(pos).Line }

// sources parses every Go file of the module, once for all tests.
func sources(t *testing.T) []*source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var parsed = sync.OnceValues(func() (all []*source, err error) {
	names, err := list(".go")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		if strings.Contains(string(text[:file.Package]), "//go:build depshold") {
			continue // never built
		}
		all = append(all, &source{path: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), file: file, set: set})
	}
	return all, nil
})

// files lists the files of the repository that end so.
func files(t *testing.T, suffixes ...string) []string {
	t.Helper()
	all, err := list(suffixes...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func list(suffixes ...string) (all []string, err error) {
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base == "testdata" || base == "bin" || base != "." && base != ".ci" && strings.HasPrefix(base, ".") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir // a module of its own
			}
			return nil
		}
		if slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) {
			all = append(all, filepath.ToSlash(name))
		}
		return nil
	})
	return all, err
}

// matches tells whether pattern names the folder pkg.
func matches(pattern, pkg string) bool {
	if parent, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(pkg, parent+"/")
	}
	return pattern == pkg
}

func matchesAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

func floorOf(pkg string) (int, bool) {
	if floor, ok := floors[pkg]; ok {
		return floor, true
	}
	for pattern, floor := range floors {
		if matches(pattern, pkg) {
			return floor, true
		}
	}
	return 0, false
}

// inModule gives the folder of an import path of this module.
func inModule(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func eachImport(s *source, fn func(importPath string, line int)) {
	for _, spec := range s.file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		fn(name, s.line(spec.Pos()))
	}
}

func TestImportsPointDown(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		floor, ok := floorOf(s.pkg)
		if !ok {
			t.Errorf("%s: package %s is on no floor; give it one in arch_test.go", s.path, s.pkg)
			continue
		}
		eachImport(s, func(name string, line int) {
			target, ours := inModule(name)
			if !ours {
				if std := !strings.Contains(strings.Split(name, "/")[0], "."); s.pkg == "." && !std {
					t.Errorf("%s:%d: the root package imports %s; it may use only the standard library", s.path, line, name)
				}
				return
			}
			below, _ := floorOf(target)
			if below >= floor && !(slices.Contains(testOnly, target) && slices.Contains(testOnly, s.pkg)) {
				t.Errorf("%s:%d: %s (floor %d) imports %s (floor %d); imports point down", s.path, line, s.pkg, floor, target, below)
			}
			if list, ok := only[s.pkg]; ok && !slices.Contains(list, target) {
				t.Errorf("%s:%d: %s imports %s; it may import only %v", s.path, line, s.pkg, target, list)
			}
			if slices.Contains(testOnly, target) && !slices.Contains(testOnly, s.pkg) && !matchesAny(homes[name], s.pkg) {
				t.Errorf("%s:%d: %s is for tests", s.path, line, target)
			}
		})
	}
}

func TestDependenciesHaveAHome(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		eachImport(s, func(name string, line int) {
			for dependency, home := range homes {
				hit := name == dependency || strings.HasSuffix(dependency, "/") && strings.HasPrefix(name, dependency)
				if hit && !matchesAny(home, s.pkg) {
					t.Errorf("%s:%d: %s imports %s, which lives in %v", s.path, line, s.pkg, name, home)
				}
			}
		})
	}
}

func TestDependenciesAreExplained(t *testing.T) {
	const page = "docs/decisions/dependencies.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(string(text), -1) {
		explained = append(explained, m[1])
	}
	for _, s := range sources(t) {
		eachImport(s, func(name string, line int) {
			_, ours := inModule(name)
			if ours || !strings.Contains(strings.Split(name, "/")[0], ".") {
				return
			}
			if !slices.ContainsFunc(explained, func(m string) bool { return name == m || strings.HasPrefix(name, m+"/") }) {
				t.Errorf("%s:%d: imports %s, which %s does not explain", s.path, line, name, page)
			}
		})
	}
}

func TestLinksInDocsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, name := range files(t, ".md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(path.Join(path.Dir(name), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	}
}

func TestPurePackagesArePure(t *testing.T) {
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "Tick", "NewTimer", "NewTicker", "AfterFunc"}
	for _, s := range sources(t) {
		if s.test || !slices.Contains(pure, s.pkg) {
			continue
		}
		eachImport(s, func(name string, line int) {
			if slices.Contains(impureImports, name) {
				t.Errorf("%s:%d: %s is pure and imports %s", s.path, line, s.pkg, name)
			}
		})
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
					t.Errorf("%s:%d: %s is pure and uses time.%s", s.path, s.line(n.Pos()), s.pkg, sel.Sel.Name)
				}
			}
			return true
		})
	}
}

// startsGoroutine knows `go f()` and x.Go(func() {...}) of WaitGroup and errgroup.
func startsGoroutine(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		sel, ok := n.Fun.(*ast.SelectorExpr)
		return ok && (sel.Sel.Name == "Go" || sel.Sel.Name == "TryGo")
	}
	return false
}

func TestGoroutinesStartInMarkedPlaces(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || slices.Contains(testOnly, s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if !startsGoroutine(n) {
				return true
			}
			for pattern := range goroutines {
				if matches(pattern, s.path) {
					used[pattern] = true
					return true
				}
			}
			t.Errorf("%s:%d: starts a goroutine; who owns it starts it, or the file is listed with its reason", s.path, s.line(n.Pos()))
			return true
		})
	}
	for pattern := range goroutines {
		if !strings.HasSuffix(pattern, "/*") && !used[pattern] {
			t.Errorf("%s is listed and starts no goroutine", pattern)
		}
	}
}

// codeLines counts the lines that hold a token.
func codeLines(s *source) int {
	lines := map[int]bool{}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case nil, *ast.Comment, *ast.CommentGroup:
			return false
		case *ast.BasicLit: // may go over lines
			for line := s.line(n.Pos()); line <= s.line(n.End()); line++ {
				lines[line] = true
			}
		default:
			lines[s.line(n.Pos())] = true
			lines[s.line(n.End()-1)] = true
		}
		return true
	})
	return len(lines)
}

func TestSizesHaveCeilings(t *testing.T) {
	used := map[string]bool{}
	check := func(name string, lines, most int) {
		if lines <= most {
			return
		}
		if _, ok := longer[name]; ok {
			used[name] = true
			return
		}
		t.Errorf("%s has %d lines, %d are allowed", name, lines, most)
	}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		check(s.path, codeLines(s), fileLinesMax)
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				check(s.path+":"+f.Name.Name, s.line(f.End())-s.line(f.Pos())+1, functionLinesMax)
			}
		}
	}
	for name := range longer {
		if !used[name] {
			t.Errorf("%s is listed as longer and is not", name)
		}
	}
}

func TestPackagesSayWhatTheyAreForAndWhatTheyNeverDo(t *testing.T) {
	docs, names := map[string]string{}, map[string]string{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		names[s.pkg] = s.file.Name.Name
		if s.file.Doc != nil {
			docs[s.pkg] += s.file.Doc.Text()
		}
	}
	never := regexp.MustCompile(`(?i)\b(never|nothing|no|not|nor|only|but|without)\b`)
	for pkg, name := range names {
		want := "Package " + name + " "
		if name == "main" {
			want = "Command " + path.Base(pkg) + " "
		}
		switch doc := docs[pkg]; {
		case !strings.HasPrefix(doc, want):
			t.Errorf("%s: its doc comment does not begin with %q", pkg, want)
		case name != "main" && !never.MatchString(doc):
			t.Errorf("%s: its doc comment does not say what it never does", pkg)
		}
	}
}

func TestWordsForPeople(t *testing.T) {
	for _, name := range files(t, ".md", ".go", ".sh", ".yaml", ".json", "Makefile", "run") {
		if name == "arch_test.go" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for pattern, reason := range unwanted {
			if at := regexp.MustCompile(pattern).FindIndex(text); at != nil {
				line := strings.Count(string(text[:at[0]]), "\n") + 1
				t.Errorf("%s:%d: %q is %s", name, line, text[at[0]:at[1]], reason)
			}
		}
	}
}

// TestTheRulesCanFail gives the checks something that breaks them.
func TestTheRulesCanFail(t *testing.T) {
	set := token.NewFileSet()
	text := "package x\nfunc f() {\n\t// why\n\n\tgo f()\n\tw.Go(f)\n\tx := `a\nb`\n}\n"
	file, err := parser.ParseFile(set, "x.go", text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	started := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if startsGoroutine(n) {
			started++
		}
		return true
	})
	s := &source{file: file, set: set}
	if lines := codeLines(s); started != 2 || lines != 7 {
		t.Errorf("%d goroutines, %d lines; want 2 and 7", started, lines)
	}
	for pkg, want := range map[string]string{"internal/store/sqlite": "4", "internal/store": "2", ".": "0", "internal/new": "none", "cmd/sluice": "7"} {
		got := "none"
		if floor, ok := floorOf(pkg); ok {
			got = fmt.Sprint(floor)
		}
		if got != want {
			t.Errorf("floor of %s: %s, want %s", pkg, got, want)
		}
	}
}
