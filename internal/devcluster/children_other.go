//go:build !linux

package devcluster

import (
	"bytes"
	"os/exec"
	"strconv"
	"syscall"
)

// dieWithParent: only Linux can; elsewhere the next start ends what is left.
func dieWithParent(*syscall.SysProcAttr) {}

// commandHolds says whether a process runs whose command line holds the mark.
func commandHolds(pid int, mark string) bool {
	b, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && bytes.Contains(b, []byte(mark))
}
