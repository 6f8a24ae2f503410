package pgwire

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// must is for builders whose error the seeds cannot cause.
func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func frontendSeeds() [][]byte {
	return [][]byte{
		AppendQuery(nil, "SELECT 1"),
		AppendQuery(nil, ""),
		must(AppendParse(nil, "s1", "SELECT $1::int", []uint32{23, 0})),
		must(AppendParse(nil, "", "", nil)),
		must(AppendBind(nil, &Bind{Portal: "p", Statement: "s", Formats: []int16{1}, Params: [][]byte{nil, {}, {0, 0, 0, 42}}, Results: []int16{0, 1}})),
		must(AppendBind(nil, &Bind{Formats: []int16{0, 1}, Params: [][]byte{[]byte("a"), []byte("b")}})),
		must(AppendBind(nil, &Bind{})),
		AppendDescribe(nil, KindPortal, ""),
		AppendDescribe(nil, KindStatement, "s1"),
		AppendClose(nil, KindStatement, "s1"),
		AppendExecute(nil, "p", 10),
		AppendExecute(nil, "", -1),
		AppendCopyFail(nil, "no more"),
		must(AppendFunctionCall(nil, 1598, []int16{1}, [][]byte{nil, {}, []byte("x")}, 1)),
		AppendPassword(nil, "secret"),
		AppendSASLInitial(nil, "SCRAM-SHA-256", []byte("n,,n=,r=abc")),
		AppendSASLInitial(nil, "SCRAM-SHA-256", nil),
		AppendSASLResponse(nil, []byte("c=biws,r=abc,p=eA==")),
		AppendCopyData(nil, []byte("1\t2\n")),
		AppendCopyDone(nil), AppendSync(nil), AppendFlush(nil), AppendTerminate(nil),
	}
}

func backendSeeds() [][]byte {
	e := pgerr.New(pgerr.UniqueViolation, "duplicate key").WithDetail("Key (i)=(1) already exists.").WithPosition(15)
	e.Schema, e.Table, e.Constraint, e.File, e.Line, e.Routine = "public", "t", "t_pkey", "nbtinsert.c", 666, "_bt_check_unique"
	e.Other = []pgerr.Field{{Key: 'Z', Value: "new"}}
	e.LocalizedSeverity = "FEHLER"
	return [][]byte{
		AppendAuthenticationOK(nil),
		AppendAuthentication(nil, AuthCleartext, nil),
		AppendAuthentication(nil, AuthMD5, []byte("salt")),
		AppendAuthenticationSASL(nil, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"),
		AppendAuthenticationSASLContinue(nil, []byte("r=abc,s=c2FsdA==,i=4096")),
		AppendAuthenticationSASLFinal(nil, []byte("v=eA==")),
		AppendParameterStatus(nil, "TimeZone", "UTC"),
		AppendBackendKeyData(nil, 4711, []byte{1, 2, 3, 4}),
		AppendBackendKeyData(nil, 4711, bytes.Repeat([]byte{7}, 256)),
		AppendReadyForQuery(nil, TxActive),
		AppendRowDescription(nil, []FieldDescription{{Name: "i", TableOID: 16384, Attr: 1, TypeOID: 23, TypeSize: 4, TypeMod: -1}, {TypeOID: 25, TypeSize: -1, TypeMod: -1, Format: 1}}),
		AppendRowDescription(nil, nil),
		AppendDataRow(nil, [][]byte{nil, {}, []byte("abc")}),
		AppendDataRow(nil, nil),
		AppendTextRow(nil, "a", ""),
		AppendCommandComplete(nil, "CREATE TABLE"),
		AppendCommandRows(nil, "INSERT", 5),
		AppendError(nil, e),
		AppendError(nil, pgerr.CrossShardJoin.New("not here").WithPosition(3)),
		AppendNotice(nil, &pgerr.Error{Severity: pgerr.SeverityWarning, Code: "01000", Message: "careful"}),
		AppendParameterDescription(nil, []uint32{23, 25}),
		AppendNotification(nil, 4711, "channel", "payload"),
		AppendCopyResponse(nil, TypeCopyInResponse, FormatText, []int16{0, 0}),
		AppendCopyResponse(nil, TypeCopyOutResponse, FormatBinary, []int16{1}),
		AppendCopyResponse(nil, TypeCopyBothResponse, FormatText, nil),
		AppendNegotiateProtocolVersion(nil, Version32, []string{"_pq_.a", "_pq_.b"}),
		AppendFunctionCallResponse(nil, []byte("x")),
		AppendFunctionCallResponse(nil, nil),
		AppendParseComplete(nil), AppendBindComplete(nil), AppendCloseComplete(nil), AppendNoData(nil),
		AppendPortalSuspended(nil), AppendEmptyQueryResponse(nil),
	}
}

func startupSeeds() [][]byte {
	return [][]byte{
		must(AppendStartup(nil, Version30, []Param{{"user", "app"}, {"database", "shop"}, {"user", "other"}, {"options", "-c a=b"}})),
		must(AppendStartup(nil, Version32, []Param{{"user", "app"}, {"_pq_.x", ""}})),
		must(AppendStartup(nil, 3<<16|9999, nil)),
		must(AppendStartup(nil, 2<<16, nil)),
		AppendSSLRequest(nil),
		AppendGSSENCRequest(nil),
		AppendCancelRequest(nil, 4711, []byte{1, 2, 3, 4}),
		AppendCancelRequest(nil, 4711, bytes.Repeat([]byte{7}, 256)),
	}
}

func FuzzFrontend(f *testing.F) {
	for _, m := range frontendSeeds() {
		f.Add(m[0], m[HeaderSize:])
	}
	f.Fuzz(checkFrontend)
}

func FuzzBackend(f *testing.F) {
	for _, m := range backendSeeds() {
		f.Add(m[0], m[HeaderSize:])
	}
	f.Fuzz(checkBackend)
}

func FuzzStartup(f *testing.F) {
	for _, p := range startupSeeds() {
		f.Add(p)
	}
	f.Fuzz(checkStartup)
}

// FuzzStream cuts any bytes into messages as a connection would.
func FuzzStream(f *testing.F) {
	f.Add(bytes.Join(frontendSeeds(), nil))
	f.Add(bytes.Join(backendSeeds(), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, frame := range []func([]byte) (byte, int, error){FrontendFrame, BackendFrame} {
			for rest := b; ; {
				typ, n, err := frame(rest)
				if err != nil || n == 0 || n > len(rest) {
					if err != nil && n != 0 || n == 0 && err == nil && len(rest) >= HeaderSize {
						t.Fatalf("%x: n = %d, error %v", rest, n, err)
					}
					break
				}
				if gotTyp, gotN, ok := Frame(rest); !ok || gotN != n || gotTyp != typ || n < HeaderSize {
					t.Fatalf("Frame(%x) disagrees", rest)
				}
				rest = rest[n:]
			}
		}
	})
}

// TestMutations drives every seed through the oracle cut at every length, with every
// byte changed in several ways, and with bytes added.
func TestMutations(t *testing.T) {
	for _, m := range frontendSeeds() {
		mutate(m[HeaderSize:], func(body []byte) { checkFrontend(t, m[0], body) })
	}
	for _, m := range backendSeeds() {
		mutate(m[HeaderSize:], func(body []byte) { checkBackend(t, m[0], body) })
	}
	for _, p := range startupSeeds() {
		mutate(p, func(p []byte) { checkStartup(t, p) })
		mutate(p[4:], func(body []byte) { // with a right length
			whole := append([]byte{0, 0, byte((len(body) + 4) >> 8), byte(len(body) + 4)}, body...)
			checkStartup(t, whole)
		})
	}
}

func mutate(body []byte, check func([]byte)) {
	check(body)
	for i := range body {
		check(bytes.Clone(body[:i]))
		for _, to := range []byte{0, 1, 2, 0x7f, 0x80, 0xff, body[i] + 1, body[i] - 1} {
			changed := bytes.Clone(body)
			changed[i] = to
			check(changed)
		}
		check(append(bytes.Clone(body[:i]), body[i+1:]...))
		check(append(append(bytes.Clone(body[:i]), 0), body[i:]...))
	}
	check(append(bytes.Clone(body), 0))
	check(append(bytes.Clone(body), "xyz\x00"...))
	check([]byte(strings.Repeat("\xff", 64)))
}
