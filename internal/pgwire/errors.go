package pgwire

import (
	"strconv"
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// ErrorField is one field of an ErrorResponse or NoticeResponse by its identifier
// ('C' is the SQLSTATE), without taking the others apart. ok is false if it is not
// there.
func ErrorField(body []byte, key byte) (value []byte, ok bool) {
	r := reader{b: body}
	for {
		k := r.byte()
		if k == 0 {
			return nil, false
		}
		v := r.cstring()
		if r.bad {
			return nil, false
		}
		if k == key {
			return v, true
		}
	}
}

// ParseError reads an ErrorResponse or NoticeResponse (manual, section 55.8) into a
// value of its own, not a view. A detail that begins with a code of ours becomes
// the ShardingCode, as AppendError wrote it. A repeated field counts once, the last
// time. err says that the message is broken.
func ParseError(body []byte) (e *pgerr.Error, err error) {
	r := reader{b: body}
	e = &pgerr.Error{}
	localized := ""
	for {
		k := r.byte()
		if k == 0 {
			break
		}
		v := string(r.cstring())
		if r.bad {
			break
		}
		if k == 'S' {
			localized = v
		} else {
			setField(e, k, v)
		}
	}
	if err := r.end("ErrorResponse"); err != nil {
		return nil, err
	}
	if e.Severity == "" { // before PostgreSQL 9.6
		e.Severity = localized
	} else if localized != e.Severity {
		e.LocalizedSeverity = localized
	}
	e.ShardingCode, e.Detail = splitShardingCode(e.Detail)
	return e, nil
}

func setField(e *pgerr.Error, key byte, v string) {
	if s := stringField(e, key); s != nil {
		*s = v
		return
	}
	if n := numberField(e, key); n != nil {
		if i, err := strconv.ParseInt(v, 10, 32); err == nil && i > 0 {
			*n = int(i)
			return
		}
	}
	for i := range e.Other {
		if e.Other[i].Key == key {
			e.Other[i].Value = v
			return
		}
	}
	e.Other = append(e.Other, pgerr.Field{Key: key, Value: v})
}

func stringField(e *pgerr.Error, key byte) *string {
	switch key {
	case 'V':
		return &e.Severity
	case 'C':
		return &e.Code
	case 'M':
		return &e.Message
	case 'D':
		return &e.Detail
	case 'H':
		return &e.Hint
	case 'q':
		return &e.InternalQuery
	case 'W':
		return &e.Where
	case 's':
		return &e.Schema
	case 't':
		return &e.Table
	case 'c':
		return &e.Column
	case 'd':
		return &e.DataType
	case 'n':
		return &e.Constraint
	case 'F':
		return &e.File
	case 'R':
		return &e.Routine
	}
	return nil
}

func numberField(e *pgerr.Error, key byte) *int {
	switch key {
	case 'P':
		return &e.Position
	case 'p':
		return &e.InternalPosition
	case 'L':
		return &e.Line
	}
	return nil
}

// splitShardingCode undoes joinShardingCode.
func splitShardingCode(detail string) (code, rest string) {
	if len(detail) < 6 || !strings.HasPrefix(detail, "SH") {
		return "", detail
	}
	for _, c := range detail[2:6] {
		if c < '0' || c > '9' {
			return "", detail
		}
	}
	if len(detail) == 6 {
		return detail, ""
	}
	if rest, ok := strings.CutPrefix(detail[6:], ": "); ok && rest != "" {
		return detail[:6], rest
	}
	return "", detail
}

func joinShardingCode(code, detail string) string {
	switch {
	case code == "":
		return detail
	case detail == "":
		return code
	}
	return code + ": " + detail
}

// AppendError appends an ErrorResponse. Our own code leads the detail: "SH0042: ...".
func AppendError(dst []byte, e *pgerr.Error) []byte {
	return appendFields(dst, TypeErrorResponse, e, pgerr.SeverityError)
}

// AppendNotice appends a NoticeResponse.
func AppendNotice(dst []byte, e *pgerr.Error) []byte {
	return appendFields(dst, TypeNoticeResponse, e, pgerr.SeverityNotice)
}

// appendFields writes PostgreSQL's order; severity, code and message are always there.
func appendFields(dst []byte, typ byte, e *pgerr.Error, severity string) []byte {
	dst, at := begin(dst, typ)
	if e.Severity != "" {
		severity = e.Severity
	}
	dst = appendField(dst, 'S', or(e.LocalizedSeverity, severity))
	dst = appendField(dst, 'V', severity)
	dst = appendField(dst, 'C', or(e.Code, pgerr.InternalError))
	dst = appendField(dst, 'M', or(e.Message, "missing error text"))
	dst = appendField(dst, 'D', joinShardingCode(e.ShardingCode, e.Detail))
	dst = appendField(dst, 'H', e.Hint)
	dst = appendNumber(dst, 'P', e.Position)
	dst = appendNumber(dst, 'p', e.InternalPosition)
	dst = appendField(dst, 'q', e.InternalQuery)
	dst = appendField(dst, 'W', e.Where)
	dst = appendField(dst, 's', e.Schema)
	dst = appendField(dst, 't', e.Table)
	dst = appendField(dst, 'c', e.Column)
	dst = appendField(dst, 'd', e.DataType)
	dst = appendField(dst, 'n', e.Constraint)
	dst = appendField(dst, 'F', e.File)
	dst = appendNumber(dst, 'L', e.Line)
	dst = appendField(dst, 'R', e.Routine)
	for _, f := range e.Other {
		if f.Key != 0 {
			dst = appendField(dst, f.Key, f.Value)
		}
	}
	return finish(append(dst, 0), at)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func appendField(dst []byte, key byte, value string) []byte {
	if value == "" {
		return dst
	}
	return appendCString(append(dst, key), value)
}

func appendNumber(dst []byte, key byte, n int) []byte {
	if n <= 0 {
		return dst
	}
	dst = strconv.AppendInt(append(dst, key), int64(n), 10)
	return append(dst, 0)
}
