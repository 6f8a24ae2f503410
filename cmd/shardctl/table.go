package main

import (
	"strings"

	"github.com/sharding-system/sharding/client"
	"github.com/spf13/cobra"
)

func (a *app) tableCommand() *cobra.Command {
	return a.group("table", "Where tables' rows live", a.tableAdd(), a.tableList(), a.tableShow())
}

func (a *app) tableAdd() *cobra.Command {
	var (
		n         client.NewTable
		key       string
		reference bool
		dryRun    bool
	)
	c := &cobra.Command{
		Use:   "add NAME {--key COLUMN[,COLUMN] [--type TYPE] | --reference | --global SHARD}",
		Short: "Declare a table, before or after it exists (then it must be empty)",
		Args:  a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := chooseKind(&n, key, reference); err != nil {
				return err
			}
			m, t, err := a.managerClient()
			if err != nil {
				return err
			}
			keyspace, err := a.chosenKeyspace(c.Context(), m, t)
			if err != nil {
				return err
			}
			n.Name = args[0]
			added, err := m.AddTable(c.Context(), keyspace, n, dryRun)
			if err != nil {
				return err
			}
			return a.show(added, func(t *table) { drawTables(t, []client.Table{added}) })
		},
	}
	a.keyspaceFlag(c)
	f := c.Flags()
	f.StringVar(&key, "key", "", "sharded by this `COLUMN`, or by several in this order")
	f.StringVar(&n.Type, "type", "", "the key's `TYPE` where the table does not exist yet (bigint)")
	f.BoolVar(&reference, "reference", false, "a full copy on every shard")
	f.StringVar(&n.Home, "global", "", "rows only on this `SHARD`, which must be the home shard")
	f.BoolVar(&dryRun, "dry-run", false, "only check")
	return c
}

// chooseKind turns the three flags, of which one must be given, into a kind.
func chooseKind(n *client.NewTable, key string, reference bool) error {
	given := 0
	for _, is := range []bool{key != "", reference, n.Home != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return misusef("say one of --key COLUMN, --reference, --global SHARD")
	}
	if n.Type != "" && key == "" {
		return misusef("--type belongs to --key")
	}
	switch {
	case reference:
		n.Kind = "reference"
	case n.Home != "":
		n.Kind = "global"
	default:
		n.Kind = "sharded"
		n.Key = strings.Split(key, ",")
	}
	return nil
}

func (a *app) tableList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "All declared tables", Args: a.args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			tables, err := a.tables(c)
			if err != nil {
				return err
			}
			return a.show(orEmpty(tables), func(t *table) { drawTables(t, tables) })
		},
	}
	a.keyspaceFlag(c)
	return c
}

func (a *app) tables(c *cobra.Command) ([]client.Table, error) {
	m, t, err := a.managerClient()
	if err != nil {
		return nil, err
	}
	keyspace, err := a.chosenKeyspace(c.Context(), m, t)
	if err != nil {
		return nil, err
	}
	return m.Tables(c.Context(), keyspace)
}

func (a *app) tableShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show NAME", Short: "One declared table", Args: a.args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			tables, err := a.tables(c)
			if err != nil {
				return err
			}
			found, err := findTable(tables, args[0])
			if err != nil {
				return err
			}
			return a.show(found, func(t *table) { drawTables(t, []client.Table{found}) })
		},
	}
	a.keyspaceFlag(c)
	return c
}

func drawTables(t *table, tables []client.Table) {
	t.head("TABLE", "KIND", "KEY", "DECLARED BY")
	for _, d := range tables {
		t.row(d.Schema+"."+d.Name, d.Kind, orDash(describeKey(d.Key)), d.DeclaredBy)
	}
}

func describeKey(key []client.KeyColumn) string {
	parts := make([]string, len(key))
	for i, k := range key {
		parts[i] = k.Name + " " + k.Type
	}
	return strings.Join(parts, ", ")
}
