package main

import (
	"github.com/spf13/cobra"

	"github.com/sharding-system/sharding/client"
)

// shardReplicas names the replicas of a shard.
func (a *app) shardReplicas() *cobra.Command {
	return &cobra.Command{
		Use:   "replicas ID [HOST:PORT...]",
		Short: "Name the replicas that routers may read a shard from",
		Long: "Name all streaming replicas of a shard's primary that routers may read from; none takes all\n" +
			"out of use. Each must be a replica of that primary and let the services' and the clients' roles in.",
		Args: a.args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			replicas := append([]string{}, args[1:]...)
			s, err := m.ChangeShard(c.Context(), args[0], client.ShardChange{Replicas: &replicas}, 0)
			if err != nil {
				return err
			}
			return a.show(s, func(t *table) { drawShard(t, s) })
		},
	}
}
