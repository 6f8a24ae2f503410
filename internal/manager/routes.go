package manager

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/sharding-system/sharding/client"
)

// doubtAfter is the age from which an unfinished transaction is worth showing.
const doubtAfter = 5 * time.Second

// route is one path of the API; the OpenAPI document is made of the same list.
type route struct {
	method, pattern, summary string
	access                   access
	// login routes have a tighter bound on requests.
	login bool
	// request and reply are values of the types that travel; nil for none.
	request, reply any
	// status is the success's.
	status int
	// list routes are paginated.
	list   bool
	handle func(context.Context, *call) (answer, error)
}

func (s *Server) routes() []route {
	get := func(path, summary string, a access, reply any, h func(context.Context, *call) (answer, error)) route {
		return route{method: http.MethodGet, pattern: path, summary: summary, access: a, reply: reply, status: http.StatusOK, handle: h}
	}
	list := func(path, summary string, a access, reply any, h func(context.Context, *call) (answer, error)) route {
		r := get(path, summary, a, reply, h)
		r.list = true
		return r
	}
	change := func(method, path, summary string, a access, request, reply any, status int, h func(context.Context, *call) (answer, error)) route {
		return route{method: method, pattern: path, summary: summary, access: a, request: request, reply: reply, status: status, handle: h}
	}
	const p = apiPrefix
	keyspace, shard, user := p+"/keyspaces/{keyspace}", p+"/shards/{shard}", p+"/users/{user}"
	login := change(http.MethodPost, p+"/auth/login", "Exchange a password for a token", open, loginRequest{}, client.Token{}, http.StatusOK, s.loginUser)
	login.login = true
	return []route{
		get("/{$}", "Name, version and links", open, nil, s.root),
		get("/openapi.json", "This document", open, nil, s.openAPI),
		get(p+"/health", "How this manager is", open, client.Health{}, s.health),
		login,

		list(p+"/keyspaces", "All keyspaces", looks, client.Page[client.Keyspace]{}, s.listKeyspaces),
		change(http.MethodPost, p+"/keyspaces", "Make a keyspace and its databases", operates, client.NewKeyspace{}, client.Keyspace{}, http.StatusCreated, s.createKeyspace),
		get(keyspace, "One keyspace", looks, client.Keyspace{}, s.getKeyspace),
		change(http.MethodDelete, keyspace, "Drop a keyspace and the databases made for it", operates, nil, nil, http.StatusNoContent, s.dropKeyspace),
		get(keyspace+"/vnodes", "The shard map", looks, client.Vnodes{}, s.getVnodes),
		list(keyspace+"/tables", "All declared tables", looks, client.Page[client.Table]{}, s.listTables),
		change(http.MethodPost, keyspace+"/tables", "Declare a table", operates, client.NewTable{}, client.Table{}, http.StatusCreated, s.addTable),
		change(http.MethodDelete, keyspace+"/tables/{table}", "Forget the declaration of an empty or missing table", operates, nil, nil, http.StatusNoContent, s.removeTable),
		list(keyspace+"/pins", "The keys that are pinned to a shard", looks, client.Page[client.Pin]{}, s.listPins),
		change(http.MethodPost, keyspace+"/pins", "Pin a key that has no rows elsewhere to a shard", operates, client.NewPin{}, client.Pin{}, http.StatusCreated, s.setPin),
		change(http.MethodDelete, keyspace+"/pins", "Take a key's pin away (?table=&key=): it must have no rows where its vnode is not", operates, nil, nil, http.StatusNoContent, s.removePin),

		list(p+"/shards", "All shards (?keyspace= for one keyspace's)", looks, client.Page[client.Shard]{}, s.listShards),
		change(http.MethodPost, p+"/shards", "Bring the schema to an empty server and register it", operates, client.NewShard{}, client.Shard{}, http.StatusCreated, s.addShard),
		get(shard, "One shard", looks, client.Shard{}, s.getShard),
		change(http.MethodPatch, shard, "Change a shard", operates, client.ShardChange{}, client.Shard{}, http.StatusOK, s.changeShard),
		change(http.MethodDelete, shard, "Unregister a shard that owns no vnodes", operates, nil, nil, http.StatusNoContent, s.removeShard),
		get(shard+"/health", "What the prober sees of a shard", looks, client.ShardHealth{}, s.shardHealth),

		list(p+"/users", "All users", administers, client.Page[client.User]{}, s.listUsers),
		change(http.MethodPost, p+"/users", "Make a user on every shard", administers, client.NewUser{}, client.User{}, http.StatusCreated, s.addUser),
		get(user, "One user", administers, client.User{}, s.getUser),
		change(http.MethodPatch, user, "Set a password", administers, passwordChange{}, client.User{}, http.StatusOK, s.changeUser),
		change(http.MethodDelete, user, "Drop a user on every shard", administers, nil, nil, http.StatusNoContent, s.removeUser),

		list(p+"/routers", "The routers registered now", looks, client.Page[client.RouterInfo]{}, s.listRouters),
		list(p+"/transactions", "Two-phase transactions in doubt", looks, client.Page[client.Transaction]{}, s.listTransactions),
	}
}

func (s *Server) root(context.Context, *call) (answer, error) {
	return ok(map[string]any{
		"name": "sharding-manager", "version": s.release,
		"links": map[string]string{"openapi": "/openapi.json", "health": apiPrefix + "/health", "keyspaces": apiPrefix + "/keyspaces", "shards": apiPrefix + "/shards"},
	})
}

// health is 200 while the manager can show the cluster; what is wrong with the
// cluster is in the body, since a restart of the manager would mend none of it.
func (s *Server) health(context.Context, *call) (answer, error) {
	snap := s.snapshot()
	term := s.term.Load()
	leads := term != 0
	h := client.Health{Status: "ok", Version: s.release, Leader: &leads, Term: term, Revision: snap.Revision}
	if since, stale := s.view.Stale(); stale {
		what := "the catalog (etcd) has not answered yet"
		if !since.IsZero() {
			what = "the catalog (etcd) has not answered since " + since.UTC().Format("2006-01-02T15:04:05Z")
		}
		h.Degraded = append(h.Degraded, what)
	}
	for _, sh := range snap.Shards {
		if s.prober.primary(sh).status == healthDown {
			h.Degraded = append(h.Degraded, "shard "+string(sh.ID)+" is down")
		}
		for _, sv := range serversOf(*sh)[1:] {
			if s.prober.of(sv).status == healthDown {
				h.Degraded = append(h.Degraded, "replica "+sv.endpoint+" of shard "+string(sh.ID)+" is down")
			}
		}
	}
	if len(h.Degraded) > 0 {
		h.Status = "degraded"
	}
	return ok(h)
}

func (s *Server) listRouters(_ context.Context, c *call) (answer, error) {
	var items []client.RouterInfo
	for _, r := range s.snapshot().Routers {
		items = append(items, client.RouterInfo{ID: r.ID, Boot: r.Boot, HTTP: r.Addresses["http"], Postgres: r.Addresses["postgres"], Version: r.Release})
	}
	p, err := page(c, items, func(r client.RouterInfo) string { return r.ID })
	if err != nil {
		return answer{}, err
	}
	return ok(p)
}

func (s *Server) listTransactions(_ context.Context, c *call) (answer, error) {
	var items []client.Transaction
	for _, x := range s.inDoubt() {
		// A younger one is most likely just being committed.
		if c.who.sees(x.Keyspace) && (x.State == "lost" || time.Since(x.Since) > doubtAfter) {
			items = append(items, x)
		}
	}
	p, err := page(c, items, func(x client.Transaction) string { return x.GID })
	if err != nil {
		return answer{}, err
	}
	return ok(p)
}

// pathParameters are the names in braces.
func (r route) pathParameters() []string {
	var names []string
	for _, part := range strings.Split(r.pattern, "/") {
		if name, found := strings.CutPrefix(part, "{"); found && name != "$}" {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}
