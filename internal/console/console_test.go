package console

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func none(string) (string, bool) { return "", false }

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Count(0), "0"}, {Count(999), "999"}, {Count(1000), "1,000"}, {Count(1234567), "1,234,567"}, {Count(-1234), "-1,234"}, {Count(-123), "-123"},
		{Count(uint64(math.MaxUint64)), "18,446,744,073,709,551,615"}, {Count(int64(math.MinInt64)), "-9,223,372,036,854,775,808"},
		{Short(0), "0"}, {Short(7), "7"}, {Short(0.25), "0.25"}, {Short(950), "950"}, {Short(999.7), "1.00k"}, {Short(12345), "12.3k"},
		{Short(999_499), "999k"}, {Short(4.56e6), "4.56M"}, {Short(7.2e9), "7.20G"}, {Short(math.NaN()), "-"}, {Short(-1500), "-1.50k"},
		{PerSecond(12345), "12.3k/s"},
		{Ratio(0), "-"}, {Ratio(1), "1.00x"}, {Ratio(42.5), "42.5x"}, {Ratio(1234), "1234x"}, {Ratio(math.Inf(1)), "-"},
		{Bytes(0), "0 B"}, {Bytes(1023), "1023 B"}, {Bytes(1536), "1.50 KiB"}, {Bytes(1<<20 - 1), "1.00 MiB"}, {Bytes(3 << 30), "3.00 GiB"}, {Bytes(math.MaxInt64), "8388608 TiB"},
		{Span(0), "0 s"}, {Span(-1), "-"}, {Span(12 * time.Microsecond), "12 µs"}, {Span(350 * time.Millisecond), "350 ms"}, {Span(1200 * time.Millisecond), "1.2 s"},
		{Span(59960 * time.Millisecond), "1 m 0 s"}, {Span(200 * time.Second), "3 m 20 s"}, {Span(125 * time.Minute), "2 h 5 m"}, {Span(75 * time.Hour), "3 d 3 h"},
		{Seconds(0.35), "350 ms"}, {Seconds(math.Inf(1)), "-"},
		{Plural(1, "row", "rows"), "1 row"}, {Plural(0, "row", "rows"), "0 rows"}, {Plural(1234, "row", "rows"), "1,234 rows"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestTable_AlignsAndLeavesEmptyColumnsOut(t *testing.T) {
	tab := Table{Columns: []Column{Left("NAME"), Right("N"), Left("ERROR"), Left("LAST")}}
	tab.Row("a", "1", "", "x")
	tab.Row("日本", "1,000", "", "")
	tab.Row("long name", "", "")
	var b bytes.Buffer
	tab.Write(New(&b, none))
	want := "" +
		"NAME           N  LAST\n" +
		"a              1  x\n" +
		"日本       1,000\n" +
		"long name\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

func TestTable_IsCutAndNotWrapped(t *testing.T) {
	var b bytes.Buffer
	c := &Console{W: &b, Width: 12, Color: true, Terminal: true}
	tab := Table{Columns: []Column{Left("A"), Left("B")}}
	tab.Row(c.Red("stopped"), "an error that is long")
	tab.Row("ok", "fine")
	tab.Write(c)
	for _, line := range strings.Split(b.String(), "\n") {
		if width(line) > 12 {
			t.Errorf("line %q is %d wide", line, width(line))
		}
	}
	if !strings.Contains(b.String(), "stopped  an…\n") {
		t.Errorf("got %q", b.String())
	}
}

func TestPairs(t *testing.T) {
	var p Pairs
	p.Add("one", "%d", 1)
	p.Add("nothing", "%s", "")
	p.Add("longer", "%s", "x")
	var b bytes.Buffer
	p.Write(New(&b, none))
	if want := "  one     1\n  longer  x\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestColour_OnlyOnATerminal(t *testing.T) {
	var b bytes.Buffer
	if c := New(&b, none); c.Color || c.Terminal || c.Red("x") != "x" {
		t.Errorf("a buffer has colour: %+v", c)
	}
	c := &Console{Color: true}
	if got := c.Bold("x"); got != "\x1b[1mx\x1b[0m" {
		t.Errorf("got %q", got)
	}
	if c.Red("") != "" {
		t.Error("an empty text has a style, so that its column would not count as empty")
	}
}

func TestClean_TakesControlOfTheTerminalAway(t *testing.T) {
	if got := Clean("a\x1b[2Jb\nc\u009bd"); got != "a␦[2Jb␦c␦d" {
		t.Errorf("got %q", got)
	}
	if got := Clean("größe 日本"); got != "größe 日本" {
		t.Errorf("got %q", got)
	}
}

func TestMeter(t *testing.T) {
	begin := time.Unix(1000, 0)
	m := Meter{Begin: begin, Base: 600}
	now := begin.Add(2 * time.Second)
	if got := m.Rate(now, 800); got != 100 {
		t.Errorf("rate %v: what was done before must not count", got)
	}
	if got := m.Left(now, 800, 1000); got != 2*time.Second {
		t.Errorf("left %v", got)
	}
	if got := m.Left(now, 600, 1000); got >= 0 {
		t.Errorf("left %v, though nothing moves", got)
	}
	if got := m.Left(now, 1200, 1000); got != 0 {
		t.Errorf("left %v, though more than all is done", got)
	}
}

func TestProgress_PlainConsoleGetsLines(t *testing.T) {
	var b bytes.Buffer
	p := New(&b, none).Progress(ProgressOptions{Title: "loading", Total: 100, Unit: Bytes, Every: time.Nanosecond})
	p.Set(40, 100, "a note")
	p.Stop()
	if got := b.String(); !strings.HasPrefix(got, "loading  40%  40 B of 100 B") || !strings.HasSuffix(got, "  a note\n") || strings.Contains(got, "\x1b") {
		t.Errorf("got %q", got)
	}
}

func TestProgress_TerminalIsCleanAfterStop(t *testing.T) {
	for _, total := range []int64{0, 100} {
		var b bytes.Buffer
		c := &Console{W: &b, Terminal: true, Width: 100}
		p := c.Progress(ProgressOptions{Title: "loading", Total: total, Unit: Bytes})
		p.Set(100, total, "")
		p.Set(50, 2*total, "it may fall and the total may grow")
		p.Stop()
		if strings.HasSuffix(b.String(), "█") {
			t.Errorf("total %d: the bar is left on the line: %q", total, b.String())
		}
	}
}

func TestScreen_DrawsInPlace(t *testing.T) {
	var b bytes.Buffer
	s := (&Console{W: &b, Terminal: true}).Screen()
	draw := func(text string) {
		s.Draw(func(c *Console) error { _, err := c.W.Write([]byte(text)); return err })
	}
	draw("one\ntwo\n")
	draw("three\n")
	draw("four\n")
	draw("")
	want := "one\x1b[K\ntwo\x1b[K\n\x1b[J" + "\x1b[2A\rthree\x1b[K\n\x1b[J" + "\x1b[1A\rfour\x1b[K\n\x1b[J" + "\x1b[1A\r\x1b[J"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}

func TestScreen_NeverLargerThanTheTerminal(t *testing.T) {
	var b bytes.Buffer
	s := (&Console{W: &b, Terminal: true, Height: 5, Width: 20}).Screen()
	s.Draw(func(c *Console) error {
		_, err := c.W.Write([]byte("1\n2\n" + strings.Repeat("3", 30) + "\n4\n5\n6\n"))
		return err
	})
	want := "1\x1b[K\n2\x1b[K\n" + strings.Repeat("3", 19) + "…\x1b[K\n… 3 more lines\x1b[K\n\x1b[J"
	if got := b.String(); got != want {
		t.Errorf("got %q", got)
	}
}

func TestScreen_PlainBlocksFollowEachOther(t *testing.T) {
	var b bytes.Buffer
	s := New(&b, none).Screen()
	for range 2 {
		s.Draw(func(c *Console) error { _, err := c.W.Write([]byte("x\n")); return err })
	}
	if got := b.String(); got != "x\n\nx\n" {
		t.Errorf("got %q", got)
	}
}

func TestBar(t *testing.T) {
	for level, want := range map[float64]string{-1: "░░░░", 0: "░░░░", 0.5: "██░░", 1: "████", 7: "████"} {
		if got := Bar(level, 4); got != want {
			t.Errorf("Bar(%v) = %s, want %s", level, got, want)
		}
	}
}
