package console

import (
	"bytes"
	"io"
	"strconv"
	"strings"
)

// Screen is a block of lines that is drawn again and again in its place.
type Screen struct {
	c     *Console
	lines int // of the last drawing
}

// Screen begins a block where the cursor is.
func (c *Console) Screen() *Screen { return &Screen{c: c} }

// Draw puts what render writes in the place of the drawing before. Where nothing
// can be redrawn the blocks follow each other with an empty line between.
//
// All goes out in one write, old lines are erased from their ends and not
// first: a block that is cleared before it is drawn flickers.
func (s *Screen) Draw(render func(*Console) error) error {
	var text bytes.Buffer
	inner := *s.c
	inner.W = &text
	if err := render(&inner); err != nil {
		return err
	}
	if !s.c.Terminal {
		if s.lines > 0 {
			io.WriteString(s.c.W, "\n")
		}
		s.lines = 1
		_, err := s.c.W.Write(text.Bytes())
		return err
	}
	s.fit(&text)
	var out bytes.Buffer
	if s.lines > 0 {
		out.WriteString("\x1b[" + strconv.Itoa(s.lines) + "A\r")
	}
	s.lines = bytes.Count(text.Bytes(), []byte("\n"))
	out.Write(bytes.ReplaceAll(text.Bytes(), []byte("\n"), []byte("\x1b[K\n")))
	out.WriteString("\x1b[J")
	_, err := io.Copy(s.c.W, &out)
	return err
}

// fit cuts what the terminal cannot show: a line that wraps, or a block taller
// than the terminal, and the cursor never finds the top again.
func (s *Screen) fit(text *bytes.Buffer) {
	if text.Len() == 0 {
		return
	}
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	if n, most := len(lines), s.c.Height-1; s.c.Height > 2 && n > most {
		lines = append(lines[:most-1], "… "+strconv.Itoa(n-most+1)+" more lines")
	}
	text.Reset()
	for _, line := range lines {
		if s.c.Width > 0 {
			line = cut(line, s.c.Width)
		}
		text.WriteString(line + "\n")
	}
}

// Bar is a level as a bar of n columns: 0 is empty, 1 is full.
func Bar(level float64, n int) string {
	full := int(max(0, min(1, level))*float64(n) + 0.5)
	out := make([]rune, n)
	for i := range out {
		out[i] = '░'
		if i < full {
			out[i] = '█'
		}
	}
	return string(out)
}
