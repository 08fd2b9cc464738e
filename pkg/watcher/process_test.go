package watcher_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"

	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// process is one run of a watcher, from start to end, with its own memory and connections.
type process struct {
	*watcher.Watcher
	wire *wire
	rows *tap
	// options may be changed by what disturbs the process.
	options watcher.Options
	metrics *prometheus.Registry
	// stop ends the process and returns when its last write is done.
	stop func()
}

// run starts a process that leads. What is to disturb it is set before.
func (w *world) run(disturb ...func(*process)) *process {
	w.t.Helper()
	p := w.start(disturb...)
	w.lead(p)
	return p
}

// lead has a process lead until it is stopped.
func (w *world) lead(p *process) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Lead(ctx)
	}()
	ended := p.stop
	p.stop = func() {
		cancel()
		<-done
		ended()
	}
	w.t.Cleanup(p.stop)
}

// start starts a process that does not lead.
func (w *world) start(disturb ...func(*process)) *process {
	w.t.Helper()
	p := &process{wire: &wire{bell: w.bell}, rows: &tap{bell: w.bell}, metrics: prometheus.NewRegistry(),
		options: watcher.Options{Installation: installation, Namespaces: []string{w.namespace}, Policy: w.policy, ReplacedPodTTL: w.ttl, Workers: 16}}
	for _, d := range disturb {
		d(p)
	}
	client := w.wired(p.wire)
	ctx, cancel := context.WithCancel(w.ctx)
	db, err := tidb.Open(ctx, w.db.URL())
	require.NoError(w.t, err)
	batcher := tidb.NewBatcher(db.Lookup, tidb.MaxRefs)
	batching := make(chan struct{})
	go func() {
		defer close(batching)
		batcher.Run(ctx)
	}()
	p.rows.Rows = batcher
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	require.NoError(w.t, broadcaster.StartRecordingToSinkWithContext(ctx))
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	p.Watcher, err = watcher.New(
		p.options,
		watcher.Dependencies{Client: client, Rows: p.rows, Sealer: w.sealer, Clock: w.clock, Log: log,
			Events: broadcaster.NewRecorder(scheme.Scheme, "airflow-requeue"), Registry: p.metrics})
	require.NoError(w.t, err)
	require.NoError(w.t, p.Start(ctx))
	p.stop = sync.OnceFunc(func() {
		cancel()
		<-batching
		broadcaster.Shutdown()
		db.Close()
	})
	w.t.Cleanup(p.stop)
	return p
}

// wired is a client of the API server over the wire.
func (w *world) wired(c *wire) kubernetes.Interface {
	w.t.Helper()
	config := rest.CopyConfig(w.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		if c.next = next; c.via != nil {
			c.next = c.via(next)
		}
		return c
	})
	client, err := kubernetes.NewForConfig(config)
	require.NoError(w.t, err)
	return client
}

// fate is what becomes of a request.
type fate int

const (
	arrives fate = iota
	answerLost
	lost
	failed // alone: the connection holds
)

// errLost is all that a client is told of a connection that broke.
var errLost = errors.New("the connection is lost")

// wire is a process's connection to the API server. It keeps a list, and does to a write what the test wants.
type wire struct {
	next http.RoundTripper
	bell *history.Bell
	// write is called before the n-th write (1 is the first) to a pod is sent.
	write func(n int, request string) fate
	// strip has creates arrive without what makes a pod ours, as a webhook does that does not know the watcher.
	strip bool
	// any is called before any request is sent, also those that are not about pods; an error is all that comes of it.
	any func(*http.Request) error
	// via puts more between the process and the API server.
	via func(next http.RoundTripper) http.RoundTripper

	mu     sync.Mutex
	dead   bool
	asked  []string
	bodies map[string]string // of the last request of that name
	writes int
}

// RoundTrip sends a request, unless it is to be lost.
func (c *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.any != nil {
		if err := c.any(r); err != nil {
			return nil, err
		}
	}
	request, write := describeRequest(r)
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return nil, errLost
	}
	if request != "" {
		c.asked = append(c.asked, request)
		c.keepBody(request, r)
	}
	if write {
		c.writes++
	}
	n := c.writes
	c.mu.Unlock()
	c.bell.Ring()
	if c.strip && r.Method == http.MethodPost && write {
		if err := stripped(r); err != nil {
			return nil, err
		}
	}
	if !write || c.write == nil {
		return c.next.RoundTrip(r)
	}
	switch c.write(n, request) {
	case failed:
		return nil, errLost
	case lost:
		c.die()
		return nil, errLost
	case answerLost:
		response, err := c.next.RoundTrip(r)
		c.die()
		if err == nil {
			_ = response.Body.Close()
		}
		return nil, errLost
	default:
		return c.next.RoundTrip(r)
	}
}

// stripped takes everything of ours out of a create.
func stripped(r *http.Request) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	pod := &unstructured.Unstructured{}
	if err := json.Unmarshal(raw, &pod.Object); err != nil {
		return err
	}
	requeue.Unstamp(pod)
	if raw, err = json.Marshal(pod.Object); err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	return nil
}

// die makes everything fail from here on, as if the process had been killed.
func (c *wire) die() {
	c.mu.Lock()
	c.dead = true
	c.mu.Unlock()
	c.bell.Ring()
}

func (c *wire) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// requests returns what was asked of the API server about pods, lists and watches of the informers left out.
func (c *wire) requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

func (c *wire) keepBody(request string, r *http.Request) {
	if c.bodies == nil {
		c.bodies = map[string]string{}
	}
	c.bodies[request] = bodyOf(r)
}

// bodyOf is what a request says; it can still be sent.
func bodyOf(r *http.Request) string {
	if r.GetBody == nil {
		return ""
	}
	body, err := r.GetBody()
	if err != nil {
		return ""
	}
	defer body.Close()
	raw, err := io.ReadAll(body)
	if err != nil {
		return ""
	}
	return string(raw)
}

// body is what was sent with the last request of that name.
func (c *wire) body(request string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bodies[request]
}

// count says how often a request was made.
func (c *wire) count(request string) int {
	return len(slices.DeleteFunc(c.requests(), func(r string) bool { return r != request }))
}

// describeRequest names a request about a pod, as "PATCH name/status"; empty for others. A list by the labels of one task
// instance is "LIST".
func describeRequest(r *http.Request) (request string, write bool) {
	_, path, ok := strings.Cut(r.URL.Path, "/pods")
	if !ok || !strings.HasPrefix(r.URL.Path, "/api/v1/") {
		return "", false
	}
	switch selector := r.URL.Query().Get("labelSelector"); {
	case r.Method != http.MethodGet:
		return strings.TrimSpace(r.Method + " " + strings.TrimPrefix(path, "/")), true
	case path != "":
		return "GET " + strings.TrimPrefix(path, "/"), false
	case strings.Contains(selector, requeue.LabelKubernetesExecutor):
		return "LIST", false
	}
	return "", false
}

// dyingAt is a process that is killed just before its n-th write is sent.
func dyingAt(n int) func(*process) {
	return func(p *process) {
		p.wire.write = func(i int, _ string) fate {
			if i == n {
				return lost
			}
			return arrives
		}
	}
}

// tap stands between a process and the metadata database.
type tap struct {
	watcher.Rows
	bell *history.Bell
	// after is called when the n-th row (1 is the first) was read, before the watcher gets it.
	after func(n int, ref requeue.Ref)
	// saw is called with each row that was read, before the watcher gets it; one that is not there is empty.
	saw func(ref requeue.Ref, task requeue.TaskInstance)

	mu     sync.Mutex
	broken error
	only   string // the task that broken is about; empty: all, and the question whether the database answers
	reads  int
	done   int
}

// Get reads a row.
func (t *tap) Get(ctx context.Context, ref requeue.Ref) (requeue.TaskInstance, bool, error) {
	t.mu.Lock()
	if ref.DagID != "" { // else it only asks whether the database answers
		t.reads++
	}
	n, broken := t.reads, t.broken
	if t.only != "" && t.only != ref.TaskID {
		broken = nil
	}
	t.mu.Unlock()
	defer t.over(ref)
	if broken != nil {
		return requeue.TaskInstance{}, false, broken
	}
	task, found, err := t.Rows.Get(ctx, ref)
	if t.after != nil && ref.DagID != "" {
		t.after(n, ref)
	}
	if t.saw != nil && err == nil && ref.DagID != "" {
		t.saw(ref, task)
	}
	return task, found, err
}

func (t *tap) over(ref requeue.Ref) {
	t.mu.Lock()
	if ref.DagID != "" {
		t.done++
	}
	t.mu.Unlock()
	t.bell.Ring()
}

// breaks makes all reads fail; nil mends them.
func (t *tap) breaks(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = err
}

// count says how many reads of a row are over, however they ended.
func (t *tap) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}
