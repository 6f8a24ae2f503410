package main

import (
	"strings"

	"github.com/sharding-system/sharding/client"
	"github.com/spf13/cobra"
)

func (a *app) pinCommand() *cobra.Command {
	return a.group("pin", "Keys that are kept on a shard of your choice", a.pinSet(), a.pinList(), a.pinRemove())
}

func (a *app) pinSet() *cobra.Command {
	var (
		n      client.NewPin
		dryRun bool
	)
	c := &cobra.Command{
		Use: "set KEY... --table TABLE --shard SHARD", Aliases: []string{"add"},
		Short: "Pin a key to a shard, whatever its hash says",
		Long: "Pin a key to a shard, whatever its hash says: in all tables whose keys are of the same types.\n" +
			"The key must have no rows on another shard. A key of several columns is several arguments.",
		Args: a.args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if n.Table == "" || n.Shard == "" {
				return misusef("--table and --shard are needed")
			}
			m, t, err := a.managerClient()
			if err != nil {
				return err
			}
			keyspace, err := a.chosenKeyspace(c.Context(), m, t)
			if err != nil {
				return err
			}
			n.Key = args
			p, err := m.SetPin(c.Context(), keyspace, n, dryRun)
			if err != nil {
				return err
			}
			return a.show(p, func(t *table) { drawPins(t, []client.Pin{p}) })
		},
	}
	a.keyspaceFlag(c)
	f := c.Flags()
	f.StringVarP(&n.Table, "table", "t", "", "a `TABLE` that has such keys")
	f.StringVar(&n.Shard, "shard", "", "the `SHARD` to keep the key on")
	f.BoolVar(&dryRun, "dry-run", false, "only check")
	return c
}

func (a *app) pinList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "All pinned keys", Args: a.args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			m, t, err := a.managerClient()
			if err != nil {
				return err
			}
			keyspace, err := a.chosenKeyspace(c.Context(), m, t)
			if err != nil {
				return err
			}
			pins, err := m.Pins(c.Context(), keyspace)
			if err != nil {
				return err
			}
			return a.show(orEmpty(pins), func(t *table) { drawPins(t, pins) })
		},
	}
	a.keyspaceFlag(c)
	return c
}

func (a *app) pinRemove() *cobra.Command {
	var (
		name   string
		dryRun bool
	)
	c := &cobra.Command{
		Use:   "remove KEY... --table TABLE",
		Short: "Take a key's pin away: it belongs to its vnode's shard again",
		Args:  a.args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if name == "" {
				return misusef("--table is needed: it says what the key's types are")
			}
			m, t, err := a.managerClient()
			if err != nil {
				return err
			}
			keyspace, err := a.chosenKeyspace(c.Context(), m, t)
			if err != nil {
				return err
			}
			return m.RemovePin(c.Context(), keyspace, name, args, dryRun)
		},
	}
	a.keyspaceFlag(c)
	c.Flags().StringVarP(&name, "table", "t", "", "a `TABLE` that has such keys")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only check")
	return c
}

func drawPins(t *table, pins []client.Pin) {
	t.head("KEY", "TYPES", "SHARD", "VNODE'S SHARD", "STATE")
	for _, p := range pins {
		t.row(strings.Join(p.Key, ", "), strings.Join(p.Types, ", "), p.Shard, p.VnodeShard, p.State)
	}
}
