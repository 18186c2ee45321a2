package sluice_test

import (
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const guarantees = "docs/guarantees.md"

// rules of the protocol that the code keeps, by letter and highest number.
var rules = map[string]int{"J": 7, "I": 4, "S": 13, "R": 2}

const promises = 10

// conformance suites run their cases as subtests, named like rules.
var conformance = []string{"internal/journal/journaltest", "internal/store/storetest"}

var (
	ruleName = regexp.MustCompile(`^(?:Test)?((?:[JISR]\d+)+)_\w+$`)
	oneRule  = regexp.MustCompile(`[JISR]\d+`)
	named    = regexp.MustCompile("`(Test\\w+|(?:[JISR]\\d+)+_\\w+)`")
	tableRow = regexp.MustCompile(`^\| \*\*([JISR]?\d+)\*\*`)
)

// testNames gives the names of all tests and of all cases of the conformance suites.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if s.test && n.Recv == nil && strings.HasPrefix(n.Name.Name, "Test") {
					all[n.Name.Name] = true
				}
			case *ast.BasicLit:
				if name, err := strconv.Unquote(n.Value); err == nil && slices.Contains(conformance, s.pkg) && ruleName.MatchString(name) {
					all[name] = true
				}
			}
			return true
		})
	}
	return all
}

// guaranteeRows gives the tests that stand in the row of each promise and rule.
func guaranteeRows(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(guarantees)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		m := tableRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if rows[m[1]] != nil {
			t.Errorf("%s: two rows for %s", guarantees, m[1])
		}
		rows[m[1]] = []string{}
		for _, name := range named.FindAllStringSubmatch(line, -1) {
			rows[m[1]] = append(rows[m[1]], name[1])
		}
	}
	return rows
}

func TestGuaranteesNameTestsThatExist(t *testing.T) {
	all := testNames(t)
	text, err := os.ReadFile(guarantees)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range named.FindAllStringSubmatch(string(text), -1) {
		if !all[name[1]] {
			t.Errorf("%s names %s, which is no test", guarantees, name[1])
		}
	}
}

func TestEveryPromiseAndRuleHasATest(t *testing.T) {
	rows := guaranteeRows(t)
	for n := range promises {
		if name := strconv.Itoa(n + 1); len(rows[name]) == 0 {
			t.Errorf("%s has no row with a test for promise %s", guarantees, name)
		}
	}
	held := map[string]bool{}
	for name := range testNames(t) {
		if m := ruleName.FindStringSubmatch(name); m != nil {
			for _, rule := range oneRule.FindAllString(m[1], -1) {
				held[rule] = true
			}
		}
	}
	for letter, count := range rules {
		for n := range count {
			rule := letter + strconv.Itoa(n+1)
			if !held[rule] {
				t.Errorf("no test has %s in its name", rule)
			}
			if !slices.ContainsFunc(rows[rule], func(name string) bool {
				m := ruleName.FindStringSubmatch(name)
				return m != nil && slices.Contains(oneRule.FindAllString(m[1], -1), rule)
			}) {
				t.Errorf("%s: the row of %s names no test with its number", guarantees, rule)
			}
		}
	}
}
