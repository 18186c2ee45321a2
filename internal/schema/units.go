package schema

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// span is the range that a setting may have, both ends included.
type span struct{ min, max int64 }

// duration reads 100ms, 1s, 5m, 24h, 30d.
func (o *object) duration(name string, in span, dst *time.Duration) {
	v, ok := o.quantity(name, parseDuration, "write a duration like 100ms, 1s, 5m, 24h or 30d")
	if ok && o.within(name, int64(v), in, func(n int64) string { return formatDuration(time.Duration(n)) }) {
		*dst = time.Duration(v)
	}
}

// size reads bytes: 64MiB, 4GiB, 512 KiB, 1000000.
func (o *object) size(name string, in span, dst *int64) {
	v, ok := o.quantity(name, parseSize, "write a size like 64MiB or 4GiB")
	if ok && o.within(name, v, in, formatSize) {
		*dst = v
	}
}

// sizeInt is size for what is an int in memory.
func (o *object) sizeInt(name string, in span, dst *int) {
	v := int64(*dst)
	o.size(name, in, &v)
	*dst = int(v)
}

// count reads 1000, 10k, 1M, 10_000.
func (o *object) count(name string, in span, dst *int) {
	v, ok := o.quantity(name, parseCount, "write a whole number like 1000, 10k or 1M")
	if ok && o.within(name, v, in, func(n int64) string { return strconv.FormatInt(n, 10) }) {
		*dst = int(v)
	}
}

func (o *object) quantity(name string, parse func(string) (int64, bool), cure string) (int64, bool) {
	n := o.get(name)
	if n == nil {
		return 0, false
	}
	text, ok := o.r.scalar(n, o.member(name))
	if !ok {
		return 0, false
	}
	v, ok := parse(text)
	if !ok {
		o.r.add(at(n), cure, "%s is %s", o.member(name), o.r.show(follow(n)))
	}
	return v, ok
}

func (o *object) within(name string, v int64, in span, format func(int64) string) bool {
	if v >= in.min && v <= in.max {
		return true
	}
	o.r.add(at(o.value[name]), fmt.Sprintf("give it %s to %s", format(in.min), format(in.max)), "%s is %s", o.member(name), o.r.show(follow(o.value[name])))
	return false
}

func parseDuration(text string) (int64, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		return n * int64(24*time.Hour), err == nil
	}
	d, err := time.ParseDuration(text)
	return int64(d), err == nil
}

// formatDuration is 24h, not 24h0m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

func parseSize(text string) (int64, bool) {
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(text, u.suffix); ok {
			return scaled(strings.TrimSpace(number), u.bytes)
		}
	}
	return 0, false
}

func parseCount(text string) (int64, bool) {
	if number, ok := strings.CutSuffix(text, "k"); ok {
		return scaled(number, 1e3)
	}
	if number, ok := strings.CutSuffix(text, "M"); ok {
		return scaled(number, 1e6)
	}
	return scaled(text, 1)
}

// scaled reads a plain number, 1.5 or 10_000, times unit, when that is whole.
func scaled(number string, unit float64) (int64, bool) {
	n, ok := parseNumber([]byte(strings.ReplaceAll(number, "_", "")))
	if !ok || n.neg || n.exp != 0 {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(number, "_", ""), 64)
	f *= unit
	return int64(f), err == nil && f == math.Trunc(f) && f < 1<<60
}

// parseShare reads a share between 0 and 1, both left out; 0 when it is none.
func parseShare(text string) float64 {
	n, ok := parseNumber([]byte(text))
	f, err := strconv.ParseFloat(text, 64)
	if !ok || n.neg || err != nil || f >= 1 {
		return 0
	}
	return f
}

func formatSize(n int64) string {
	for _, u := range []struct {
		suffix string
		shift  uint
	}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n >= 1<<u.shift && n%(1<<u.shift) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
