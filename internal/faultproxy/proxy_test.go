package faultproxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// server is an API server that has every pod there is, and counts what it is asked.
type server struct {
	asked []string
	*httptest.Server
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Query().Get("watch") != "":
			_, _ = io.WriteString(w, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}}`+"\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/pods") && r.Method == http.MethodGet:
			_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","items":[]}`)
		default:
			s.asked = append(s.asked, r.Method)
			_, _ = io.WriteString(w, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}`)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// client is a client as the watcher's.
func (p *Proxy) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	config := p.Config()
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.RateLimiter = flowcontrol.NewFakeAlwaysRateLimiter()
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return client
}

func patch(t *testing.T, client kubernetes.Interface, name string) error {
	t.Helper()
	_, err := client.CoreV1().Pods("airflow").Patch(t.Context(), name, types.JSONPatchType, []byte(`[]`), metav1.PatchOptions{})
	return err
}

func TestAFaultIsWhatAClientIsTold(t *testing.T) {
	lost := func(err error) bool {
		var status apierrors.APIStatus
		return err != nil && !errors.As(err, &status)
	}
	for _, tt := range []struct {
		name   string
		fault  Fault
		told   func(error) bool
		served int // how often the server was asked, the client's own tries among them
	}{
		{"none", nil, func(err error) bool { return err == nil }, 1},
		{"dropped before", DropBefore, lost, 0},
		{"dropped after", DropAfter, lost, 1},
		{"dropped before, and more", DropBeforeAnd(func() {}), lost, 0},
		{"dropped after, and more", DropAfterAnd(func() {}), lost, 1},
		{"delayed", Delay(time.Millisecond), func(err error) bool { return err == nil }, 1},
		{"answered late", Then(func() {}), func(err error) bool { return err == nil }, 1},
		{"too many requests, which the client waits out", TooManyRequests, func(err error) bool { return err == nil }, 1},
		{"conflict", Conflict, apierrors.IsConflict, 0},
		{"internal error", InternalError, apierrors.IsInternalError, 0},
		{"unavailable", Unavailable, apierrors.IsServiceUnavailable, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			p := New(t, &rest.Config{Host: s.URL})
			p.Plan("a", At(2, tt.fault))
			client := p.client(t)
			require.NoError(t, patch(t, client, "b"), "another chain")
			require.NoError(t, patch(t, client, "a"), "the first request")
			s.asked = nil
			err := patch(t, client, "a-r1")
			assert.True(t, tt.told(err), "%v", err)
			assert.Len(t, s.asked, tt.served)
			require.NoError(t, patch(t, client, "a"), "the third request")
		})
	}
}

func TestRequestsAreCountedByChain(t *testing.T) {
	s := newServer(t)
	p := New(t, &rest.Config{Host: s.URL})
	client := p.client(t)
	pods := client.CoreV1().Pods("airflow")
	var seen []Request
	p.Plan("a", func(r Request) Fault {
		seen = append(seen, r)
		return nil
	})
	ctx := t.Context()
	_, _ = pods.Get(ctx, "a", metav1.GetOptions{})
	_, _ = pods.Patch(ctx, "a-r1", types.JSONPatchType, []byte(`[]`), metav1.PatchOptions{}, "status")
	_ = pods.Delete(ctx, "a-r12-0123abcd", metav1.DeleteOptions{})
	_, _ = pods.List(ctx, metav1.ListOptions{LabelSelector: "kubernetes_executor=True,dag_id=dag,task_id=a"})
	_ = client.CoreV1().RESTClient().Post().Namespace("airflow").Resource("pods").SetHeader("Content-Type", "application/json").
		Body([]byte(`{"metadata":{"name":"a-r2"}}`)).Do(ctx).Error()
	// These are of no chain, or of another.
	_, _ = pods.List(ctx, metav1.ListOptions{LabelSelector: "airflow-requeue.dev/tracked=airflow-requeue"})
	_, _ = pods.Get(ctx, "a-r", metav1.GetOptions{})
	_, _ = client.CoreV1().Namespaces().Get(ctx, "a", metav1.GetOptions{})
	_, _ = client.EventsV1().Events("airflow").Get(ctx, "a", metav1.GetOptions{})

	assert.Equal(t, []string{"GET", "PATCH -r1/status", "DELETE -r12-0123abcd", "LIST", "POST -r2"}, p.Requests("a"))
	assert.Equal(t, 3, p.Writes("a"))
	require.Len(t, seen, 5)
	assert.Equal(t, Request{Chain: "a", What: "LIST", N: 4, NWrite: 2}, seen[3])
	assert.Equal(t, Request{Chain: "a", Pod: "a-r2", What: "POST -r2", Write: true, N: 5, NWrite: 3}, seen[4])
}

func TestEventsOfAPodThatLagsComeLater(t *testing.T) {
	s := newServer(t)
	p := New(t, &rest.Config{Host: s.URL})
	p.Lag("a", time.Hour)
	pods := p.client(t).CoreV1().Pods("airflow")
	events, err := pods.Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	defer events.Stop()
	select {
	case event := <-events.ResultChan():
		assert.Fail(t, "an event came", "%v", event)
	case <-time.After(3 * lagCheck):
	}
	p.Lag("a", 0)
	assert.Equal(t, watch.Added, (<-events.ResultChan()).Type)
}

func TestAWatchExpiresAfterAWholeEvent(t *testing.T) {
	s := newServer(t)
	p := New(t, &rest.Config{Host: s.URL})
	events, err := p.client(t).CoreV1().Pods("airflow").Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	defer events.Stop()
	first := <-events.ResultChan()
	assert.Equal(t, watch.Added, first.Type)
	assert.IsType(t, &corev1.Pod{}, first.Object)
	assert.Equal(t, 1, p.Expire())
	last := <-events.ResultChan()
	assert.Equal(t, watch.Error, last.Type)
	assert.True(t, apierrors.IsResourceExpired(apierrors.FromObject(last.Object)))
	_, open := <-events.ResultChan()
	assert.False(t, open)
	assert.Zero(t, p.Expire())
}
