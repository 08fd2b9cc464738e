package manifests_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// pollInterval is between two looks at the API server.
const pollInterval = 20 * time.Millisecond

// site is an Airflow, and one of the accounts of its installation at work. The installation is named as the namespace,
// so that a cluster can have many. Methods return errors, and soon after the API server has refused something: to be
// refused is what some tests are for.
type site struct {
	*world.World

	account  kubernetes.Interface                // what is tested; all else is done by an administrator
	config   *rest.Config                        // the account's
	meddle   atomic.Pointer[func(*http.Request)] // called before each request of the account
	refusals *refusals
	log      *slog.Logger
}

// newSite makes a namespace; nobody has rights there yet.
func newSite(t *testing.T, account string) (context.Context, *site) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	s := &site{World: world.New(t, servers.Config(), filepath.Join("..", "..", "pkg", "tidb", "testdata", "3.3.2-sqlite.sql")),
		refusals: &refusals{stop: cancel}, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	cfg, err := servers.User("system:serviceaccount:" + s.Namespace + ":" + account)
	require.NoError(t, err)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return roundTripper{next, s} })
	s.config = cfg
	s.account, err = kubernetes.NewForConfig(cfg)
	require.NoError(t, err)
	return ctx, s
}

// refusals are what the API server said with a 403. The first ends the world's context.
type refusals struct {
	stop context.CancelCauseFunc
	mu   sync.Mutex
	all  []string
}

func (r *refusals) add(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, what)
	r.stop(fmt.Errorf("refused: %s", what))
}

func (r *refusals) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

type roundTripper struct {
	next http.RoundTripper
	site *site
}

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	if meddle := r.site.meddle.Load(); meddle != nil {
		(*meddle)(request)
	}
	response, err := r.next.RoundTrip(request)
	if err != nil || response.StatusCode != http.StatusForbidden {
		return response, err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	var status metav1.Status
	if err := json.Unmarshal(body, &status); err != nil {
		status.Message = string(body)
	}
	r.site.refusals.add(status.Message)
	return response, err
}

// lead runs the watcher as its program does, and returns when it leads and can decide. stop waits for its end.
func (s *site) lead(ctx context.Context) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	db, err := tidb.Open(ctx, s.DB.URL())
	if err != nil {
		return cancelled(cancel), err
	}
	batcher := tidb.NewBatcher(db.Lookup, tidb.MaxRefs)
	go batcher.Run(ctx)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: s.account.EventsV1()})
	if err := broadcaster.StartRecordingToSinkWithContext(context.WithoutCancel(ctx)); err != nil {
		return cancelled(cancel), err
	}
	wt, err := watcher.New(
		watcher.Options{Installation: s.Namespace, Namespaces: []string{s.Namespace}, Policy: requeue.DefaultPolicy(), Workers: 8},
		watcher.Dependencies{Client: s.account, Rows: batcher, Sealer: s.Sealer, Clock: clock.RealClock{}, Log: s.log,
			Events: broadcaster.NewRecorder(scheme.Scheme, "airflow-requeue-watcher"), Registry: prometheus.NewRegistry()})
	if err != nil {
		return cancelled(cancel), err
	}
	led := make(chan error, 1)
	go func() {
		err := wt.Start(ctx)
		if err == nil {
			err = watcher.RunElected(ctx, s.account, watcher.LeaseOptions{Namespace: s.Namespace, Name: s.Namespace, Identity: "test",
				Duration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 100 * time.Millisecond}, wt.Ready, wt.Lead, s.log)
		}
		led <- err
	}()
	stop = func() error {
		cancel()
		err := <-led
		broadcaster.Shutdown()
		db.Close()
		return err
	}
	return stop, until(ctx, "the watcher to lead", func() (bool, error) { return wt.Ready(), nil })
}

func cancelled(cancel context.CancelFunc) func() error {
	return func() error {
		cancel()
		return nil
	}
}

// until waits for a condition, for as long as nothing was refused.
func until(ctx context.Context, what string, condition func() (bool, error)) error {
	err := wait.PollUntilContextTimeout(ctx, pollInterval, world.Patience, true, func(context.Context) (bool, error) { return condition() })
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	return nil
}

// submit queues a task and creates its pod, as the executor makes it and the webhook stamps it.
func (s *site) submit(ctx context.Context, taskID string) (*corev1.Pod, error) {
	pod, err := world.Stamped(s.Sealer, s.Namespace, s.Namespace, s.Queue(taskID))
	if err != nil {
		return nil, err
	}
	return s.Client.CoreV1().Pods(s.Namespace).Create(ctx, pod, metav1.CreateOptions{})
}

// tracked returns the pods that are not let go of.
func (s *site) tracked(ctx context.Context) ([]corev1.Pod, error) {
	list, err := s.Client.CoreV1().Pods(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: requeue.LabelTracked})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// gone reports whether there is no such pod.
func (s *site) gone(ctx context.Context, name string) (bool, error) {
	list, err := s.Client.CoreV1().Pods(s.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return false, err
	}
	return len(list.Items) == 0, nil
}
