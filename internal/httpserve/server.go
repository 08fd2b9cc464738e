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

const (
	// drainTimeout bounds the wait for requests under way at the end.
	drainTimeout = 10 * time.Second
	// bodyTimeout bounds how long a request's body may take once its header is read.
	bodyTimeout = 15 * time.Second
	// writeTimeout bounds a handshake, and from the header on all that follows, the body too. A CPU profile takes 30 s.
	writeTimeout = time.Minute
	// idleTimeout is how long a connection may wait for a request. Clients in Go, as the API server is one, close theirs after
	// 90 s, and are to be the first: a request that meets the server's close fails, and its pod goes unheld.
	idleTimeout = 2 * time.Minute
)

// New returns a server with bounds. tlsConfig is nil for plain HTTP. HTTP/1.1 is all that the API server, Prometheus and
// the kubelet speak to it, and leaves HTTP/2's ways to exhaust a server out: there are no streams to be limited.
func New(handler http.Handler, tlsConfig *tls.Config, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:   readWithin(bodyTimeout, handler),
		TLSConfig: tlsConfig,
		Protocols: &protocols,
		// As long as for those that have had a request: a client in Go opens more connections than it comes to need, and keeps
		// them. A ReadTimeout would count for these as well.
		ReadHeaderTimeout: idleTimeout,
		IdleTimeout:       idleTimeout,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes of port scans and probes
	}
}

// readWithin bounds how long a request's body may take.
func readWithin(d time.Duration, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // else the deadline would end the request's context
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d)) // no connection of a server is without
		}
		handler.ServeHTTP(w, r)
	})
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
