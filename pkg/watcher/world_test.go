package watcher_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/airflowdb"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

const installation = "airflow-requeue"

// patience is how long a test waits for what must come; a test that passes waits for moments.
const patience = 30 * time.Second

// world is a namespace with Airflow's database and executor, a kubelet that is driven by hand, and the watcher.
type world struct {
	t         *testing.T
	ctx       context.Context
	client    kubernetes.Interface
	namespace string
	db        *airflowdb.DB
	kubelet   *kubelet.Kubelet
	scheduler executor.Scheduler
	sealer    *requeue.Sealer
	policy    requeue.Policy
	ttl       time.Duration

	mu   sync.Mutex
	seen []executor.Seen // what the executor's own watch made of the pods
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	client, err := kubernetes.NewForConfig(servers.Config())
	require.NoError(t, err)
	ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "airflow-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	ddl, err := os.ReadFile(filepath.Join("..", "tidb", "testdata", "3.3.2-sqlite.sql"))
	require.NoError(t, err)
	db, err := airflowdb.Create(ctx, filepath.Join(t.TempDir(), "airflow.db"), string(ddl))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	keys := requeue.Keys{Current: "k1", Secrets: map[string][]byte{"k1": make([]byte, requeue.MinKeyBytes)}}
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(t, err)
	w := &world{t: t, ctx: ctx, client: client, namespace: ns.Name, db: db, sealer: sealer, policy: requeue.DefaultPolicy(), ttl: time.Hour,
		kubelet:   kubelet.New(client, kubelet.Options{Namespace: ns.Name, GarbageCollection: -1}),
		scheduler: executor.Scheduler{Client: client, Namespace: ns.Name, JobID: 1}}
	w.watchAsExecutor(1)
	return w
}

// watchAsExecutor runs a scheduler's own watch on its pods.
func (w *world) watchAsExecutor(jobID int64) {
	started := make(chan struct{})
	var once sync.Once
	watch := &executor.Watch{Client: w.client, Namespace: w.namespace, JobID: jobID,
		Started: func() { once.Do(func() { close(started) }) },
		Report: func(s executor.Seen) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen = append(w.seen, s)
		}}
	go func() { _ = watch.Run(w.ctx) }()
	<-started
}

// executorSaw returns what the executor would have put in its queue, as "state pod", each once.
func (w *world) executorSaw() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var saw []string
	last := map[string]bool{}
	for _, s := range w.seen {
		line := fmt.Sprintf("%s %s", s.State, s.Pod.Name)
		if !last[line] {
			saw = append(saw, line)
		}
		last[line] = true
	}
	return saw
}

// run starts a watcher that leads until the returned func is called, which waits for its end.
func (w *world) run() (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	db, err := tidb.Open(ctx, w.db.URL())
	require.NoError(w.t, err)
	batcher := tidb.NewBatcher(db.Lookup, 500)
	go batcher.Run(ctx)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: w.client.EventsV1()})
	require.NoError(w.t, broadcaster.StartRecordingToSinkWithContext(ctx))
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	wt, err := watcher.New(
		watcher.Options{Installation: installation, Namespaces: []string{w.namespace}, Policy: w.policy, ReplacedPodTTL: w.ttl, Workers: 16},
		watcher.Dependencies{Client: w.client, Rows: batcher, Sealer: w.sealer, Clock: clock.RealClock{}, Log: log,
			Events: broadcaster.NewRecorder(scheme.Scheme, "airflow-requeue"), Registry: prometheus.NewRegistry()})
	require.NoError(w.t, err)
	require.NoError(w.t, wt.Start(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		wt.Lead(ctx)
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			<-done
			broadcaster.Shutdown()
			db.Close()
		})
	}
	w.t.Cleanup(stop)
	return stop
}

// queued is a task instance that the scheduler has just queued, with its row.
func (w *world) queued(taskID string) executor.Task {
	w.t.Helper()
	task := executor.NewTask("dag", taskID, "manual__1", time.Now().UTC().Truncate(time.Microsecond))
	require.NoError(w.t, w.db.Insert(w.ctx, task.Row()))
	return task
}

// submit creates the task's pod as the executor makes it and the webhook stamps it.
func (w *world) submit(task executor.Task) *corev1.Pod {
	w.t.Helper()
	task.Namespace = w.namespace
	raw, err := json.Marshal(executor.Pod(task))
	require.NoError(w.t, err)
	u := &unstructured.Unstructured{}
	require.NoError(w.t, json.Unmarshal(raw, &u.Object))
	spec, err := requeue.JobSpec(u)
	require.NoError(w.t, err)
	require.NoError(w.t, w.sealer.Stamp(u, installation, w.namespace, spec))
	raw, err = json.Marshal(u.Object)
	require.NoError(w.t, err)
	pod := &corev1.Pod{}
	err = w.client.CoreV1().RESTClient().Post().Namespace(w.namespace).Resource("pods").
		SetHeader("Content-Type", "application/json").Body(raw).Do(w.ctx).Into(pod)
	require.NoError(w.t, err)
	return pod
}

// now returns the pod as the API server has it; nil when it is gone.
func (w *world) now(name string) *corev1.Pod {
	w.t.Helper()
	list, err := w.client.CoreV1().Pods(w.namespace).List(w.ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	require.NoError(w.t, err)
	if len(list.Items) == 0 {
		return nil
	}
	return &list.Items[0]
}

// until waits for a pod to be as wanted, and returns it.
func (w *world) until(name, what string, want func(*corev1.Pod) bool) *corev1.Pod {
	w.t.Helper()
	var pod *corev1.Pod
	require.Eventually(w.t, func() bool {
		pod = w.now(name)
		return want(pod)
	}, patience, 10*time.Millisecond, "pod %s: %s", name, what)
	return pod
}

// untilSeen waits for the executor's watch to have made exactly this of the pods.
func (w *world) untilSeen(want ...string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return fmt.Sprint(w.executorSaw()) == fmt.Sprint(want) }, patience, 10*time.Millisecond,
		"the executor saw %v, wanted %v", w.executorSaw(), want)
}
