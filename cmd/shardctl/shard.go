package main

import (
	"strings"

	"github.com/sharding-system/sharding/client"
	"github.com/spf13/cobra"
)

func (a *app) shardCommand() *cobra.Command {
	return a.group("shard", "PostgreSQL servers that hold rows",
		a.shardAdd(), a.shardList(), a.shardShow(), a.replicaCommand(), a.shardRemove())
}

func (a *app) shardAdd() *cobra.Command {
	var (
		n      client.NewShard
		dryRun bool
	)
	c := &cobra.Command{
		Use:   "add HOST:PORT",
		Short: "Bring the schema to an empty server and register it",
		Long: "Bring the home shard's schema to an empty server and register it as a shard of the\n" +
			"keyspace. It owns no vnodes until some are moved to it.",
		Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, t, err := a.managerClient()
			if err != nil {
				return err
			}
			if n.Keyspace, err = a.chosenKeyspace(c.Context(), m, t); err != nil {
				return err
			}
			n.PrimaryEndpoint = args[0]
			s, err := m.AddShard(c.Context(), n, dryRun)
			if err != nil {
				return err
			}
			return a.show(s, func(t *table) { drawShard(t, s) })
		},
	}
	a.keyspaceFlag(c)
	f := c.Flags()
	f.StringVar(&n.ID, "id", "", "the shard's `ID` (the next free one)")
	f.StringVar(&n.Name, "name", "", "a `NAME` for people")
	f.StringArrayVar(&n.Replicas, "replica", nil, "`HOST:PORT` of a streaming replica that routers may read from; repeatable")
	f.StringVar(&n.Username, "username", "", "the `ROLE` that the services log in as (DB_USERNAME)")
	f.StringVar(&n.PasswordFile, "password-file", "", "`PATH` of its password on the services' machines (DB_PASSWORD)")
	f.StringVar(&n.TLSMode, "tls-mode", "", "libpq's `SSLMODE` towards the server (prefer)")
	f.StringVar(&n.TLSRootCert, "tls-root-cert", "", "`PATH` of the CAs to trust, on the services' machines")
	f.BoolVar(&dryRun, "dry-run", false, "only check")
	return c
}

func (a *app) shardList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "All shards", Args: a.args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			shards, err := m.Shards(c.Context(), a.keyspace)
			if err != nil {
				return err
			}
			return a.show(orEmpty(shards), func(t *table) {
				t.head("SHARD", "KEYSPACE", "PRIMARY", "STATUS", "VNODES")
				for _, s := range shards {
					t.row(s.ID, s.Keyspace, s.PrimaryEndpoint, s.Status, len(s.Vnodes))
				}
			})
		},
	}
	c.Flags().StringVarP(&a.keyspace, "keyspace", "k", "", "only those of this `KEYSPACE`")
	return c
}

func (a *app) shardShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "One shard and its servers' health", Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			s, err := m.Shard(c.Context(), args[0])
			if err != nil {
				return err
			}
			h, err := m.ShardHealth(c.Context(), args[0])
			if err != nil {
				return err
			}
			both := struct {
				client.Shard
				Health client.ShardHealth `json:"health"`
			}{s, h}
			return a.show(both, func(t *table) {
				drawShard(t, s)
				t.row("health", h.Status)
				for _, e := range h.Endpoints {
					if e.LastError != "" {
						t.row("  "+e.Endpoint, e.LastError)
					}
				}
			})
		},
	}
}

func drawShard(t *table, s client.Shard) {
	t.row("shard", s.ID)
	t.row("name", s.Name)
	t.row("keyspace", s.Keyspace)
	t.row("database", s.Database)
	t.row("primary", s.PrimaryEndpoint)
	t.row("replicas", orDash(strings.Join(s.Replicas, ", ")))
	t.row("status", s.Status)
	t.row("vnodes", len(s.Vnodes))
}

func (a *app) shardRemove() *cobra.Command {
	var yes, dryRun bool
	c := &cobra.Command{
		Use: "remove ID", Short: "Unregister a shard that owns no vnodes", Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			s, err := m.Shard(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !dryRun {
				if err := a.confirm(yes, "Removing shard %s of keyspace %s", s.ID, s.Keyspace); err != nil {
					return err
				}
			}
			if err := m.RemoveShard(c.Context(), s.ID, s.Version, dryRun); err != nil {
				return err
			}
			return a.done(dryRun, "removed", "shard", s.ID)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say whether it could be done")
	return c
}
