package console

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Unit says how a Progress writes what is done.
type Unit func(int64) string

// Meter tells rate and time left from how much was done since it began. It
// holds no clock.
type Meter struct {
	Begin time.Time
	Base  int64 // done before Begin: a resumed load must not look fast
}

// Rate is what is done per second; 0 while it cannot be told.
func (m Meter) Rate(now time.Time, done int64) float64 {
	span := now.Sub(m.Begin).Seconds()
	if span <= 0 || done <= m.Base {
		return 0
	}
	return float64(done-m.Base) / span
}

// Left is the time until total is done; negative while it cannot be told.
func (m Meter) Left(now time.Time, done, total int64) time.Duration {
	rate := m.Rate(now, done)
	if rate == 0 {
		return -1
	}
	return time.Duration(float64(max(total-done, 0)) / rate * float64(time.Second))
}

// ProgressOptions describe a Progress.
type ProgressOptions struct {
	Title string
	Total int64 // 0: not known, no bar and no time left
	Base  int64 // done before
	Unit  Unit
	Every time.Duration // a plain console gets a line this often, 5 s when 0
}

// Progress is one bar on a terminal, or now and then a line elsewhere. Set and
// Stop are for one goroutine; Stop must be called, and waits for the drawing.
type Progress struct {
	c     *Console
	o     ProgressOptions
	meter Meter
	said  time.Time
	text  atomic.Pointer[string] // behind the bar; Set writes, the drawing reads
	pool  *mpb.Progress
	bar   *mpb.Bar
}

// Progress begins a progress.
func (c *Console) Progress(o ProgressOptions) *Progress {
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	now := time.Now()
	p := &Progress{c: c, o: o, said: now, meter: Meter{Begin: now, Base: o.Base}}
	p.text.Store(new(string))
	if !c.Terminal {
		return p
	}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("█").Padding("░").Build()
	if o.Total == 0 {
		style = mpb.NopStyle().Build()
	}
	p.pool = mpb.New(mpb.WithOutput(c.W), mpb.WithAutoRefresh(), mpb.WithRefreshRate(120*time.Millisecond))
	// The total is set afterwards, since a bar made with one ends by itself when
	// it is reached, and then a total that grows (a queue) could not be shown.
	p.bar = p.pool.MustAdd(0, style, mpb.BarWidth(max(10, min(30, c.Width-width(o.Title)-66))),
		mpb.PrependDecorators(decor.Name(o.Title+" ")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + *p.text.Load() })))
	p.Set(o.Base, o.Total, "")
	return p
}

// Set says how much of total is done, with a note behind the numbers.
func (p *Progress) Set(done, total int64, note string) {
	now := time.Now()
	text := p.line(now, done, total)
	if note != "" {
		text += "  " + note
	}
	if p.bar != nil {
		p.text.Store(&text)
		p.bar.SetTotal(max(total, 1), false)
		p.bar.SetCurrent(done)
		return
	}
	if now.Sub(p.said) >= p.o.Every {
		p.said = now
		fmt.Fprintf(p.c.W, "%s  %s\n", p.o.Title, text)
	}
}

// line is "40%  12.0 MiB of 30.0 MiB  3.10 MiB/s  5.8 s left".
func (p *Progress) line(now time.Time, done, total int64) string {
	var parts []string
	if total > 0 {
		parts = append(parts, fmt.Sprintf("%d%%", min(100*done/total, 100)), p.o.Unit(done)+" of "+p.o.Unit(total))
	} else {
		parts = append(parts, p.o.Unit(done))
	}
	if rate := p.meter.Rate(now, done); rate > 0 {
		parts = append(parts, p.o.Unit(int64(rate))+"/s")
		if left := p.meter.Left(now, done, total); total > 0 && left >= 0 {
			parts = append(parts, Span(left.Round(100*time.Millisecond))+" left")
		}
	}
	return strings.Join(parts, "  ")
}

// Stop takes the bar away; what follows begins on a clean line.
func (p *Progress) Stop() {
	if p.bar == nil {
		return
	}
	p.bar.Abort(true)
	p.pool.Wait()
}
