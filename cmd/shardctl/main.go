// Command shardctl is the operator's command line of the Sharding System: a
// noun, then a verb.
//
// It promises scripts: --output json and yaml carry the fields of the HTTP
// API; the exit status is 0 when done, 1 when it failed, 2 when misused; what
// is asked for goes to standard output, everything else to standard error;
// nothing is asked when standard input is no terminal.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sharding-system/sharding/client"
)

// version is set by the linker.
var version = "unknown"

const (
	exitDone   = 0
	exitFailed = 1
	exitMisuse = 2
)

func main() {
	// A terminal that is closed stops a local cluster in order, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	status := Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	stop()
	os.Exit(status)
}

// Run runs one command line and gives its exit status.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	root := a.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	a.complain(err)
	var misuse *usageError
	if errors.As(err, &misuse) {
		return exitMisuse
	}
	return exitFailed
}

// usageError is a command line that cannot be meant.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func misusef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// hintedError carries what the user can do about it.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// complain writes an error for people: what, more of it, and what helps.
func (a *app) complain(err error) {
	fmt.Fprintf(a.stderr, "error: %s\n", err)
	var refused *client.Error
	if errors.As(err, &refused) {
		if refused.Detail != "" {
			fmt.Fprintf(a.stderr, "detail: %s\n", refused.Detail)
		}
		if refused.Hint != "" {
			fmt.Fprintf(a.stderr, "hint: %s\n", refused.Hint)
		}
	}
	var misuse *usageError
	if errors.As(err, &misuse) && misuse.hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", misuse.hint)
	}
	var hinted *hintedError
	if errors.As(err, &hinted) {
		fmt.Fprintf(a.stderr, "hint: %s\n", hinted.hint)
	}
}
