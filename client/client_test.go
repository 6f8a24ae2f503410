package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sharding-system/sharding/client"
)

func serve(t *testing.T, status int, header http.Header, body string) *client.Manager {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		if _, err := io.WriteString(w, body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	m, err := client.NewManager(s.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What stands between the client and the service answers in forms of its own.
func TestRefusalsOfEveryForm(t *testing.T) {
	for name, c := range map[string]struct {
		status        int
		header        http.Header
		body          string
		code, message string
		retry         time.Duration
	}{
		"ours":          {404, nil, `{"error":{"code":"SHARD_NOT_FOUND","message":"no shard","request_id":"1"}}`, "SHARD_NOT_FOUND", "no shard", 0},
		"busy":          {429, http.Header{"Retry-After": {"7"}}, `{"error":{"code":"TOO_MANY_REQUESTS","message":"slow"}}`, "TOO_MANY_REQUESTS", "slow", 7 * time.Second},
		"a proxy's":     {502, nil, "<html>Bad Gateway</html>", "HTTP_502", "502 Bad Gateway", 0},
		"another JSON":  {500, nil, `{"error":"boom"}`, "HTTP_500", "500 Internal Server Error", 0},
		"nothing":       {503, nil, "", "HTTP_503", "503 Service Unavailable", 0},
		"a null":        {400, nil, `{"error":null}`, "HTTP_400", "400 Bad Request", 0},
		"without words": {400, nil, `{"error":{}}`, "HTTP_400", "400 Bad Request", 0},
	} {
		_, err := serve(t, c.status, c.header, c.body).Health(context.Background())
		var e *client.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e.Status != c.status || e.Code != c.code || e.Message != c.message || e.RetryAfter != c.retry {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if _, err := serve(t, 200, nil, "[]").Health(context.Background()); err == nil {
		t.Error("an answer of another form passes for a health")
	}
}

func TestAddressesThatCannotBe(t *testing.T) {
	for _, address := range []string{"", "localhost:8081", "ftp://x", "http://", "http://a b/"} {
		if _, err := client.NewManager(address); err == nil {
			t.Errorf("%q passes for an address", address)
		}
		if _, err := client.NewRouter(address); err == nil {
			t.Errorf("%q passes for an address", address)
		}
	}
}
