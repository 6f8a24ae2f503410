// Command sharding-router is the data plane: what PostgreSQL clients connect to
// as if it were one server, and the HTTP API for statements. It keeps nothing of
// its own: any number of them can run, and be killed, at any time.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/sharding-system/sharding/internal/config"
	"github.com/sharding-system/sharding/internal/failpoint"
)

// version is set by the linker.
var version = "unknown"

func main() { config.Main(errMisuse, Run) }

var errMisuse = errors.New("usage: sharding-router [--config FILE] [--check-config | --version] [--insecure-trust]")

// Run runs the router until ctx ends, or does what the flags ask for instead.
func Run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer, hangup <-chan os.Signal) error {
	flags := config.NewFlags("sharding-router", getenv)
	trust := flags.Bool("insecure-trust", false, "let every role in without a password, and expect the shards to do the same:\n"+
		"for benchmarks on one machine; refused unless the listeners are on loopback")
	if done, err := flags.Read(args, errMisuse, version, stdout); done {
		return err
	}
	cfg, err := config.LoadRouter(flags.Path, getenv)
	if err != nil {
		return err
	}
	if err := cfg.CheckFiles(); err != nil {
		return err
	}
	if err := checkTrust(*trust, cfg); err != nil {
		return err
	}
	if done, err := flags.Checked(cfg.Warnings, stdout); done {
		return err
	}
	if cfg.Security.JWTSecret == "" {
		return fmt.Errorf("%w\nsecurity.jwt_secret (or JWT_SECRET) is not set: every route of the HTTP API takes a token that it signs", errMisuse)
	}
	if err := failpoint.Arm(getenv(failpoint.Variable)); err != nil {
		return fmt.Errorf("%w\n%w", errMisuse, err)
	}
	s := server{cfg: cfg, trust: *trust, reload: func() (*config.Router, error) { return config.LoadRouter(flags.Path, getenv) }}
	return s.run(ctx, hangup)
}

// checkTrust refuses to be open to the network without passwords.
func checkTrust(trust bool, cfg *config.Router) error {
	if !trust {
		return nil
	}
	for key, host := range map[string]string{"postgres.host": cfg.Postgres.Host, "server.host": cfg.Server.Host} {
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%w\n--insecure-trust needs a loopback address as %s, not %q: whoever reaches it is let in without a password", errMisuse, key, host)
		}
	}
	return nil
}
