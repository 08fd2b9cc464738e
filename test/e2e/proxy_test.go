package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// proxy stands between a watcher and the API server, and kills the watcher at one of its writes to pods.
type proxy struct {
	server *httptest.Server
	front  http.Handler

	mu     sync.Mutex
	writes int    // seen so far
	at     int    // the write to kill at; 0 for none
	before bool   // before the API server gets it; else after the API server has done it
	kill   func() // kill -9
	killed chan struct{}
}

func newProxy(t *testing.T, config *rest.Config, at int, before bool) *proxy {
	t.Helper()
	target, err := url.Parse(config.Host)
	require.NoError(t, err)
	transport, err := rest.TransportFor(config)
	require.NoError(t, err)
	p := &proxy{at: at, before: before, killed: make(chan struct{}),
		front: &httputil.ReverseProxy{FlushInterval: -1, Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}}
	p.server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	return p
}

func isPodWrite(r *http.Request) bool {
	return r.Method != http.MethodGet && strings.Contains(r.URL.Path, "/pods")
}

func (p *proxy) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !isPodWrite(r) || !p.hit() {
		p.front.ServeHTTP(rw, r)
		return
	}
	if !p.before {
		p.front.ServeHTTP(httptest.NewRecorder(), r) // done, but nobody is told
	}
	p.kill()
	close(p.killed)
	panic(http.ErrAbortHandler) // the connection ends without an answer
}

// hit counts a write and reports whether it is the one.
func (p *proxy) hit() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes++
	return p.writes == p.at
}
