package plan

import (
	"encoding/binary"
	"errors"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// Args are one execution's inputs: the statement's text with its lifted
// literals, and the parameters of a Bind message.
type Args struct {
	SQL      string
	Literals []sqltext.Literal
	Params   [][]byte // nil is NULL
	// Formats as in Bind: none (all text), one for all, or one a parameter; 0
	// text, 1 binary.
	Formats []int16
	// ParamTypes are the parameters' type OIDs where known; they win over the
	// types that the plan inferred.
	ParamTypes []uint32
}

// maxKeyColumns is how many key columns are bound without allocation.
const maxKeyColumns = 4

// maxKeys bounds the keys that the arrays of one composite key multiply to.
const maxKeys = 1 << 16

// errNoValue says that a value cannot be read as the key's type. PostgreSQL
// itself then reports the error, on whichever shard runs the statement.
var errNoValue = errors.New("not a value of the key's type")

// Bind appends to dst the indexes (into m.Shards()) of the shards that the
// statement goes to, sorted and unique. For Keyed routes an empty result says
// that no row anywhere matches (NULL, empty arrays) or that PostgreSQL will
// refuse the value: one shard, whichever, runs the statement and answers. For
// All it gives every shard; None, Home, Any and Rows yield nothing.
//
// It does not allocate where dst has room, values need no unescaping and the
// key has at most four columns.
func (r *Route) Bind(dst []int, a *Args, m *sharding.Map) ([]int, error) {
	switch r.Kind {
	case All:
		for i := range m.Shards() {
			dst = append(dst, i)
		}
	case Keyed:
		b := binder{args: a, m: m, shards: dst, budget: maxKeys}
		if r.Fixed != nil {
			if err := b.checkFixed(r); err != nil {
				return dst, err
			}
		}
		for _, k := range r.Keys {
			if err := b.key(k); err != nil {
				return dst, err
			}
		}
		return b.shards, nil
	}
	return dst, nil
}

// binder collects the shards of one statement.
type binder struct {
	args   *Args
	m      *sharding.Map
	shards []int
	budget int
	vals   [maxKeyColumns]sharding.Value
	more   []sharding.Value // for keys of more than maxKeyColumns columns
}

func (b *binder) key(k Key) error {
	if len(k) > maxKeyColumns && b.more == nil {
		b.more = make([]sharding.Value, len(k))
	}
	return b.column(k, 0)
}

func (b *binder) values(n int) []sharding.Value {
	if n > maxKeyColumns {
		return b.more[:n]
	}
	return b.vals[:n]
}

// column binds the key's columns from the i-th on and adds the shards.
func (b *binder) column(k Key, i int) error {
	if i == len(k) {
		if b.budget--; b.budget < 0 {
			return pgerr.New(pgerr.ProgramLimitExceeded, "the statement names more than %d shard keys", maxKeys)
		}
		b.add(b.m.ShardOf(b.values(i)...))
		return nil
	}
	s := &k[i]
	if s.Kind == ParamArray || s.Kind == LiteralArray {
		return b.array(k, i)
	}
	v, null, err := s.value(b.args)
	if null || err == errNoValue {
		return nil
	}
	if err != nil {
		return err
	}
	b.values(len(k))[i] = v
	return b.column(k, i+1)
}

// add inserts a shard into the sorted list unless it is there.
func (b *binder) add(shard int) {
	at := len(b.shards)
	for at > 0 && b.shards[at-1] >= shard {
		if at--; b.shards[at] == shard {
			return
		}
	}
	b.shards = append(b.shards, 0)
	copy(b.shards[at+1:], b.shards[at:])
	b.shards[at] = shard
}

// checkFixed refuses an UPDATE whose new key is not the key of every row that
// it may touch.
func (b *binder) checkFixed(r *Route) error {
	fixed := make([]sharding.Value, len(r.Fixed))
	for i := range r.Fixed {
		v, null, err := r.Fixed[i].value(b.args)
		if err != nil || null {
			return errKeyChange()
		}
		fixed[i] = v
	}
	for _, k := range r.Keys {
		for i := range k {
			v, null, err := k[i].value(b.args)
			if null || err == errNoValue {
				break // this key matches no row
			}
			if err != nil || !v.Equal(fixed[i]) {
				return errKeyChange()
			}
		}
	}
	return nil
}

func errKeyChange() error {
	return pgerr.ShardKeyUpdate.New("the UPDATE sets the shard key to another value than its WHERE clause gives")
}

// Text is a source's value as text, for arguments that are no shard keys; null
// says that it is NULL.
func (s *Source) Text(a *Args) (text string, null bool, err error) {
	if s.Kind == Param && s.Index < len(a.Params) && a.binary(s.Index) {
		return string(a.Params[s.Index]), a.Params[s.Index] == nil, nil // text has one form
	}
	v, null, err := s.value(a)
	return v.String(), null, err
}

// value is a single source's value. err is errNoValue where PostgreSQL will
// report the value; other errors are for the client.
func (s *Source) value(a *Args) (v sharding.Value, null bool, err error) {
	switch s.Kind {
	case Const:
		if s.Null {
			return v, true, nil
		}
		v = s.Value
	case Literal:
		v, err = s.literal(a)
	case Param:
		if s.Index >= len(a.Params) {
			return v, false, pgerr.New(pgerr.ProtocolViolation, "the statement needs parameter $%d, which Bind does not give", s.Index+1)
		}
		p := a.Params[s.Index]
		if p == nil {
			return v, true, nil
		}
		v, err = s.param(a, p)
	}
	if err != nil || !s.Assign {
		return v, false, err
	}
	return s.assign(v)
}

// assign applies the column's assignment cast.
func (s *Source) assign(v sharding.Value) (sharding.Value, bool, error) {
	switch s.Column {
	case oidInt2, oidInt4:
		n := integer(v)
		if s.Column == oidInt2 && n != int64(int16(n)) || n != int64(int32(n)) {
			return v, false, errNoValue
		}
	case oidVarchar:
		if s.Typmod < typmodHeader {
			break
		}
		return truncate(v, int(s.Typmod)-typmodHeader)
	case oidNumeric, oidTimestamp, oidTimestampTZ:
		return v.WithTypmod(s.Typmod), false, nil
	}
	return v, false, nil
}

// integer is the number of an integer key.
func integer(v sharding.Value) int64 {
	var b [8]byte
	return int64(binary.BigEndian.Uint64(v.AppendBinary(b[:0])))
}

// truncate cuts blanks beyond n characters off, as varchar(n) does on
// assignment; anything else beyond n is PostgreSQL's error.
func truncate(v sharding.Value, n int) (sharding.Value, bool, error) {
	s := v.String()
	if len(s) <= n || utf8.RuneCountInString(s) <= n {
		return v, false, nil
	}
	end := 0
	for ; n > 0; n-- {
		_, w := utf8.DecodeRuneInString(s[end:])
		end += w
	}
	if strings.Trim(s[end:], " ") != "" {
		return v, false, errNoValue
	}
	return sharding.Text(s[:end]), false, nil
}

// literal reads the lifted literal of the statement's text.
func (s *Source) literal(a *Args) (sharding.Value, error) {
	if s.Index >= len(a.Literals) {
		return sharding.Value{}, pgerr.New(pgerr.InternalError, "the plan names literal %d of %d", s.Index, len(a.Literals))
	}
	l := &a.Literals[s.Index]
	text := a.SQL[l.Start:l.End]
	if l.Class == sqltext.ClassString {
		if l.Escaped || text[0] != '\'' {
			text = unescape(a, s.Index)
		} else {
			text = text[1 : len(text)-1]
		}
		return s.parse(text)
	}
	switch s.Type {
	case sharding.KeyInteger:
		return number(text, l.Negative)
	case sharding.KeyNumeric:
		return s.numeric(text, l.Negative)
	}
	return sharding.Value{}, errNoValue
}

// numeric reads a numeric literal as a numeric: exactly, whatever its size.
func (s *Source) numeric(text string, negative bool) (sharding.Value, error) {
	if newerInteger(text) {
		v, err := number(text, negative)
		if err != nil {
			return v, errUnclear(s.Type, text)
		}
		return sharding.IntNumeric(integer(v)), nil
	}
	if negative {
		text = "-" + text
	}
	return s.parse(text)
}

// unescape decodes a literal that is not its own text.
func unescape(a *Args, i int) string {
	st := sqltext.Statement{Literals: a.Literals}
	return string(st.Value(a.SQL, i, nil))
}

// number reads a numeric literal as PostgreSQL's assignment cast to an integer
// does: fractions round half away from zero.
func number(text string, negative bool) (sharding.Value, error) {
	base := 10
	if newerInteger(text) {
		text = strings.ReplaceAll(text, "_", "")
		if text[0] == '0' && len(text) > 1 && (text[1] < '0' || text[1] > '9') {
			base = 0 // Go reads 0x, 0o and 0b as PostgreSQL does
		}
	}
	n, err := strconv.ParseUint(text, base, 64)
	switch {
	case err == nil && !negative && n <= 1<<63-1:
		return sharding.Int(int64(n)), nil
	case err == nil && negative && n <= 1<<63:
		return sharding.Int(-int64(n)), nil
	case err == nil || len(text) > 400 || base == 0:
		return sharding.Value{}, errNoValue
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		if e, err := strconv.Atoi(text[i+1:]); err != nil || e > 400 || e < -4000 {
			return sharding.Value{}, errNoValue
		}
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return sharding.Value{}, errNoValue
	}
	half := big.NewRat(1, 2)
	r.Add(r, half)
	i := new(big.Int).Quo(r.Num(), r.Denom())
	if negative {
		i.Neg(i)
	}
	if !i.IsInt64() {
		return sharding.Value{}, errNoValue
	}
	return sharding.Int(i.Int64()), nil
}

// parse reads a string in the input syntax of the source's type.
func (s *Source) parse(text string) (sharding.Value, error) {
	if s.Type == sharding.KeyText {
		return sharding.Text(text), nil
	}
	v, err := sharding.ParseValue(s.Type, unsafe.Slice(unsafe.StringData(text), len(text)))
	if err == nil {
		return v, nil
	}
	// PostgreSQL 16 reads more forms of numbers than the router does.
	if (s.Type == sharding.KeyInteger || s.Type == sharding.KeyNumeric) && newerInteger(text) {
		return v, pgerr.New(pgerr.InvalidTextRepresentation, "invalid input syntax for a shard key of %s type: %q", article(s.Type), clip(text)).
			WithHint("Write the key in decimal digits.")
	}
	var bad *sharding.ValueError
	if errors.As(err, &bad) && bad.Unclear() {
		return v, errUnclear(s.Type, text)
	}
	return v, errNoValue
}

func article(t sharding.KeyType) string {
	if t == sharding.KeyInteger {
		return "an integer"
	}
	return "a numeric"
}

// errUnclear refuses a text that PostgreSQL may take, as which value the router
// does not know: it must not be sent to whichever shard.
func errUnclear(t sharding.KeyType, text string) error {
	e := pgerr.IndeterminateKey.New("the shard key (%s) cannot be told from %q", t, clip(text))
	switch t {
	case sharding.KeyDate:
		return e.WithHint("Write it in ISO form: '2024-12-31'.")
	case sharding.KeyTimestamp:
		return e.WithHint("Write it in ISO form: '2024-12-31 23:59:59.999'.")
	case sharding.KeyTimestampTZ:
		return e.WithHint("Write it in ISO form with its offset from UTC: '2024-12-31 23:59:59.999+00'.")
	}
	return e.WithHint("Write it in decimal digits, with at most 16383 behind the point.")
}

// newerInteger says whether a text may be an integer in a form that PostgreSQL
// reads from version 16 on: 0x1F, 0o17, 0b1, 1_000.
func newerInteger(text string) bool {
	text = strings.TrimLeft(text, " \t\n\v\f\r+-")
	if len(text) < 2 || text[0] < '0' || text[0] > '9' {
		return false
	}
	return strings.ContainsRune("xXoObB", rune(text[1])) || strings.Contains(text, "_")
}

// clip bounds a value for a message.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "..."
	}
	return s
}

// param reads parameter p in the format that Bind gives it.
func (s *Source) param(a *Args, p []byte) (sharding.Value, error) {
	t := s.ValueType
	if s.Index < len(a.ParamTypes) && a.ParamTypes[s.Index] != 0 {
		t = a.ParamTypes[s.Index]
	}
	if f, known := familyOf(t); known && f != s.Type {
		return sharding.Value{}, errParamType(s, t)
	} else if !known && t != 0 && t != oidUnknown {
		return sharding.Value{}, errParamType(s, t)
	}
	if a.binary(s.Index) {
		if s.Type == sharding.KeyInteger {
			t = 0 // told by the length: the server may have inferred another width
		}
		v, err := sharding.DecodeBinary(s.Type, t, p)
		if err != nil {
			return v, errNoValue
		}
		return v, nil
	}
	return s.parse(unsafe.String(unsafe.SliceData(p), len(p)))
}

func errParamType(s *Source, t uint32) error {
	return pgerr.IndeterminateKey.New("parameter $%d has type OID %d, from which the shard key (%s) cannot be inferred", s.Index+1, t, s.Type)
}

// binary says whether parameter i is in binary format.
func (a *Args) binary(i int) bool {
	switch len(a.Formats) {
	case 0:
		return false
	case 1:
		return a.Formats[0] == 1
	}
	return i < len(a.Formats) && a.Formats[i] == 1
}

// Type OIDs of pg_type.dat that binding knows.
const (
	oidBytea   = 17
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidText    = 25
	oidUnknown = 705
	oidVarchar = 1043
	oidUUID    = 2950

	oidTimestamp   = 1114
	oidTimestampTZ = 1184
	oidNumeric     = 1700
)

// typmodHeader is what varchar(n) adds to n in its typmod.
const typmodHeader = 4

// familyOf is the key type of a type whose values hash alike.
func familyOf(oid uint32) (sharding.KeyType, bool) { return sharding.KeyTypeOfOID(oid) }
