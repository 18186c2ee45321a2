package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// plot is horizontal bars, a group for each workload, on a logarithmic axis:
// rows differ by powers of ten.
type plot struct {
	name, title, unit string
	groups            []string
	bars              map[string][]bar // by group
}

type bar struct {
	name   string
	value  float64
	prefix string
}

func (rp *report) plots() []plot {
	closed := func(r *Row) bool { return r.Loop == "closed" }
	open := func(r *Row) bool { return r.Loop == "open" }
	return []plot{
		rp.plot("throughput", "Writes landed per second, closed loop", "writes/s", closed, func(r *Row) float64 { return r.LandedPerSecond }),
		rp.plot("latency", fmt.Sprintf("99th percentile at %s writes/s, open loop, from the time a write was due", number(rp.Rate)), "ms", open, func(r *Row) float64 { return r.P99 }),
		rp.plot("cpu", "CPU seconds per million writes, closed loop", "s", closed, func(r *Row) float64 { return r.CPUPerMillion }),
	}
}

func (rp *report) plot(name, title, unit string, take func(*Row) bool, of func(*Row) float64) plot {
	p := plot{name: name, title: title, unit: unit, bars: map[string][]bar{}}
	for i := range rp.Rows {
		r := &rp.Rows[i]
		if !take(r) || r.Failed != "" || of(r) <= 0 {
			continue
		}
		if p.bars[r.Workload] == nil {
			p.groups = append(p.groups, r.Workload)
		}
		b := bar{name: r.Name, value: of(r)}
		if unit == "ms" && r.Late > 0 {
			b.prefix = ">"
		}
		p.bars[r.Workload] = append(p.bars[r.Workload], b)
	}
	return p
}

const (
	barHeight, barGap   = 14, 3
	groupGap            = 26
	labels, plotWidth   = 190, 560
	values, headHeight  = 90, 40
	ours, theirs, faint = "#c8551b", "#7a8b99", "#dddddd"
)

// bounds of the axis are whole powers of ten.
func (p *plot) bounds() (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, bars := range p.bars {
		for _, b := range bars {
			low, high = min(low, b.value), max(high, b.value)
		}
	}
	if math.IsInf(low, 1) {
		return 0, 1
	}
	low = math.Floor(math.Log10(low))
	return low, max(low+1, math.Ceil(math.Log10(high)))
}

func (p *plot) write(w io.Writer) error {
	low, high := p.bounds()
	at := func(v float64) float64 { return (math.Log10(v) - low) / (high - low) * plotWidth }
	height := headHeight
	for _, g := range p.groups {
		height += groupGap + len(p.bars[g])*(barHeight+barGap)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", labels+plotWidth+values, height+24)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="8" y="20" font-size="15">%s</text>`+"\n", escaped(p.title))
	for e := low; e <= high; e++ {
		x := labels + (e-low)/(high-low)*plotWidth
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x, x, headHeight, height, faint, x, height+14, escaped(fmt.Sprintf("%g", math.Pow(10, e))))
	}
	y := headHeight
	for _, g := range p.groups {
		fmt.Fprintf(&b, `<text x="8" y="%d" font-weight="bold">%s</text>`+"\n", y+14, escaped(g))
		y += groupGap - 6
		for _, r := range p.bars[g] {
			fill := theirs
			if strings.HasPrefix(r.name, "Sluice") {
				fill = ours
			}
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%s</text>`+"\n",
				labels-6, y+11, escaped(r.name), labels, y, max(1, at(r.value)), barHeight, fill, labels+max(1, at(r.value))+5, y+11,
				escaped(r.prefix+number(r.value)+" "+p.unit))
			y += barHeight + barGap
		}
		y += 6
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
