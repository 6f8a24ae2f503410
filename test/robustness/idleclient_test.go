package robustness

import (
	"fmt"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// TestIdleClientTimeout: postgres.idle_client_timeout ends a client that says nothing
// outside of a transaction, whether or not it keeps a backend; one in a transaction, or
// at work, is left alone.
func TestIdleClientTimeout(t *testing.T) {
	const limit = 300 * time.Millisecond
	for _, servers := range []int{1, 2} {
		c := clustertest.Start(t, clustertest.Options{Servers: servers, Router: func(o *router.Options) { o.IdleClientTimeout = limit }})
		for name, sql := range map[string]string{
			"nothing": "SELECT 1", "a temporary table": "CREATE TEMP TABLE tt (a int)", "listening": "LISTEN news", "a setting": "SET work_mem = '8MB'",
		} {
			r := loginRaw(t, c.DSN("app"))
			r.send(asked(sql))
			if e := r.until(); e.code != "" || e.closed {
				t.Fatal(e)
			}
			begun := time.Now()
			e := r.until()
			if e.code != "57P05" || !e.closed || e.message != "terminating connection due to idle-session timeout" || time.Since(begun) < limit/2 {
				t.Errorf("%d shards, %s: %+v after %v", servers, name, e, time.Since(begun))
			}
		}
		r := loginRaw(t, c.DSN("app"))
		for _, sql := range []string{"BEGIN", "SELECT pg_sleep(1)", "COMMIT"} {
			r.send(asked(sql))
			if e := r.until(); e.code != "" || e.closed {
				t.Errorf("%d shards, %s: %+v", servers, sql, e)
			}
		}
		clustertest.Eventually(t, "nothing is left on the shards", func() error {
			for _, s := range c.Servers {
				if n := len(s.Query(t, "app", clientBackends+" AND state <> 'idle'")); n > 0 {
					return fmt.Errorf("%d backends", n)
				}
			}
			return nil
		})
	}
}
