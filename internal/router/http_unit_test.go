package router

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/pgerr"
)

func TestStatusOfSQLState(t *testing.T) {
	for _, tt := range []struct {
		state  string
		status int
		code   string
		retry  bool
	}{
		{"23505", 409, codeConstraint, false}, {"22P02", 422, codeBadData, false}, {"42601", 422, codeBadStatement, false},
		{"42501", 403, codeForbidden, false}, {"0A000", 422, codeNotSupported, false}, {"28P01", 401, codeUnauthorized, false},
		{"3D000", 404, codeNoKeyspace, false}, {"53300", 503, codeOverloaded, true}, {"57014", 504, codeTimeout, false},
		{"57P01", 503, codeUnavailable, true}, {"57P03", 503, codeUnavailable, true}, {"08006", 503, codeUnavailable, false}, {"08001", 503, codeUnavailable, true},
		{"08007", 503, codeUnknown, false}, {"08P01", 500, codeInternal, false}, {"40001", 409, codeSerialization, false},
		{"40P01", 409, codeSerialization, false}, {"25006", 403, codeReadOnly, false}, {"25P02", 422, codeState, false},
		{"55P03", 409, codeLocked, false}, {"54001", 422, codeLimit, false}, {"P0001", 422, codeRaised, false},
		{"XX000", 500, codeInternal, false}, {"58030", 500, codeInternal, false}, {"", 500, codeInternal, false}, {"99999", 500, codeInternal, false},
	} {
		e := asHTTPError(&pgconn.PgError{Code: tt.state, Message: "m", Detail: "SH0007: d"})
		if e.status != tt.status || e.code != tt.code || (e.retryAfter > 0) != tt.retry || e.sqlstate != tt.state {
			t.Errorf("%s: %+v, want %d %s", tt.state, e, tt.status, tt.code)
		}
		if e.shardingCode != "SH0007" || e.detail != "d" {
			t.Errorf("%s: sharding code %q, detail %q", tt.state, e.shardingCode, e.detail)
		}
	}
	for state := range statusOf {
		if len(state) != 2 && len(state) != 5 {
			t.Errorf("statusOf has %q", state)
		}
	}
}

func TestErrorsKeepSecretsIn(t *testing.T) {
	e := asHTTPError(errors.New("secret at 10.0.0.1"))
	if e.status != 500 || strings.Contains(string(appendError(nil, e, "id")), "secret") {
		t.Errorf("%s", appendError(nil, e, "id"))
	}
	full := &httpError{code: "C", message: "m\"\n", detail: "d", hint: "h", sqlstate: "0A000", shardingCode: "SH0001", position: 3}
	want := `{"error":{"code":"C","message":"m\"\n","detail":"d","hint":"h","sqlstate":"0A000","sharding_code":"SH0001","position":3,"request_id":"id"}}`
	if got := string(appendError(nil, full, "id")); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got := cutShardingCodeOf("SHxx07: d"); got != "|SHxx07: d" {
		t.Errorf("no code of ours: %s", got)
	}
	if got := cutShardingCodeOf("SH0007: "); got != "SH0007|" {
		t.Errorf("a code alone: %s", got)
	}
}

func cutShardingCodeOf(detail string) string {
	code, rest := cutShardingCode(detail)
	return code + "|" + rest
}

// TestOpenAPI holds the document against the routes, the request's types and the
// codes.
func TestOpenAPI(t *testing.T) {
	var doc struct {
		Paths      map[string]map[string]map[string]any
		Components struct {
			Schemas map[string]struct {
				Properties map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(openAPIDocument, &doc); err != nil {
		t.Fatal(err)
	}
	var served, described []string
	h := &httpServer{}
	for path, methods := range h.routeTable() {
		for m, rt := range methods {
			served = append(served, m+" "+path)
			op := doc.Paths[path][strings.ToLower(m)]
			_, public := op["security"]
			if public != (rt.access == open) {
				t.Errorf("%s %s: the document is wrong about tokens", m, path)
			}
			responses, _ := op["responses"].(map[string]any)
			for _, status := range []string{"200", "405", "default"} {
				if responses[status] == nil {
					t.Errorf("%s %s: no response %s", m, path, status)
				}
			}
		}
	}
	for path, methods := range doc.Paths {
		for m := range methods {
			described = append(described, strings.ToUpper(m)+" "+path)
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("served    %v\ndescribed %v", served, described)
	}
	for name, v := range map[string]any{
		"Execute": executeRequest{}, "Transaction": transactionRequest{}, "Statement": statement{}, "Options": requestOptions{}, "Health": healthReport{},
	} {
		var fields, props []string
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			fields = append(fields, tag)
		}
		for p := range doc.Components.Schemas[name].Properties {
			props = append(props, p)
		}
		slices.Sort(fields)
		slices.Sort(props)
		if !slices.Equal(fields, props) {
			t.Errorf("schema %s has %v, the type %v", name, props, fields)
		}
	}
	var form struct {
		Properties map[string]struct{ Enum []string }
	}
	if err := json.Unmarshal(doc.Components.Schemas["Error"].Properties["error"], &form); err != nil {
		t.Fatal(err)
	}
	var example struct{ Error map[string]any }
	full := &httpError{code: "C", message: "m", detail: "d", hint: "h", sqlstate: "0A000", shardingCode: "SH0001", position: 3}
	if err := json.Unmarshal(appendError(nil, full, "id"), &example); err != nil {
		t.Fatal(err)
	}
	for f := range example.Error {
		if _, ok := form.Properties[f]; !ok {
			t.Errorf("the error's field %s is not described", f)
		}
	}
	codes := declaredCodes(t)
	enum := form.Properties["code"].Enum
	slices.Sort(enum)
	if !slices.Equal(codes, enum) {
		t.Errorf("codes %v\nenum  %v", codes, enum)
	}
	checkRefs(t, openAPIDocument)
}

// declaredCodes reads the code constants of http_error.go.
func declaredCodes(t *testing.T) (codes []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "http_error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if ok && strings.HasPrefix(v.Names[0].Name, "code") {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, s)
		}
		return true
	})
	slices.Sort(codes)
	return codes
}

// checkRefs finds references that lead nowhere.
func checkRefs(t *testing.T, doc []byte) {
	t.Helper()
	var root any
	if err := json.Unmarshal(doc, &root); err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				at := root
				for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					m, _ := at.(map[string]any)
					at = m[part]
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(root)
}

func TestPanicIsAnError(t *testing.T) {
	h := &httpServer{log: slog.New(slog.DiscardHandler), r: &Router{}}
	h.routes = map[string]map[string]httpRoute{
		"/early": {"GET": {open, func(*call) error { panic("secret") }}},
		"/late": {"GET": {open, func(c *call) error {
			c.send(200, []byte("{}"))
			panic("secret")
		}}},
	}
	srv := httptest.NewServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/early")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 500 || strings.Contains(string(body), "secret") || !strings.Contains(string(body), codeInternal) {
		t.Errorf("%d %s %v", resp.StatusCode, body, err)
	}
	resp, err = http.Get(srv.URL + "/late")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if resp, err = http.Get(srv.URL + "/early"); err != nil || resp.StatusCode != 500 {
		t.Errorf("after a panic: %v", err)
	} else {
		resp.Body.Close()
	}
}

func TestTraceID(t *testing.T) {
	id := "0af7651916cd43dd8448eb211c80319c"
	for header, want := range map[string]string{
		"00-" + id + "-b7ad6b7169203331-01":                      id,
		"01-" + id + "-b7ad6b7169203331-01-more":                 id,
		"00-" + id + "-b7ad6b7169203331-01-more":                 "",
		"ff-" + id + "-b7ad6b7169203331-01":                      "",
		"00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01": "",
		"00-" + strings.ToUpper(id) + "-b7ad6b7169203331-01":     "",
		"00-" + id + "-b7ad6b7169203331":                         "",
		"00-" + id + "\n-b7ad6b7169203331-01":                    "",
	} {
		r := &http.Request{Header: http.Header{"Traceparent": {header}}}
		if got := traceID(r); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

func TestWantsStream(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "application/json": false, "application/x-ndjson": true, "application/json, application/x-ndjson;q=0.5": true,
		"application/x-ndjson;q=0": false, "text/html;;, APPLICATION/X-NDJSON": true,
	} {
		if got := wantsStream([]string{accept}); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
}

func TestWebTLS(t *testing.T) {
	own := &tls.Config{NextProtos: []string{"postgresql"}, MinVersion: tls.VersionTLS13}
	c := &tls.Config{NextProtos: []string{"postgresql"}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return own, nil }}
	w := webTLS(c)
	chosen, err := w.GetConfigForClient(nil)
	if err != nil || w.NextProtos[0] != "h2" || chosen.NextProtos[0] != "h2" || chosen.MinVersion != tls.VersionTLS13 {
		t.Errorf("%v %v", w.NextProtos, err)
	}
	if c.NextProtos[0] != "postgresql" || own.NextProtos[0] != "postgresql" {
		t.Error("the listeners' own configuration was changed")
	}
	none := webTLS(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }})
	if c, err := none.GetConfigForClient(nil); c != nil || err != nil {
		t.Errorf("%v %v", c, err)
	}
}

func TestAdmit(t *testing.T) {
	for sql, want := range map[string]int{
		"SELECT 1": 0, "/* x */ (select 1)": 0, "VALUES (1)": 0, "TABLE t": 0, "SHOW x": 0, "WITH a AS (SELECT 1) SELECT 1": 0, "EXPLAIN SELECT 1": 0,
		"INSERT INTO t VALUES (1)": 403, "SET x = 1": 403, "CALL f()": 403, "DO $$ $$": 403, "": 403, "\"x\"": 403,
		"select pg_catalog.SET_Config('a', 'b', true)": 403, `select u&"\0073et_config"('a', 'b', true)`: 403,
		"-- x\nCOMMIT": 422, "rollback": 422, "copy t from stdin": 422, "start transaction": 422, ";;end": 422, "savepoint a": 422,
	} {
		status := 0
		if err := admit(sql, true); err != nil {
			status = asHTTPError(err).status
		}
		if status != want {
			t.Errorf("a reader's %q: %d, want %d", sql, status, want)
		}
		if err := admit(sql, false); (err != nil) != (want == 422) {
			t.Errorf("a writer's %q: %v", sql, err)
		}
	}
}

func TestBeginOf(t *testing.T) {
	if s, err := beginOf("", false); s != "BEGIN" || err != nil {
		t.Errorf("%q %v", s, err)
	}
	if s, err := beginOf("Serializable", true); s != "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY" || err != nil {
		t.Errorf("%q %v", s, err)
	}
	if _, err := beginOf("serializable; DROP TABLE x", true); err == nil {
		t.Error("an injected level was taken")
	}
}

func TestExplainLost(t *testing.T) {
	if e := asHTTPError(pgerr.New(pgerr.TooManyConnections, "full")); e.status != 503 || e.retryAfter == 0 {
		t.Errorf("%+v", e)
	}
	if e := asHTTPError(&http.MaxBytesError{Limit: 5}); e.status != 413 || !strings.Contains(e.message, "5 bytes") {
		t.Errorf("%+v", e)
	}
}

func TestReserve(t *testing.T) {
	var b budget
	r := &reserve{of: &b, limit: 100 << 10}
	if err := r.take(1); err != nil || b.held.Load() != reserveStep {
		t.Errorf("%v, %d held", err, b.held.Load())
	}
	if err := r.take(reserveStep); err != nil || b.held.Load() != 2*reserveStep {
		t.Errorf("%v, %d held", err, b.held.Load())
	}
	if err := r.take(40 << 10); !errors.Is(err, errResultTooBig) {
		t.Errorf("beyond the limit: %v", err)
	}
	r.giveBack()
	if b.held.Load() != 0 {
		t.Errorf("%d held", b.held.Load())
	}
	b.held.Store(maxMemory - reserveStep)
	r = &reserve{of: &b, limit: 1 << 20}
	if err := r.take(reserveStep); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(reservingReader{strings.NewReader("x"), r}); !errors.Is(err, errMemory) || asHTTPError(err).status != 503 {
		t.Errorf("beyond the budget: %v", err)
	}
	r.giveBack()
	if b.held.Load() != maxMemory-reserveStep {
		t.Errorf("%d held", b.held.Load())
	}
}
