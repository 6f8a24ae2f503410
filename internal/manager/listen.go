package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// drainTime is how long open requests may take to end when the manager stops.
const drainTime = 10 * time.Second

// ListenOptions are server.* of the configuration.
type ListenOptions struct {
	Addr                                   string // host:port
	ReadTimeout, WriteTimeout, IdleTimeout time.Duration
	TLS                                    *tls.Config // nil: no TLS
	Logger                                 *slog.Logger
}

// Listener serves the API on one address.
type Listener struct {
	server *http.Server
	addr   net.Addr
	done   chan error
}

// Listen opens the address and serves h on it. Mistakes in the address and a
// port that is taken are reported at once.
func Listen(o ListenOptions, h http.Handler) (*Listener, error) {
	ln, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listening for the HTTP API: %w", err)
	}
	addr := ln.Addr()
	if o.TLS != nil {
		ln = tls.NewListener(ln, o.TLS)
	}
	l := &Listener{addr: addr, done: make(chan error, 1), server: &http.Server{
		Handler: h, ReadTimeout: o.ReadTimeout, ReadHeaderTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, IdleTimeout: o.IdleTimeout,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}}
	go func() {
		err := l.server.Serve(ln)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		l.done <- err
	}()
	return l, nil
}

// Addr is where it listens, with its port.
func (l *Listener) Addr() net.Addr { return l.addr }

// Failed gives the error by which serving ended, nil after Close.
func (l *Listener) Failed() <-chan error { return l.done }

// Close lets open requests end, for drainTime, and closes the address.
func (l *Listener) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := l.server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("closing the HTTP API: %w", err), l.server.Close())
	}
	return nil
}
