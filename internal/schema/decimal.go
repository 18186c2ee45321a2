package schema

import (
	"strconv"
)

// decimalDigitsMax bounds a decimal: so many digits are printed at most, the 0
// before a point not counted.
const decimalDigitsMax = 1000

// number is a JSON number taken apart: neg, the digits before and after the
// point, and the exponent. Text and JSON share its grammar, so that a value is
// one value through every door.
type number struct {
	neg         bool
	whole, frac []byte
	exp         int
}

// expMax is where exponents saturate: far above every limit, far below overflow.
const expMax = 1 << 30

func parseNumber(text []byte) (n number, ok bool) {
	i := 0
	if i < len(text) && text[i] == '-' {
		n.neg = true
		i++
	}
	n.whole, i = digits(text, i)
	if len(n.whole) == 0 || len(n.whole) > 1 && n.whole[0] == '0' {
		return n, false
	}
	if i < len(text) && text[i] == '.' {
		n.frac, i = digits(text, i+1)
		if len(n.frac) == 0 {
			return n, false
		}
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		negExp := i < len(text) && text[i] == '-'
		if negExp || i < len(text) && text[i] == '+' {
			i++
		}
		var exp []byte
		if exp, i = digits(text, i); len(exp) == 0 {
			return n, false
		}
		for _, d := range exp {
			n.exp = min(n.exp*10+int(d-'0'), expMax)
		}
		if negExp {
			n.exp = -n.exp
		}
	}
	return n, i == len(text)
}

// digits is the run of digits at i, and where it ends.
func digits(text []byte, i int) ([]byte, int) {
	from := i
	for i < len(text) && '0' <= text[i] && text[i] <= '9' {
		i++
	}
	return text[from:i], i
}

func (n *number) digit(i int) byte {
	if i < len(n.whole) {
		return n.whole[i]
	}
	return n.frac[i-len(n.whole)]
}

// appendDecimal appends the canonical form, `-?digits[.digits]` without trailing
// zeros, exponent or -0. ok is false when it would print more than
// decimalDigitsMax digits.
func (n *number) appendDecimal(dst []byte) (_ []byte, ok bool) {
	from, to := 0, len(n.whole)+len(n.frac)
	point := len(n.whole) + n.exp // the value is 0.digits[from:to] * 10^(point-from)
	for from < to && n.digit(from) == '0' {
		from++
	}
	for to > from && n.digit(to-1) == '0' {
		to--
	}
	if from == to {
		return append(dst, '0'), true
	}
	if max(point, to)-min(point, from) > decimalDigitsMax {
		return dst, false
	}
	if n.neg {
		dst = append(dst, '-')
	}
	if point <= from {
		dst = append(dst, '0')
	}
	for i := min(point, from); i < max(point, to); i++ {
		if i == point {
			dst = append(dst, '.')
		}
		if i < from || i >= to {
			dst = append(dst, '0')
			continue
		}
		dst = append(dst, n.digit(i))
	}
	return dst, true
}

// parseInt reads a whole number. 1e3 and 1.0 are whole numbers too: JSON knows
// only one kind of number, and some clients write them so.
func parseInt(text []byte) (_ int64, ok bool) {
	if v, ok := parseShortInt(text); ok {
		return v, true
	}
	n, ok := parseNumber(text)
	if !ok {
		return 0, false
	}
	var buf [decimalDigitsMax + 3]byte
	plain, ok := n.appendDecimal(buf[:0])
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseInt(string(plain), 10, 64)
	return v, err == nil
}

// parseShortInt reads what nearly every client sends: at most 18 digits, no
// leading zero. It says no to the rest, which may still be a whole number.
func parseShortInt(text []byte) (v int64, ok bool) {
	d := text
	if len(d) > 0 && d[0] == '-' {
		d = d[1:]
	}
	if len(d) == 0 || len(d) > 18 || d[0] == '0' && len(text) > 1 {
		return 0, false
	}
	for _, c := range d {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	if len(d) < len(text) {
		v = -v
	}
	return v, true
}
