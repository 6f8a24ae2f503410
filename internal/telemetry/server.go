package telemetry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// NewRegistry gives a registry that has Go's and the process's own figures.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// ServerConfig says what a metrics server serves.
type ServerConfig struct {
	Addr     string // host:port; port 0 takes a free one
	Gatherer prometheus.Gatherer
	TLS      *tls.Config // nil: none
	// Live and Ready are asked at each probe; an error is 503 with its text.
	// nil is always well. Liveness says whether a restart would help, readiness
	// whether to send work. They must not wait.
	Live, Ready func() error
	Logger      *slog.Logger // nil discards
}

// Server serves /metrics, /livez and /readyz.
type Server struct {
	http     *http.Server
	listener net.Listener
	done     chan struct{}
}

const (
	readTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
	maxHeader    = 16 << 10
)

// Serve starts to serve; a port that is taken is an error at once.
func Serve(c ServerConfig) (*Server, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	if c.TLS != nil {
		l = tls.NewListener(l, c.TLS)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Gatherer, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelWarn)}))
	mux.HandleFunc("GET /livez", probe(c.Live))
	mux.HandleFunc("GET /readyz", probe(c.Ready))
	s := &Server{listener: l, done: make(chan struct{}), http: &http.Server{
		Handler: mux, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.Logger.Error("the metrics server ended", "error", err)
		}
	}()
	return s, nil
}

// Addr is the address listened on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close stops listening, lets requests in flight end until ctx does, and
// returns when nothing runs any more.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	if err != nil {
		return fmt.Errorf("stop serving metrics: %w", err)
	}
	return nil
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if check != nil {
			if err := check(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintln(w, err)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	}
}
