package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// Router is a client of a router's HTTP API, safe for concurrent use.
type Router struct{ c *caller }

// NewRouter makes a client of the router at address, http://host:port.
func NewRouter(address string, options ...Option) (*Router, error) {
	c, err := newCaller(address, options)
	if err != nil {
		return nil, err
	}
	return &Router{c: c}, nil
}

// Statement is one statement for Execute.
type Statement struct {
	Keyspace string `json:"keyspace,omitempty"`
	// ShardKey routes by hand; without it the router finds the shards.
	ShardKey    any               `json:"shard_key,omitempty"`
	Query       string            `json:"query"`
	Params      []any             `json:"params,omitempty"`
	Consistency string            `json:"consistency,omitempty"`
	Options     *StatementOptions `json:"options,omitempty"`
}

// StatementOptions bound a statement.
type StatementOptions struct {
	// TimeoutMS is in milliseconds; 0 leaves the router's own.
	TimeoutMS int `json:"timeout_ms,omitempty"`
	MaxRows   int `json:"max_rows,omitempty"`
	// Rows is "" for objects or "arrays".
	Rows string `json:"rows,omitempty"`
}

// Column describes one column of a result.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Result is a statement's answer. Rows are as the router wrote them: objects,
// or arrays where that was asked for.
type Result struct {
	ShardID   string            `json:"shard_id,omitempty"`
	ShardIDs  []string          `json:"shard_ids,omitempty"`
	Columns   []Column          `json:"columns"`
	Rows      []json.RawMessage `json:"rows"`
	RowCount  int64             `json:"row_count"`
	Command   string            `json:"command"`
	LatencyMS float64           `json:"latency_ms"`
}

// Place is where a key lives.
type Place struct {
	ShardID string `json:"shard_id"`
	Vnode   int    `json:"vnode"`
	Epoch   int64  `json:"epoch"`
}

// Execute runs one statement.
func (r *Router) Execute(ctx context.Context, s Statement) (Result, error) {
	var out Result
	err := r.c.do(ctx, request{method: http.MethodPost, path: "/v1/execute", body: s}, &out)
	return out, err
}

// ShardForKey asks where a key of a table lives.
func (r *Router) ShardForKey(ctx context.Context, keyspace, table, key string) (Place, error) {
	var p Place
	q := url.Values{"key": {key}, "table": {table}}
	if keyspace != "" {
		q.Set("keyspace", keyspace)
	}
	err := r.c.do(ctx, request{method: http.MethodGet, path: "/v1/shard-for-key", query: q}, &p)
	return p, err
}

// Health answers without a token.
func (r *Router) Health(ctx context.Context) (Health, error) {
	var h Health
	err := r.c.do(ctx, request{method: http.MethodGet, path: "/v1/health"}, &h)
	return h, err
}

// Ready reports nil once the router serves, an *Error of status 503 while it
// starts or drains.
func (r *Router) Ready(ctx context.Context) error {
	return r.c.do(ctx, request{method: http.MethodGet, path: "/v1/ready"}, nil)
}
