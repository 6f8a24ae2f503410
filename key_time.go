package sharding

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// Keys of the types date, timestamp and timestamptz hold PostgreSQL's own
// numbers in Value.lo: days or microseconds since 2000-01-01 (UTC for
// timestamptz), the infinities at the ends of int32 and int64.
//
// PostgreSQL reads many forms of dates and times, and the session's DateStyle
// and TimeZone say what some of them mean. Here only ISO 8601 is read, which
// means the same under all settings; every other text that PostgreSQL may
// take gets a ValueError with Unclear() true.

const (
	usecPerDay = 86_400_000_000

	dateInf    = math.MaxInt32
	dateNegInf = math.MinInt32
	timeInf    = math.MaxInt64
	timeNegInf = math.MinInt64

	// Bounds of PostgreSQL's datatype/timestamp.h: 4714-11-24 BC is included,
	// 5874898-01-01 and 294277-01-01 are not.
	minDate = -2451545
	endDate = 2145031949
	minTime = -211813488000000000
	endTime = 9223371331200000000
)

// SQLSTATEs of dates and times.
const (
	codeInvalidDatetime  = "22007" // invalid_datetime_format
	codeDatetimeOverflow = "22008" // datetime_field_overflow
)

// Date is a date key: days since 2000-01-01; math.MaxInt32 and MinInt32 are
// PostgreSQL's infinity and -infinity.
func Date(days int32) Value { return Value{typ: KeyDate, lo: uint64(int64(days))} }

// Timestamp is a timestamp without time zone: microseconds since 2000-01-01
// 00:00; math.MaxInt64 and MinInt64 are infinity and -infinity.
func Timestamp(usec int64) Value { return Value{typ: KeyTimestamp, lo: uint64(usec)} }

// TimestampTZ is a timestamp with time zone: as Timestamp, in UTC.
func TimestampTZ(usec int64) Value { return Value{typ: KeyTimestampTZ, lo: uint64(usec)} }

// roundTime is what a column timestamp(precision) stores.
func (v Value) roundTime(precision int32) Value {
	t := int64(v.lo)
	if precision < 0 || precision >= 6 || t == timeInf || t == timeNegInf {
		return v
	}
	unit := int64(1)
	for range 6 - precision {
		unit *= 10
	}
	if t >= 0 {
		t = (t + unit/2) / unit * unit
	} else {
		t = -((-t + unit/2) / unit * unit)
	}
	v.lo = uint64(t)
	return v
}

// moment is a text in ISO 8601 taken apart.
type moment struct {
	days     int64
	usec     int64 // of the day; may be a whole day after rounding
	zone     int64 // seconds east
	hasZone  bool
	infinite int // 1 or -1
}

// parseTime reads a text as type t.
func parseTime(t KeyType, in []byte) (Value, error) {
	m, err := parseMoment(t, in)
	if err != nil {
		return Value{}, err
	}
	switch {
	case t == KeyDate && m.infinite != 0:
		if m.infinite < 0 {
			return Date(dateNegInf), nil
		}
		return Date(dateInf), nil
	case m.infinite < 0:
		return Value{typ: t, lo: 1 << 63}, nil
	case m.infinite > 0:
		return Value{typ: t, lo: timeInf}, nil
	case t == KeyDate: // a time of day, and its zone, do not count
		if m.days < minDate || m.days >= endDate {
			return Value{}, outOfRange(t, in)
		}
		return Date(int32(m.days)), nil
	case t == KeyTimestampTZ && !m.hasZone:
		return Value{}, unclear(t, in)
	}
	if m.days < minDate || m.days > endTime/usecPerDay {
		return Value{}, outOfRange(t, in)
	}
	usec := m.days*usecPerDay + m.usec
	if t == KeyTimestampTZ {
		usec -= m.zone * 1_000_000
	}
	if usec < minTime || usec >= endTime {
		return Value{}, outOfRange(t, in)
	}
	return Value{typ: t, lo: uint64(usec)}, nil
}

// parseMoment reads YYYY-MM-DD[( |T)HH:MM[:SS[.fraction]][[ ]zone]][ BC],
// infinity and -infinity.
func parseMoment(t KeyType, in []byte) (m moment, err error) {
	s := bytes.TrimFunc(in, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) })
	switch {
	case bytes.EqualFold(s, []byte("infinity")):
		m.infinite = 1
		return m, nil
	case bytes.EqualFold(s, []byte("-infinity")):
		m.infinite = -1
		return m, nil
	}
	bc := bytes.HasSuffix(s, []byte(" BC"))
	if bc {
		s = s[:len(s)-3]
	}
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	if n < 4 || n > 7 || len(s) < n+6 || s[n] != '-' || s[n+3] != '-' {
		return m, unread(t, in)
	}
	month, ok1 := twoDigits(s[n+1:])
	day, ok2 := twoDigits(s[n+4:])
	year, _ := strconv.Atoi(string(s[:n]))
	if s = s[n+6:]; !ok1 || !ok2 {
		return m, unread(t, in)
	}
	if len(s) > 0 {
		if (s[0] != ' ' && s[0] != 'T') || !m.clock(s[1:]) {
			return m, unread(t, in)
		}
	}
	if year == 0 {
		return m, outOfRange(t, in)
	}
	if bc {
		year = 1 - year
	}
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return m, outOfRange(t, in)
	}
	m.days = daysOf(year, month, day)
	return m, nil
}

// clock reads HH:MM[:SS[.fraction]][[ ]zone]; false for anything else.
func (m *moment) clock(s []byte) bool {
	hour, ok := twoDigits(s)
	if !ok || len(s) < 5 || s[2] != ':' {
		return false
	}
	minute, ok := twoDigits(s[3:])
	if s = s[5:]; !ok || hour > 23 || minute > 59 {
		return false
	}
	second, fraction := 0, int64(0)
	if len(s) > 0 && s[0] == ':' {
		if second, ok = twoDigits(s[1:]); !ok || second > 59 {
			return false
		}
		if s = s[3:]; len(s) > 0 && s[0] == '.' {
			n := 1
			for n < len(s) && isDigit(s[n]) {
				n++
			}
			if fraction, ok = parseFraction(s[:n]); !ok {
				return false
			}
			s = s[n:]
		}
	}
	m.usec = int64(hour*3600+minute*60+second)*1_000_000 + fraction
	if len(s) == 0 {
		return true
	}
	m.hasZone = true
	return m.offset(s)
}

// parseFraction reads ".123456" as microseconds. PostgreSQL reads it as a
// double and rounds that to the nearest, ties to even.
func parseFraction(s []byte) (int64, bool) {
	if len(s) < 2 || len(s) > 16 {
		return 0, false
	}
	if len(s) <= 7 {
		n := int64(0)
		for i := 1; i < 7; i++ {
			n *= 10
			if i < len(s) {
				n += int64(s[i] - '0')
			}
		}
		return n, true
	}
	f, err := strconv.ParseFloat(string(s), 64)
	return int64(math.RoundToEven(f * 1_000_000)), err == nil
}

// offset reads Z, +HH, +HHMM, +HH:MM and +HH:MM:SS, a blank in front allowed.
func (m *moment) offset(s []byte) bool {
	if len(s) == 1 && s[0] == 'Z' {
		return true
	}
	if s[0] == ' ' {
		s = s[1:]
	}
	if len(s) < 3 || s[0] != '+' && s[0] != '-' {
		return false
	}
	hours, ok := twoDigits(s[1:])
	if !ok || hours > 15 { // PostgreSQL's MAX_TZDISP_HOUR
		return false
	}
	minutes, seconds := 0, 0
	switch rest := s[3:]; len(rest) {
	case 0:
	case 2:
		minutes, ok = twoDigits(rest)
	case 6:
		if seconds, ok = twoDigits(rest[4:]); !ok || rest[3] != ':' {
			return false
		}
		fallthrough
	case 3:
		ok = rest[0] == ':'
		if ok {
			minutes, ok = twoDigits(rest[1:])
		}
	default:
		ok = false
	}
	if m.zone = int64(hours*3600 + minutes*60 + seconds); s[0] == '-' {
		m.zone = -m.zone
	}
	return ok && minutes < 60 && seconds < 60
}

func twoDigits(s []byte) (int, bool) {
	if len(s) < 2 || !isDigit(s[0]) || !isDigit(s[1]) {
		return 0, false
	}
	return int(s[0]-'0')*10 + int(s[1]-'0'), true
}

// unread says what a text that is not in ISO form is: PostgreSQL may read it,
// save where it has neither a digit nor a word that stands for a time.
func unread(t KeyType, in []byte) error {
	if err := checkText(t, in); err != nil {
		return err
	}
	if bytes.ContainsAny(in, "0123456789") {
		return unclear(t, in)
	}
	low := bytes.ToLower(in)
	for _, word := range []string{"now", "today", "tomorrow", "yesterday", "epoch", "infinity", "allballs", "current", "inf"} {
		if bytes.Contains(low, []byte(word)) {
			return unclear(t, in)
		}
	}
	return &ValueError{t, codeInvalidDatetime, fmt.Sprintf("invalid input syntax for type %s: \"%s\"", t.sqlName(), excerpt(in))}
}

func unclear(t KeyType, in []byte) error {
	form := "2024-12-31"
	switch t {
	case KeyTimestamp:
		form += " 23:59:59.999"
	case KeyTimestampTZ:
		form += " 23:59:59.999+00"
	}
	return &ValueError{t, codeUnclear, fmt.Sprintf("what \"%s\" means as a shard key of type %s may depend on settings; write it as in \"%s\"", excerpt(in), t.sqlName(), form)}
}

func outOfRange(t KeyType, in []byte) error {
	return &ValueError{t, codeDatetimeOverflow, fmt.Sprintf("date/time field value out of range: \"%s\"", excerpt(in))}
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysOf counts days since 2000-01-01 in the Gregorian calendar, carried on
// before its start. Years are counted from March, whose leap day comes last.
func daysOf(year, month, day int) int64 {
	if month <= 2 {
		year--
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	of := year - era*400
	dayOfYear := (153*((month+9)%12)+2)/5 + day - 1
	return int64(era*146097 + of*365 + of/4 - of/100 + dayOfYear - 730425)
}

// civil is the inverse of daysOf.
func civil(days int64) (year, month, day int) {
	z := days + 730425
	era := z / 146097
	if z < 0 {
		era = (z - 146096) / 146097
	}
	doe := int(z - era*146097)
	of := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*of + of/4 - of/100)
	mp := (5*doy + 2) / 153
	year, month, day = of+int(era)*400, (mp+2)%12+1, doy-(153*mp+2)/5+1
	if month <= 2 {
		year++
	}
	return year, month, day
}

// decodeTime reads PostgreSQL's binary format.
func decodeTime(t KeyType, b []byte) (Value, error) {
	if t == KeyDate {
		if len(b) != 4 {
			return Value{}, badBinary(t, len(b))
		}
		d := int32(binary.BigEndian.Uint32(b))
		if d != dateInf && d != dateNegInf && (d < minDate || d >= endDate) {
			return Value{}, &ValueError{t, codeDatetimeOverflow, "date out of range"}
		}
		return Date(d), nil
	}
	if len(b) != 8 {
		return Value{}, badBinary(t, len(b))
	}
	u := int64(binary.BigEndian.Uint64(b))
	if u != timeInf && u != timeNegInf && (u < minTime || u >= endTime) {
		return Value{}, &ValueError{t, codeDatetimeOverflow, "timestamp out of range"}
	}
	return Value{typ: t, lo: uint64(u)}, nil
}

// appendTimeText writes ISO form, a timestamptz in UTC.
func (v *Value) appendTimeText(dst []byte) []byte {
	n := int64(v.lo)
	days, usec := n, int64(0)
	switch {
	case v.typ == KeyDate && n == dateInf, v.typ != KeyDate && n == timeInf:
		return append(dst, "infinity"...)
	case v.typ == KeyDate && n == dateNegInf, v.typ != KeyDate && n == timeNegInf:
		return append(dst, "-infinity"...)
	case v.typ != KeyDate:
		days, usec = n/usecPerDay, n%usecPerDay
		if usec < 0 {
			days, usec = days-1, usec+usecPerDay
		}
	}
	year, month, day := civil(days)
	bc := year <= 0
	if bc {
		year = 1 - year
	}
	dst = fmt.Appendf(dst, "%04d-%02d-%02d", year, month, day)
	if v.typ != KeyDate {
		s := usec / 1_000_000
		dst = fmt.Appendf(dst, " %02d:%02d:%02d", s/3600, s/60%60, s%60)
		if f := usec % 1_000_000; f != 0 {
			dst = bytes.TrimRight(fmt.Appendf(dst, ".%06d", f), "0")
		}
		if v.typ == KeyTimestampTZ {
			dst = append(dst, "+00"...)
		}
	}
	if bc {
		dst = append(dst, " BC"...)
	}
	return dst
}
