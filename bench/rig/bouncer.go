package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sharding-system/sharding/internal/pgproc"
)

// Pool is one of PgBouncer's databases.
type Pool struct {
	Name     string // what clients ask for
	Port     int    // of the PostgreSQL on 127.0.0.1
	Database string
	User     string
	Mode     string // pool_mode
	Size     int    // pool_size
}

// StartBouncer starts PgBouncer with files in dir. It lets everybody in, and the servers must do the same.
func StartBouncer(dir string, account pgproc.Account, pools ...Pool) (*Process, error) {
	program, err := findBouncer()
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("[databases]\n")
	for _, p := range pools {
		fmt.Fprintf(&b, "%s = host=127.0.0.1 port=%d dbname=%s user=%s pool_mode=%s pool_size=%d\n", p.Name, p.Port, p.Database, p.User, p.Mode, p.Size)
	}
	fmt.Fprintf(&b, `[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
max_client_conn = 12000
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
`, port)
	ini := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(ini, []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-q", ini)
	cmd.Stderr = os.Stderr
	if account.Name != "" { // it refuses root, as PostgreSQL does
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: account.UID, Gid: account.GID}}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting PgBouncer: %w", err)
	}
	return &Process{cmd: cmd, Port: port}, awaitPort(port)
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

// BouncerVersion is the first line of pgbouncer --version.
func BouncerVersion() string {
	program, err := findBouncer()
	if err != nil {
		return "PgBouncer ?"
	}
	out, _ := exec.Command(program, "--version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}
