package pgproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Account is the operating system's user under which the servers run. The zero
// value is the user of this process.
type Account struct {
	Name     string // "" for this process's own
	UID, GID uint32
}

// systemAccount is made when root has neither named an account nor has `postgres`.
const systemAccount = "sharding"

// ChooseAccount is the account to run PostgreSQL under. Not root: this process's
// own (naming another is an error). Root: the one named; else `postgres`; else
// `sharding`, which is made with useradd if it does not exist.
func ChooseAccount(name string) (Account, error) {
	if os.Geteuid() != 0 {
		if name == "" {
			return Account{}, nil
		}
		me, err := user.Current()
		if err != nil {
			return Account{}, fmt.Errorf("finding the current user: %w", err)
		}
		if me.Username != name {
			return Account{}, fmt.Errorf("only root can run PostgreSQL as user %q (this is %q)", name, me.Username)
		}
		return Account{}, nil
	}
	if name != "" {
		return lookup(name)
	}
	for _, known := range []string{"postgres", systemAccount} {
		a, err := lookup(known)
		var unknown user.UnknownUserError
		if err == nil || !errors.As(err, &unknown) {
			return a, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "useradd", "--system", "--no-create-home", "--user-group", "--shell", "/usr/sbin/nologin", systemAccount).CombinedOutput()
	if err != nil {
		return Account{}, fmt.Errorf("making the system user %q, since PostgreSQL does not run as root: %w: %s", systemAccount, err, strings.TrimSpace(string(out)))
	}
	return lookup(systemAccount)
}

func lookup(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, fmt.Errorf("looking up user %q: %w", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return Account{}, fmt.Errorf("user %q has the id %q", name, u.Uid)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return Account{}, fmt.Errorf("user %q has the group id %q", name, u.Gid)
	}
	if uid == 0 {
		return Account{}, fmt.Errorf("user %q is root, under which PostgreSQL does not run", name)
	}
	return Account{Name: name, UID: uint32(uid), GID: uint32(gid)}, nil
}

// credential is nil where no change of user is needed.
func (a Account) credential() *syscall.Credential {
	if a.Name == "" {
		return nil
	}
	return &syscall.Credential{Uid: a.UID, Gid: a.GID}
}

// own makes a directory (with its missing parents) that belongs to the account,
// and checks that the account can reach it: root's home, for one, it cannot.
func (a Account) own(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("making the parent of the data directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making the data directory: %w", err)
	}
	if a.Name == "" {
		return nil
	}
	if err := os.Chown(dir, int(a.UID), int(a.GID)); err != nil {
		return fmt.Errorf("giving the data directory to %s: %w", a.Name, err)
	}
	probe := exec.CommandContext(ctx, "/bin/sh", "-c", `cd "$1"`, "sh", dir)
	probe.Dir = "/"
	probe.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("user %s cannot enter %s (a directory above it is closed to others): choose a data directory elsewhere", a.Name, dir)
	}
	return nil
}
