package pgproc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent: SIGQUIT is an immediate shutdown, in which the postmaster ends its
// children itself; SIGKILL would leave them behind.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

// isServerOf says whether pid is a PostgreSQL postmaster of the (absolute,
// resolved) data directory: it has made it its working directory.
func isServerOf(pid int, dir string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || !alive(pid) {
		return false
	}
	name := strings.TrimSuffix(filepath.Base(exe), " (deleted)")
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == dir && (name == "postgres" || name == "postmaster")
}

// stat is a process's state and parent from /proc/PID/stat (proc(5)). The name
// before them is in parentheses and may itself hold anything.
func stat(pid int) (state byte, parent int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0][0], parent, err
}

// alive: a zombie holds nothing any more, and in a container nobody may ever reap it.
func alive(pid int) bool {
	state, _, err := stat(pid)
	return err == nil && state != 'Z' && state != 'X'
}

func childrenOf(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent, err := stat(child); err == nil && parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}
