// Command router measures what the router costs beside its nearest peer and beside none: point SELECTs and small transactions by stock pgbench,
// idle clients, and requests of the HTTP API:
// directly, through PgBouncer and through the router, in turn, against the same PostgreSQL in the same run.
//
//	router bench   starts the servers, the catalog, PgBouncer and the router, measures and prints a table
//	router serve   is the router alone, as the benchmark starts it: bench's child
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
		fmt.Fprintln(os.Stderr, "router:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: router bench|serve [flags]; -h after either lists them")
	}
	flags := flag.NewFlagSet("router "+args[0], flag.ContinueOnError)
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
