package config

import (
	"reflect"
	"strings"
)

// notYet are the keys of which this release honours the default alone. When a
// feature arrives, its key leaves this list.
// Keys with routerOnly are honoured by the manager.
var notYet = []struct {
	path, instead string
	routerOnly    bool
}{
	{"sharding.max_gather_bytes", "rows are not gathered yet", false},
	{"security.jwks_path", "tokens are signed with security.jwt_secret", false},
	{"security.rate_limit.requests_per_second", "limit requests in front of the API", true},
	{"security.rate_limit.burst", "limit requests in front of the API", true},
	{"observability.tracing_endpoint", "nothing is exported", false},
	{"observability.tracing_sample_ratio", "nothing is exported", false},
	{"observability.slow_query_threshold", "use log_min_duration_statement of PostgreSQL", false},
}

// unsupported reports what the file asks for and this release cannot do: as
// problems, or as warnings what the deployment guide's own files ask for.
func (l *loader) unsupported(b *binder, loaded reflect.Value) (warnings []string) {
	router := l.part.postgres != nil
	for _, k := range notYet {
		if k.routerOnly && !router {
			continue
		}
		if b.given[k.path] && !b.has(k.path) && !lookup(loaded, k.path).Equal(lookup(l.defaults, k.path)) {
			b.add(k.path, "is not supported yet: %s; leave the key out", k.instead)
		}
	}
	p := l.part
	if p.observability.EnableTracing {
		warnings = append(warnings, "observability.enable_tracing: tracing is on without an endpoint, so nothing is exported")
	}
	if p.security.AuditLogPath != "" && router {
		b.add("security.audit_log_path", "is the manager's; the router writes no audit log")
	}
	return warnings
}

// lookup gives the field at a path of notYet.
func lookup(v reflect.Value, path string) reflect.Value {
	for key := range strings.SplitSeq(path, ".") {
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") == key {
				v = v.Field(i)
				break
			}
		}
	}
	return v
}
