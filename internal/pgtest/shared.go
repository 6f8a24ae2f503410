package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// armed says that Main runs the tests: it cleans up what lasts longer than one of them.
var armed atomic.Bool

// shared is the server of Shared.
var shared struct {
	sync.Mutex
	server *Server
	err    error
}

// Main runs a package's tests, whose servers start sooner with it, and stops the shared
// server after them:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
func Main(m *testing.M) int {
	armed.Store(true)
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	var err error
	if shared.server != nil {
		err = shared.server.close()
	}
	if err = errors.Join(err, removeTemplates()); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

// Shared is the one server of this test binary, with the default options. Take a
// database of your own with CreateDatabase; roles and settings are everybody's.
func Shared(t testing.TB) *Server {
	t.Helper()
	in := find(t)
	shared.Lock()
	defer shared.Unlock()
	if !armed.Load() {
		t.Fatal("pgtest: Shared needs: func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = start(in, nil)
	}
	if shared.err != nil {
		t.Fatalf("pgtest: %v", shared.err)
	}
	return shared.server
}

// dirPrefix and the owner's pid begin the name of a server's directory.
const dirPrefix = "sharding-pgtest-"

var sweepOnce sync.Once

// sweep removes the directories of test binaries that were killed. Those younger
// than a minute are left: their server may still be shutting down.
func sweep() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		pid, err := strconv.Atoi(owner)
		info, statErr := os.Stat(dir)
		if err != nil || statErr != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && !runs(dir) {
			_ = os.RemoveAll(dir) // whoever else sweeps at the same time may win
		}
	}
}

// runs says whether a server's pid file is still there; a killed one's is too, but
// then the process is not.
func runs(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, perr := strconv.Atoi(first)
	return err != nil || perr != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
