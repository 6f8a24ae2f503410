package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sharding-system/sharding/client"
)

// replicaCommand is about the servers that routers may read a shard from.
func (a *app) replicaCommand() *cobra.Command {
	return a.group("replica", "Streaming replicas that routers may read from", a.replicaAdd(), a.replicaList(), a.replicaRemove())
}

func (a *app) replicaAdd() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "add SHARD HOST:PORT...",
		Short: "Let routers read from replicas of a shard's primary",
		Long: "Let routers read from streaming replicas of a shard's primary, made with pg_basebackup -R.\n" +
			"Each is asked whether it is one, and must let the services' and the clients' roles in.",
		Args: a.args(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeReplicas(c.Context(), args[0], dryRun, func(have []string) ([]string, error) {
				return append(have, args[1:]...), nil
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only check")
	return c
}

func (a *app) replicaRemove() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "remove SHARD HOST:PORT...",
		Short: "Take replicas out of use; they go on replicating",
		Args:  a.args(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeReplicas(c.Context(), args[0], dryRun, func(have []string) ([]string, error) {
				for _, endpoint := range args[1:] {
					i := slices.Index(have, endpoint)
					if i < 0 {
						return nil, fmt.Errorf("shard %s has no replica %s", args[0], endpoint)
					}
					have = slices.Delete(have, i, i+1)
				}
				return have, nil
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only check")
	return c
}

// changeReplicas changes the list as it stands, and again if another changes the
// shard meanwhile.
func (a *app) changeReplicas(ctx context.Context, shard string, dryRun bool, change func([]string) ([]string, error)) error {
	m, _, err := a.managerClient()
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		s, err := m.Shard(ctx, shard)
		if err != nil {
			return err
		}
		replicas, err := change(append([]string{}, s.Replicas...))
		if err != nil {
			return err
		}
		changed, err := m.ChangeShardReplicas(ctx, s, replicas, dryRun)
		if client.IsConflict(err) && attempt < 5 {
			continue
		}
		if err != nil {
			return err
		}
		return a.show(changed, func(t *table) { drawShard(t, changed) })
	}
}

func (a *app) replicaList() *cobra.Command {
	return &cobra.Command{
		Use: "list [SHARD]", Short: "Replicas, their health and how far they are behind", Args: a.args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := a.managerClient()
			if err != nil {
				return err
			}
			shards, err := m.Shards(c.Context(), "")
			if err != nil {
				return err
			}
			replicas := []replicaStatus{}
			found := false
			for _, s := range shards {
				if len(args) > 0 && s.ID != args[0] {
					continue
				}
				found = true
				h, err := m.ShardHealth(c.Context(), s.ID)
				if err != nil {
					return err
				}
				replicas = append(replicas, replicasOf(h)...)
			}
			if !found && len(args) > 0 {
				return fmt.Errorf("there is no shard %s", args[0])
			}
			return a.show(replicas, func(t *table) {
				t.head("SHARD", "REPLICA", "HEALTH", "BEHIND", "ERROR")
				for _, r := range replicas {
					t.row(r.Shard, r.Endpoint, r.Health, r.behind(), orDash(r.Error))
				}
			})
		},
	}
}

// replicaStatus is one replica in the answers of status and of replica list.
type replicaStatus struct {
	Shard      string   `json:"shard"`
	Endpoint   string   `json:"endpoint"`
	Health     string   `json:"health"`
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	LagBytes   *int64   `json:"lag_bytes,omitempty"`
	Error      string   `json:"last_error,omitempty"`
}

func replicasOf(h client.ShardHealth) []replicaStatus {
	var out []replicaStatus
	for _, e := range h.Endpoints {
		if e.Role == "replica" {
			out = append(out, replicaStatus{Shard: h.ShardID, Endpoint: e.Endpoint, Health: e.Status, LagSeconds: e.LagSeconds, LagBytes: e.LagBytes, Error: e.LastError})
		}
	}
	return out
}

func (r replicaStatus) behind() string {
	if r.LagSeconds == nil || r.LagBytes == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f s, %d bytes", *r.LagSeconds, *r.LagBytes)
}
