package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sharding-system/sharding/bench/rig"
	"github.com/sharding-system/sharding/internal/pgproc"
)

// stand is what the measurements need: a PostgreSQL with pgbench's tables and the two proxies before it.
type stand struct {
	dir      string
	install  pgproc.Install
	pg       *pgproc.Process
	bouncer  *rig.Process
	relay    *rig.Process
	versions string
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
	if _, err := rig.Pgbench(ctx, st.install, st.pg.Port(), "postgres", "postgres", "-i", "-q", "-s", strconv.Itoa(o.scale)); err != nil {
		return st, err
	}
	if err := st.startBouncer(account); err != nil {
		return st, err
	}
	return st, st.startRelay(o)
}

func (st *stand) startBouncer(account pgproc.Account) (err error) {
	pool := rig.Pool{Port: st.pg.Port(), Database: "postgres", User: "postgres"}
	transaction, session := pool, pool
	transaction.Name, transaction.Mode, transaction.Size = "transaction", "transaction", 20
	session.Name, session.Mode, session.Size = sessionDatabase, "session", 100
	st.bouncer, err = rig.StartBouncer(st.dir, account, transaction, session)
	st.versions = fmt.Sprintf("PostgreSQL %s, %s", st.install.Text, rig.BouncerVersion())
	return err
}

// databaseOf is the name under which PgBouncer and the relay pool as a mode needs.
func databaseOf(mode string) string {
	if mode == "prepared" {
		return sessionDatabase
	}
	return "transaction"
}

func (st *stand) startRelay(o *benchOptions) (err error) {
	st.relay, err = rig.StartSelf("serve", "-listen", "127.0.0.1:0", "-backend", fmt.Sprintf("127.0.0.1:%d", st.pg.Port()),
		"-loops", strconv.Itoa(o.loops), "-buffer", strconv.Itoa(o.buffer))
	return err
}

// stop ends what was started, the proxies first.
func (st *stand) stop() error {
	var errs []error
	for _, p := range []*rig.Process{st.relay, st.bouncer} {
		if p != nil {
			errs = append(errs, p.Stop())
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
func (st *stand) sample(ctx context.Context, o *benchOptions, r *row, p *rig.Process) (sample, error) {
	before, err := p.Usage()
	if err != nil {
		return sample{}, err
	}
	out, err := rig.Pgbench(ctx, st.install, p.Port, "postgres", databaseOf(r.mode), "-S", "-n", "-M", r.mode, "-c", strconv.Itoa(r.clients),
		"-j", strconv.Itoa(min(2, r.clients)), "-T", strconv.Itoa(int(o.duration.Seconds())))
	if err != nil {
		return sample{}, err
	}
	after, err := p.Usage()
	if err != nil {
		return sample{}, err
	}
	s := sample{cpu: after.CPU - before.CPU, user: after.User - before.User}
	if s.queries, err = rig.Number(out, `transactions actually processed: (\d+)`); err != nil {
		return s, err
	}
	s.tps, err = rig.Number(out, `tps = ([0-9.]+)`)
	return s, err
}
