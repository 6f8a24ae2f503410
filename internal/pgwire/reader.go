package pgwire

import (
	"bytes"
	"encoding/binary"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// reader takes a body apart from its front. After the first thing that is not there
// it is bad and yields zero values; end tells.
type reader struct {
	b            []byte
	bad          bool
	unterminated bool // what was missing is a string's NUL
}

func (r *reader) fail() {
	r.b, r.bad = nil, true
}

// cstring is the bytes before the next NUL, which is taken too.
func (r *reader) cstring() []byte {
	i := bytes.IndexByte(r.b, 0)
	if i < 0 {
		r.unterminated = r.unterminated || !r.bad
		r.fail()
		return nil
	}
	s := r.b[:i:i]
	r.b = r.b[i+1:]
	return s
}

func (r *reader) byte() byte {
	if len(r.b) < 1 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint16() int {
	if len(r.b) < 2 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint16(r.b)
	r.b = r.b[2:]
	return int(v)
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

// bytes is the next n bytes; n is what a peer claims.
func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// values is n values, each a length (-1: NULL) and its bytes, checked.
func (r *reader) values(n int) []byte {
	start := r.b
	for range n {
		if size := int32(r.uint32()); size != -1 {
			r.bytes(int(size))
		}
		if r.bad { // a claimed 65535 values in ten bytes need no walk
			return nil
		}
	}
	return start[:len(start)-len(r.b)]
}

// end checks that all was there, and nothing more.
func (r *reader) end(message string) error {
	switch {
	case r.unterminated:
		return pgerr.New(pgerr.ProtocolViolation, "invalid string in message").WithDetail("The message is a %s.", message)
	case r.bad:
		return pgerr.New(pgerr.ProtocolViolation, "insufficient data left in message").WithDetail("The message is a %s.", message)
	case len(r.b) != 0:
		return pgerr.New(pgerr.ProtocolViolation, "invalid message format").WithDetail("%d bytes are left over at the end of a %s.", len(r.b), message)
	}
	return nil
}

// Values iterates over the values of a Bind, FunctionCall or DataRow.
type Values struct{ rest []byte }

// Next is the next value: nil for NULL, not nil and perhaps empty otherwise. ok is
// false after the last.
func (v *Values) Next() (value []byte, ok bool) {
	if len(v.rest) < 4 {
		return nil, false
	}
	size := int32(binary.BigEndian.Uint32(v.rest))
	if size == -1 {
		v.rest = v.rest[4:]
		return nil, true
	}
	end := 4 + int(size)
	value = v.rest[4:end:end]
	v.rest = v.rest[end:]
	return value, true
}

// Codes is a run of 16-bit format codes.
type Codes struct{ b []byte }

// Len is the number of codes.
func (c Codes) Len() int { return len(c.b) / 2 }

// At is the code of position i, below Len.
func (c Codes) At(i int) int16 { return int16(binary.BigEndian.Uint16(c.b[2*i:])) }

// Of is the format of value i by the protocol's rule: no code means text, one holds
// for all, otherwise each value has its own. Beyond the last code it is text.
func (c Codes) Of(i int) int16 {
	switch n := c.Len(); {
	case n == 1:
		return c.At(0)
	case i < n:
		return c.At(i)
	}
	return FormatText
}

// OIDs is a run of 32-bit object ids.
type OIDs struct{ b []byte }

// Len is the number of object ids.
func (o OIDs) Len() int { return len(o.b) / 4 }

// At is the object id of position i, below Len.
func (o OIDs) At(i int) uint32 { return binary.BigEndian.Uint32(o.b[4*i:]) }
