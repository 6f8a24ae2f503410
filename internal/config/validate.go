package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	sharding "github.com/sharding-system/sharding"
)

// minSecret is the shortest secret that signs tokens, in characters (bytes).
const minSecret = 32

// validate reports values that cannot be.
func (l *loader) validate(b *binder) {
	p := l.part
	l.validatePorts(b)
	b.validateMetadata(p.metadata, p.postgres != nil)
	b.validateSharding(p.sharding)
	b.validateSecurity(p.security)
	b.validateObservability(p.observability)
	if p.postgres != nil {
		b.atLeast("postgres.max_clients", p.postgres.MaxClients, 1)
	}
	if (p.credentials.Username == "") != (p.credentials.Password == "") {
		b.add("", "environment variables DB_USERNAME and DB_PASSWORD belong together: only one is set")
	}
}

func (l *loader) validatePorts(b *binder) {
	p := l.part
	type listener struct {
		path, host string
		port       int
	}
	all := []listener{{"server.port", p.server.Host, p.server.Port}, {"observability.metrics_port", p.server.Host, p.observability.MetricsPort}}
	b.host("server.host", p.server.Host)
	if p.postgres != nil {
		b.host("postgres.host", p.postgres.Host)
		all = append(all, listener{"postgres.port", p.postgres.Host, p.postgres.Port})
	}
	for i, a := range all {
		if a.port < 1 || a.port > 65535 {
			if !b.has(a.path) {
				b.add(a.path, "must be from 1 to 65535, not %d", a.port)
			}
			continue
		}
		for _, o := range all[:i] {
			if o.port == a.port && (o.host == a.host || anyHost(o.host) || anyHost(a.host)) {
				b.add(a.path, "is %d, and so is %s", a.port, o.path)
			}
		}
	}
}

func anyHost(h string) bool { return h == "" || h == "0.0.0.0" || h == "::" }

func (b *binder) host(path, h string) {
	if strings.ContainsAny(h, " /\x00") || len(h) > 253 {
		b.add(path, "must be a host name or an address, not %s", b.show(path, h))
	}
}

func (b *binder) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) && !b.has(path) {
		b.add(path, "must be %s, not %s", alternatives(allowed), b.show(path, value))
	}
}

// alternatives writes "a, b or c".
func alternatives(list []string) string {
	last := len(list) - 1
	if last == 0 {
		return list[0]
	}
	return strings.Join(list[:last], ", ") + " or " + list[last]
}

func (b *binder) atLeast(path string, value, least int) {
	if value < least && !b.has(path) {
		b.add(path, "must be %d or more, not %d", least, value)
	}
}

func (b *binder) present(path, value string) {
	if value == "" && !b.has(path) {
		b.add(path, "must not be empty with security.enable_tls")
	}
}

func (b *binder) positive(path string, d Duration) {
	if d <= 0 && !b.has(path) {
		b.add(path, "must be above zero")
	}
}

func (b *binder) validateMetadata(m *Metadata, router bool) {
	b.positive("metadata.timeout", m.Timeout)
	if router && m.Type == MetadataEmbedded {
		b.add("metadata.type", "must be etcd in a router: two processes with an embedded etcd each would be two catalogs")
	} else {
		b.oneOf("metadata.type", m.Type, MetadataEtcd, MetadataEmbedded)
	}
	switch {
	case m.Type == MetadataEmbedded && m.DataDir == "" && !b.has("metadata.data_dir"):
		b.add("metadata.data_dir", "is needed for an embedded etcd")
	case m.Type == MetadataEtcd && m.DataDir != "":
		b.add("metadata.data_dir", "is for an embedded etcd only")
	case m.Type == MetadataEtcd && len(m.Endpoints) == 0 && !b.has("metadata.endpoints"):
		b.add("metadata.endpoints", "names no etcd; set it, or the environment variable ETCD_ENDPOINTS")
	}
	schemes := map[string]bool{}
	for i, e := range m.Endpoints {
		path := "metadata.endpoints[" + strconv.Itoa(i) + "]"
		if b.has(path) {
			continue
		}
		scheme, err := checkEndpoint(e)
		if err != nil {
			b.add(path, "%v", err)
		}
		schemes[scheme] = true
	}
	if schemes["https"] && (schemes["http"] || schemes[""]) {
		b.add("metadata.endpoints", "must be reached all with TLS (https://) or all without")
	}
	if !strings.HasPrefix(m.Prefix, "/") || len(m.Prefix) < 2 || strings.HasSuffix(m.Prefix, "/") {
		b.add("metadata.prefix", "must start with '/' and not end with it, as /sharding does")
	}
	b.together("metadata.username", m.Username != "", "metadata.password", m.Password != "")
	b.together("metadata.tls.cert_path", m.TLS.CertPath != "", "metadata.tls.key_path", m.TLS.KeyPath != "")
	if schemes["http"] && m.TLS != (MetadataTLS{}) {
		b.add("metadata.tls", "is given, but an endpoint starts with http://")
	}
}

func (b *binder) together(path1 string, given1 bool, path2 string, given2 bool) {
	if given1 != given2 && !b.has(path1) && !b.has(path2) {
		b.add(path1, "and %s belong together: only one is set", path2)
	}
}

// checkEndpoint wants host:port, or that after http:// or https://. It never
// repeats an endpoint that may hold a password.
func checkEndpoint(e string) (scheme string, err error) {
	hostport := e
	if s, _, ok := strings.Cut(e, "://"); ok {
		u, err := url.Parse(e)
		if err != nil || u.User != nil || u.Path != "" || u.RawQuery != "" || s != "http" && s != "https" {
			return s, fmt.Errorf("must be host:port, http://host:port or https://host:port")
		}
		scheme, hostport = s, u.Host
	}
	host, port, err := net.SplitHostPort(hostport)
	n, errPort := strconv.Atoi(port)
	if err != nil || host == "" || errPort != nil || n < 1 || n > 65535 || strings.ContainsAny(host, "@/ ") {
		return scheme, fmt.Errorf("must be host:port, http://host:port or https://host:port")
	}
	return scheme, nil
}

func (b *binder) validateSharding(s *Sharding) {
	b.oneOf("sharding.strategy", s.Strategy, "hash")
	if !sharding.ValidVnodeCount(s.VnodeCount) && !b.has("sharding.vnode_count") {
		b.add("sharding.vnode_count", "must be a power of two from 16 to 65536, not %d", s.VnodeCount)
	}
	b.oneOf("sharding.pool_mode", s.PoolMode, PoolTransaction, PoolSession)
	b.oneOf("sharding.replica_policy", s.ReplicaPolicy, ReplicaPrimary, ReplicaOK, ReplicaPrefer)
	b.oneOf("sharding.two_phase_commit", s.TwoPhaseCommit, "required", "off")
	b.atLeast("sharding.max_connections", s.MaxConnections, 1)
	b.atLeast("sharding.min_connections", s.MinConnections, 0)
	if s.MinConnections > s.MaxConnections {
		b.add("sharding.min_connections", "is %d, above sharding.max_connections with %d", s.MinConnections, s.MaxConnections)
	}
	b.positive("sharding.connection_ttl", s.ConnectionTTL)
	b.positive("sharding.acquire_timeout", s.AcquireTimeout)
	b.atLeast("sharding.max_gather_bytes", s.MaxGatherBytes, 1<<20)
}

func (b *binder) validateSecurity(s *Security) {
	if s.EnableTLS {
		b.present("security.tls_cert_path", s.TLSCertPath)
		b.present("security.tls_key_path", s.TLSKeyPath)
	} else if s.TLSClientCAPath != "" {
		b.add("security.tls_client_ca_path", "needs security.enable_tls")
	}
	const secret = "security.jwt_secret"
	switch n := len(s.JWTSecret); {
	case b.has(secret):
	case n == 0 && s.EnableRBAC:
		b.add(secret, "is missing, and security.enable_rbac is on; set it, or the environment variable JWT_SECRET")
	case n > 0 && n < minSecret:
		b.add(secret, "must have %d characters or more; it has %d", minSecret, n)
	}
	for i, old := range s.JWTPreviousSecrets {
		if path := fmt.Sprintf("security.jwt_previous_secrets[%d]", i); len(old) < minSecret && !b.has(path) {
			b.add(path, "must have %d characters or more; it has %d", minSecret, len(old))
		}
	}
	b.positive("security.token_ttl", s.TokenTTL)
	if s.RateLimit.RequestsPerSecond < 0 {
		b.add("security.rate_limit.requests_per_second", "must not be negative")
	}
	b.atLeast("security.rate_limit.burst", s.RateLimit.Burst, 0)
}

func (b *binder) validateObservability(o *Observability) {
	b.oneOf("observability.log_level", o.LogLevel, "debug", "info", "warn", "error")
	b.oneOf("observability.log_format", o.LogFormat, "json", "text")
	if o.TracingSampleRatio < 0 || o.TracingSampleRatio > 1 {
		b.add("observability.tracing_sample_ratio", "must be from 0 to 1, not %v", o.TracingSampleRatio)
	}
}
