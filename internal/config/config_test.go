package config_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sharding "github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

const secret = "0123456789abcdef0123456789abcdef"

// environment gives an env function of name=value pairs.
func environment(pairs ...string) func(string) string {
	m := map[string]string{}
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		m[name] = value
	}
	return func(name string) string { return m[name] }
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGuidesFilesLoad(t *testing.T) {
	env := environment("JWT_SECRET="+secret, "DB_USERNAME=sharding_user", "DB_PASSWORD=secure-password")
	r, err := config.LoadRouter("../../configs/router.prod.json", env)
	if err != nil {
		t.Fatal(err)
	}
	if r.Sharding.HashFunction != sharding.HashMurmur3 || r.Sharding.VnodeCount != 256 || r.Sharding.MaxConnections != 100 ||
		r.Sharding.ConnectionTTL.D() != 5*time.Minute || r.Security.JWTSecret.Reveal() != secret || !r.Security.EnableTLS ||
		!slices.Equal(r.Metadata.Endpoints, []string{"etcd-1:2379", "etcd-2:2379", "etcd-3:2379"}) ||
		r.Credentials.Username != "sharding_user" || r.Credentials.Password.Reveal() != "secure-password" {
		t.Errorf("router: %s", r.Redacted())
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "tracing") {
		t.Errorf("router's warnings: %q", r.Warnings)
	}
	m, err := config.LoadManager("../../configs/manager.prod.json", env)
	if err != nil {
		t.Fatal(err)
	}
	if m.Security.AuditLogPath != "/var/log/sharding/audit.log" || m.Observability.MetricsPort != 9091 || len(m.Warnings) != 1 {
		t.Errorf("manager: %s with warnings %q", m.Redacted(), m.Warnings)
	}
}

// The guide's files stand in configs byte for byte; the guide itself is not in
// the repository, so these are the SHA-256 sums of what it shows.
func TestGuidesFilesAreUnchanged(t *testing.T) {
	for file, want := range map[string]string{
		"router.prod.json":  "ac109167c4830c622fd1ee6c2156db20e236b8fb8e513f8891b6148a16cfe921",
		"manager.prod.json": "5a470be94002bebd1934ed6df05c267bf485edc1c31faf59bc5ceb3ff23f953b",
	} {
		b, err := os.ReadFile("../../configs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != want {
			t.Errorf("%s has the sum %s", file, got)
		}
	}
}

func TestExampleFilesLoad(t *testing.T) {
	env := environment("JWT_SECRET=" + secret)
	if _, err := config.LoadRouter("../../configs/router.dev.json", env); err != nil {
		t.Error(err)
	}
	if _, err := config.LoadManager("../../configs/manager.dev.json", env); err != nil {
		t.Error(err)
	}
}

func TestKubernetesFilesOfTheGuideLoad(t *testing.T) {
	path := write(t, `{"server":{"host":"0.0.0.0","port":8080},"metadata":{"endpoints":["etcd-0.etcd:2379","etcd-1.etcd:2379","etcd-2.etcd:2379"]}}`)
	r, err := config.LoadRouter(path, environment("JWT_SECRET="+secret))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "router_defaults.golden", r.Redacted()+"\n")
}

func TestAllMistakesAtOnce(t *testing.T) {
	_, err := config.LoadRouter("testdata/bad_router.json", environment("JWT_SECRET=", "ETCD_PASSWORD=hunter2hunter2", "DB_USERNAME=u"))
	var e *config.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want a *config.Error", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret is shown: %v", err)
	}
	golden(t, "bad_router.golden", err.Error()+"\n")
}

func TestWholeFileMistakes(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "the file ends in the middle of a value"},
		{"cut", `{"server": {`, "the file ends in the middle of a value"},
		{"comma", "{\n  \"server\": {,}}", "line 2, column 14"},
		{"list", `[]`, "must be a JSON object, not a list"},
		{"more", `{} {}`, "more follows after the end"},
		{"deep", strings.Repeat(`{"a":`, 100), "nested too deeply"},
		{"large", `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, "is larger than"},
	} {
		_, err := config.LoadManager(write(t, c.text), environment())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
	_, err := config.LoadManager(filepath.Join(t.TempDir(), "none.json"), environment())
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing file: error %v", err)
	}
}

func TestEnvironmentOverFile(t *testing.T) {
	path := write(t, `{"metadata":{"endpoints":[1]},"security":{"jwt_secret":"${NONE}"},"observability":{"log_level":"loud"}}`)
	r, err := config.LoadRouter(path, environment("ETCD_ENDPOINTS=a:1, b:2", "LOG_LEVEL=debug", "JWT_SECRET="+secret))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Metadata.Endpoints, []string{"a:1", "b:2"}) || r.Observability.LogLevel != "debug" || r.Security.JWTSecret.Reveal() != secret {
		t.Errorf("got %s", r.Redacted())
	}
	if _, err := config.LoadRouter("", environment("ETCD_ENDPOINTS=a:1,", "LOG_LEVEL=x", "JWT_SECRET=short")); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("mistakes in the environment: %v", err)
	}
}

func TestExpansion(t *testing.T) {
	path := write(t, `{"server":{"host":"${A}.${B}"},"metadata":{"endpoints":["${A}:1"],"prefix":"/$${A}$x"},"security":{"enable_rbac":false,"tls_key_path":"${A"},"observability":{"log_path":"${}"}}`)
	_, err := config.LoadRouter(path, environment("A=a", "B=b"))
	if err == nil || !strings.Contains(err.Error(), `security.tls_key_path: "${" without "}"`) || !strings.Contains(err.Error(), "observability.log_path: ") {
		t.Errorf("error %v", err)
	}
	path = write(t, `{"server":{"host":"${A}.${B}"},"metadata":{"endpoints":["${A}:1"],"prefix":"/$${A}$x"},"security":{"enable_rbac":false}}`)
	r, err := config.LoadRouter(path, environment("A=a", "B=b"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Server.Host != "a.b" || r.Metadata.Endpoints[0] != "a:1" || r.Metadata.Prefix != "/${A}$x" {
		t.Errorf("expanded to %s", r.Redacted())
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	path := write(t, `{"metadata":{"endpoints":["a:1"],"username":"u","password":"`+secret+`"},"security":{"jwt_secret":"`+secret+`","jwt_previous_secrets":["`+secret+`"]}}`)
	r, err := config.LoadRouter(path, environment("DB_USERNAME=u", "DB_PASSWORD="+secret))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{r.Redacted(), string(b), fmt.Sprintf("%v %+v %#v", r, r, r), fmt.Sprintf("%s %q %v", r.Security.JWTSecret, r.Security.JWTSecret, r.Credentials)} {
		if strings.Contains(s, secret) {
			t.Errorf("a secret is shown in %s", s)
		}
	}
}

// A variable may hold a secret wherever it is used.
func TestVariablesAreNotPrinted(t *testing.T) {
	path := write(t, `{"server":{"host":"${S} "},"metadata":{"endpoints":["${S}"],"type":"${S}","timeout":"${S}","prefix":"${S}"},
		"sharding":{"hash_function":"${S}","strategy":"${S}","replica_policy":"${S}"},"observability":{"log_level":"${S}"}}`)
	_, err := config.LoadRouter(path, environment("S="+secret))
	var e *config.Error
	if !errors.As(err, &e) || len(e.Problems) < 9 {
		t.Fatalf("error %v", err)
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("a secret is shown: %v", err)
	}
}

func TestDefaultsOfWhatIsNotSupportedYet(t *testing.T) {
	path := write(t, `{"metadata":{"endpoints":["a:1"]},"postgres":{"query_timeout":"0s"},"sharding":{"min_connections":0,"max_replica_lag":"5s"},
		"security":{"rate_limit":{"requests_per_second":0},"jwks_path":""},"observability":{"slow_query_threshold":"500ms"}}`)
	if _, err := config.LoadRouter(path, environment("JWT_SECRET="+secret)); err != nil {
		t.Error(err)
	}
}
