package main

import (
	"fmt"
	"strings"

	"github.com/sharding-system/sharding/client"
	"github.com/spf13/cobra"
)

func (a *app) keyspaceCommand() *cobra.Command {
	return a.group("keyspace", "Logical databases",
		a.keyspaceCreate(), a.keyspaceList(), a.keyspaceShow(), a.keyspaceDrop())
}

func (a *app) keyspaceCreate() *cobra.Command {
	var (
		n      client.NewKeyspace
		shards []string
		dryRun bool
	)
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a keyspace and its databases",
		Long: "Make a keyspace and its databases. Without --shard it gets one shard on every server\n" +
			"that holds a shard of another keyspace.",
		Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			n.Name = args[0]
			for _, s := range shards {
				n.Shards = append(n.Shards, parseShard(s))
			}
			k, err := m.CreateKeyspace(c.Context(), n, dryRun)
			if err != nil {
				return err
			}
			return a.show(k, func(t *table) { drawKeyspace(t, k) })
		},
	}
	f := c.Flags()
	f.StringArrayVar(&shards, "shard", nil, "a shard as `[ID=]HOST:PORT`; once for each, the first is the home shard")
	f.StringVar(&n.Hash, "hash", "", "hash `FUNCTION`: postgres, murmur3 or xxhash64 (the manager's default)")
	f.IntVar(&n.VnodeCount, "vnodes", 0, "`COUNT` of vnodes, a power of two from 16 to 65536 (the manager's default)")
	f.StringVar(&n.Owner, "owner", "", "the `USER` that owns the databases")
	f.StringVar(&n.Locale, "locale", "", "`LOCALE` of the databases (the first server's default)")
	f.StringVar(&n.TwoPhaseCommit, "two-phase-commit", "", "`required` or off")
	f.StringVar(&n.DefaultKey, "default-key", "", "a `COLUMN`: every new table that has it is sharded by it")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would be made")
	return c
}

// parseShard reads [ID=]HOST:PORT.
func parseShard(s string) client.NewShard {
	if id, endpoint, ok := strings.Cut(s, "="); ok {
		return client.NewShard{ID: id, PrimaryEndpoint: endpoint}
	}
	return client.NewShard{PrimaryEndpoint: s}
}

func (a *app) keyspaceList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "All keyspaces", Args: a.args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			keyspaces, err := m.Keyspaces(c.Context())
			if err != nil {
				return err
			}
			return a.show(orEmpty(keyspaces), func(t *table) { drawKeyspaces(t, keyspaces) })
		},
	}
}

func drawKeyspaces(t *table, keyspaces []client.Keyspace) {
	t.head("KEYSPACE", "STATE", "SHARDS", "HASH", "VNODES", "HOME", "EPOCH")
	for _, k := range keyspaces {
		t.row(k.Name, k.State, len(k.Shards), k.Hash, k.VnodeCount, k.HomeShard, k.Epoch)
	}
}

func (a *app) keyspaceShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "One keyspace", Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			k, err := m.Keyspace(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(k, func(t *table) { drawKeyspace(t, k) })
		},
	}
}

func drawKeyspace(t *table, k client.Keyspace) {
	t.row("keyspace", k.Name)
	t.row("state", k.State)
	t.row("hash", k.Hash)
	t.row("vnodes", k.VnodeCount)
	t.row("shards", strings.Join(k.Shards, ", "))
	t.row("home shard", k.HomeShard)
	t.row("owner", orDash(k.Owner))
	t.row("two-phase commit", k.TwoPhaseCommit)
	if k.DefaultKey != "" {
		t.row("default key", k.DefaultKey)
	}
	t.row("epoch", k.Epoch)
	t.row("schema version", k.SchemaVersion)
}

func (a *app) keyspaceDrop() *cobra.Command {
	var yes, dryRun bool
	c := &cobra.Command{
		Use: "drop NAME", Short: "Remove a keyspace and the databases made for it", Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			k, err := m.Keyspace(c.Context(), args[0])
			if err != nil {
				return err
			}
			if !dryRun {
				if err := a.confirm(yes, "Dropping keyspace %s with all its rows on %d shards", k.Name, len(k.Shards)); err != nil {
					return err
				}
			}
			if err := m.DropKeyspace(c.Context(), k.Name, k.Version, dryRun); err != nil {
				return err
			}
			return a.done(dryRun, "dropped", "keyspace", k.Name)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say whether it could be done")
	return c
}

// done tells of something that left nothing to show.
func (a *app) done(dryRun bool, verb, noun, name string) error {
	answer := map[string]any{noun: name, "done": !dryRun}
	return a.show(answer, func(t *table) {
		if dryRun {
			t.line(fmt.Sprintf("%s %s would be %s", noun, name, verb))
			return
		}
		t.line(fmt.Sprintf("%s %s %s", noun, name, verb))
	})
}

// orEmpty makes JSON's [] of a list without items.
func orEmpty[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}
