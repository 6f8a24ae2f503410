// The programs of the Go drivers: pgx in all its query modes, its pool, its
// database/sql driver, lib/pq and GORM. See ../README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: drivers pgx MODE | pgxpool | sql DRIVER | gorm")
		os.Exit(2)
	}
	switch os.Args[1] {
	case "pgx":
		runPgx(os.Args[2])
	case "pgxpool":
		runPool()
	case "sql":
		runSQL(os.Args[2])
	case "gorm":
		runGorm()
	}
}

// errNone is what a check returns that the driver has nothing for.
var errNone = errors.New("none")

// check runs one check and prints what became of it.
func check(name string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := f(ctx)
	switch {
	case err == nil:
		fmt.Printf("%s\tok\n", name)
	case errors.Is(err, errNone):
		fmt.Printf("%s\tnone\n", name)
	default:
		fmt.Printf("%s\tfail\t%s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

func none(names ...string) {
	for _, n := range names {
		check(n, func(context.Context) error { return errNone })
	}
}

// dsn is the connection string, with TLS verified in full or none.
func dsn(secure bool, password string) string {
	q := url.Values{"sslmode": {"disable"}}
	if secure {
		q = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {os.Getenv("DRIVER_CA")}}
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(os.Getenv("DRIVER_USER"), password),
		Host: os.Getenv("DRIVER_HOST") + ":" + os.Getenv("DRIVER_PORT"), Path: "/" + os.Getenv("DRIVER_DATABASE"), RawQuery: q.Encode(),
	}
	return u.String()
}

func password() string { return os.Getenv("DRIVER_PASSWORD") }

func schema() string {
	b, err := os.ReadFile(os.Getenv("DRIVER_SCHEMA"))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// equal is nil if the values print alike.
func equal(what string, got, want any) error {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		if len(g) > 200 {
			g = g[:200] + "..."
		}
		return fmt.Errorf("%s: %s instead of %s", what, g, w)
	}
	return nil
}

// sqlState is an error's SQLSTATE and constraint by whatever driver.
func sqlState(err error) (code, constraint string) {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		code = e.SQLState()
	}
	return code, constraintOf(err)
}

func wantState(err error, code string) error {
	if got, _ := sqlState(err); got != code {
		return fmt.Errorf("SQLSTATE %q instead of %s: %v", got, code, err)
	}
	return nil
}
