package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong in a config: where, what, and the cure.
type Fault struct {
	File         string
	Line, Column int // 0 when the fault has no place, as when the file is missing
	What, Cure   string
}

func (f Fault) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s; %s", f.File, f.What, f.Cure)
	}
	return fmt.Sprintf("%s:%d:%d: %s; %s", f.File, f.Line, f.Column, f.What, f.Cure)
}

// Faults are all the faults of a config, in the order of its lines.
type Faults []Fault

// Error is one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// position is a place in the config file.
type position struct{ line, column int }

// faults collects what is wrong in one file.
type faults struct {
	file string
	list Faults
}

// add adds a fault; the cure comes first since every fault has one.
func (f *faults) add(at position, cure, format string, args ...any) {
	f.list = append(f.list, Fault{File: f.file, Line: at.line, Column: at.column, What: fmt.Sprintf(format, args...), Cure: cure})
}
