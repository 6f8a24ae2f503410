package pgwire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// pgproto3 is the oracle: what it rejects we reject, and what we accept has its
// values. Where we are stricter, the case names why, as PostgreSQL is too.

// message is what pgproto3's messages have in common.
type message interface {
	Decode([]byte) error
	Encode([]byte) ([]byte, error)
}

// judge compares two verdicts and says whether both accept. stricter: a reason for
// us to refuse what the oracle takes. Bytes left over, which pgproto3 drops and
// PostgreSQL refuses (pq_getmsgend), show in that the oracle's own encoding differs.
func judge(t *testing.T, body []byte, m message, ours error, stricter func() bool) bool {
	t.Helper()
	theirs := m.Decode(body)
	switch {
	case ours == nil && theirs != nil:
		t.Fatalf("%T %x: we accept, the oracle says %v", m, body, theirs)
	case ours != nil && theirs == nil:
		if stricter != nil && stricter() {
			break
		}
		if again, err := m.Encode(nil); err == nil && bytes.Equal(again[HeaderSize:], body) {
			t.Fatalf("%T %x: the oracle accepts, we say %v", m, body, ours)
		}
	}
	if ours != nil && !pgerr.Has(ours, pgerr.ProtocolViolation, pgerr.InvalidParameterValue) {
		t.Fatalf("%T %x: the error %v has the SQLSTATE %s", m, body, ours, pgerr.CodeOf(ours))
	}
	return ours == nil && theirs == nil
}

func equal[T any](t *testing.T, what string, ours, theirs T) {
	t.Helper()
	if a, b := fmt.Sprintf("%q", any(ours)), fmt.Sprintf("%q", any(theirs)); a != b {
		t.Fatalf("%s: we read %s, the oracle %s", what, a, b)
	}
}

// rebuilt checks that our builder makes the message that was read.
func rebuilt(t *testing.T, body, built []byte) {
	t.Helper()
	if typ, n, ok := Frame(built); !ok || n != len(built) || typ != built[0] {
		t.Fatalf("%x is no single message", built)
	}
	if !bytes.Equal(built[HeaderSize:], body) {
		t.Fatalf("read  %x\nbuilt %x", body, built[HeaderSize:])
	}
}

func collect(v Values) [][]byte {
	var all [][]byte
	for x, ok := v.Next(); ok; x, ok = v.Next() {
		all = append(all, x)
	}
	return all
}

// nulls makes NULL and the empty value differ in %q.
func nulls(values [][]byte) []string {
	var s []string
	for _, v := range values {
		if v == nil {
			s = append(s, "NULL")
		} else {
			s = append(s, "="+string(v))
		}
	}
	return s
}

func codes[T int16 | uint16](c Codes) []T {
	var all []T
	for i := range c.Len() {
		all = append(all, T(c.At(i)))
	}
	return all
}

func oids(o OIDs) []uint32 {
	var all []uint32
	for i := range o.Len() {
		all = append(all, o.At(i))
	}
	return all
}

func checkFrontend(t *testing.T, typ byte, body []byte) {
	switch typ {
	case TypeQuery:
		var m pgproto3.Query
		sql, err := ParseQuery(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "sql", string(sql), m.String)
			rebuilt(t, body, AppendQuery(nil, sql))
		}
	case TypeParse:
		checkParse(t, body)
	case TypeBind:
		checkBind(t, body)
	case TypeDescribe:
		var m pgproto3.Describe
		v, err := ParseDescribe(body)
		if judge(t, body, &m, err, func() bool { return m.ObjectType != 'S' && m.ObjectType != 'P' }) {
			equal(t, "target", string(v.Kind)+string(v.Name), string(m.ObjectType)+m.Name)
			rebuilt(t, body, AppendDescribe(nil, v.Kind, v.Name))
		}
	case TypeClose:
		var m pgproto3.Close
		v, err := ParseClose(body)
		if judge(t, body, &m, err, func() bool { return m.ObjectType != 'S' && m.ObjectType != 'P' }) {
			equal(t, "target", string(v.Kind)+string(v.Name), string(m.ObjectType)+m.Name)
			rebuilt(t, body, AppendClose(nil, v.Kind, v.Name))
		}
	case TypeExecute:
		var m pgproto3.Execute
		portal, rows, err := ParseExecute(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "portal", string(portal), m.Portal)
			equal(t, "rows", uint32(rows), m.MaxRows)
			rebuilt(t, body, AppendExecute(nil, portal, rows))
		}
	case TypeCopyFail:
		var m pgproto3.CopyFail
		reason, err := ParseCopyFail(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "reason", string(reason), m.Message)
			rebuilt(t, body, AppendCopyFail(nil, reason))
		}
	case TypeFunctionCall:
		checkFunctionCall(t, body)
	case TypeFlush:
		judge(t, body, &pgproto3.Flush{}, CheckEmpty(body), nil)
	case TypePassword:
		checkPassword(t, body)
	}
}

func checkParse(t *testing.T, body []byte) {
	var m pgproto3.Parse
	v, err := ParseParse(body)
	if !judge(t, body, &m, err, nil) {
		return
	}
	equal(t, "name", string(v.Name), m.Name)
	equal(t, "sql", string(v.SQL), m.Query)
	equal(t, "types", oids(v.OIDs), m.ParameterOIDs)
	built, err := AppendParse(nil, v.Name, v.SQL, oids(v.OIDs))
	if err != nil {
		t.Fatal(err)
	}
	rebuilt(t, body, built)
	rebuilt(t, body, AppendParseRest(nil, v.Name, v.SQL, v.Rest))
}

func checkBind(t *testing.T, body []byte) {
	var m pgproto3.Bind
	v, err := ParseBind(body)
	formatsDisagree := func() bool {
		return len(m.ParameterFormatCodes) > 1 && len(m.ParameterFormatCodes) != len(m.Parameters)
	}
	if !judge(t, body, &m, err, formatsDisagree) {
		return
	}
	equal(t, "portal", string(v.Portal), m.DestinationPortal)
	equal(t, "statement", string(v.Statement), m.PreparedStatement)
	equal(t, "formats", codes[int16](v.Formats), m.ParameterFormatCodes)
	equal(t, "values", nulls(collect(v.Params())), nulls(m.Parameters))
	equal(t, "results", codes[int16](v.Results), m.ResultFormatCodes)
	equal(t, "count", v.NumParams, len(m.Parameters))
	for i := range v.NumParams {
		equal(t, "value", nulls([][]byte{v.Param(i)}), nulls([][]byte{m.Parameters[i]}))
	}
	built, err := AppendBind(nil, &Bind{
		Portal: string(v.Portal), Statement: string(v.Statement), Formats: codes[int16](v.Formats),
		Params: collect(v.Params()), Results: codes[int16](v.Results),
	})
	if err != nil {
		t.Fatal(err)
	}
	rebuilt(t, body, built)
	rebuilt(t, body, AppendBindRest(nil, v.Portal, v.Statement, v.Rest))
}

func checkFunctionCall(t *testing.T, body []byte) {
	var m pgproto3.FunctionCall
	v, err := ParseFunctionCall(body)
	if !judge(t, body, &m, err, func() bool { return len(m.ArgFormatCodes) > 1 && len(m.ArgFormatCodes) != len(m.Arguments) }) {
		return
	}
	equal(t, "oid", v.OID, m.Function)
	equal(t, "formats", codes[uint16](v.Formats), m.ArgFormatCodes)
	equal(t, "values", nulls(collect(v.Args())), nulls(m.Arguments))
	equal(t, "result", uint16(v.Result), m.ResultFormatCode)
	built, err := AppendFunctionCall(nil, v.OID, codes[int16](v.Formats), collect(v.Args()), v.Result)
	if err != nil {
		t.Fatal(err)
	}
	rebuilt(t, body, built)
}

func checkPassword(t *testing.T, body []byte) {
	var p pgproto3.PasswordMessage
	password, err := ParsePassword(body)
	if judge(t, body, &p, err, nil) {
		equal(t, "password", string(password), p.Password)
		rebuilt(t, body, AppendPassword(nil, password))
	}
	// pgproto3 skips the size of the data, PostgreSQL holds the data against it.
	var s pgproto3.SASLInitialResponse
	mechanism, data, err := ParseSASLInitial(body)
	sizeDisagrees := func() bool {
		size := int32(binary.BigEndian.Uint32(body[len(s.AuthMechanism)+1:]))
		return int(size) != len(s.Data)
	}
	if judge(t, body, &s, err, sizeDisagrees) {
		equal(t, "mechanism", string(mechanism), s.AuthMechanism)
		equal(t, "data", string(data), string(s.Data))
		rebuilt(t, body, AppendSASLInitial(nil, mechanism, data))
	}
}

func checkBackend(t *testing.T, typ byte, body []byte) {
	switch typ {
	case TypeAuthentication:
		checkAuthentication(t, body)
	case TypeParameterStatus:
		var m pgproto3.ParameterStatus
		name, value, err := ParseParameterStatus(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "parameter", string(name)+"\x00"+string(value), m.Name+"\x00"+m.Value)
			rebuilt(t, body, AppendParameterStatus(nil, name, value))
		}
	case TypeBackendKeyData:
		var m pgproto3.BackendKeyData
		pid, secret, err := ParseBackendKeyData(body)
		if judge(t, body, &m, err, func() bool { return len(m.SecretKey) > 256 }) {
			equal(t, "pid", pid, m.ProcessID)
			equal(t, "secret", secret, m.SecretKey)
			rebuilt(t, body, AppendBackendKeyData(nil, pid, secret))
		}
	case TypeReadyForQuery:
		var m pgproto3.ReadyForQuery
		status, err := ParseReadyForQuery(body)
		if judge(t, body, &m, err, func() bool { return !slices.Contains([]byte("ITE"), m.TxStatus) }) {
			equal(t, "status", status, m.TxStatus)
			rebuilt(t, body, AppendReadyForQuery(nil, status))
		}
	case TypeRowDescription:
		checkRowDescription(t, body)
	case TypeDataRow:
		var m pgproto3.DataRow
		v, err := ParseDataRow(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "count", v.Len(), len(m.Values))
			equal(t, "values", nulls(collect(v.Values())), nulls(m.Values))
			rebuilt(t, body, AppendDataRow(nil, collect(v.Values())))
		}
	case TypeCommandComplete:
		var m pgproto3.CommandComplete
		tag, err := ParseCommandComplete(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "tag", string(tag), string(m.CommandTag))
			rebuilt(t, body, AppendCommandComplete(nil, tag))
			ParseTag(tag)
		}
	case TypeErrorResponse, TypeNoticeResponse:
		checkError(t, body)
	case TypeParameterDescription:
		var m pgproto3.ParameterDescription
		v, err := ParseParameterDescription(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "types", oids(v), m.ParameterOIDs)
			rebuilt(t, body, AppendParameterDescription(nil, oids(v)))
		}
	default:
		checkRareBackend(t, typ, body)
	}
}

func checkRareBackend(t *testing.T, typ byte, body []byte) {
	switch typ {
	case TypeNotificationResponse:
		var m pgproto3.NotificationResponse
		v, err := ParseNotification(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "notification", fmt.Sprint(v.PID, string(v.Channel), "\x00", string(v.Payload)), fmt.Sprint(m.PID, m.Channel, "\x00", m.Payload))
			rebuilt(t, body, AppendNotification(nil, v.PID, v.Channel, v.Payload))
		}
	case TypeCopyInResponse, TypeCopyOutResponse, TypeCopyBothResponse:
		var m pgproto3.CopyInResponse // the three are alike
		v, err := ParseCopyResponse(body)
		if judge(t, body, &m, err, func() bool { return m.OverallFormat > 1 }) {
			equal(t, "format", byte(v.Format), m.OverallFormat)
			equal(t, "columns", codes[uint16](v.Columns), m.ColumnFormatCodes)
			rebuilt(t, body, AppendCopyResponse(nil, typ, v.Format, codes[int16](v.Columns)))
		}
	case TypeNegotiateProtocolVersion:
		var m pgproto3.NegotiateProtocolVersion
		newest, options, err := ParseNegotiateProtocolVersion(body)
		if judge(t, body, &m, err, nil) {
			equal(t, "newest", newest, m.NewestMinorProtocol)
			equal(t, "options", options, m.UnrecognizedOptions)
			rebuilt(t, body, AppendNegotiateProtocolVersion(nil, newest, options))
		}
	case TypeFunctionCallResponse:
		var m pgproto3.FunctionCallResponse
		value, err := ParseFunctionCallResponse(body)
		if judge(t, body, &m, err, func() bool { return m.Result == nil && len(body) > 4 }) { // bytes after a NULL
			equal(t, "value", nulls([][]byte{value}), nulls([][]byte{m.Result}))
			rebuilt(t, body, AppendFunctionCallResponse(nil, value))
		}
	case TypeNoData:
		judge(t, body, &pgproto3.NoData{}, CheckEmpty(body), nil)
	}
}

func checkAuthentication(t *testing.T, body []byte) {
	a, err := ParseAuthentication(body)
	if len(body) < 4 {
		if err == nil {
			t.Fatalf("%x is accepted as an authentication request", body)
		}
		return
	}
	switch binary.BigEndian.Uint32(body) {
	case AuthOK:
		if judge(t, body, &pgproto3.AuthenticationOk{}, err, nil) {
			rebuilt(t, body, AppendAuthenticationOK(nil))
		}
	case AuthCleartext:
		judge(t, body, &pgproto3.AuthenticationCleartextPassword{}, err, nil)
	case AuthMD5:
		var m pgproto3.AuthenticationMD5Password
		if judge(t, body, &m, err, nil) {
			equal(t, "salt", a.Data, m.Salt[:])
		}
	case AuthSASL:
		var m pgproto3.AuthenticationSASL
		names, err := a.Mechanisms()
		// An empty name is the list's end, and something must end it.
		if judge(t, body, &m, err, func() bool { return slices.Contains(m.AuthMechanisms, "") || body[len(body)-1] != 0 || len(body) == 4 }) {
			equal(t, "mechanisms", names, m.AuthMechanisms)
			rebuilt(t, body, AppendAuthenticationSASL(nil, names...))
		}
	case AuthSASLContinue:
		var m pgproto3.AuthenticationSASLContinue
		if judge(t, body, &m, err, nil) {
			equal(t, "data", a.Data, m.Data)
			rebuilt(t, body, AppendAuthenticationSASLContinue(nil, a.Data))
		}
	case AuthSASLFinal:
		var m pgproto3.AuthenticationSASLFinal
		if judge(t, body, &m, err, nil) {
			equal(t, "data", a.Data, m.Data)
			rebuilt(t, body, AppendAuthenticationSASLFinal(nil, a.Data))
		}
	}
}

func checkRowDescription(t *testing.T, body []byte) {
	var m pgproto3.RowDescription
	v, err := ParseRowDescription(body)
	if !judge(t, body, &m, err, nil) {
		return
	}
	equal(t, "count", v.Len(), len(m.Fields))
	fields := v.Fields()
	for i, f := range fields {
		g := m.Fields[i]
		equal(t, "field", fmt.Sprint(f), fmt.Sprint(FieldDescription{
			string(g.Name), g.TableOID, int16(g.TableAttributeNumber), g.DataTypeOID, g.DataTypeSize, g.TypeModifier, g.Format,
		}))
	}
	rebuilt(t, body, AppendRowDescription(nil, fields))
}

func checkError(t *testing.T, body []byte) {
	var m pgproto3.ErrorResponse
	e, err := ParseError(body)
	leftOver := func() bool { return err.Error() == "invalid message format" }
	if !judge(t, body, &m, err, leftOver) {
		return
	}
	if m.SeverityUnlocalized != "" {
		equal(t, "severity", e.Severity, m.SeverityUnlocalized)
		if m.Severity != m.SeverityUnlocalized {
			equal(t, "localized", e.LocalizedSeverity, m.Severity)
		}
	} else {
		equal(t, "severity", e.Severity, m.Severity)
	}
	equal(t, "detail", joinShardingCode(e.ShardingCode, e.Detail), m.Detail)
	equal(t, "fields",
		[]string{e.Code, e.Message, e.Hint, e.InternalQuery, e.Where, e.Schema, e.Table, e.Column, e.DataType, e.Constraint, e.File, e.Routine},
		[]string{m.Code, m.Message, m.Hint, m.InternalQuery, m.Where, m.SchemaName, m.TableName, m.ColumnName, m.DataTypeName, m.ConstraintName, m.File, m.Routine})
	for _, f := range e.Other {
		if f.Key != 'P' && f.Key != 'p' && f.Key != 'L' {
			equal(t, "unknown field", f.Value, m.UnknownFields[f.Key])
		}
	}
	// What we write again reads as the same, and holds no other message.
	built := AppendError(nil, e)
	again, err := ParseError(built[HeaderSize:])
	if err != nil {
		t.Fatalf("%x: written again: %v", body, err)
	}
	again.Severity, again.Code, again.Message = e.Severity, e.Code, e.Message // defaults fill these
	again.LocalizedSeverity = e.LocalizedSeverity
	var want []pgerr.Field // empty fields are left out, a repeated one counts once
	for _, f := range e.Other {
		if f.Value != "" {
			want = append(want, f)
		}
	}
	equal(t, "unknown fields", again.Other, want)
	a, b := *again, *e
	a.Other, b.Other = nil, nil
	equal(t, "error", fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b))
}

func checkStartup(t *testing.T, packet []byte) {
	s, err := ParseStartup(packet, Version32)
	if err != nil {
		if e := pgerr.From(err); !e.IsFatal() {
			t.Fatalf("%x: %v is not fatal", packet, err)
		}
	}
	if n, ferr := StartupFrame(packet); ferr != nil || n == 0 || n != len(packet) {
		if err == nil {
			t.Fatalf("%x: a packet of the wrong length is accepted", packet)
		}
		return
	}
	body := packet[4:]
	switch binary.BigEndian.Uint32(body) {
	case CodeCancelRequest:
		var m pgproto3.CancelRequest
		if theirs := m.Decode(body); (theirs == nil) != (err == nil) {
			t.Fatalf("%x: we say %v, the oracle %v", packet, err, theirs)
		}
		if err == nil {
			equal(t, "pid", s.PID, m.ProcessID)
			equal(t, "secret", s.Secret, m.SecretKey)
			equal(t, "packet", AppendCancelRequest(nil, s.PID, s.Secret), packet)
		}
		return
	case CodeSSLRequest, CodeGSSENCRequest:
		if (len(body) == 4) != (err == nil) {
			t.Fatalf("%x: %v", packet, err)
		}
		return
	}
	var m pgproto3.StartupMessage
	theirs := m.Decode(body)
	minor := s.Version & 0xffff
	switch {
	case err == nil && theirs != nil:
		// PostgreSQL takes every minor version (and negotiates), and finds the
		// missing user only afterwards.
		if len(s.Params) > 0 && (minor == 0 || minor == 2) {
			t.Fatalf("%x: we accept, the oracle says %v", packet, theirs)
		}
	case err != nil && theirs == nil:
		if _, empty := m.Parameters[""]; !empty { // an empty name is the list's end
			t.Fatalf("%x: the oracle accepts, we say %v", packet, err)
		}
	}
	if err == nil && theirs == nil {
		for name, value := range m.Parameters {
			got, _ := s.Get(name)
			equal(t, name, got, value)
		}
	}
	if err == nil {
		built, err := AppendStartup(nil, s.Version, s.Params)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "packet", built, packet)
	}
}
