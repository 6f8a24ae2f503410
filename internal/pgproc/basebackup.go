package pgproc

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// BackupOptions say how a running server is copied into a replica's data directory.
type BackupOptions struct {
	Account        Account
	Host           string
	Port           int
	User, Password string // of a role that may replicate
	// Slot is made on the server, which keeps the log for the replica from then on.
	Slot string
	// NoSync leaves it to the operating system when files reach the disk.
	NoSync bool
}

// BaseBackup copies a running server into dir, which must be missing or empty, so
// that a server started there is its streaming replica (pg_basebackup -R). The
// password is in the replica's postgresql.auto.conf, which only its account reads.
// If it fails, what it wrote is removed again.
func (in Install) BaseBackup(ctx context.Context, dir string, o BackupOptions) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("copying a server to %s: %w", dir, err)
	}
	if err := o.Account.own(ctx, dir); err != nil {
		return err
	}
	args := []string{"-D", dir, "-R", "-X", "stream", "-c", "fast", "-h", o.Host, "-p", strconv.Itoa(o.Port), "-U", o.User, "-w"}
	if o.Slot != "" {
		args = append(args, "-C", "-S", o.Slot)
	}
	if o.NoSync {
		args = append(args, "-N")
	}
	cmd := exec.CommandContext(ctx, in.Path("pg_basebackup"), args...)
	// The environment of a process is its account's alone to read.
	cmd.Dir, cmd.Env = "/", append(environ(), "PGPASSWORD="+o.Password)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.Account.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		err = fmt.Errorf("running pg_basebackup: %w: %s", err, strings.TrimSpace(string(out)))
		return errors.Join(err, removeContents(dir))
	}
	return nil
}
