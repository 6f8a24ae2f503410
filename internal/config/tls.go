package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"sync/atomic"
)

// ServerTLS is the TLS of the listeners. Its files can be read again while it
// serves; a connection keeps what it started with.
type ServerTLS struct {
	security Security
	current  atomic.Pointer[tls.Config]
}

// ServerTLS reads the certificate, its key and the clients' CA; nil without
// enable_tls. An *Error names every key whose file is missing or wrong.
func (s Security) ServerTLS() (*ServerTLS, error) {
	if !s.EnableTLS {
		return nil, nil
	}
	t := &ServerTLS{security: s}
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload reads the files again. After an error the earlier ones stay in use.
func (t *ServerTLS) Reload() error {
	var p problems
	s := t.security
	cert := p.read("security.tls_cert_path", s.TLSCertPath)
	key := p.read("security.tls_key_path", s.TLSKeyPath)
	next := &tls.Config{MinVersion: tls.VersionTLS12}
	if cert != nil && key != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			p.add("security.tls_cert_path", "does not fit security.tls_key_path: %v", err)
		}
		next.Certificates = []tls.Certificate{pair}
	}
	if s.TLSClientCAPath != "" {
		next.ClientCAs = p.pool("security.tls_client_ca_path", s.TLSClientCAPath)
		next.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if len(p.list) > 0 {
		return &Error{File: "TLS files", Problems: p.list}
	}
	t.current.Store(next)
	return nil
}

// Config gives a configuration for a listener, which takes the newest files for
// each connection. protocols are those of ALPN: "h2" and "http/1.1", or
// "postgresql" (which libpq asks for since 17); a client that asks for none of
// them is refused, one that does not ask is served.
func (t *ServerTLS) Config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := t.current.Load().Clone()
			c.NextProtos = protocols
			return c, nil
		},
		// For those who look whether there is a certificate.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &t.current.Load().Certificates[0], nil
		},
	}
}

// Files are the files that Reload reads.
func (t *ServerTLS) Files() []string {
	files := []string{t.security.TLSCertPath, t.security.TLSKeyPath}
	if t.security.TLSClientCAPath != "" {
		files = append(files, t.security.TLSClientCAPath)
	}
	return files
}

// ClientTLS reads the files for TLS towards etcd; nil where it is not used.
func (m Metadata) ClientTLS() (*tls.Config, error) {
	https := false
	for _, e := range m.Endpoints {
		https = https || strings.HasPrefix(e, "https://")
	}
	if !https && m.TLS == (MetadataTLS{}) {
		return nil, nil
	}
	var p problems
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: m.TLS.ServerName}
	if m.TLS.CAPath != "" {
		c.RootCAs = p.pool("metadata.tls.ca_path", m.TLS.CAPath)
	}
	if m.TLS.CertPath != "" {
		cert, key := p.read("metadata.tls.cert_path", m.TLS.CertPath), p.read("metadata.tls.key_path", m.TLS.KeyPath)
		if cert != nil && key != nil {
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				p.add("metadata.tls.cert_path", "does not fit metadata.tls.key_path: %v", err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
	}
	if len(p.list) > 0 {
		return nil, &Error{File: "TLS files", Problems: p.list}
	}
	return c, nil
}

func (p *problems) read(key, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		var at *os.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		p.add(key, "%s: %v", path, err)
		return nil
	}
	return b
}

func (p *problems) pool(key, path string) *x509.CertPool {
	b := p.read(key, path)
	if b == nil {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		p.add(key, "%s: holds no certificate in PEM form", path)
	}
	return pool
}

// checkFiles is used by --check-config: it opens nothing but the files.
func checkFiles(s Security, m Metadata) error {
	var all []Problem
	_, err1 := s.ServerTLS()
	_, err2 := m.ClientTLS()
	for _, err := range []error{err1, err2} {
		var e *Error
		if errors.As(err, &e) {
			all = append(all, e.Problems...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &Error{File: "files that the configuration names", Problems: all}
}

// CheckFiles reports all that is wrong with the TLS files that the
// configuration names, each with its key.
func (r *Router) CheckFiles() error { return checkFiles(r.Security, r.Metadata) }

// CheckFiles reports all that is wrong with the TLS files that the
// configuration names, each with its key.
func (m *Manager) CheckFiles() error { return checkFiles(m.Security, m.Metadata) }
