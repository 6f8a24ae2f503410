package pgwire

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/pgerr"
)

func TestFrameBounds(t *testing.T) {
	header := func(typ byte, size uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{typ}, size)
	}
	tests := []struct {
		b        []byte
		n        int  // of Frame
		frontend bool // FrontendFrame accepts
		backend  bool
	}{
		{header('Q', 4), 5, true, false},
		{header('Q', 3), -1, false, false},
		{header('Q', 0), -1, false, false},
		{header('Q', 0xffffffff), -1, false, false},
		{header('Q', MaxLarge), MaxLarge + 1, true, false},
		{header('Q', MaxLarge+1), -1, false, false},
		{header('S', MaxSmall), MaxSmall + 1, true, true},
		{header('S', MaxSmall+1), MaxSmall + 2, false, true},
		{header('T', 4), 5, false, true},
		{header('T', 3), -1, false, false},
		{header('?', 4), 5, false, false},
		{[]byte("HTTP/1.1 400"), -1, false, false}, // H is CopyOutResponse
	}
	for _, tt := range tests {
		if _, n, ok := Frame(tt.b); n != tt.n || ok != (n > 0) {
			t.Errorf("Frame(%x) = %d, %v; want %d", tt.b, n, ok, tt.n)
		}
		_, n, err := FrontendFrame(tt.b)
		if (err == nil) != tt.frontend || err == nil && n != tt.n {
			t.Errorf("FrontendFrame(%x) = %d, %v", tt.b, n, err)
		}
		if err != nil && (!pgerr.From(err).IsFatal() || pgerr.CodeOf(err) != pgerr.ProtocolViolation) {
			t.Errorf("FrontendFrame(%x): %v is not a fatal 08P01", tt.b, err)
		}
		if _, n, err := BackendFrame(tt.b); (err == nil) != tt.backend || err == nil && n != tt.n {
			t.Errorf("BackendFrame(%x) = %d, %v", tt.b, n, err)
		}
	}
	for i := range HeaderSize {
		if _, n, ok := Frame(AppendSync(nil)[:i]); n != 0 || ok {
			t.Errorf("Frame of %d bytes = %d, %v", i, n, ok)
		}
	}
	if _, _, err := FrontendFrame([]byte{'?'}); err == nil {
		t.Error("an unknown type is waited for")
	}
}

func TestTags(t *testing.T) {
	tests := []struct {
		tag, verb string
		rows      int64
		ok        bool
	}{
		{"INSERT 0 5", "INSERT", 5, true},
		{"SELECT 9223372036854775807", "SELECT", 1<<63 - 1, true},
		{"SELECT 9223372036854775808", "SELECT 9223372036854775808", 0, false},
		{"SELECT 99999999999999999999", "SELECT 99999999999999999999", 0, false},
		{"COPY 0", "COPY", 0, true},
		{"FETCH 3", "FETCH", 3, true},
		{"MERGE 1", "MERGE", 1, true},
		{"CREATE TABLE", "CREATE TABLE", 0, false},
		{"SELECT", "SELECT", 0, false},
		{"SELECT ", "SELECT ", 0, false},
		{"SELECT INTO", "SELECT INTO", 0, false},
		{"SELECT -1", "SELECT -1", 0, false},
		{"INSERT 5", "INSERT 5", 0, false},
		{"", "", 0, false},
	}
	for _, tt := range tests {
		verb, rows, ok := ParseTag([]byte(tt.tag))
		if verb != tt.verb || rows != tt.rows || ok != tt.ok {
			t.Errorf("ParseTag(%q) = %q, %d, %v", tt.tag, verb, rows, ok)
		}
		if ok && string(AppendTag(nil, verb, rows)) != tt.tag {
			t.Errorf("AppendTag(%q, %d) = %q", verb, rows, AppendTag(nil, verb, rows))
		}
	}
}

func TestNoValueForgesAField(t *testing.T) {
	e := pgerr.New("42601", "a\x00Cxxxxx").WithHint("h\x00\x00Z")
	got, err := ParseError(AppendError(nil, e)[HeaderSize:])
	if err != nil || got.Message != "a" || got.Code != "42601" || got.Hint != "h" {
		t.Errorf("read back: %+v, %v", got, err)
	}
	name, value, err := ParseParameterStatus(AppendParameterStatus(nil, "a\x00b", []byte("c\x00d"))[HeaderSize:])
	if string(name) != "a" || string(value) != "c" || err != nil {
		t.Errorf("read back: %q, %q, %v", name, value, err)
	}
	for _, p := range []Param{{"a\x00b", "c"}, {"a", "b\x00user\x00postgres"}, {"", "x"}} {
		if out, err := AppendStartup([]byte("x"), Version30, []Param{p}); err == nil || string(out) != "x" {
			t.Errorf("AppendStartup(%q) = %q, %v", p, out, err)
		}
	}
	if _, err := AppendStartup(nil, Version30, []Param{{"a", strings.Repeat("x", MaxStartup)}}); !pgerr.Has(err, pgerr.ProgramLimitExceeded) {
		t.Errorf("a long parameter: %v", err)
	}
}

func TestCountsBeyond16BitsAreRefused(t *testing.T) {
	if _, err := AppendBind(nil, &Bind{Params: make([][]byte, 65536)}); !pgerr.Has(err, pgerr.ProgramLimitExceeded) {
		t.Errorf("AppendBind: %v", err)
	}
	if _, err := AppendParse(nil, "", "", make([]uint32, 65536)); !pgerr.Has(err, pgerr.ProgramLimitExceeded) {
		t.Errorf("AppendParse: %v", err)
	}
	if _, err := AppendFunctionCall(nil, 1, nil, make([][]byte, 65536), 0); !pgerr.Has(err, pgerr.ProgramLimitExceeded) {
		t.Errorf("AppendFunctionCall: %v", err)
	}
	b := must(AppendBind(nil, &Bind{Params: make([][]byte, 65535)}))
	if v, err := ParseBind(b[HeaderSize:]); err != nil || v.NumParams != 65535 || v.Param(65534) != nil {
		t.Errorf("65535 parameters: %d, %v", v.NumParams, err)
	}
}

func TestFormatsOf(t *testing.T) {
	none, one, two := Codes{}, Codes{[]byte{0, 1}}, Codes{[]byte{0, 0, 0, 1}}
	if none.Of(3) != FormatText || one.Of(0) != FormatBinary || one.Of(9) != FormatBinary || two.Of(0) != FormatText || two.Of(1) != FormatBinary {
		t.Error("the rule for format codes is wrong")
	}
}

func TestShardingCodeLeadsTheDetail(t *testing.T) {
	for _, tt := range []struct{ code, detail, wire string }{
		{"SH0042", "why", "SH0042: why"},
		{"SH0042", "", "SH0042"},
		{"", "SHOUT", "SHOUT"},
		{"", "SH004: x", "SH004: x"},
		{"", "SH00421", "SH00421"},
		{"", "", ""},
	} {
		b := AppendError(nil, &pgerr.Error{Message: "m", Code: "0A000", Detail: tt.detail, ShardingCode: tt.code})
		if got, _ := ErrorField(b[HeaderSize:], 'D'); string(got) != tt.wire {
			t.Errorf("on the wire: %q, want %q", got, tt.wire)
		}
		if e, err := ParseError(b[HeaderSize:]); err != nil || e.ShardingCode != tt.code || e.Detail != tt.detail {
			t.Errorf("read back: %+v, %v", e, err)
		}
	}
	if got, ok := ErrorField(AppendError(nil, pgerr.New("42601", "m"))[HeaderSize:], 'H'); ok || got != nil {
		t.Error("a hint that is not there was found")
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	query := AppendQuery(nil, "SELECT 1")
	parse := must(AppendParse(nil, "s1", "SELECT $1::int", []uint32{23}))
	bind := must(AppendBind(nil, &Bind{Statement: "s1", Formats: []int16{1}, Params: [][]byte{nil, {1}, []byte("abc")}, Results: []int16{1}}))
	execute := AppendExecute(nil, "", 0)
	describe := AppendDescribe(nil, KindPortal, "")
	complete := AppendCommandRows(nil, "UPDATE", 17)
	row := AppendDataRow(nil, [][]byte{nil, []byte("abc")})
	failure := AppendError(nil, pgerr.New("42601", "m"))
	out := make([]byte, 0, 1024)
	name := []byte("s1")
	var sum int
	tests := map[string]func(){
		"Frame":         func() { _, n, _ := Frame(query); sum += n },
		"FrontendFrame": func() { _, n, _ := FrontendFrame(query); sum += n },
		"BackendFrame":  func() { _, n, _ := BackendFrame(complete); sum += n },
		"Query":         func() { s, _ := ParseQuery(query[HeaderSize:]); sum += len(s) },
		"Parse":         func() { v, _ := ParseParse(parse[HeaderSize:]); sum += len(v.SQL) + v.OIDs.Len() },
		"Bind": func() {
			v, _ := ParseBind(bind[HeaderSize:])
			it := v.Params()
			for p, ok := it.Next(); ok; p, ok = it.Next() {
				sum += len(p)
			}
			sum += len(v.Param(2)) + int(v.Formats.Of(1))
		},
		"Execute":         func() { p, _, _ := ParseExecute(execute[HeaderSize:]); sum += len(p) },
		"Describe":        func() { v, _ := ParseDescribe(describe[HeaderSize:]); sum += len(v.Name) },
		"CommandComplete": func() { s, _ := ParseCommandComplete(complete[HeaderSize:]); _, n, _ := ParseTag(s); sum += int(n) },
		"ReadyForQuery":   func() { s, _ := ParseReadyForQuery([]byte{'I'}); sum += int(s) },
		"DataRow": func() {
			v, _ := ParseDataRow(row[HeaderSize:])
			it := v.Values()
			for p, ok := it.Next(); ok; p, ok = it.Next() {
				sum += len(p)
			}
		},
		"ErrorField":  func() { v, _ := ErrorField(failure[HeaderSize:], 'C'); sum += len(v) },
		"AppendQuery": func() { out = AppendQuery(out[:0], "SELECT 1") },
		"AppendBindRest": func() {
			v, _ := ParseBind(bind[HeaderSize:])
			out = AppendBindRest(out[:0], "", name, v.Rest)
			out = AppendParseRest(out, name, "SELECT 1", v.Rest)
			out = AppendExecute(AppendDescribe(out, KindPortal, ""), "", 0)
			out = AppendSync(AppendReadyForQuery(out, TxIdle))
		},
	}
	for what, f := range tests {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", what, n)
		}
	}
}
