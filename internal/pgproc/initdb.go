package pgproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

// InitOptions say what a new data directory is like.
type InitOptions struct {
	Account  Account
	User     string // the superuser; "" is postgres
	Password string // the superuser's; needed unless Auth is "trust"
	Auth     string // pg_hba.conf method for all of 127.0.0.1, ::1 and local; "" is scram-sha-256
	Locale   string // "" is C.UTF-8 where the system has it, else C; the encoding is always UTF8
	// Settings are written into postgresql.conf, where an operator can change
	// them later (Config.Settings cannot be changed that way).
	Settings map[string]string
	// NextOID, if not 0, is the first object id that the server will give out.
	NextOID uint32
}

// Initialized says whether dir holds a data directory.
func Initialized(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "PG_VERSION"))
	return err == nil
}

// InitDB makes a data directory in dir, which must be missing or empty. If it
// fails, what it wrote is removed again.
func (in Install) InitDB(ctx context.Context, dir string, o InitOptions) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("initialising %s: %w", dir, err)
	}
	if err := empty(dir); err != nil {
		return fmt.Errorf("initialising %s: %w", dir, err)
	}
	if err := o.Account.own(ctx, dir); err != nil {
		return err
	}
	if err := in.initdb(ctx, dir, o); err != nil {
		return errors.Join(err, removeContents(dir))
	}
	if err := appendSettings(filepath.Join(dir, "postgresql.conf"), o.Settings); err != nil {
		return errors.Join(err, removeContents(dir))
	}
	if err := in.startOIDs(ctx, dir, o.Account, o.NextOID); err != nil {
		return errors.Join(err, removeContents(dir))
	}
	return nil
}

func (in Install) initdb(ctx context.Context, dir string, o InitOptions) error {
	auth, superuser := o.Auth, o.User
	if auth == "" {
		auth = "scram-sha-256"
	}
	if superuser == "" {
		superuser = "postgres"
	}
	args := []string{"-D", dir, "-U", superuser, "-A", auth, "-E", "UTF8", "--data-checksums", "--no-instructions"}
	if in.Version < 14 {
		args = args[:len(args)-1] // --no-instructions came with 14
	}
	var extra []*os.File
	if o.Password != "" {
		// Through a pipe: the password touches neither disk nor command line.
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("making a pipe for initdb: %w", err)
		}
		defer r.Close()
		_, werr := w.WriteString(o.Password + "\n") // far below a pipe's capacity
		if err := errors.Join(werr, w.Close()); err != nil {
			return fmt.Errorf("handing initdb the password: %w", err)
		}
		extra = append(extra, r)
		args = append(args, "--pwfile=/dev/fd/3")
		if o.Account.Name != "" {
			if err := r.Chown(int(o.Account.UID), int(o.Account.GID)); err != nil {
				return fmt.Errorf("handing initdb the password: %w", err)
			}
		}
	}
	if o.Locale != "" {
		return o.Account.run(ctx, extra, in.Path("initdb"), append(args, "--locale="+o.Locale)...)
	}
	locale := "C"
	if out, err := exec.CommandContext(ctx, "locale", "-a").Output(); err == nil {
		for _, have := range strings.Fields(string(out)) {
			if strings.EqualFold(have, "C.UTF-8") || strings.EqualFold(have, "C.utf8") {
				locale = have
			}
		}
	}
	return o.Account.run(ctx, extra, in.Path("initdb"), append(args, "--locale="+locale)...)
}

// run runs one of PostgreSQL's programs to its end under the account. Its output
// is in the error.
func (a Account) run(ctx context.Context, extra []*os.File, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", environ(), extra
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", filepath.Base(program), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func appendSettings(file string, settings map[string]string) error {
	if len(settings) == 0 {
		return nil
	}
	var b strings.Builder
	for _, name := range sortedNames(settings) {
		value := strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(settings[name])
		fmt.Fprintf(&b, "%s = '%s'\n", name, value)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing settings: %w", err)
	}
	_, werr := f.WriteString(b.String())
	if err := errors.Join(werr, f.Close()); err != nil {
		return fmt.Errorf("writing settings: %w", err)
	}
	return nil
}

func sortedNames(settings map[string]string) []string {
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// empty says that a directory is missing or empty.
func empty(dir string) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return errors.New("the directory is not empty")
	}
	return nil
}

func removeContents(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}
