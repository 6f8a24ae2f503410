// Command relay measures what internal/loop costs, apart from all that a router adds: a bare relay that frames
// PostgreSQL's messages and plans nothing, with transaction pooling, against PgBouncer in the same run.
//
//	relay bench   starts a PostgreSQL, a PgBouncer and the relay, runs pgbench through each and prints a table
//	relay serve   is the relay alone
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: relay bench|serve [flags]; -h after either lists them")
	}
	flags := flag.NewFlagSet("relay "+args[0], flag.ContinueOnError)
	var err error
	switch args[0] {
	case "serve":
		o := serveFlags(flags)
		if err = flags.Parse(args[1:]); err == nil {
			err = serve(ctx, o)
		}
	case "bench":
		o := benchFlags(flags)
		if err = flags.Parse(args[1:]); err == nil {
			err = bench(ctx, o)
		}
	default:
		err = fmt.Errorf("unknown command %q", args[0])
	}
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}
