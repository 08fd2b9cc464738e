// Package faultproxy stands between a watcher and the servers that it talks to, the API server and the metadata
// database, and does to the n-th request what a bad network, a server under load or a node that dies does.
package faultproxy

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// Plan says what becomes of a request of a chain; nil lets it pass.
type Plan func(Request) Fault

// At does it to the n-th request alone.
func At(n int, fault Fault) Plan {
	return func(r Request) Fault {
		if r.N == n {
			return fault
		}
		return nil
	}
}

// AtWrite does it to the n-th write alone.
func AtWrite(n int, fault Fault) Plan {
	return func(r Request) Fault {
		if r.Write && r.NWrite == n {
			return fault
		}
		return nil
	}
}

// Proxy stands before the API server. It knows of which task's chain of pods a request is, and has a plan for each
// chain: so one watcher serves many chains at once, each with a fault of its own.
type Proxy struct {
	// URL is where it listens, by plain HTTP. Whoever comes has the access that the proxy was made with.
	URL string

	target    *url.URL
	transport http.RoundTripper
	server    http.Handler

	mu      sync.Mutex
	chains  map[string]*chain
	watches map[*podWatch]bool
	lagging map[string]time.Time // by pod: its events are kept back until then
}

type chain struct {
	plan     Plan
	requests []string
	writes   int
}

// New starts a proxy that lives as long as the test.
func New(tb testing.TB, config *rest.Config) *Proxy {
	tb.Helper()
	target, err := url.Parse(config.Host)
	require.NoError(tb, err)
	transport, err := rest.TransportFor(config)
	require.NoError(tb, err)
	p := &Proxy{target: target, transport: transport, chains: map[string]*chain{}, watches: map[*podWatch]bool{},
		lagging: map[string]time.Time{}}
	p.server = &httputil.ReverseProxy{
		FlushInterval: -1, Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorLog:     slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // as without a proxy
	}
	front := httptest.NewServer(p)
	p.URL = front.URL
	tb.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	return p
}

// Config is the access of whoever goes through the proxy.
func (p *Proxy) Config() *rest.Config { return &rest.Config{Host: p.URL} }

// Plan sets what becomes of the requests of a chain. It is set before the first.
func (p *Proxy) Plan(name string, plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(name).plan = plan
}

// Requests are the requests of a chain so far, by Request.What.
func (p *Proxy) Requests(name string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.of(name).requests)
}

// Writes counts the writes of a chain so far.
func (p *Proxy) Writes(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(name).writes
}

// of is called with the lock held.
func (p *Proxy) of(name string) *chain {
	c, ok := p.chains[name]
	if !ok {
		c = &chain{}
		p.chains[name] = c
	}
	return c
}

// ServeHTTP lets a request pass, or does to it what its chain's plan wants.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isPodWatch(r) {
		p.watch(w, r)
		return
	}
	request, ok := describe(r)
	if !ok {
		p.server.ServeHTTP(w, r)
		return
	}
	if fault := p.count(request); fault != nil {
		fault(w, r, p.server)
		return
	}
	p.server.ServeHTTP(w, r)
}

// count numbers a request and asks the plan. The plan may wait or call the proxy: it is asked without the lock.
func (p *Proxy) count(r Request) Fault {
	p.mu.Lock()
	c := p.of(r.Chain)
	c.requests = append(c.requests, r.What)
	if r.Write {
		c.writes++
	}
	r.N, r.NWrite = len(c.requests), c.writes
	plan := c.plan
	p.mu.Unlock()
	if plan == nil {
		return nil
	}
	return plan(r)
}
