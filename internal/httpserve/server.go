// Package httpserve serves HTTP the way both programs do: bounded in time and size, and drained at the end.
package httpserve

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

// drainTimeout bounds the wait for requests under way at the end.
const drainTimeout = 10 * time.Second

// New returns a server with bounds. tlsConfig is nil for plain HTTP. HTTP/1.1 is all that the API server, Prometheus and
// the kubelet speak to it, and leaves HTTP/2's ways to exhaust a server out: there are no streams to be limited.
func New(handler http.Handler, tlsConfig *tls.Config, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           handler,
		TLSConfig:         tlsConfig,
		Protocols:         &protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes of port scans and probes
	}
}

// Serve serves until ctx is done, then lets the requests under way end.
func Serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() {
		if server.TLSConfig != nil {
			failed <- server.ServeTLS(listener, "", "")
		} else {
			failed <- server.Serve(listener)
		}
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serving %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return fmt.Errorf("draining %s: %w", listener.Addr(), errors.Join(err, server.Close()))
	}
	return nil
}

// Linger returns a context that is done d later than ctx: new requests may still arrive until every client knows that
// we are leaving. Its values are ctx's.
func Linger(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return later, func() {
		stop()
		cancel()
	}
}
