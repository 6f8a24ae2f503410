package rig

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running proxy that listens on a port of 127.0.0.1.
type Process struct {
	Port int
	cmd  *exec.Cmd
}

// Stop ends the process by SIGTERM and waits for it.
func (p *Process) Stop() error {
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait() // ended by the signal
	return err
}

// StartSelf starts this program again with other arguments. It must print "listening on HOST:PORT" as its first line.
func StartSelf(args ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", args[0], err)
	}
	p := &Process{cmd: cmd}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		var port string
		if _, port, err = net.SplitHostPort(strings.TrimSpace(strings.TrimPrefix(line, "listening on "))); err == nil {
			p.Port, err = strconv.Atoi(port)
		}
	}
	if err != nil {
		return p, fmt.Errorf("%s did not start: %w", args[0], err)
	}
	return p, nil
}

func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func awaitPort(port int) error {
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing listens on port %d: %w", port, err)
		}
	}
}

// Usage is a process's processor time since it started, in ticks of 10 ms.
type Usage struct{ CPU, User time.Duration }

// Usage reads /proc/PID/stat (proc(5)).
func (p *Process) Usage() (Usage, error) {
	path := fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return Usage{}, fmt.Errorf("reading a proxy's processor time (this needs Linux): %w", err)
	}
	// The second field, the program's name in parentheses, may hold spaces.
	_, rest, ok := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return Usage{}, fmt.Errorf("%s: %q", path, text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture that Go knows
	return Usage{CPU: time.Duration(user+system) * tick, User: time.Duration(user) * tick}, errors.Join(err1, err2)
}

// Resident is the memory that the process has in RAM, in bytes (VmRSS of /proc/PID/status).
func (p *Process) Resident() (int64, error) {
	path := fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading a proxy's memory (this needs Linux): %w", err)
	}
	kib, err := Number(string(text), `VmRSS:\s+(\d+) kB`)
	return int64(kib) << 10, err
}
