package etcdtest_test

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sharding-system/sharding/internal/etcdtest"
)

func TestClusterSurvivesItsLeader(t *testing.T) {
	members := etcdtest.Cluster(t, 3)
	c, err := clientv3.New(clientv3.Config{Endpoints: etcdtest.Endpoints(members), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	leader := etcdtest.Leader(t, members)
	leader.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := c.Get(ctx, "k")
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("after the leader's end: %v, %v", r, err)
	}
	leader.Restart()
}

func TestProxyCutAndHealed(t *testing.T) {
	s := etcdtest.Start(t)
	p := etcdtest.StartProxy(t, s.Endpoint())
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{p.Addr()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Get(short, "k"); err == nil {
		t.Fatal("a read passed a proxy that is cut")
	}
	p.Heal()
	long, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Get(long, "k"); err != nil {
		t.Fatal(err)
	}
}
