package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// Whatever a file holds, it is read or refused, and a variable's value is not shown.
func FuzzText(f *testing.F) {
	for _, name := range []string{"testdata/bad_router.json", "../../configs/router.prod.json"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	const secret = "hunter2-0123456789abcdef01234567"
	env := func(string) string { return secret }
	f.Fuzz(func(t *testing.T, text []byte) {
		r := defaultRouter()
		l := loader{env: env, defaults: reflect.ValueOf(defaultRouter()).Elem(), part: &parts{&r.Server, &r.Postgres, &r.Metadata, &r.Sharding, &r.Security, &r.Observability, &r.Credentials}}
		b := &binder{env: env, given: map[string]bool{}, expanded: map[string]bool{}}
		into := reflect.ValueOf(r).Elem()
		if err := bindText(b, text, into); err != nil {
			return
		}
		l.validate(b)
		l.unsupported(b, into)
		if e := (&Error{File: "f", Problems: b.list}).Error(); strings.Contains(e, secret) && !strings.Contains(string(text), secret) {
			t.Fatalf("a variable's value is shown: %s", e)
		}
	})
}
