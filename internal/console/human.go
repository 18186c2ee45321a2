package console

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Count writes a whole number with its thousands apart: 1,234,567.
func Count[N ~int | ~int64 | ~uint32 | ~uint64](n N) string {
	digits := strconv.FormatInt(int64(n), 10)
	if n > 0 {
		digits = strconv.FormatUint(uint64(n), 10)
	}
	head := len(digits)
	sign := 0
	if n < 0 {
		sign = 1
	}
	out := make([]byte, 0, head+head/3)
	for i := range head {
		if i > sign && (head-i)%3 == 0 {
			out = append(out, ',')
		}
		out = append(out, digits[i])
	}
	return string(out)
}

// Short writes a number in about four characters: 950, 12.3k, 4.56M.
func Short(n float64) string {
	switch a := math.Abs(n); {
	case math.IsNaN(n) || math.IsInf(n, 0):
		return "-"
	case a < 999.5:
		return three(n, a < 9.95 && n != math.Trunc(n))
	case a < 999_500:
		return three(n/1e3, true) + "k"
	case a < 999_500_000:
		return three(n/1e6, true) + "M"
	default:
		return three(n/1e9, true) + "G"
	}
}

// three writes n with three digits that count, or whole.
func three(n float64, fraction bool) string {
	a := math.Abs(n)
	switch {
	case !fraction || a >= 99.95:
		return strconv.FormatFloat(n, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(n, 'f', 1, 64)
	default:
		return strconv.FormatFloat(n, 'f', 2, 64)
	}
}

// PerSecond writes a rate: 12.3k/s.
func PerSecond(n float64) string { return Short(n) + "/s" }

// Ratio writes how many times: 42.5x; 0 is unknown.
func Ratio(r float64) string {
	if r <= 0 || math.IsNaN(r) || math.IsInf(r, 0) {
		return "-"
	}
	return three(r, true) + "x"
}

// Bytes writes a size in binary units: 1.50 GiB.
func Bytes(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	size := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if size /= 1024; size < 1023.5 || unit == "TiB" {
			return three(size, true) + " " + unit
		}
	}
	return ""
}

// Span writes a duration as people say it: 350 ms, 1.2 s, 3 m 20 s, 2 h 5 m.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 59950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	d = d.Round(time.Second)
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case h >= 48:
		return fmt.Sprintf("%d d %d h", h/24, h%24)
	case h > 0:
		return fmt.Sprintf("%d h %d m", h, m)
	default:
		return fmt.Sprintf("%d m %d s", m, s)
	}
}

// Seconds is Span for the seconds that a status carries.
func Seconds(s float64) string {
	if math.IsNaN(s) || s > float64(math.MaxInt64)/float64(time.Second) {
		return "-"
	}
	return Span(time.Duration(s * float64(time.Second)))
}

// Plural is "1 row" or "1,234 rows".
func Plural[N ~int | ~int64 | ~uint32 | ~uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}
