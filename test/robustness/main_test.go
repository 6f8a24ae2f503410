// Package robustness breaks a whole cluster in every way that its promises are
// about, and looks at what is left: processes killed at every step of a commit
// over shards (commit_test.go), at random under load (chaos_test.go), bytes that
// no client should send (badinput_test.go), clients that come and go in every
// manner for long (soak_test.go).
//
// The parts are real: etcd, PostgreSQL servers, and where something is killed
// the router and the manager are processes of their own. Longer forms:
//
//	SHARDING_TEST_LONG=1            every step, every shard, every kind of statement
//	SHARDING_CHAOS=10m              the random kills
//	SHARDING_SOAK=10m               the mixed load
package robustness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if binaries.dir != "" {
		_ = os.RemoveAll(binaries.dir)
	}
	os.Exit(code)
}

// long says whether the long forms run.
var long = os.Getenv("SHARDING_TEST_LONG") == "1"

// lasting is how long a test of random faults runs: what the variable says, or
// its short form.
func lasting(t *testing.T, variable string, short time.Duration) time.Duration {
	t.Helper()
	v := os.Getenv(variable)
	if v == "" {
		return short
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return d
}

// binaries are the commands under test, built once.
var binaries struct {
	once sync.Once
	dir  string
	err  error
}

// executable is the path of a command, built as this test is: with the race detector
// or without.
func executable(t *testing.T, name string) string {
	t.Helper()
	binaries.once.Do(func() {
		if binaries.dir, binaries.err = os.MkdirTemp("", "sharding-robustness-"); binaries.err != nil {
			return
		}
		args := []string{"build", "-o", binaries.dir + "/"}
		if raceEnabled {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, "../../cmd/sharding-router", "../../cmd/sharding-manager")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			binaries.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if binaries.err != nil {
		t.Fatalf("building the commands: %v", binaries.err)
	}
	return filepath.Join(binaries.dir, name)
}
