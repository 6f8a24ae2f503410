package devcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sharding-system/sharding/internal/catalog/embedded"
)

func managerAddresses(api, metrics int) map[string]string {
	return map[string]string{"http": address(api), "metrics": address(metrics)}
}

func routerAddresses(postgres, api, metrics int) map[string]string {
	return map[string]string{"postgres": address(postgres), "http": address(api), "metrics": address(metrics)}
}

// RunEtcd is the process that ExternalEtcd starts: an etcd server on a data
// directory and a port, until ctx ends. Its arguments are those two.
func RunEtcd(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: DIR PORT")
	}
	port, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("port: %w", err)
	}
	s, err := embedded.Start(ctx, embedded.Config{Dir: args[0], ClientPort: port, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	defer s.Close()
	select {
	case <-ctx.Done():
		return nil
	case <-s.Done():
		return errors.New("etcd ended")
	}
}

// freePorts finds ports that nobody listens on. They lie below those that systems give to outgoing connections, one of
// which would otherwise take such a port before the process that is to listen there has started.
func freePorts(n int) ([]int, error) {
	const first, last = 10240, 32767
	var out []int
	for range 100 * n {
		port := first + rand.IntN(last-first+1)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		if !slices.Contains(out, port) {
			out = append(out, port)
		}
		if len(out) == n {
			return out, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, first, last)
}

// startChild starts a part that Stop ends.
func (c *Cluster) startChild(ctx context.Context, ch *child) error {
	if err := c.children.start(ctx, ch); err != nil {
		return err
	}
	c.undo = append(c.undo, func() error { return c.children.stop(ch) })
	return nil
}

func (c *Cluster) startEtcdProcess(ctx context.Context) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	c.endpoint = address(ports[0])
	dir := c.dir.file("etcd")
	return c.startChild(ctx, &child{
		info: ProcessInfo{Name: "etcd", Kind: kindEtcd, DataDir: dir, Addresses: map[string]string{"client": c.endpoint}},
		argv: append(append([]string{}, c.opts.EtcdCommand...), dir, strconv.Itoa(ports[0])), mark: dir,
		health: "http://" + c.endpoint + "/health",
	})
}

func (c *Cluster) startManagerProcesses(ctx context.Context) error {
	binary, err := c.opts.binary("sharding-manager")
	if err != nil {
		return err
	}
	more, err := freePorts(2 * c.opts.ManagerProcesses)
	if err != nil {
		return err
	}
	for i := range c.opts.ManagerProcesses {
		api, metrics := more[2*i], more[2*i+1]
		if i == 0 {
			api, metrics = c.opts.ManagerPort, c.opts.ManagerMetricsPort
		}
		err := c.startService(ctx, fmt.Sprintf("manager-%d", i+1), kindManager, []string{binary}, api, metrics, managerAddresses(api, metrics), map[string]any{})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startRouterProcesses(ctx context.Context) error {
	binary, err := c.opts.binary("sharding-router")
	if err != nil {
		return err
	}
	argv := []string{binary}
	if c.opts.InsecureTrust {
		argv = append(argv, "--insecure-trust")
	}
	more, err := freePorts(3 * c.opts.RouterProcesses)
	if err != nil {
		return err
	}
	for i := range c.opts.RouterProcesses {
		postgres, api, metrics := more[3*i], more[3*i+1], more[3*i+2]
		if i == 0 {
			postgres, api, metrics = c.opts.PostgresPort, c.opts.RouterPort, c.opts.RouterMetricsPort
		}
		err := c.startService(ctx, fmt.Sprintf("router-%d", i+1), kindRouter, argv, api, metrics, routerAddresses(postgres, api, metrics),
			map[string]any{"postgres": map[string]any{"host": loopback, "port": postgres}, "max_connections": 200})
		if err != nil {
			return err
		}
	}
	return nil
}

// startService writes a manager's or a router's configuration and starts it.
// Secrets reach it by its environment, which only its own user can read.
func (c *Cluster) startService(ctx context.Context, name, kind string, argv []string, api, metrics int, addresses map[string]string, more map[string]any) error {
	sharding := map[string]any{"hash_function": c.opts.Hash.String(), "vnode_count": c.opts.VnodeCount}
	if n, given := more["max_connections"]; given {
		sharding["max_connections"] = n
		delete(more, "max_connections")
	}
	cfg := map[string]any{
		"server":        map[string]any{"host": loopback, "port": api},
		"metadata":      map[string]any{"type": "etcd", "endpoints": []string{c.endpoint}},
		"sharding":      sharding,
		"security":      map[string]any{"enable_rbac": true, "jwt_secret": "${JWT_SECRET}"},
		"observability": map[string]any{"metrics_port": metrics, "log_level": c.opts.LogLevel, "log_format": "text"},
	}
	for key, v := range more {
		cfg[key] = v
	}
	file := name + ".json"
	if err := c.dir.writeJSON(file, cfg); err != nil {
		return err
	}
	env := []string{"JWT_SECRET=" + c.dir.secrets.JWT, "DB_USERNAME=" + superuser, "DB_PASSWORD=" + c.dir.secrets.Superuser,
		"ETCD_ENDPOINTS=" + c.endpoint, "LOG_LEVEL=" + c.opts.LogLevel, "CONFIG_PATH="}
	if c.opts.PGBin != "" { // whose pg_dump copies the schema
		env = append(env, "PATH="+strings.Join([]string{c.opts.PGBin, os.Getenv("PATH")}, string(os.PathListSeparator)))
	}
	return c.startChild(ctx, &child{
		info: ProcessInfo{Name: name, Kind: kind, Addresses: addresses},
		argv: append(append([]string{}, argv...), "--config", c.dir.file(file)), mark: c.dir.file(file), env: env,
		health: "http://" + addresses["metrics"] + "/readyz",
	})
}
