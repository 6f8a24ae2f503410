package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/devcluster"
)

// target is the cluster that a command speaks to.
type target struct {
	manager, router, token, keyspace string
}

// target finds the cluster: what the command line says, else the environment,
// else the local cluster's ready file. A token from the ready file is sent
// only to the addresses that the same file names.
func (a *app) target() (target, error) {
	t := target{
		manager: first(a.manager, a.getenv("SHARDCTL_MANAGER")),
		router:  first(a.router, a.getenv("SHARDCTL_ROUTER")),
		token:   first(a.token, a.getenv("SHARDCTL_TOKEN")),
	}
	if t.manager != "" && a.readyFile == "" {
		return t, nil
	}
	ready, err := a.ready()
	if err != nil {
		return t, err
	}
	local := (t.manager == "" || t.manager == ready.ManagerURL) && (t.router == "" || t.router == ready.RouterURL)
	if local {
		t.token = first(t.token, ready.AdminToken)
		t.keyspace = ready.Keyspace
	}
	t.manager = first(t.manager, ready.ManagerURL)
	t.router = first(t.router, ready.RouterURL)
	return t, nil
}

func (a *app) ready() (devcluster.Ready, error) {
	file := first(a.readyFile, a.getenv("SHARDCTL_READY_FILE"))
	if file == "" {
		var err error
		if file, err = devcluster.CurrentReadyFile(a.getenv); err != nil {
			return devcluster.Ready{}, noCluster(err)
		}
	}
	ready, err := devcluster.ReadReady(file)
	if err != nil {
		return ready, noCluster(err)
	}
	return ready, nil
}

func noCluster(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return &hintedError{
		err:  fmt.Errorf("no cluster is named and no local one is running"),
		hint: "name one by --manager or SHARDCTL_MANAGER, or start one with: shardctl dev",
	}
}

func (a *app) managerClient() (*client.Manager, target, error) {
	t, err := a.target()
	if err != nil {
		return nil, t, err
	}
	m, err := client.NewManager(t.manager, client.WithToken(t.token), client.WithUserAgent("shardctl/"+version))
	return m, t, err
}

// chosenKeyspace is the one named, the local cluster's, or the only one.
func (a *app) chosenKeyspace(ctx context.Context, m *client.Manager, t target) (string, error) {
	if k := first(a.keyspace, a.getenv("SHARDCTL_KEYSPACE"), t.keyspace); k != "" {
		return k, nil
	}
	keyspaces, err := m.Keyspaces(ctx)
	if err != nil {
		return "", err
	}
	if len(keyspaces) != 1 {
		return "", &usageError{
			err:  fmt.Errorf("there are %d keyspaces: say which", len(keyspaces)),
			hint: "add --keyspace NAME",
		}
	}
	return keyspaces[0].Name, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
