package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func set(t *testing.T, name, act string) {
	t.Helper()
	if err := Set(name, act); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Clear(name) })
}

func TestUnarmedIsNothing(t *testing.T) {
	if err := Hit("t.none"); err != nil {
		t.Fatal(err)
	}
	set(t, "t.other", "error")
	if err := Hit("t.none"); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = Hit("t.none") }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestErrorAfterSkippedHits(t *testing.T) {
	set(t, "t.err", "2*error")
	for i := range 4 {
		if err := Hit("t.err"); errors.Is(err, ErrInjected) != (i >= 2) {
			t.Fatalf("hit %d: %v", i, err)
		}
	}
	if Hits("t.err") != 4 {
		t.Fatalf("%d hits", Hits("t.err"))
	}
	Clear("t.err")
	if err := Hit("t.err"); err != nil || armed.Load() != 0 {
		t.Fatalf("after Clear: %v, %d armed", err, armed.Load())
	}
}

func TestPanic(t *testing.T) {
	set(t, "t.panic", "panic")
	defer func() {
		if v := recover(); v != "failpoint t.panic" {
			t.Fatalf("recovered %v", v)
		}
	}()
	_ = Hit("t.panic")
	t.Fatal("no panic")
}

func TestSleep(t *testing.T) {
	set(t, "t.sleep", "sleep(30ms)")
	start := time.Now()
	_ = Hit("t.sleep")
	if d := time.Since(start); d < 30*time.Millisecond {
		t.Fatalf("slept %v", d)
	}
}

func TestWaitEndsWithItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go")
	set(t, "t.wait", "wait("+file+")")
	done := make(chan error, 1)
	go func() { done <- Hit("t.wait") }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(file + Reached); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("did not say that it was hit")
		}
	}
	select {
	case <-done:
		t.Fatal("did not wait")
	default:
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestMistakesArmNothing(t *testing.T) {
	for _, list := range []string{
		"a", "a=", "=kill", "a=boom", "a=sleep", "a=sleep()", "a=sleep(x)", "a=sleep(-1s)", "a=kill(1)",
		"a=wait(x", "a=-1*kill", "a=x*kill", "t.good=error;a=boom",
	} {
		if err := Arm(list); err == nil {
			t.Errorf("%q was accepted", list)
		}
	}
	if names := Armed(); len(names) != 0 {
		t.Fatalf("armed: %v", names)
	}
	if err := Set("a;b", "kill"); err == nil {
		t.Fatal("a name with a separator was accepted")
	}
	if err := Arm(" t.a = error ; t.b=off;"); err != nil {
		t.Fatal(err)
	}
	defer Clear("t.a")
	if got := strings.Join(Armed(), ","); got != "t.a" {
		t.Fatalf("armed: %s", got)
	}
}

// TestKill runs this test binary again with a point armed by the environment.
func TestKill(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") == "1" {
		if err := FromEnv(); err != nil {
			os.Exit(3)
		}
		defer os.Exit(4) // a deferred call must not run
		_ = Hit("t.kill")
		os.Exit(5)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", Variable+"=t.kill=kill")
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("child ended with %v", err)
	}
	if ws := exit.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("child ended with %v", ws)
	}
}

func BenchmarkHitUnarmed(b *testing.B) {
	for b.Loop() {
		_ = Hit("t.none")
	}
}
