package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a running proxy that listens on a port.
type process struct {
	cmd  *exec.Cmd
	port int
}

func (p *process) stop() error {
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait() // ended by the signal
	return err
}

// startBouncer starts PgBouncer with transaction pooling in front of the one-shard keyspace's database.
func (st *stand) startBouncer(pool int) (*process, error) {
	program, err := findBouncer()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	ini := filepath.Join(st.dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
%s = host=127.0.0.1 port=%d dbname=%s user=%s pool_mode=transaction pool_size=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
`, oneShard, st.pg[0].Port(), oneShard, user, pool, port)
	if err := os.WriteFile(ini, []byte(text), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-q", ini)
	cmd.Stderr = os.Stderr
	if st.account.Name != "" { // it refuses root, as PostgreSQL does
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.account.UID, Gid: st.account.GID}}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting PgBouncer: %w", err)
	}
	return &process{cmd: cmd, port: port}, awaitPort(port)
}

func findBouncer() (string, error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return "", fmt.Errorf("PgBouncer is the peer to measure against (apt-get install pgbouncer): %w", err)
		}
	}
	return program, nil
}

// startRouter starts this program again as the router.
func startRouter(endpoint string, o *benchOptions) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "serve", "-etcd", endpoint, "-user", user, "-pool", strconv.Itoa(o.pool), "-loops", strconv.Itoa(o.loops),
		"-profile", o.profile)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the router: %w", err)
	}
	p := &process{cmd: cmd}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		var port string
		_, port, err = net.SplitHostPort(strings.TrimSpace(strings.TrimPrefix(line, "listening on ")))
		if err == nil {
			p.port, err = strconv.Atoi(port)
		}
	}
	if err != nil {
		return p, fmt.Errorf("the router did not start: %w", err)
	}
	return p, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func awaitPort(port int) error {
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing listens on port %d: %w", port, err)
		}
	}
}

// usage is a process's processor time so far, from /proc/PID/stat: in ticks of 10 ms.
type usage struct{ cpu, user time.Duration }

func readUsage(pid int) (usage, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("reading a proxy's processor time (this needs Linux): %w", err)
	}
	// The second field, the program's name in parentheses, may hold spaces.
	_, rest, ok := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return usage{}, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture that Go knows
	return usage{cpu: time.Duration(user+system) * tick, user: time.Duration(user) * tick}, errors.Join(err1, err2)
}
