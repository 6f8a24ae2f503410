package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) transactionCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "Two-phase transactions that are in doubt", Args: a.args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			txs, err := m.Transactions(c.Context())
			if err != nil {
				return err
			}
			return a.show(orEmpty(txs), func(t *table) {
				t.head("GID", "KEYSPACE", "STATE", "SHARDS", "DETAIL")
				for _, x := range txs {
					t.row(x.GID, x.Keyspace, x.State, strings.Join(x.Shards, ","), x.Detail)
				}
			})
		},
	}
	return a.group("transaction", "Two-phase transactions", list)
}
