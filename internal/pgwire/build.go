package pgwire

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// begin appends a message's type and a place for its length; finish fills that in.
func begin(dst []byte, typ byte) ([]byte, int) {
	return append(dst, typ, 0, 0, 0, 0), len(dst) + 1
}

func finish(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// text is what the builders take for a string: a view, or a string.
type text interface{ string | []byte }

// appendCString appends s up to its first NUL, and a NUL.
func appendCString[T text](dst []byte, s T) []byte {
	end := len(s)
	switch v := any(s).(type) {
	case string:
		if i := strings.IndexByte(v, 0); i >= 0 {
			end = i
		}
	case []byte:
		if i := bytes.IndexByte(v, 0); i >= 0 {
			end = i
		}
	}
	dst = append(dst, s[:end]...)
	return append(dst, 0)
}

func appendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

func appendString[T text](dst []byte, typ byte, s T) []byte {
	dst, at := begin(dst, typ)
	return finish(appendCString(dst, s), at)
}

func appendRaw(dst []byte, typ byte, body []byte) []byte {
	dst, at := begin(dst, typ)
	return finish(append(dst, body...), at)
}

// AppendMessage appends a message with a body that is already in its wire form.
func AppendMessage(dst []byte, typ byte, body []byte) []byte { return appendRaw(dst, typ, body) }

func appendCodes(dst []byte, codes []int16) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(codes)))
	for _, c := range codes {
		dst = binary.BigEndian.AppendUint16(dst, uint16(c))
	}
	return dst
}

func appendOIDs(dst []byte, oids []uint32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(oids)))
	for _, o := range oids {
		dst = binary.BigEndian.AppendUint32(dst, o)
	}
	return dst
}
