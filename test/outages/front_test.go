package outages

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// front stands between a program and the API server. answer may answer a request itself, or hold it up; it says whether
// it has answered.
type front struct {
	server *httptest.Server
	proxy  http.Handler
	answer func(http.ResponseWriter, *http.Request) bool
}

func newFront(t *testing.T, config *rest.Config, answer func(http.ResponseWriter, *http.Request) bool) *front {
	t.Helper()
	target, err := url.Parse(config.Host)
	require.NoError(t, err)
	transport, err := rest.TransportFor(config)
	require.NoError(t, err)
	f := &front{answer: answer, proxy: &httputil.ReverseProxy{FlushInterval: -1, Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		// Programs are killed in the middle of a request.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }}}
	f.server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.server.CloseClientConnections()
		f.server.Close()
	})
	return f
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.answer(w, r) {
		f.proxy.ServeHTTP(w, r)
	}
}

// config is the access through it.
func (f *front) config() *rest.Config { return &rest.Config{Host: f.server.URL} }

// refuse answers as the API server does.
func refuse(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = fmt.Fprint(w, status(code, reason, message))
}

func status(code int, reason, message string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":%q}`, code, reason, message)
}
