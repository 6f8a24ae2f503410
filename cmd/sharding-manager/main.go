// Command sharding-manager is the control plane: the HTTP API by which
// keyspaces, shards, tables and users are made, the prober of the shards, and
// the leader's loop. Any number of them can run; one leads.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/config"
)

// version is set by the linker.
var version = "unknown"

// bootstrapTTL is the life of a token from --issue-token.
const bootstrapTTL = time.Hour

func main() { config.Main(errMisuse, Run) }

var errMisuse = errors.New("usage: sharding-manager [--config FILE] [--check-config | --issue-token | --version]")

// Run runs the manager until ctx ends, or does what the flags ask for instead.
func Run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer, hangup <-chan os.Signal) error {
	flags := config.NewFlags("sharding-manager", getenv)
	issue := flags.Bool("issue-token", false, "print an admin's token for an hour, to make the first user with")
	if done, err := flags.Read(args, errMisuse, version, stdout); done {
		return err
	}
	cfg, err := config.LoadManager(flags.Path, getenv)
	if err != nil {
		return err
	}
	if err := cfg.CheckFiles(); err != nil {
		return err
	}
	if done, err := flags.Checked(cfg.Warnings, stdout); done {
		return err
	}
	if *issue {
		return issueToken(cfg, stdout)
	}
	return serve(ctx, cfg, func() (*config.Manager, error) { return config.LoadManager(flags.Path, getenv) }, hangup)
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
