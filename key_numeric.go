package sharding

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
)

// A numeric key's canonical form is PostgreSQL's binary format (numeric_send)
// with the smallest dscale that shows all its digits, so that 1.0 and 1.00 are
// the same: four 16-bit numbers (count of digits, weight, sign, dscale) in
// Value.hi, then the digits to base 10000, neither the first nor the last of
// them 0: up to four in Value.lo, left-aligned, more of them in Value.str.

// Signs of the binary format (PostgreSQL's numeric.c). The infinities came
// with PostgreSQL 14.
const (
	numericPositive = 0x0000
	numericNegative = 0x4000
	numericNaN      = 0xC000
	numericInf      = 0xD000
	numericNegInf   = 0xF000
)

// maxExponent is where PostgreSQL no longer looks at the number (INT_MAX / 2).
const maxExponent = 1<<30 - 1

const (
	maxNumericScale  = 0x3FFF // digits behind the point
	maxNumericWeight = 0x7FFF // of the first digit to base 10000
	inlineDigits     = 4      // digits to base 10000 that fit Value.lo
)

// decimal is a finite number 0.d1d2d3... * 10^point: digits are 0 to 9, and
// neither the first nor the last is 0; none for zero.
type decimal struct {
	digits   []byte
	point    int
	negative bool
}

// trim restores the rule about zeros at either end.
func (d *decimal) trim() {
	for len(d.digits) > 0 && d.digits[0] == 0 {
		d.digits = d.digits[1:]
		d.point--
	}
	for n := len(d.digits); n > 0 && d.digits[n-1] == 0; n-- {
		d.digits = d.digits[:n-1]
	}
	if len(d.digits) == 0 {
		d.point, d.negative = 0, false // there is no -0
	}
}

// round rounds half away from zero to scale digits behind the point, or in
// front of it where scale is negative: PostgreSQL's round_var. It writes to
// digits.
func (d decimal) round(scale int) decimal {
	keep := d.point + scale
	switch {
	case keep < 0:
		d.digits = nil
	case keep < len(d.digits):
		up := d.digits[keep] >= 5
		d.digits = d.digits[:keep]
		for i := keep - 1; up && i >= 0; i-- {
			d.digits[i]++
			if up = d.digits[i] == 10; up {
				d.digits[i] = 0
			}
		}
		if up { // 0.999 -> 1.00: all digits are 0 now, or there are none
			d.digits = append(d.digits[:0], 1)
			d.point++
		}
	}
	d.trim()
	return d
}

// truncate cuts what is behind scale digits behind the point.
func (d *decimal) truncate(scale int) {
	if keep := max(0, d.point+scale); keep < len(d.digits) {
		d.digits = d.digits[:keep]
	}
	d.trim()
}

// value is the canonical Value of a trimmed decimal; false where PostgreSQL's
// format has no room for it.
func (d *decimal) value() (Value, bool) {
	if len(d.digits) == 0 {
		return Value{typ: KeyNumeric}, true
	}
	weight := (d.point+3)>>2 - 1 // rounded down, also below 0
	lead := (weight+1)*4 - d.point
	n := (lead + len(d.digits) + 3) / 4
	scale := max(0, len(d.digits)-d.point)
	if weight > maxNumericWeight || scale > maxNumericScale {
		return Value{}, false
	}
	sign := numericPositive
	if d.negative {
		sign = numericNegative
	}
	v := Value{typ: KeyNumeric, hi: uint64(n)<<48 | uint64(uint16(weight))<<32 | uint64(sign)<<16 | uint64(scale)}
	if n <= inlineDigits {
		for i := range n {
			v.lo |= uint64(d.group(i*4-lead)) << (48 - 16*i)
		}
		return v, true
	}
	b := make([]byte, 0, 2*n)
	for i := range n {
		b = binary.BigEndian.AppendUint16(b, d.group(i*4-lead))
	}
	v.str = aliased(b)
	return v, true
}

// group is the digit to base 10000 that begins at decimal digit at.
func (d *decimal) group(at int) uint16 {
	var g uint16
	for i := at; i < at+4; i++ {
		g *= 10
		if i >= 0 && i < len(d.digits) {
			g += uint16(d.digits[i])
		}
	}
	return g
}

// special is NaN or an infinity.
func special(sign uint64) Value { return Value{typ: KeyNumeric, hi: sign << 16} }

func (v *Value) numericSign() uint64 { return v.hi >> 16 & 0xFFFF }
func (v *Value) numericCount() int   { return int(v.hi >> 48) }
func (v *Value) numericWeight() int  { return int(int16(v.hi >> 32)) }
func (v *Value) numericFinite() bool { return v.numericSign() <= numericNegative }
func (v *Value) numericGroup(i int) uint16 {
	if v.numericCount() <= inlineDigits {
		return uint16(v.lo >> (48 - 16*i))
	}
	return uint16(v.str[2*i])<<8 | uint16(v.str[2*i+1])
}

// decimal takes a finite numeric apart, appending its digits to room.
func (v *Value) decimal(room []byte) decimal {
	d := decimal{digits: room, point: 4 * (v.numericWeight() + 1), negative: v.numericSign() == numericNegative}
	for i := range v.numericCount() {
		g := v.numericGroup(i)
		d.digits = append(d.digits, byte(g/1000), byte(g/100%10), byte(g/10%10), byte(g%10))
	}
	d.trim()
	return d
}

// IntNumeric is the numeric key of a whole number.
func IntNumeric(n int64) Value {
	var text, room [24]byte
	d := decimal{digits: room[:0], negative: n < 0}
	for _, c := range strconv.AppendInt(text[:0], n, 10) {
		if c != '-' {
			d.digits = append(d.digits, c-'0')
		}
	}
	d.point = len(d.digits)
	d.trim()
	v, _ := d.value()
	return v
}

// roundNumeric is what a column numeric(precision, scale) stores. Whether the
// number fits the precision is PostgreSQL's to say.
func (v Value) roundNumeric(typmod int32) Value {
	if !v.numericFinite() {
		return v
	}
	// The scale is 11 bits with a sign since PostgreSQL 15; before, it was 0 to
	// 1000 in the same place.
	scale := int((typmod-4)&0x7FF^1024) - 1024
	var room [72]byte
	d := v.decimal(room[:0]).round(scale)
	out, ok := d.value()
	if !ok {
		return v
	}
	return out
}

// appendNumericText writes the number in full, as numeric_out does.
func (v *Value) appendNumericText(dst []byte) []byte {
	switch v.numericSign() {
	case numericNaN:
		return append(dst, "NaN"...)
	case numericInf:
		return append(dst, "Infinity"...)
	case numericNegInf:
		return append(dst, "-Infinity"...)
	}
	var room [72]byte
	d := v.decimal(room[:0])
	if d.negative {
		dst = append(dst, '-')
	}
	if d.point <= 0 {
		dst = append(dst, '0')
	}
	for i := min(0, d.point); i < max(d.point, len(d.digits)); i++ {
		if i == max(0, d.point) && i > 0 || i == d.point && d.point <= 0 {
			dst = append(dst, '.')
		}
		c := byte(0)
		if i >= 0 && i < len(d.digits) {
			c = d.digits[i]
		}
		dst = append(dst, '0'+c)
	}
	return dst
}

// parseNumeric is PostgreSQL 15's numeric_in without a typmod.
func parseNumeric(in []byte) (Value, error) {
	s := bytes.TrimFunc(in, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) })
	if v, ok := parseSpecial(s); ok {
		return v, nil
	}
	var room [72]byte
	d := decimal{digits: room[:0]}
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		d.negative = s[0] == '-'
		s = s[1:]
	}
	if len(s) == 0 || !isDigit(s[0]) && (s[0] != '.' || len(s) == 1 || !isDigit(s[1])) {
		return Value{}, badText(KeyNumeric, in)
	}
	dot, n := -1, 0
	for len(s) > 0 && (isDigit(s[0]) || s[0] == '.' && dot < 0) {
		if s[0] == '.' {
			dot = n
		} else {
			d.digits = append(d.digits, s[0]-'0')
			n++
		}
		s = s[1:]
	}
	if d.point = n; dot >= 0 {
		d.point = dot
	}
	if len(s) > 0 {
		e, ok := parseExponent(s)
		if !ok && laterForm(in) {
			return Value{}, &ValueError{KeyNumeric, codeUnclear, fmt.Sprintf("\"%s\" is a number since PostgreSQL 16 only; write it in decimal digits without _", excerpt(in))}
		}
		if !ok {
			return Value{}, badText(KeyNumeric, in)
		}
		if e >= maxExponent || e <= -maxExponent {
			return Value{}, numericOverflow()
		}
		d.point += e
	}
	// A column's typmod is applied before PostgreSQL looks at the scale, so
	// that what has too many digits for a plain numeric may still be a value.
	if n-d.point > maxNumericScale {
		return Value{}, &ValueError{KeyNumeric, codeUnclear, fmt.Sprintf("a numeric shard key with more than %d digits behind the point is not supported", maxNumericScale)}
	}
	d.trim()
	v, ok := d.value()
	if !ok {
		return v, numericOverflow()
	}
	return v, nil
}

// laterForm says whether a text may be a number since PostgreSQL 16, which reads
// 0x10, 0o17, 0b1 and 1_000. Those before refuse it.
func laterForm(in []byte) bool {
	s := bytes.TrimLeft(bytes.TrimSpace(in), "+-")
	if len(s) < 3 || !isDigit(s[0]) {
		return false
	}
	return bytes.IndexByte(s, '_') > 0 || s[0] == '0' && bytes.IndexByte([]byte("xXoObB"), s[1]) >= 0
}

func parseSpecial(s []byte) (Value, bool) {
	if bytes.EqualFold(s, []byte("nan")) {
		return special(numericNaN), true
	}
	sign := uint64(numericInf)
	if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		if s[0] == '-' {
			sign = numericNegInf
		}
		s = s[1:]
	}
	if bytes.EqualFold(s, []byte("inf")) || bytes.EqualFold(s, []byte("infinity")) {
		return special(sign), true
	}
	return Value{}, false
}

// parseExponent reads "e-12". PostgreSQL before 16 lets blanks follow the e,
// since C's strtol does.
func parseExponent(s []byte) (int, bool) {
	if s[0] != 'e' && s[0] != 'E' {
		return 0, false
	}
	for s = s[1:]; len(s) > 0 && isSpace(s[0]); s = s[1:] {
	}
	negative := len(s) > 0 && s[0] == '-'
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		s = s[1:]
	}
	n := 0
	for _, c := range s {
		if !isDigit(c) {
			return 0, false
		}
		n = min(n*10+int(c-'0'), maxExponent)
	}
	if len(s) == 0 {
		return 0, false
	}
	if negative {
		n = -n
	}
	return n, true
}

// decodeNumeric is numeric_recv without a typmod.
func decodeNumeric(b []byte) (Value, error) {
	if len(b) < 8 {
		return Value{}, badBinary(KeyNumeric, len(b))
	}
	n := int(binary.BigEndian.Uint16(b))
	weight := int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := uint64(binary.BigEndian.Uint16(b[4:]))
	scale := int(binary.BigEndian.Uint16(b[6:]))
	if len(b) != 8+2*n || scale > maxNumericScale {
		return Value{}, badBinary(KeyNumeric, len(b))
	}
	var room [72]byte
	d := decimal{digits: room[:0], point: 4 * (weight + 1), negative: sign == numericNegative}
	for b = b[8:]; len(b) > 0; b = b[2:] {
		g := binary.BigEndian.Uint16(b)
		if g > 9999 {
			return Value{}, &ValueError{KeyNumeric, codeInvalidBinary, `invalid digit in external "numeric" value`}
		}
		d.digits = append(d.digits, byte(g/1000), byte(g/100%10), byte(g/10%10), byte(g%10))
	}
	switch sign {
	case numericNaN, numericInf, numericNegInf:
		return special(sign), nil
	case numericPositive, numericNegative:
	default:
		return Value{}, &ValueError{KeyNumeric, codeInvalidBinary, `invalid sign in external "numeric" value`}
	}
	d.truncate(scale) // digits that the scale would hide are no part of the value
	v, ok := d.value()
	if !ok {
		return v, numericOverflow()
	}
	return v, nil
}

// appendNumericBinary is numeric_send.
func (v *Value) appendNumericBinary(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, v.hi)
	n := v.numericCount()
	if n > inlineDigits {
		return append(dst, v.str...)
	}
	for i := range n {
		dst = binary.BigEndian.AppendUint16(dst, v.numericGroup(i))
	}
	return dst
}

// pgHashNumeric is hash_numeric_extended: over the digits to base 10000 as
// 16-bit words of the machine, and the weight. The sign does not count.
func pgHashNumeric(v *Value, seed uint64) uint64 {
	n := v.numericCount()
	switch {
	case !v.numericFinite():
		return seed
	case n == 0:
		return seed - 1
	}
	var room [128]byte
	b := room[:0]
	for i := range n {
		b = binary.LittleEndian.AppendUint16(b, v.numericGroup(i))
	}
	return pgHashBytes(b, seed) ^ uint64(v.numericWeight())
}

func numericOverflow() error {
	return &ValueError{KeyNumeric, codeOutOfRange, "value overflows numeric format"}
}
