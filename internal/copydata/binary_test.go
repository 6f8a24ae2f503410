package copydata

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// tuple is one row in binary; nil is NULL.
func tuple(fields ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(fields)))
	for _, f := range fields {
		if f == nil {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

// readBinary feeds a stream in pieces of n bytes and writes down what comes.
func readBinary(stream []byte, n int) string {
	b := NewBinary("t", []int{1}, 2, 1<<10)
	var out strings.Builder
	row := func(raw []byte, key [][]byte) error {
		fmt.Fprintf(&out, "%x %x %v;", raw, key[0], key[0] == nil)
		return nil
	}
	var err error
	for len(stream) > 0 && err == nil {
		k := min(n, len(stream))
		err = b.Feed(stream[:k], row)
		stream = stream[k:]
	}
	if err == nil {
		err = b.Close(row)
	}
	if err != nil {
		e := pgerr.From(err)
		fmt.Fprintf(&out, "%s %s %s", e.Code, e.Message, e.Where)
	}
	return out.String()
}

func TestBinary(t *testing.T) {
	one := tuple([]byte("ab"), []byte("key"))
	null := tuple([]byte{}, nil)
	row := func(b []byte, key string, isNull bool) string { return fmt.Sprintf("%x %x %v;", b, key, isNull) }
	for _, k := range []struct{ name, stream, want string }{
		{"two rows", BinaryHeader + string(one) + string(null) + BinaryTrailer, row(one, "key", false) + row(null, "", true)},
		{"no trailer", BinaryHeader + string(one), row(one, "key", false)},
		{"an extension", BinaryHeader[:15] + "\x00\x00\x00\x03xyz" + string(one) + BinaryTrailer, row(one, "key", false)},
		{"flags that may be", BinaryHeader[:13] + "\x12\x34\x00\x00\x00\x00" + BinaryTrailer, ""},
		{"empty", "", "22P04 COPY file signature not recognized "},
		{"text", "1\t2\n", "22P04 COPY file signature not recognized "},
		{"half a signature", BinaryHeader[:5], "22P04 COPY file signature not recognized "},
		{"no flags", BinaryHeader[:12], "22P04 invalid COPY file header (missing flags) "},
		{"no length", BinaryHeader[:16], "22P04 invalid COPY file header (missing length) "},
		{"OIDs", BinaryHeader[:11] + "\x00\x01\x00\x00\x00\x00\x00\x00", "22P04 invalid COPY file header (WITH OIDS) "},
		{"critical flags", BinaryHeader[:11] + "\x00\x02\x00\x00\x00\x00\x00\x00", "22P04 unrecognized critical flags in COPY file header "},
		{"a negative extension", BinaryHeader[:15] + "\xff\xff\xff\xff", "22P04 invalid COPY file header (missing length) "},
		{"a short extension", BinaryHeader[:15] + "\x00\x00\x00\x03xy", "22P04 invalid COPY file header (wrong length) "},
		{"too few fields", BinaryHeader + string(one) + string(tuple(nil)), row(one, "key", false) + "22P04 row field count is 1, expected 2 COPY t, line 2"},
		{"a bad size", BinaryHeader + "\x00\x02\xff\xff\xff\xfe", "22P04 invalid field size COPY t, line 1"},
		{"cut off", BinaryHeader + string(one[:len(one)-1]), "22P04 unexpected EOF in COPY data COPY t, line 1"},
		{"data behind the trailer", BinaryHeader + BinaryTrailer + "x", "22P04 received copy data after EOF marker COPY t, line 1"},
		{"too large", BinaryHeader + string(tuple(make([]byte, 2000), nil)), "54000 a row of a COPY is larger than 1024 bytes"},
	} {
		for _, n := range []int{1, 2, 7, 1 << 20} {
			got := readBinary([]byte(k.stream), n)
			if got != k.want && !(k.name == "too large" && strings.HasPrefix(got, k.want)) {
				t.Errorf("%s in pieces of %d: %q, want %q", k.name, n, got, k.want)
			}
		}
	}
}

// FuzzBinary: however the stream is cut, the rows and the errors are the same.
func FuzzBinary(f *testing.F) {
	f.Add([]byte(BinaryHeader+string(tuple([]byte("a"), nil))+BinaryTrailer), 3)
	f.Add([]byte(BinaryHeader+"\x00\x02\x00\x00\x00\x01a\x7f\xff\xff\xff"), 1)
	f.Add([]byte(BinaryHeader[:15]+"\x00\x00\x00\x02ab"), 5)
	f.Fuzz(func(t *testing.T, stream []byte, n int) {
		if len(stream) > 900 {
			return // MaxRow is met at another byte of the stream
		}
		whole := readBinary(stream, len(stream)+1)
		if got := readBinary(stream, 1+abs(n)%64); got != whole {
			t.Errorf("cut: %q, whole: %q", got, whole)
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}
