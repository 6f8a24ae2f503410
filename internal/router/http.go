package router

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
)

// httpServer is the router's HTTP API: the same executor as the PostgreSQL
// listener's, reached through sessions without a socket. openapi.json is its
// contract.
type httpServer struct {
	addr     net.Addr
	r        *Router
	log      *slog.Logger
	srv      *http.Server
	tokens   *auth.Verifications
	sessions *virtualPool
	memory   budget                          // of all requests
	routes   map[string]map[string]httpRoute // by path, then method

	ctx    context.Context // of all requests; ends when shutdown cuts them off
	cancel context.CancelFunc
	served chan struct{} // closed when Serve has returned

	mu      sync.Mutex // guards what follows
	closed  bool
	running sync.WaitGroup // requests; Add only under mu while not closed
}

// maxHeader bounds a request's headers, in bytes.
const maxHeader = 64 << 10

// newHTTPServer listens on the router's HTTPAddr and serves.
func newHTTPServer(r *Router) (*httpServer, error) {
	h := &httpServer{r: r, log: r.log, served: make(chan struct{})}
	signer, err := auth.NewSigner(r.opts.JWTSecret, r.opts.JWTPrevious...)
	if err != nil {
		return nil, fmt.Errorf("start the HTTP API (security.jwt_secret): %w", err)
	}
	h.tokens = auth.Remember(signer)
	if h.sessions, err = newVirtualPool(r); err != nil {
		return nil, fmt.Errorf("start the HTTP API: %w", err)
	}
	h.routes = h.routeTable()
	lis, err := new(net.ListenConfig).Listen(r.ctx, "tcp", r.opts.HTTPAddr)
	if err != nil {
		h.sessions.close()
		return nil, fmt.Errorf("listen for HTTP clients on %s: %w", r.opts.HTTPAddr, err)
	}
	h.addr = lis.Addr()
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.srv = &http.Server{
		Handler:     h,
		ReadTimeout: r.opts.ReadTimeout, ReadHeaderTimeout: r.opts.ReadTimeout,
		WriteTimeout: r.opts.WriteTimeout, IdleTimeout: r.opts.IdleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return h.ctx },
	}
	go h.serve(lis)
	return h, nil
}

func (h *httpServer) serve(lis net.Listener) {
	defer close(h.served)
	var err error
	if h.r.opts.TLS != nil {
		h.srv.TLSConfig = webTLS(h.r.opts.TLS)
		err = h.srv.ServeTLS(lis, "", "")
	} else {
		err = h.srv.Serve(lis)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		h.log.Error("the HTTP API has ended", "err", err)
	}
}

// webTLS is the listeners' TLS with HTTP's protocols in place of PostgreSQL's.
func webTLS(c *tls.Config) *tls.Config {
	protocols := []string{"h2", "http/1.1"}
	w := c.Clone()
	w.NextProtos = protocols
	if choose := c.GetConfigForClient; choose != nil {
		w.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := choose(hello)
			if own == nil || err != nil {
				return own, err
			}
			own = own.Clone()
			own.NextProtos = protocols
			return own, nil
		}
	}
	return w
}

// shutdown stops listening, lets requests finish until ctx ends, cuts off the
// others, and returns when all that newHTTPServer started has ended.
func (h *httpServer) shutdown(ctx context.Context) error {
	err := h.srv.Shutdown(ctx)
	if err != nil {
		h.cancel()
		_ = h.srv.Close()
		h.sessions.cut()
		err = fmt.Errorf("finish HTTP requests: %w", err)
	}
	<-h.served
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.running.Wait()
	h.cancel()
	h.sessions.close()
	return err
}

// enter counts a request in; false once the server has ended.
func (h *httpServer) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.running.Add(1)
	return true
}

// writeDeadline moves the end of the time in which an answer must be written.
// What is no network connection has none.
func (h *httpServer) writeDeadline(w http.ResponseWriter, t time.Time) {
	if h.r.opts.WriteTimeout > 0 {
		_ = http.NewResponseController(w).SetWriteDeadline(t)
	}
}
