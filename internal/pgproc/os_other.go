//go:build unix && !linux

package pgproc

import (
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent has no equivalent here: StopStale at the next start does it.
func dieWithParent(*syscall.SysProcAttr) {}

// isServerOf goes by the command line, in which Start names the data directory.
func isServerOf(pid int, dir string) bool {
	out, err := exec.CommandContext(context.Background(), "ps", "-ww", "-p", strconv.Itoa(pid), "-o", "command=").Output()
	if err != nil {
		return false
	}
	program, args, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	name := filepath.Base(program)
	return (name == "postgres" || name == "postmaster") && strings.Contains(args+" ", "-D "+dir+" ")
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func childrenOf(pid int) ([]int, error) {
	out, err := exec.CommandContext(context.Background(), "ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil, err
	}
	var children []int
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 2 || f[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(f[0]); err == nil {
			children = append(children, child)
		}
	}
	return children, nil
}
