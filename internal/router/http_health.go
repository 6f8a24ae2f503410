package router

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sharding-system/sharding/internal/catalog"
)

// openAPIDocument describes every route.
//
//go:embed openapi.json
var openAPIDocument []byte

// healthReport is the body of /v1/health.
type healthReport struct {
	Status   string   `json:"status"` // "ok", "degraded" or "unavailable"
	Version  string   `json:"version,omitempty"`
	Revision int64    `json:"revision"` // of the catalog
	Degraded []string `json:"degraded,omitempty"`
}

// health answers 200 while the router can serve from what it knows, also with the
// catalog or a shard away: it is used as a probe of liveness, and a restart would
// mend neither.
func (h *httpServer) health(c *call) error {
	snap := h.r.view.Snapshot()
	out := healthReport{Status: "ok", Version: h.r.opts.Version, Revision: snap.Revision}
	if since, stale := h.r.view.Stale(); stale {
		what := "the catalog (etcd) has not answered yet"
		if !since.IsZero() {
			what = "the catalog (etcd) has not answered since " + since.UTC().Format(time.RFC3339)
		}
		out.Degraded = append(out.Degraded, what)
	}
	for key := range snap.Problems {
		out.Degraded = append(out.Degraded, "an entry of the catalog cannot be read: "+key)
	}
	for id, sh := range snap.Shards {
		if sh.Status != catalog.ShardActive {
			out.Degraded = append(out.Degraded, fmt.Sprintf("shard %s is %s", id, sh.Status))
		}
	}
	slices.Sort(out.Degraded)
	status := http.StatusOK
	switch {
	case snap.Revision == 0:
		out.Status, status = "unavailable", http.StatusServiceUnavailable
	case len(out.Degraded) > 0:
		out.Status = "degraded"
	}
	return c.sendJSON(status, out)
}

// ready answers 503 while the router starts and drains.
func (h *httpServer) ready(c *call) error {
	if err := h.r.Ready(); err != nil {
		e := failed(http.StatusServiceUnavailable, codeUnavailable, "not ready: %v", err)
		e.retryAfter = retrySeconds
		return e
	}
	return c.sendJSON(http.StatusOK, map[string]string{"status": "ready"})
}

func (h *httpServer) root(c *call) error {
	return c.sendJSON(http.StatusOK, map[string]any{
		"name": "sharding-router", "version": h.r.opts.Version,
		"links": map[string]string{
			"openapi": "/openapi.json", "health": "/v1/health", "ready": "/v1/ready",
			"execute": "/v1/execute", "transaction": "/v1/transaction", "shard_for_key": "/v1/shard-for-key",
		},
	})
}

func (h *httpServer) openAPI(c *call) error {
	c.send(http.StatusOK, openAPIDocument)
	return nil
}

func (c *call) sendJSON(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write an answer: %w", err)
	}
	c.send(status, append(b, '\n'))
	return nil
}
