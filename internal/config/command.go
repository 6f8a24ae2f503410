package config

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit statuses of the programs that read a configuration.
const (
	exitFailed = 1
	exitMisuse = 2
)

// Main runs a program until it ends or SIGINT or SIGTERM asks it to (a second one
// does not wait for what the first has begun), and exits:
// with 0 when run returns nil, with 2 for an error that is misuse or a mistake
// of the configuration, with 1 for others. hangup hears SIGHUP.
func Main(misuse error, run func(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer, hangup <-chan os.Signal) error) {
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-asked
		// Before anybody acts on the first: the next one ends the process as if
		// nobody listened.
		signal.Stop(asked)
		cancel()
	}()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, hangup)
	cancel()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	var mistakes *Error
	if errors.Is(err, misuse) || errors.As(err, &mistakes) {
		os.Exit(exitMisuse)
	}
	os.Exit(exitFailed)
}

// Flags are those that every such program has.
type Flags struct {
	*flag.FlagSet
	Path                 string // of the file
	onlyCheck, onlyShowV bool
}

// NewFlags defines the flags of a program.
func NewFlags(name string, getenv func(string) string) *Flags {
	f := &Flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(io.Discard)
	f.StringVar(&f.Path, "config", getenv("CONFIG_PATH"), "configuration file (also CONFIG_PATH)")
	f.BoolVar(&f.onlyCheck, "check-config", false, "only check the configuration")
	f.BoolVar(&f.onlyShowV, "version", false, "print the version")
	return f
}

// Read parses the arguments. It answers --version by itself: done says so. An
// error of the arguments is joined with misuse.
func (f *Flags) Read(args []string, misuse error, version string, stdout io.Writer) (done bool, err error) {
	if err := f.Parse(args); err != nil || f.NArg() > 0 {
		return true, errors.Join(err, misuse)
	}
	if !f.onlyShowV {
		return false, nil
	}
	_, err = fmt.Fprintln(stdout, f.Name(), version)
	return true, err
}

// Checked answers --check-config for a configuration that is valid; done says
// that it was asked for.
func (f *Flags) Checked(warnings []string, stdout io.Writer) (done bool, err error) {
	if !f.onlyCheck {
		return false, nil
	}
	for _, w := range warnings {
		fmt.Fprintln(stdout, "warning:", w)
	}
	_, err = fmt.Fprintln(stdout, "the configuration is valid")
	return true, err
}
