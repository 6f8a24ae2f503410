package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// app is what all commands share: where they read and write, and the flags
// that every command has.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	manager, router, token, keyspace string
	readyFile, output                string
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "shardctl",
		Short:         "Operate a sharded PostgreSQL",
		Args:          a.args(cobra.NoArgs),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          needVerb,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return a.checkOutput()
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.manager, "manager", "", "the manager's `URL` (also SHARDCTL_MANAGER; else the local cluster)")
	f.StringVar(&a.router, "router", "", "a router's `URL` (also SHARDCTL_ROUTER; else one that the manager knows)")
	f.StringVar(&a.token, "token", "", "bearer `TOKEN`; SHARDCTL_TOKEN keeps it out of the process list")
	f.StringVar(&a.readyFile, "ready-file", "", "the local cluster's ready `FILE`")
	f.StringVarP(&a.output, "output", "o", "table", "`FORMAT` of the answer: table, json or yaml")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{err: err, hint: fmt.Sprintf("%s --help", c.CommandPath())}
	})
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(
		a.devCommand(), a.etcdProcessCommand(), a.statusCommand(), a.keyspaceCommand(), a.shardCommand(), a.tableCommand(), a.pinCommand(),
		a.userCommand(), a.whereCommand(), a.queryCommand(), a.transactionCommand(), a.versionCommand(),
	)
	return root
}

// group is a noun: it does nothing without a verb.
func (a *app) group(noun, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: noun, Short: short, Args: a.args(cobra.NoArgs), RunE: needVerb}
	c.AddCommand(verbs...)
	return c
}

func needVerb(c *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return &usageError{
		err:  fmt.Errorf("%s needs one of: %s", c.CommandPath(), strings.Join(names, ", ")),
		hint: c.CommandPath() + " --help",
	}
}

// args makes a wrong number of arguments a misuse, with the usage as a hint.
func (a *app) args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &usageError{err: err, hint: "usage: " + c.UseLine()}
		}
		return nil
	}
}

func (a *app) keyspaceFlag(c *cobra.Command) {
	c.Flags().StringVarP(&a.keyspace, "keyspace", "k", "", "the `KEYSPACE`; may be left out where there is only one")
}

// confirm asks before something is lost. Where nobody can be asked, yes must
// have been said beforehand.
func (a *app) confirm(yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	if !isTerminal(a.stdin) {
		return &usageError{err: fmt.Errorf(format+" needs to be confirmed", args...), hint: "add --yes"}
	}
	fmt.Fprintf(a.stderr, format+"? [y/N] ", args...)
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && answer == "" {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y") {
		return nil
	}
	return fmt.Errorf("nothing was done")
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which version this is", Args: a.args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return a.show(map[string]string{"version": version}, func(t *table) {
				t.line("shardctl " + version)
			})
		},
	}
}
