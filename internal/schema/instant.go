package schema

import "time"

const (
	timestampCure = "write it as RFC 3339, like 2026-01-31T12:30:00Z"
	dateCure      = "write it as 2026-01-31"
	secondsPerDay = 24 * 60 * 60
)

// parseTimestamp reads RFC 3339, or the form with a space that SQL prints (UTC
// when it names no zone), cut to microseconds. Years 1 to 9999, which every
// database can hold.
func parseTimestamp(s []byte) (micros int64, ok bool) {
	if len(s) < len("2006-01-02 15:04:05") {
		return 0, false
	}
	days, ok := parseDate(s[:10])
	hour, okHour := twoDigits(s, 11, 23)
	minute, okMinute := twoDigits(s, 14, 59)
	second, okSecond := twoDigits(s, 17, 59)
	sep := s[10]
	if !ok || !okHour || !okMinute || !okSecond || s[13] != ':' || s[16] != ':' || sep != 'T' && sep != 't' && sep != ' ' {
		return 0, false
	}
	micros = (days*secondsPerDay + int64(hour*3600+minute*60+second)) * 1e6
	rest := s[19:]
	if len(rest) > 0 && rest[0] == '.' {
		frac, end := digits(rest, 1)
		if len(frac) == 0 {
			return 0, false
		}
		for i, unit := 0, int64(100_000); i < len(frac) && unit > 0; i, unit = i+1, unit/10 {
			micros += int64(frac[i]-'0') * unit
		}
		rest = rest[end:]
	}
	offset, ok := parseZone(rest, sep == ' ')
	micros -= offset * 1e6
	return micros, ok && micros >= timestampMin && micros <= timestampMax
}

var (
	timestampMin = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	timestampMax = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC).UnixMicro()
)

// parseZone reads Z, +01:00, or what PostgreSQL prints: +01. seconds east of UTC.
func parseZone(s []byte, mayMiss bool) (seconds int64, ok bool) {
	if len(s) == 0 {
		return 0, mayMiss
	}
	if len(s) == 1 {
		return 0, s[0] == 'Z' || s[0] == 'z'
	}
	if s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	hour, ok := twoDigits(s, 1, 23)
	minute := 0
	if ok && !(mayMiss && len(s) == 3) {
		minute, ok = twoDigits(s, 4, 59)
		ok = ok && len(s) == 6 && s[3] == ':'
	}
	seconds = int64(hour*3600 + minute*60)
	if s[0] == '-' {
		seconds = -seconds
	}
	return seconds, ok
}

// parseDate reads 2006-01-02 as days since 1970-01-01.
func parseDate(s []byte) (days int64, ok bool) {
	if len(s) != 10 || s[4] != '-' || s[7] != '-' {
		return 0, false
	}
	century, okCentury := twoDigits(s, 0, 99)
	year, okYear := twoDigits(s, 2, 99)
	month, okMonth := twoDigits(s, 5, 12)
	day, okDay := twoDigits(s, 8, 31)
	year += century * 100
	if !okCentury || !okYear || !okMonth || !okDay || year == 0 || month == 0 || day == 0 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	return t.Unix() / secondsPerDay, t.Day() == day // 02-30 would have become 03-02
}

// twoDigits reads the number of two digits at i, at most max.
func twoDigits(s []byte, i, max int) (int, bool) {
	if len(s) < i+2 || s[i] < '0' || s[i] > '9' || s[i+1] < '0' || s[i+1] > '9' {
		return 0, false
	}
	n := int(s[i]-'0')*10 + int(s[i+1]-'0')
	return n, n <= max
}

// appendTimestamp appends the fixed form, always with six digits of microseconds.
func appendTimestamp(dst []byte, micros int64) []byte {
	return time.UnixMicro(micros).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
}

func appendDate(dst []byte, days int64) []byte {
	return time.Unix(days*secondsPerDay, 0).UTC().AppendFormat(dst, time.DateOnly)
}
