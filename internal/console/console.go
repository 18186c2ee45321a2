// Package console writes for people at a terminal: aligned tables, human
// numbers, progress bars and blocks that redraw in place. It renders what it is
// given to an io.Writer; it asks no server, reads no config and decides nothing.
package console

import (
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// Console is one output with what is known about it.
type Console struct {
	W        io.Writer
	Terminal bool // may redraw lines in place
	Color    bool
	Width    int // columns of the terminal; 0: nothing is ever cut
	Height   int // lines of the terminal; 0: unknown
}

// New looks at w and the environment: colour and redrawing need a terminal, and
// NO_COLOR (any value that is not empty) or TERM=dumb take colour away.
func New(w io.Writer, env func(string) (string, bool)) *Console {
	c := &Console{W: w}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return c
	}
	kind, _ := env("TERM")
	no, _ := env("NO_COLOR")
	c.Terminal = kind != "dumb"
	c.Color = c.Terminal && no == ""
	if width, height, err := term.GetSize(int(f.Fd())); err == nil {
		c.Width, c.Height = width, height
	}
	return c
}

// The styles. Each gives the text back as it is on a console without colour.
func (c *Console) Bold(s string) string   { return c.style("1", s) }
func (c *Console) Dim(s string) string    { return c.style("2", s) }
func (c *Console) Red(s string) string    { return c.style("31", s) }
func (c *Console) Green(s string) string  { return c.style("32", s) }
func (c *Console) Yellow(s string) string { return c.style("33", s) }

func (c *Console) style(code, s string) string {
	if !c.Color || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

// width is how many columns s takes, its styles not counted.
func width(s string) int {
	if strings.Contains(s, "\x1b") {
		s = escape.ReplaceAllString(s, "")
	}
	return runewidth.StringWidth(s)
}

// cut shortens s to n columns. A cut text loses its style: half an escape
// sequence would colour the rest of the terminal.
func cut(s string, n int) string {
	if width(s) <= n {
		return s
	}
	return runewidth.Truncate(escape.ReplaceAllString(s, ""), n, "…")
}

// Clean makes text from elsewhere safe to print: control characters, and with
// them escape sequences that could drive the terminal, become visible marks.
func Clean(s string) string {
	if strings.IndexFunc(s, control) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if control(r) {
			return '␦'
		}
		return r
	}, s)
}

func control(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
