package watcher_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/airflowdb"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	airflow "github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

const installation = "airflow-requeue"

// patience is how long a test waits for what must come; a test that passes waits for moments.
const patience = 3 * time.Minute

// world is a namespace with Airflow's database and executor, a kubelet that is driven by hand, and watchers.
type world struct {
	t         *testing.T
	ctx       context.Context
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
	db        *airflowdb.DB
	kubelet   *kubelet.Kubelet
	scheduler executor.Scheduler // job 1
	keys      requeue.Keys
	sealer    *requeue.Sealer
	policy    requeue.Policy
	ttl       time.Duration
	clock     *runningClock // the watchers'
	bell      *history.Bell // rings when anything was seen
	executor  *eyes         // what scheduler job 1's own watch makes of the pods
	history   *history.Record
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, shared.Servers.Config(), newClock(t.Context()))
}

// newWorldOn is a world whose watchers have that clock, and all of it that connection.
func newWorldOn(t *testing.T, config *rest.Config, clock *runningClock) *world {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	namespace := airflow.Namespace(t, client)
	w := &world{t: t, ctx: t.Context(), config: config, client: client, namespace: namespace,
		db: airflow.Database(t, "../tidb/testdata/3.3.2-sqlite.sql"), policy: requeue.DefaultPolicy(), ttl: time.Hour,
		keys:      requeue.Keys{Current: "k1", Secrets: map[string][]byte{"k1": make([]byte, requeue.MinKeyBytes)}},
		kubelet:   kubelet.New(client, kubelet.Options{Namespace: namespace, GarbageCollection: -1}),
		scheduler: executor.Scheduler{Client: client, Namespace: namespace, JobID: 1},
		clock:     clock}
	w.sealer = w.sealerWith(w.keys)
	t.Cleanup(func() { assert.Empty(t, w.history.AllBroken(), "promises that were broken on the way") }) // when the watch is over
	w.history = history.Watch(t, client, namespace)
	w.bell = &w.history.Bell
	w.executor = w.watchAsExecutor(1)
	return w
}

func (w *world) sealerWith(keys requeue.Keys) *requeue.Sealer {
	w.t.Helper()
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(w.t, err)
	return sealer
}

// queued is a task instance that the scheduler has just queued, with its row.
func (w *world) queued(taskID string, tuning ...string) executor.Task {
	w.t.Helper()
	task := executor.NewTask("dag", taskID, "manual__1", time.Now().UTC().Truncate(time.Microsecond))
	task.Annotations = map[string]string{}
	for i := 0; i+1 < len(tuning); i += 2 {
		task.Annotations[tuning[i]] = tuning[i+1]
	}
	require.NoError(w.t, w.db.Insert(w.ctx, task.Row()))
	return task
}

// row changes the task instance's row as Airflow does.
func (w *world) row(task executor.Task, change func(*requeue.TaskInstance)) {
	w.t.Helper()
	row := task.Row()
	change(&row)
	require.NoError(w.t, w.db.Update(w.ctx, row))
}

func state(s requeue.State) func(*requeue.TaskInstance) {
	return func(row *requeue.TaskInstance) { row.State = s }
}

// running is a row whose task runs under the pod's hostname.
func running(pod string) func(*requeue.TaskInstance) {
	return func(row *requeue.TaskInstance) { row.State, row.Hostname = requeue.StateRunning, pod }
}

// submit creates the task's pod as the executor makes it and the webhook stamps it.
func (w *world) submit(task executor.Task) *corev1.Pod {
	w.t.Helper()
	pod, err := airflow.Stamped(w.sealer, installation, w.namespace, task)
	require.NoError(w.t, err)
	pod, err = w.client.CoreV1().Pods(w.namespace).Create(w.ctx, pod, metav1.CreateOptions{})
	require.NoError(w.t, err)
	w.eventually("its history begins", func() bool { return len(w.history.Of(pod.Name)) > 0 })
	return pod
}

// unheld creates the task's pod as the executor makes it; no webhook stamps it.
func (w *world) unheld(task executor.Task) *corev1.Pod {
	w.t.Helper()
	pod, err := executor.Scheduler{Client: w.client, Namespace: w.namespace, JobID: task.JobID}.Create(w.ctx, task)
	require.NoError(w.t, err)
	return pod
}

// patch changes a pod by a merge patch, as a person or another controller would.
func (w *world) patch(name, patch string, subresources ...string) *corev1.Pod {
	w.t.Helper()
	pod, err := w.client.CoreV1().Pods(w.namespace).Patch(w.ctx, name, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{}, subresources...)
	require.NoError(w.t, err)
	return pod
}

func (w *world) delete(name string) {
	w.t.Helper()
	require.NoError(w.t, w.client.CoreV1().Pods(w.namespace).Delete(w.ctx, name, metav1.DeleteOptions{}))
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

// pods lists the task's pods by name, all that are there.
func (w *world) pods(task executor.Task) []corev1.Pod {
	w.t.Helper()
	list, err := w.client.CoreV1().Pods(w.namespace).List(w.ctx, metav1.ListOptions{})
	require.NoError(w.t, err)
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return !requeue.SameTaskInstance(&p, task.Key) })
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods
}

func names(pods []corev1.Pod) []string {
	list := []string{}
	for _, p := range pods {
		list = append(list, p.Name)
	}
	return list
}

// eventually waits for what must come.
func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		rung := w.bell.Next()
		if cond() {
			return
		}
		select {
		case <-rung:
		case <-time.After(100 * time.Millisecond): // for what rings no bell
		case <-deadline:
			require.FailNow(w.t, "it never came: "+what, w.dump())
		}
	}
}

// until waits for a pod to be as wanted, and returns it. A pod that is not there is nil.
func (w *world) until(name, what string, want func(*corev1.Pod) bool) *corev1.Pod {
	w.t.Helper()
	var pod *corev1.Pod
	w.eventually(fmt.Sprintf("pod %s: %s", name, what), func() bool {
		pod = w.history.Latest(name)
		return want(pod)
	})
	return pod
}

func (w *world) untilGone(name string) {
	w.t.Helper()
	w.until(name, "gone", func(p *corev1.Pod) bool { return p == nil })
}

// untilUntracked waits for us to be done with a pod that stays.
func (w *world) untilUntracked(name string) *corev1.Pod {
	w.t.Helper()
	pod := w.until(name, "let go", func(p *corev1.Pod) bool { return p != nil && !requeue.Tracked(p) })
	require.NotContains(w.t, pod.Finalizers, requeue.Finalizer)
	return pod
}

// untilFree waits for a replacement that may run.
func (w *world) untilFree(name string) *corev1.Pod {
	w.t.Helper()
	return w.until(name, "free to run", func(p *corev1.Pod) bool { return p != nil && !requeue.Gated(p) })
}

// untilSeen waits for scheduler job 1's watch to have made exactly this of the pods.
func (w *world) untilSeen(want ...string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("the executor sees %v", want), func() bool { return fmt.Sprint(w.executor.saw()) == fmt.Sprint(want) })
}

// untilSeenOf waits for the executor's watch to have made exactly this of one pod.
func (w *world) untilSeenOf(pod string, want ...string) {
	w.t.Helper()
	for i := range want {
		want[i] += " " + pod
	}
	w.eventually(fmt.Sprintf("the executor sees %v", want), func() bool { return fmt.Sprint(w.executor.sawOf(pod)) == fmt.Sprint(want) })
}

// nothingSeen says that the executor's watch has made nothing of the pods up to now.
func (w *world) nothingSeen() {
	w.t.Helper()
	require.Empty(w.t, w.executor.saw())
	w.seenOnly()
}

// caughtUp has the executor's watch and the history see all that there is to see up to now: they see a pod that failed
// unheld at last.
func (w *world) caughtUp() {
	w.t.Helper()
	marker := w.unheld(executor.NewTask("marker", "marker", "manual__1", time.Now().UTC()))
	_, err := w.kubelet.Reject(w.ctx, marker, "NodeAffinity", "a marker")
	require.NoError(w.t, err)
	w.eventually("the marker is seen", func() bool {
		seen := w.history.Latest(marker.Name)
		return slices.Contains(w.executor.saw(), "failed "+marker.Name) && seen != nil && seen.Status.Phase == corev1.PodFailed
	})
}

// seenOnly says that the executor's watch has made this of the pods up to now and nothing else.
func (w *world) seenOnly(want ...string) {
	w.t.Helper()
	w.caughtUp()
	saw := slices.DeleteFunc(w.executor.saw(), func(s string) bool { return strings.Contains(s, " marker-marker-") })
	if len(want) == 0 {
		want = nil
	}
	require.ElementsMatch(w.t, want, saw)
}

// releasing is what ReleaseAll is to release: the world's pods.
func (w *world) releasing() watcher.ReleaseOptions {
	return watcher.ReleaseOptions{Installation: installation, Namespaces: []string{w.namespace}, RequestTimeout: time.Minute, Clock: w.clock,
		Log: slog.New(slog.NewTextHandler(w.t.Output(), nil))}
}
