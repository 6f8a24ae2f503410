package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sharding-system/sharding/client"
	"github.com/spf13/cobra"
)

func (a *app) queryCommand() *cobra.Command {
	var (
		s       client.Statement
		timeout time.Duration
	)
	c := &cobra.Command{
		Use: "query SQL", Short: "Run one statement through a router", Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, t, err := a.managerClient()
			if err != nil {
				return err
			}
			r, err := a.routerClient(c.Context(), m, t)
			if err != nil {
				return err
			}
			if s.Keyspace, err = a.chosenKeyspace(c.Context(), m, t); err != nil {
				return err
			}
			s.Query = args[0]
			s.Options = &client.StatementOptions{TimeoutMS: int(timeout.Milliseconds()), Rows: "arrays"}
			if a.output != "table" {
				s.Options.Rows = ""
			}
			result, err := r.Execute(c.Context(), s)
			if err != nil {
				return err
			}
			return a.showResult(result)
		},
	}
	a.keyspaceFlag(c)
	c.Flags().DurationVar(&timeout, "timeout", 0, "give up after this `TIME` (the router's own)")
	return c
}

// routerClient is a client of the router named, or of one that the manager
// knows.
func (a *app) routerClient(ctx context.Context, m *client.Manager, t target) (*client.Router, error) {
	if t.router == "" {
		routers, err := m.Routers(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range routers {
			if r.HTTP != "" {
				t.router = r.HTTP
				break
			}
		}
	}
	if t.router == "" {
		return nil, &hintedError{err: errors.New("no router is registered"), hint: "name one by --router or SHARDCTL_ROUTER"}
	}
	if !strings.Contains(t.router, "://") {
		t.router = "http://" + t.router
	}
	return client.NewRouter(t.router, client.WithToken(t.token), client.WithUserAgent("shardctl/"+version))
}

func (a *app) showResult(r client.Result) error {
	var bad error
	err := a.show(r, func(t *table) {
		if len(r.Columns) > 0 {
			titles := make([]string, len(r.Columns))
			for i, c := range r.Columns {
				titles[i] = c.Name
			}
			t.head(titles...)
		}
		for _, row := range r.Rows {
			cells, err := arrayCells(row)
			if err != nil {
				bad = err
				return
			}
			t.row(cells...)
		}
		if len(r.Columns) == 0 {
			t.line(r.Command)
		}
	})
	if bad != nil {
		return fmt.Errorf("reading a row: %w", bad)
	}
	shards := r.ShardIDs
	if r.ShardID != "" {
		shards = []string{r.ShardID}
	}
	if a.output == "table" && len(shards) > 0 {
		rows := "rows"
		if r.RowCount == 1 {
			rows = "row"
		}
		fmt.Fprintf(a.stderr, "%d %s from %s in %.1f ms\n", r.RowCount, rows, strings.Join(shards, ", "), r.LatencyMS)
	}
	return err
}

// arrayCells reads a row that came as an array; text loses its quotes, null is
// empty, all else stays as JSON writes it.
func arrayCells(row json.RawMessage) ([]any, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(row, &raw); err != nil {
		return nil, err
	}
	cells := make([]any, len(raw))
	for i, c := range raw {
		var s string
		switch {
		case bytes.Equal(c, []byte("null")):
			cells[i] = ""
		case json.Unmarshal(c, &s) == nil:
			cells[i] = s
		default:
			cells[i] = string(c)
		}
	}
	return cells, nil
}
