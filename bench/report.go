package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/internal/console"
)

// report is the outcome of a run.
type report struct {
	Machine measure.Machine `json:"machine"`
	Quick   bool            `json:"quick"`
	Rows    []Row           `json:"rows"`
	Failed  []failure       `json:"failed,omitempty"`
}

type failure struct {
	Part  string `json:"part"`
	Error string `json:"error"`
}

// Row is one line of the table: what was measured, on both sides, and whether
// it is what we want.
type Row struct {
	Part string `json:"part"`
	What string `json:"what"`
	Unit string `json:"unit"`
	// Sluice and Rival hold one value, or the percentiles 50, 99 and 99.9. Rival
	// is empty where there is none.
	Sluice []float64 `json:"sluice"`
	Rival  []float64 `json:"rival,omitempty"`
	// Against says who the rival is, Durable what each side has done for a write
	// when its time stops.
	Against      string  `json:"against,omitempty"`
	Durable      string  `json:"durable"`
	RivalDurable string  `json:"rival_durable,omitempty"`
	Ratio        float64 `json:"ratio,omitempty"` // of the single values, or of the 99th percentiles
	Goal         Goal    `json:"goal"`
	Verdict      string  `json:"verdict,omitempty"` // pass, MISS, or nothing without a goal
	Note         string  `json:"note,omitempty"`
}

// Goal is a bound of the ratio or of Sluice's own value. The zero Goal asks nothing.
type Goal struct {
	Of    string  `json:"of,omitempty"` // ratio, value
	Least bool    `json:"least,omitempty"`
	Bound float64 `json:"bound,omitempty"`
}

func ratioAtLeast(x float64) Goal { return Goal{"ratio", true, x} }
func ratioAtMost(x float64) Goal  { return Goal{"ratio", false, x} }
func atLeast(x float64) Goal      { return Goal{"value", true, x} }
func atMost(x float64) Goal       { return Goal{"value", false, x} }

// telling is the value that ratio and goal look at: the 99th percentile of three.
func telling(values []float64) float64 {
	switch len(values) {
	case 0:
		return 0
	case 1:
		return values[0]
	default:
		return values[1]
	}
}

// judge fills in Ratio and Verdict.
func (r *Row) judge() {
	if rival := telling(r.Rival); rival > 0 {
		r.Ratio = telling(r.Sluice) / rival
	}
	value := r.Ratio
	switch r.Goal.Of {
	case "":
		return
	case "value":
		value = telling(r.Sluice)
	}
	r.Verdict = "MISS"
	if r.Goal.Least == (value >= r.Goal.Bound) || value == r.Goal.Bound {
		r.Verdict = "pass"
	}
}

func (r *Row) cell(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	var parts []string
	for _, v := range values {
		parts = append(parts, number(v))
	}
	return strings.Join(parts, " / ") + " " + r.Unit
}

func number(v float64) string {
	if v < 1000 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return console.Count(int64(v + 0.5))
}

func (r *Row) ratio() string {
	if r.Ratio == 0 {
		return "-"
	}
	if r.Ratio < 10 {
		return fmt.Sprintf("%.2fx", r.Ratio)
	}
	return fmt.Sprintf("%.0fx", r.Ratio)
}

func (r *Row) goal() string {
	if r.Goal.Of == "" {
		return ""
	}
	sign := "<="
	if r.Goal.Least {
		sign = ">="
	}
	if r.Goal.Of == "ratio" {
		return fmt.Sprintf("%s %sx", sign, number(r.Goal.Bound))
	}
	return fmt.Sprintf("%s %s", sign, number(r.Goal.Bound))
}

func (r *Row) durable() string {
	if len(r.Rival) == 0 || r.Durable == r.RivalDurable {
		return r.Durable
	}
	return r.Durable + " | " + r.RivalDurable
}

func (rp *report) fail(part string, err error) {
	rp.Failed = append(rp.Failed, failure{part, err.Error()})
}

// write prints the table for people.
func (rp *report) write(w io.Writer, c *console.Console) error {
	fmt.Fprintf(w, "%s\n", rp.Machine.Text())
	if rp.Quick {
		fmt.Fprintln(w, "A quick run: it shows that everything works, its figures mean little.")
	}
	fmt.Fprintln(w)
	t := console.Table{Columns: []console.Column{console.Left("PART"), console.Left("WHAT"), console.Right("SLUICE"), console.Right("RIVAL"),
		console.Right("RATIO"), console.Right("GOAL"), console.Left(""), console.Left("RIVAL IS"), console.Left("DURABLE (SLUICE | RIVAL)"), console.Left("NOTE")}}
	last := ""
	for i := range rp.Rows {
		r := &rp.Rows[i]
		part := r.Part
		if part == last {
			part = ""
		}
		last = r.Part
		verdict := r.Verdict
		switch verdict {
		case "pass":
			verdict = c.Green(verdict)
		case "MISS":
			verdict = c.Red(verdict)
		}
		t.Row(part, r.What, r.cell(r.Sluice), r.cell(r.Rival), r.ratio(), r.goal(), verdict, r.Against, r.durable(), r.Note)
	}
	wide := *c
	wide.W, wide.Width = w, 0
	if err := t.Write(&wide); err != nil {
		return err
	}
	for _, f := range rp.Failed {
		fmt.Fprintf(w, "\n%s FAILED: %s\n", f.Part, f.Error)
	}
	return nil
}

func (rp *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(rp)
}
