package pgproc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Mode is how a server is stopped (manual, section 19.5).
type Mode int

const (
	Fast      Mode = iota // ends the clients' transactions, then shuts down cleanly
	Smart                 // waits for the clients to go
	Immediate             // without a checkpoint: the next start recovers
)

func (m Mode) signal() syscall.Signal {
	return [...]syscall.Signal{Fast: syscall.SIGINT, Smart: syscall.SIGTERM, Immediate: syscall.SIGQUIT}[m]
}

// LogName is the file of a server's log in its data directory.
const LogName = "server.log"

// Config says how to start a server.
type Config struct {
	Install Install
	DataDir string
	Account Account
	Host    string // listen_addresses; "" is 127.0.0.1
	Port    int    // 0 takes a free one
	// Settings are given on the command line: they prevail over the files and
	// ALTER SYSTEM, and are visible in the process list.
	Settings map[string]string
	// LogFile takes the server's log, appended; "" is LogName in DataDir.
	LogFile string
	// DieWithParent lets the server shut down when this process dies (Linux).
	DieWithParent bool
}

// Process is a running server. Its methods may be called from any goroutine.
type Process struct {
	cfg  Config
	port int
	proc *os.Process
	done chan struct{} // closed when the process has ended and was waited for
	err  error         // how it ended; read after done
}

// ErrExited is wrapped by errors about a server that ended by itself.
var ErrExited = errors.New("the server ended")

// Start starts a server and waits until it accepts connections (a standby:
// read-only ones), or ctx ends. With Port 0 it tries another port if somebody took
// the chosen one in between.
func Start(ctx context.Context, cfg Config) (*Process, error) {
	dir, err := filepath.EvalSymlinks(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	if cfg.DataDir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	if cfg.Host == "" {
		cfg.Host = "127.0.0.1"
	}
	if cfg.LogFile == "" {
		cfg.LogFile = filepath.Join(cfg.DataDir, LogName)
	}
	for attempt := 1; ; attempt++ {
		port := cfg.Port
		if port == 0 {
			if port, err = freePort(ctx, cfg.Host); err != nil {
				return nil, fmt.Errorf("starting PostgreSQL: %w", err)
			}
		}
		p, err := start(ctx, cfg, port)
		if err == nil {
			return p, nil
		}
		taken := strings.Contains(err.Error(), "could not bind") || strings.Contains(err.Error(), "could not create any TCP/IP sockets")
		if cfg.Port != 0 || !taken || attempt == 5 {
			return nil, err
		}
	}
}

func freePort(ctx context.Context, host string) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

func start(ctx context.Context, cfg Config, port int) (*Process, error) {
	log, err := os.OpenFile(cfg.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the server's log: %w", err)
	}
	defer log.Close()
	if filepath.Dir(cfg.LogFile) == filepath.Clean(cfg.DataDir) && cfg.Account.Name != "" {
		// pg_basebackup has the server read all that is in its directory.
		if err := log.Chown(int(cfg.Account.UID), int(cfg.Account.GID)); err != nil {
			return nil, fmt.Errorf("giving the server's log to %s: %w", cfg.Account.Name, err)
		}
	}
	logStart, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("opening the server's log: %w", err)
	}
	p := &Process{cfg: cfg, port: port, done: make(chan struct{})}
	if err := p.spawn(command(cfg, port, log)); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	if err := p.awaitReady(ctx); err != nil {
		p.destroy()
		return nil, fmt.Errorf("starting PostgreSQL in %s on port %d: %w%s", cfg.DataDir, port, err, logTail(cfg.LogFile, logStart))
	}
	return p, nil
}

func command(cfg Config, port int, log *os.File) *exec.Cmd {
	args := []string{
		"-D", cfg.DataDir, "-p", strconv.Itoa(port),
		"-c", "listen_addresses=" + cfg.Host,
		"-c", "unix_socket_directories=",
		"-c", "logging_collector=off", "-c", "log_destination=stderr",
	}
	for _, name := range sortedNames(cfg.Settings) {
		args = append(args, "-c", name+"="+cfg.Settings[name])
	}
	// Its life is not the context of its start.
	cmd := exec.CommandContext(context.Background(), cfg.Install.Path("postgres"), args...)
	cmd.Dir, cmd.Env = cfg.DataDir, environ()
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C in a terminal is for the parent, which then stops
	// its servers in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: cfg.Account.credential()}
	if cfg.DieWithParent {
		dieWithParent(cmd.SysProcAttr)
	}
	return cmd
}

// spawn starts the process from a goroutine that keeps its thread for as long as
// the process lives: Linux sends the parent-death signal when the THREAD that
// forked ends, and Go's runtime ends idle threads' owners as it likes.
func (p *Process) spawn(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.proc = cmd.Process
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	return <-started
}

// awaitReady follows the status that the postmaster writes into its pid file (as
// pg_ctl -w does), so that it needs no account in the database.
func (p *Process) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := readPidFile(p.cfg.DataDir)
		if err == nil && f.pid == p.proc.Pid && (f.status == "ready" || f.status == "standby") {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%w: %w", ErrExited, p.ended())
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// ended is how the process ended, after done.
func (p *Process) ended() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// Pid is the postmaster's process id.
func (p *Process) Pid() int { return p.proc.Pid }

// Port is the TCP port that it listens on.
func (p *Process) Port() int { return p.port }

// Host is the address that it listens on.
func (p *Process) Host() string { return p.cfg.Host }

// Done is closed when the postmaster has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop asks the server to shut down and waits until it has. If ctx ends first the
// server may still be running: the caller decides (Kill).
func (p *Process) Stop(ctx context.Context, mode Mode) error {
	if err := p.signal(mode.signal()); err != nil {
		return fmt.Errorf("stopping PostgreSQL (pid %d): %w", p.proc.Pid, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for PostgreSQL (pid %d) to stop: %w", p.proc.Pid, context.Cause(ctx))
	}
}

// signal sends to the postmaster; one that has ended is no error.
func (p *Process) signal(s syscall.Signal) error {
	if err := p.proc.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Kill ends the server like a power failure, by SIGKILL: first the postmaster, then
// what it had started, so that nothing holds its shared memory and a new server can
// start on the directory at once. It returns when all have ended.
func (p *Process) Kill() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	// Stopped, it cannot fork a child that we would miss.
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("killing PostgreSQL (pid %d): %w", p.proc.Pid, err)
	}
	children, listErr := childrenOf(p.proc.Pid)
	if err := p.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing PostgreSQL (pid %d): %w", p.proc.Pid, err)
	}
	<-p.done
	for _, child := range children {
		if err := syscall.Kill(child, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("killing PostgreSQL's child %d: %w", child, err)
		}
	}
	if listErr != nil {
		return fmt.Errorf("listing the children of PostgreSQL (pid %d): %w", p.proc.Pid, listErr)
	}
	for _, child := range children {
		awaitGone(child)
	}
	return nil
}

// destroy ends a server that did not become ready.
func (p *Process) destroy() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if p.Stop(ctx, Immediate) != nil {
		_ = p.Kill() // nothing more can be done, and the caller has an error already
	}
}

// logTail is what the log gained since an offset, at most the last 20 lines.
func logTail(file string, from int64) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return ""
	}
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if lines = append(lines, s.Text()); len(lines) > 20 {
			lines = lines[1:]
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return "\n" + strings.Join(lines, "\n")
}
