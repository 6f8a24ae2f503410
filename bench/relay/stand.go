package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sharding-system/sharding/internal/pgproc"
)

// stand is what the measurements need: a PostgreSQL with pgbench's tables and the two proxies before it.
type stand struct {
	dir      string
	install  pgproc.Install
	pg       *pgproc.Process
	bouncer  *proxy
	relay    *proxy
	versions string
}

// proxy is a running child process that listens on a port.
type proxy struct {
	cmd  *exec.Cmd
	port int
	// database is the name for a mode: one with transaction pooling, one with session pooling.
	database func(mode string) string
}

func startStand(ctx context.Context, o *benchOptions) (st *stand, err error) {
	st = &stand{}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.stop())
		}
	}()
	if st.dir, err = os.MkdirTemp("", "bench-relay-"); err != nil {
		return st, err
	}
	if err := os.Chmod(st.dir, 0o755); err != nil {
		return st, err
	}
	if st.install, err = pgproc.Find(""); err != nil {
		return st, err
	}
	account, err := pgproc.ChooseAccount("")
	if err != nil {
		return st, err
	}
	data := filepath.Join(st.dir, "data")
	if err := st.install.InitDB(ctx, data, pgproc.InitOptions{Account: account, Auth: "trust"}); err != nil {
		return st, err
	}
	st.pg, err = pgproc.Start(ctx, pgproc.Config{Install: st.install, DataDir: data, Account: account, DieWithParent: true,
		Settings: map[string]string{"fsync": "off", "shared_buffers": "256MB", "max_connections": "200"}})
	if err != nil {
		return st, err
	}
	if _, err := st.pgbench(ctx, st.pg.Port(), "postgres", "-i", "-q", "-s", strconv.Itoa(o.scale)); err != nil {
		return st, err
	}
	if err := st.startBouncer(account); err != nil {
		return st, err
	}
	return st, st.startRelay(o)
}

func (st *stand) startBouncer(account pgproc.Account) error {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return fmt.Errorf("PgBouncer is the peer to measure against (apt-get install pgbouncer): %w", err)
		}
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	target := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=postgres", st.pg.Port())
	ini := filepath.Join(st.dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
transaction = %s pool_mode=transaction pool_size=20
session = %s pool_mode=session pool_size=100
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
`, target, target, port)
	if err := os.WriteFile(ini, []byte(text), 0o644); err != nil {
		return err
	}
	cmd := exec.Command(program, "-q", ini)
	cmd.Stderr = os.Stderr
	if account.Name != "" { // it refuses root, as PostgreSQL does
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: account.UID, Gid: account.GID}}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting PgBouncer: %w", err)
	}
	st.bouncer = &proxy{cmd: cmd, port: port, database: databaseOf}
	out, err := exec.Command(program, "--version").Output()
	st.versions = fmt.Sprintf("PostgreSQL %s, %s", version(st.install), strings.SplitN(string(out), "\n", 2)[0])
	return errors.Join(err, awaitPort(port))
}

func databaseOf(mode string) string {
	if mode == "prepared" {
		return sessionDatabase
	}
	return "transaction"
}

func version(in pgproc.Install) string {
	out, _ := exec.Command(in.Path("postgres"), "--version").Output()
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return "?"
	}
	return fields[2]
}

func (st *stand) startRelay(o *benchOptions) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve", "-listen", "127.0.0.1:0", "-backend", fmt.Sprintf("127.0.0.1:%d", st.pg.Port()),
		"-loops", strconv.Itoa(o.loops), "-buffer", strconv.Itoa(o.buffer))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the relay: %w", err)
	}
	st.relay = &proxy{cmd: cmd, database: databaseOf}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the relay did not start: %w", err)
	}
	_, port, err := net.SplitHostPort(strings.TrimSpace(strings.TrimPrefix(line, "listening on ")))
	if err != nil {
		return err
	}
	st.relay.port, err = strconv.Atoi(port)
	return err
}

// stop ends what was started, the proxies first.
func (st *stand) stop() error {
	var errs []error
	for _, p := range []*proxy{st.relay, st.bouncer} {
		if p != nil {
			errs = append(errs, p.cmd.Process.Signal(syscall.SIGTERM))
			_ = p.cmd.Wait() // ended by the signal
		}
	}
	if st.pg != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		errs = append(errs, st.pg.Stop(ctx, pgproc.Fast))
	}
	if st.dir != "" {
		errs = append(errs, os.RemoveAll(st.dir))
	}
	return errors.Join(errs...)
}

// sample runs pgbench through a proxy and takes the proxy's processor time before and after.
func (st *stand) sample(ctx context.Context, o *benchOptions, r *row, p *proxy) (sample, error) {
	before, err := readUsage(p.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	out, err := st.pgbench(ctx, p.port, p.database(r.mode), "-S", "-n", "-M", r.mode, "-c", strconv.Itoa(r.clients),
		"-j", strconv.Itoa(min(2, r.clients)), "-T", strconv.Itoa(int(o.duration.Seconds())))
	if err != nil {
		return sample{}, err
	}
	after, err := readUsage(p.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	s := sample{cpu: after.cpu - before.cpu, user: after.user - before.user}
	if s.queries, err = number(out, `transactions actually processed: (\d+)`); err != nil {
		return s, err
	}
	s.tps, err = number(out, `tps = ([0-9.]+)`)
	return s, err
}

func (st *stand) pgbench(ctx context.Context, port int, database string, args ...string) (string, error) {
	args = append(args, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres", database)
	cmd := exec.CommandContext(ctx, st.install.Path("pgbench"), args...)
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PGGSSENCMODE=disable")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func number(text, pattern string) (float64, error) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("pgbench's output has no %q:\n%s", pattern, text)
	}
	return strconv.ParseFloat(m[1], 64)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func awaitPort(port int) error {
	var err error
	for range 200 {
		var c net.Conn
		if c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("nothing listens on port %d: %w", port, err)
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
