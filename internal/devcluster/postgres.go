package devcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sharding-system/sharding/internal/pgproc"
)

const (
	superuser = "postgres"
	// stopPatience is how long a server may take to shut down in fast mode
	// before it is shut down in immediate mode.
	stopPatience = 20 * time.Second
	// restartDelay keeps a server that dies at once from being started in a
	// tight loop.
	restartDelay = time.Second
	// unfinishedMark is in the name of a data directory that is being made.
	unfinishedMark = ".new-"
	// initAtOnce is how many data directories are initialised side by side.
	initAtOnce = 4
)

// servers are the PostgreSQL processes of the cluster. One that ends by itself
// is started again, as an init system would.
type servers struct {
	install pgproc.Install
	account pgproc.Account
	logger  *slog.Logger
	trust   bool

	// model is a data directory that no server runs in, made when the first new server
	// needs it: each is a copy of it.
	model struct {
		once sync.Once
		dir  string
		err  error
	}

	mu   sync.Mutex // guards list's processes
	list []*server

	stopping chan struct{}
	watchers sync.WaitGroup
}

// server is one of them.
type server struct {
	name, kind, dir string
	port            int
	primary         *server // of a replica
	proc            *pgproc.Process
}

// startServers initialises what is new and starts all, side by side. On an
// error nothing is left running.
func startServers(ctx context.Context, d *directory, o Options, ports []int, logger *slog.Logger) (_ *servers, err error) {
	install, err := pgproc.Find(o.PGBin)
	if err != nil {
		return nil, err
	}
	account, err := pgproc.ChooseAccount(o.PGUser)
	if err != nil {
		return nil, err
	}
	s := &servers{install: install, account: account, logger: logger, trust: o.InsecureTrust, stopping: make(chan struct{})}
	for i, port := range ports {
		sv := &server{name: "shard-" + strconv.Itoa(i+1), kind: kindShard, port: port}
		if r := i - o.Shards - o.SpareShards; r >= 0 {
			sv.kind, sv.primary = kindReplica, s.list[r%o.Shards]
			sv.name = sv.primary.name + "-replica-" + strconv.Itoa(r/o.Shards+1)
		} else if i >= o.Shards {
			sv.name, sv.kind = "spare-"+strconv.Itoa(i+1-o.Shards), kindSpare
		}
		sv.dir = d.file("postgres", sv.name)
		s.list = append(s.list, sv)
	}
	if err := os.MkdirAll(d.file("postgres"), 0o711); err != nil {
		return nil, fmt.Errorf("making the servers' directory: %w", err)
	}
	s.removeUnfinished(d.file("postgres", "model"))
	s.model.dir = d.file("postgres", "model"+unfinishedMark+randomText(6))
	defer func() { err = errors.Join(err, os.RemoveAll(s.model.dir)) }()
	primaries := o.Shards + o.SpareShards
	for _, some := range [][]*server{s.list[:primaries], s.list[primaries:]} {
		group, gctx := errgroup.WithContext(ctx)
		group.SetLimit(initAtOnce)
		for _, sv := range some {
			group.Go(func() error { return s.prepareAndStart(gctx, sv, d.secrets.Superuser) })
		}
		if err := group.Wait(); err != nil {
			return nil, errors.Join(err, s.stop())
		}
	}
	for _, sv := range s.list {
		s.watchers.Add(1)
		go s.watch(sv)
	}
	return s, nil
}

func (s *servers) prepareAndStart(ctx context.Context, sv *server, password string) error {
	if err := s.initialise(ctx, sv, password); err != nil {
		return fmt.Errorf("%s: %w", sv.name, err)
	}
	if err := s.writeAccess(sv.dir); err != nil {
		return fmt.Errorf("%s: %w", sv.name, err)
	}
	if sv.primary != nil {
		if err := sv.follow(password); err != nil {
			return fmt.Errorf("%s: %w", sv.name, err)
		}
	}
	proc, err := s.start(ctx, sv)
	if err != nil {
		return err
	}
	s.mu.Lock()
	sv.proc = proc
	s.mu.Unlock()
	return nil
}

// initialise makes the data directory unless it is there. It gets its name when
// it is complete: initdb writes PG_VERSION first of all, so that one that was
// killed in the middle would pass for one that was not.
func (s *servers) initialise(ctx context.Context, sv *server, password string) error {
	if pgproc.Initialized(sv.dir) {
		return nil
	}
	s.removeUnfinished(sv.dir)
	unfinished := sv.dir + unfinishedMark + randomText(6)
	fill := s.copyModel
	if sv.primary != nil {
		fill = func(ctx context.Context, dir, password string) error { return s.copyPrimary(ctx, sv, dir, password) }
	}
	if err := fill(ctx, unfinished, password); err != nil {
		return err
	}
	if err := os.Rename(unfinished, sv.dir); err != nil {
		return fmt.Errorf("naming the data directory: %w", err)
	}
	return nil
}

// copyModel fills dir with a copy of the model, which is made first if need be.
func (s *servers) copyModel(ctx context.Context, dir, password string) error {
	s.model.once.Do(func() {
		s.model.err = s.install.InitDB(ctx, s.model.dir, pgproc.InitOptions{Account: s.account, User: superuser, Password: password})
	})
	if s.model.err != nil {
		return s.model.err
	}
	return s.install.Clone(ctx, s.model.dir, dir, pgproc.CloneOptions{Account: s.account})
}

// removeUnfinished removes what starts that were killed left of a directory that they
// made. An initdb of theirs may still write there: then it is left to the next start.
func (s *servers) removeUnfinished(dir string) {
	left, err := filepath.Glob(dir + unfinishedMark + "*")
	if err != nil {
		s.logger.Info("what earlier starts left cannot be looked for", "directory", dir, "error", err)
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			s.logger.Info("a directory of an earlier start is left for the next one to remove", "directory", dir, "error", err)
		}
	}
}

// writeAccess sets who may log in: passwords, or nobody asked for the
// benchmarks of --insecure-trust, where the router has no password to pass on.
func (s *servers) writeAccess(dir string) error {
	method := "scram-sha-256"
	if s.trust {
		method = "trust"
	}
	rules := "# Written by shardctl dev at each start.\n" +
		"host all all 127.0.0.1/32 " + method + "\n" +
		"host replication all 127.0.0.1/32 " + method + "\n"
	file := filepath.Join(dir, "pg_hba.conf")
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0o600) // keeps its owner
	if err != nil {
		return fmt.Errorf("writing pg_hba.conf: %w", err)
	}
	_, err = f.WriteString(rules)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing pg_hba.conf: %w", err)
	}
	return nil
}

func (s *servers) start(ctx context.Context, sv *server) (*pgproc.Process, error) {
	proc, err := pgproc.Start(ctx, pgproc.Config{
		Install: s.install, DataDir: sv.dir, Account: s.account, Host: loopback, Port: sv.port,
		Settings: map[string]string{
			"max_connections":           "300",
			"max_prepared_transactions": "300",
			"wal_level":                 "logical",
			"shared_buffers":            "32MB",
			"password_encryption":       "scram-sha-256",
			"cluster_name":              sv.name,
		},
		DieWithParent: true,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sv.name, err)
	}
	return proc, nil
}

// watch starts a server again when it ends by itself.
func (s *servers) watch(sv *server) {
	defer s.watchers.Done()
	for {
		s.mu.Lock()
		proc := sv.proc
		s.mu.Unlock()
		select {
		case <-s.stopping:
			return
		case <-proc.Done():
		}
		s.logger.Warn("a PostgreSQL server ended and is started again", "server", sv.name, "pid", proc.Pid())
		if !s.revive(sv) {
			return
		}
	}
}

// revive tries until the server runs again; false when the cluster stops.
func (s *servers) revive(sv *server) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		select {
		case <-s.stopping:
			return false
		case <-time.After(restartDelay):
		}
		proc, err := s.start(ctx, sv)
		if err != nil {
			s.logger.Error("a PostgreSQL server does not start", "server", sv.name, "error", err)
			continue
		}
		s.mu.Lock()
		sv.proc = proc
		s.mu.Unlock()
		return true
	}
}

// stop shuts all servers down, side by side, and waits until they have ended.
func (s *servers) stop() error {
	close(s.stopping)
	s.watchers.Wait()
	var group errgroup.Group
	for _, sv := range s.list {
		if sv.proc == nil {
			continue
		}
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
			defer cancel()
			if sv.proc.Stop(ctx, pgproc.Fast) == nil {
				return nil
			}
			hard, cancelHard := context.WithTimeout(context.Background(), stopPatience)
			defer cancelHard()
			if err := sv.proc.Stop(hard, pgproc.Immediate); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", sv.name, err), sv.proc.Kill())
			}
			return nil
		})
	}
	return group.Wait()
}

// info describes the servers for the ready file.
func (s *servers) info() []ProcessInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]ProcessInfo, len(s.list))
	for i, sv := range s.list {
		out[i] = ProcessInfo{
			Name: sv.name, Kind: sv.kind, PID: sv.proc.Pid(), DataDir: sv.dir,
			Addresses: map[string]string{"postgres": address(sv.port)},
		}
	}
	return out
}

// stopStale ends servers that an earlier shardctl dev, killed by -9, left
// running in this directory.
func stopStale(ctx context.Context, d *directory, logger *slog.Logger) error {
	dirs, err := filepath.Glob(d.file("postgres", "*"))
	if err != nil {
		return fmt.Errorf("looking for servers left running: %w", err)
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, dir := range dirs {
		group.Go(func() error {
			found, err := pgproc.StopStale(gctx, dir)
			if found && err == nil {
				logger.Info("ended a PostgreSQL server that an earlier run left behind", "directory", dir)
			}
			return err
		})
	}
	return group.Wait()
}
