// Command sharding-manager is the control plane: the HTTP API by which
// keyspaces, shards, tables and users are made, the prober of the shards, and
// the leader's loop. Any number of them can run; one leads.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/config"
)

// version is set by the linker.
var version = "unknown"

const (
	exitFailed = 1
	exitMisuse = 2
)

// bootstrapTTL is the life of a token from --issue-token.
const bootstrapTTL = time.Hour

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	err := Run(ctx, os.Args[1:], os.Getenv, os.Stdout, hangup)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	var mistakes *config.Error
	if errors.Is(err, errMisuse) || errors.As(err, &mistakes) {
		os.Exit(exitMisuse)
	}
	os.Exit(exitFailed)
}

var errMisuse = errors.New("usage: sharding-manager [--config FILE] [--check-config | --issue-token | --version]")

// Run runs the manager until ctx ends, or does what the flags ask for instead.
func Run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer, hangup <-chan os.Signal) error {
	flags := flag.NewFlagSet("sharding-manager", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	path := flags.String("config", getenv("CONFIG_PATH"), "configuration file (also CONFIG_PATH)")
	check := flags.Bool("check-config", false, "only check the configuration")
	issue := flags.Bool("issue-token", false, "print an admin's token for an hour, to make the first user with")
	showVersion := flags.Bool("version", false, "print the version")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errors.Join(err, errMisuse)
	}
	if *showVersion {
		_, err := fmt.Fprintln(stdout, "sharding-manager", version)
		return err
	}
	cfg, err := config.LoadManager(*path, getenv)
	if err != nil {
		return err
	}
	if err := cfg.CheckFiles(); err != nil {
		return err
	}
	switch {
	case *check:
		for _, w := range cfg.Warnings {
			fmt.Fprintln(stdout, "warning:", w)
		}
		_, err := fmt.Fprintln(stdout, "the configuration is valid")
		return err
	case *issue:
		return issueToken(cfg, stdout)
	}
	return serve(ctx, cfg, func() (*config.Manager, error) { return config.LoadManager(*path, getenv) }, hangup)
}

func issueToken(cfg *config.Manager, stdout io.Writer) error {
	signer, err := newSigner(cfg)
	if err != nil {
		return err
	}
	token, err := signer.Issue(auth.Claims{Subject: "bootstrap", Roles: []string{"admin"}}, bootstrapTTL)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, token)
	return err
}

func newSigner(cfg *config.Manager) (*auth.Signer, error) {
	if cfg.Security.JWTSecret == "" {
		return nil, fmt.Errorf("%w\nsecurity.jwt_secret (or JWT_SECRET) is not set: every route takes a token that it signs", errMisuse)
	}
	previous := make([]string, len(cfg.Security.JWTPreviousSecrets))
	for i, s := range cfg.Security.JWTPreviousSecrets {
		previous[i] = s.Reveal()
	}
	return auth.NewSigner(cfg.Security.JWTSecret.Reveal(), previous...)
}
