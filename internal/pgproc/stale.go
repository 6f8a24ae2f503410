package pgproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pidFile is what we use of postmaster.pid (src/include/utils/pidfile.h).
type pidFile struct {
	pid    int
	port   int
	status string // "starting", "stopping", "ready", "standby"; since version 10
}

func readPidFile(dir string) (pidFile, error) {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(b), "\n")
	var f pidFile
	// A single-user server writes its pid negated.
	if f.pid, err = strconv.Atoi(strings.TrimSpace(lines[0])); err != nil || f.pid == 0 {
		return pidFile{}, fmt.Errorf("postmaster.pid in %s does not begin with a process id", dir)
	}
	if f.pid < 0 {
		f.pid = -f.pid
	}
	if len(lines) > 3 {
		f.port, _ = strconv.Atoi(strings.TrimSpace(lines[3])) // 0 while it is being written
	}
	if len(lines) > 7 {
		f.status = strings.TrimSpace(lines[7])
	}
	return f, nil
}

// Running is the process id and port of the server that runs on a data directory,
// or pid 0 if there is none: no pid file, or one whose process is gone or is
// something else (the number was used again).
func Running(dir string) (pid, port int, err error) {
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return 0, 0, nil
		}
		return 0, 0, fmt.Errorf("looking for a running server: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return 0, 0, fmt.Errorf("looking for a running server: %w", err)
	}
	f, err := readPidFile(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("looking for a running server: %w", err)
	}
	if !isServerOf(f.pid, dir) {
		return 0, 0, nil
	}
	return f.pid, f.port, nil
}

// StopStale ends the server that another process left running on a data directory:
// in fast mode, and in immediate mode once half of ctx's time (or 10 seconds) is
// used up. It reports whether there was one. It touches no process that is not
// proved to be the server of this directory.
func StopStale(ctx context.Context, dir string) (bool, error) {
	pid, _, err := Running(dir)
	if err != nil || pid == 0 {
		return false, err
	}
	patience := 10 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline) / 2
	}
	for _, step := range []struct {
		mode Mode
		wait time.Duration
	}{{Fast, patience}, {Immediate, patience}} {
		if err := syscall.Kill(pid, step.mode.signal()); err != nil && !errors.Is(err, syscall.ESRCH) {
			return true, fmt.Errorf("stopping the PostgreSQL left on %s (pid %d): %w", dir, pid, err)
		}
		gone, err := awaitStopped(ctx, dir, pid, step.wait)
		if gone || err != nil {
			return true, err
		}
	}
	return true, fmt.Errorf("the PostgreSQL left on %s (pid %d) does not stop", dir, pid)
}

func awaitStopped(ctx context.Context, dir string, pid int, wait time.Duration) (bool, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		now, _, err := Running(dir)
		if err != nil {
			return false, err
		}
		if now != pid {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("waiting for PostgreSQL (pid %d) on %s to stop: %w", pid, dir, context.Cause(ctx))
		case <-timeout.C:
			return false, nil
		case <-tick.C:
		}
	}
}

// awaitGone waits for a process that was sent SIGKILL, up to five seconds (a
// process in an uninterruptible wait can take its time).
func awaitGone(pid int) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if !alive(pid) {
			return
		}
		<-tick.C
	}
}
