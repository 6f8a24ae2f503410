package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/sharding-system/sharding/client"
	"github.com/spf13/cobra"
)

// overview is the answer of status.
type overview struct {
	Manager      string               `json:"manager"`
	Health       client.Health        `json:"health"`
	Keyspaces    []client.Keyspace    `json:"keyspaces"`
	Shards       []shardStatus        `json:"shards"`
	Routers      []client.RouterInfo  `json:"routers"`
	Transactions []client.Transaction `json:"transactions"`
}

type shardStatus struct {
	ID       string          `json:"id"`
	Keyspace string          `json:"keyspace"`
	Primary  string          `json:"primary_endpoint"`
	Status   string          `json:"status"`
	Vnodes   int             `json:"vnodes"`
	Health   string          `json:"health"`
	Error    string          `json:"last_error,omitempty"`
	Replicas []replicaStatus `json:"replicas,omitempty"`
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "The whole cluster at a glance; fails if a part of it is down", Args: a.args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			m, t, err := a.managerClient()
			if err != nil {
				return err
			}
			o, err := look(c.Context(), m, t.manager)
			if err != nil {
				return err
			}
			if err := a.show(o, o.draw); err != nil {
				return err
			}
			return o.trouble()
		},
	}
}

func look(ctx context.Context, m *client.Manager, address string) (overview, error) {
	o := overview{Manager: address}
	var err error
	if o.Health, err = m.Health(ctx); err != nil {
		return o, err
	}
	if o.Keyspaces, err = m.Keyspaces(ctx); err != nil {
		return o, err
	}
	shards, err := m.Shards(ctx, "")
	if err != nil {
		return o, err
	}
	for _, s := range shards {
		h, err := m.ShardHealth(ctx, s.ID)
		if err != nil {
			return o, err
		}
		st := shardStatus{ID: s.ID, Keyspace: s.Keyspace, Primary: s.PrimaryEndpoint, Status: s.Status, Vnodes: len(s.Vnodes), Health: h.Status, Replicas: replicasOf(h)}
		for _, e := range h.Endpoints {
			if e.Role == "primary" && e.Status == "down" {
				st.Error = e.LastError
			}
		}
		o.Shards = append(o.Shards, st)
	}
	if o.Routers, err = m.Routers(ctx); err != nil {
		return o, err
	}
	o.Transactions, err = m.Transactions(ctx)
	return o, err
}

func (o overview) draw(t *table) {
	t.row("manager", o.Manager, o.Health.Status)
	for _, r := range o.Routers {
		t.row("router "+r.ID, first(r.Postgres, r.HTTP), "registered")
	}
	for _, k := range o.Keyspaces {
		t.row("keyspace "+k.Name, fmt.Sprintf("%d shards, %d vnodes, epoch %d", len(k.Shards), k.VnodeCount, k.Epoch), k.State)
	}
	for _, s := range o.Shards {
		t.row("shard "+s.ID, fmt.Sprintf("%s, %d vnodes", s.Primary, s.Vnodes), s.Health)
		for _, r := range s.Replicas {
			t.row("  replica", r.Endpoint+", behind "+r.behind(), r.Health)
		}
	}
	for _, x := range o.Transactions {
		t.row("transaction "+x.GID, strings.Join(x.Shards, ", "), x.State)
	}
	for _, d := range o.Health.Degraded {
		t.row("degraded", d, "")
	}
}

// trouble is an error when a server of a shard is down, so that scripts see it.
func (o overview) trouble() error {
	var down []string
	for _, s := range o.Shards {
		if s.Health == "down" {
			down = append(down, s.ID)
		}
		for _, r := range s.Replicas {
			if r.Health == "down" {
				down = append(down, "replica "+r.Endpoint+" of "+s.ID)
			}
		}
	}
	if len(down) == 0 {
		return nil
	}
	return fmt.Errorf("down: %s", strings.Join(down, ", "))
}
