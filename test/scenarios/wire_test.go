package scenarios

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// write is one of a watcher's writes, known by what it says.
type write struct {
	method string
	says   string
}

// The writes that something happens in the middle of.
var (
	detaching  = write{http.MethodPatch, `"add","path":"/metadata/labels/` + requeue.LabelExecutorDone}
	creating   = write{http.MethodPost, `"` + requeue.AnnotationRequeueOf + `"`}
	committing = write{http.MethodPatch, `/metadata/annotations/airflow-requeue.dev~1committed"`}
	ungating   = write{http.MethodPatch, "/spec/schedulingGates/"}
	lifting    = write{http.MethodPatch, `"remove","path":"/metadata/labels/` + requeue.LabelHold}
)

// wire stands between a watcher and the API server.
type wire struct {
	server *httptest.Server
	front  http.Handler

	mu            sync.Mutex
	at            write
	before, after func() // nil when done
	expire        bool   // watches begin at a version that is long gone
	expired       int    // how many did
}

// rewire has the installation's watcher work over a wire.
func (s *stage) rewire() *wire {
	s.T.Helper()
	config := s.Access(s.WatcherUser())
	target, err := url.Parse(config.Host)
	require.NoError(s.T, err)
	transport, err := rest.TransportFor(config)
	require.NoError(s.T, err)
	w := &wire{front: &httputil.ReverseProxy{FlushInterval: -1, Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}}
	w.server = httptest.NewServer(w)
	s.T.Cleanup(func() {
		w.server.CloseClientConnections()
		w.server.Close()
	})
	s.watcher.Stop()
	s.watcher = s.startWatcher(&rest.Config{Host: w.server.URL})
	s.untilLed()
	programs.UntilStamping(s.T, s.airflow)
	return w
}

// untilLed waits for the watcher to lead.
func (s *stage) untilLed() {
	s.T.Helper()
	s.eventually("the watcher leads", s.leaderReady)
}

// beforeThe does something once, before the API server gets a write.
func (w *wire) beforeThe(at write, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.before, w.after = at, do, nil
}

// afterThe does something once, after the API server has done a write and before the watcher is told.
func (w *wire) afterThe(at write, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.before, w.after = at, nil, do
}

// done reports whether what was to happen has happened.
func (w *wire) done() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.before == nil && w.after == nil
}

// gone has all watches end, and the next ones begin at a version that the API server does not have any more: 410.
func (w *wire) gone() {
	w.mu.Lock()
	w.expire = true
	w.mu.Unlock()
	w.server.CloseClientConnections()
}

func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		w.age(r)
		w.front.ServeHTTP(rw, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	before, after := w.meanwhile(r.Method, string(body))
	if before != nil {
		before()
	}
	if after == nil {
		w.front.ServeHTTP(rw, r)
		return
	}
	answer := httptest.NewRecorder()
	w.front.ServeHTTP(answer, r)
	after()
	for name, values := range answer.Header() {
		rw.Header()[name] = values
	}
	rw.WriteHeader(answer.Code)
	_, _ = rw.Write(answer.Body.Bytes())
}

// meanwhile returns what is to happen around a write, and forgets it.
func (w *wire) meanwhile(method, body string) (before, after func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if method != w.at.method || !strings.Contains(body, w.at.says) {
		return nil, nil
	}
	before, after = w.before, w.after
	w.before, w.after = nil, nil
	return before, after
}

// age makes the first watch of pods after gone begin at a version that is long gone.
func (w *wire) age(r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	query := r.URL.Query()
	if !w.expire || query.Get("watch") == "" || !strings.HasSuffix(r.URL.Path, "/pods") {
		return
	}
	w.expire = false
	w.expired++
	query.Set("resourceVersion", "1")
	r.URL.RawQuery = query.Encode()
}
