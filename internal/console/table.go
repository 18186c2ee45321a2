package console

import (
	"fmt"
	"io"
	"strings"
)

// Table is rows under aligned titles. The zero Table with Columns is ready.
type Table struct {
	Columns []Column
	rows    [][]string
}

// Column is the head of a column of a Table.
type Column struct {
	Title string
	Right bool // numbers stand flush right
}

// Left and Right make columns.
func Left(title string) Column  { return Column{Title: title} }
func Right(title string) Column { return Column{Title: title, Right: true} }

// Row adds a row; missing cells are empty.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Write renders the table. Columns without a single cell are left out, so that
// an error column costs nothing while there is no error. On a terminal that is
// too narrow the lines are cut, never wrapped: a wrapped table is unreadable
// and breaks redrawing in place.
func (t *Table) Write(c *Console) error {
	var b strings.Builder
	widths := t.widths()
	t.line(&b, widths, titles(c, t.Columns), c.Width)
	for _, row := range t.rows {
		t.line(&b, widths, row, c.Width)
	}
	_, err := io.WriteString(c.W, b.String())
	return err
}

func titles(c *Console, columns []Column) []string {
	out := make([]string, len(columns))
	for i, col := range columns {
		out[i] = c.Dim(col.Title)
	}
	return out
}

// widths gives each column's width, 0 for one that is empty.
func (t *Table) widths() []int {
	out := make([]int, len(t.Columns))
	for _, row := range t.rows {
		for i, cell := range row {
			if i < len(out) {
				out[i] = max(out[i], width(cell))
			}
		}
	}
	for i, col := range t.Columns {
		if out[i] > 0 || len(t.rows) == 0 {
			out[i] = max(out[i], width(col.Title))
		}
	}
	return out
}

func (t *Table) line(b *strings.Builder, widths []int, cells []string, limit int) {
	var line strings.Builder
	for i, w := range widths {
		if w == 0 {
			continue
		}
		cell := ""
		if i < len(cells) {
			cell = cells[i]
		}
		if line.Len() > 0 {
			line.WriteString("  ")
		}
		pad := strings.Repeat(" ", w-width(cell))
		if t.Columns[i].Right {
			line.WriteString(pad + cell)
		} else {
			line.WriteString(cell + pad)
		}
	}
	text := strings.TrimRight(line.String(), " ")
	if limit > 0 {
		text = cut(text, limit)
	}
	b.WriteString(text + "\n")
}

// Pairs writes aligned "name  value" lines, for what is one thing with many sides.
type Pairs struct {
	rows [][2]string
}

// Add adds a line; one whose value is empty is left out.
func (p *Pairs) Add(name, format string, args ...any) {
	if value := fmt.Sprintf(format, args...); value != "" {
		p.rows = append(p.rows, [2]string{name, value})
	}
}

// Write renders the lines, indented by two.
func (p *Pairs) Write(c *Console) error {
	wide := 0
	for _, r := range p.rows {
		wide = max(wide, width(r[0]))
	}
	var b strings.Builder
	for _, r := range p.rows {
		b.WriteString("  " + c.Dim(r[0]) + strings.Repeat(" ", wide-width(r[0])+2) + r[1] + "\n")
	}
	_, err := io.WriteString(c.W, b.String())
	return err
}
