package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/sharding-system/sharding/internal/pgproc"
)

// templates are data directories that no server runs in, one for each way to
// authenticate: a server's own is a copy, which is much cheaper than initdb. They last as
// long as the test binary, if it has Main to remove them.
var templates struct {
	sync.Mutex
	dir     string
	servers map[string]*template // by authentication
}

type template struct {
	dir, password string
}

// initialise makes the server's data directory. The password may be another's too until
// the server has one of its own: see ownPassword.
func (s *Server) initialise(ctx context.Context, data string, account pgproc.Account, auth string, firstOID uint32) error {
	if !armed.Load() {
		return s.Install.InitDB(ctx, data, pgproc.InitOptions{Account: account, User: s.User, Password: s.Password, Auth: auth, NextOID: firstOID})
	}
	t, err := s.template(ctx, account, auth)
	if err != nil {
		return err
	}
	s.Password = t.password
	return s.Install.Clone(ctx, t.dir, data, pgproc.CloneOptions{Account: account, NextOID: firstOID, NoSync: true})
}

// ownPassword gives a running server that asks for passwords one that no other has: who
// logs in with another server's is to notice.
func (s *Server) ownPassword(ctx context.Context, auth string) error {
	if auth == trust || !armed.Load() {
		return nil
	}
	own := randomHex(12)
	if err := s.query(ctx, "ALTER ROLE "+s.User+" PASSWORD '"+own+"'"); err != nil {
		return fmt.Errorf("giving the server its own password: %w", err)
	}
	s.Password = own
	return nil
}

// template is the one for a way to authenticate.
func (s *Server) template(ctx context.Context, account pgproc.Account, auth string) (*template, error) {
	templates.Lock()
	defer templates.Unlock()
	if t := templates.servers[auth]; t != nil {
		return t, nil
	}
	if templates.dir == "" {
		dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
		if err != nil {
			return nil, fmt.Errorf("making a directory for a template: %w", err)
		}
		if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL's account passes through it
			return nil, errors.Join(fmt.Errorf("opening the template's directory: %w", err), os.RemoveAll(dir))
		}
		templates.dir, templates.servers = dir, map[string]*template{}
	}
	t := &template{dir: filepath.Join(templates.dir, "of-"+auth), password: s.Password}
	if err := s.Install.InitDB(ctx, t.dir, pgproc.InitOptions{Account: account, User: s.User, Password: t.password, Auth: auth}); err != nil {
		return nil, err
	}
	templates.servers[auth] = t
	return t, nil
}

// removeTemplates removes them at the test binary's end.
func removeTemplates() error {
	templates.Lock()
	defer templates.Unlock()
	if templates.dir == "" {
		return nil
	}
	return os.RemoveAll(templates.dir)
}
