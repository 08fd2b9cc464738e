// Package world is a piece of an Airflow cluster for tests: a namespace of a real API server, a metadata database with
// Airflow's own tables, the executor's writes and its watch, and a kubelet that is driven by hand.
package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/airflowdb"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Installation is the value of the tracked label of every pod that Submit makes.
const Installation = "airflow-requeue"

// Patience is how long a test waits for what must come; a test that passes waits for moments.
const Patience = 3 * time.Minute

// World is one test's. Its methods end the test when the real things fail.
type World struct {
	T         testing.TB
	Config    *rest.Config
	Client    kubernetes.Interface
	Namespace string
	DB        *airflowdb.DB
	Kubelet   *kubelet.Kubelet
	Scheduler executor.Scheduler
	Sealer    *requeue.Sealer
	// KeysDir is what --signing-keys-dir takes: the keys of Sealer.
	KeysDir string

	mu   sync.Mutex
	seen []executor.Seen
}

// New makes a World with a namespace and a database of its own; the watch of scheduler job 1 is on. ddl is the file
// with the tables' statements.
func New(t testing.TB, config *rest.Config, ddl string) *World {
	t.Helper()
	w := Bare(t, config)
	w.DB = Database(t, ddl)
	w.Kubelet = kubelet.New(w.Client, kubelet.Options{Namespace: w.Namespace, GarbageCollection: -1})
	w.Scheduler = executor.Scheduler{Client: w.Client, Namespace: w.Namespace, JobID: 1}
	w.WatchAs(1)
	return w
}

// Bare makes a World with a namespace and signing keys, for an Airflow that brings all else.
func Bare(t testing.TB, config *rest.Config) *World {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	w := &World{T: t, Config: config, Client: client, Namespace: Namespace(t, client)}
	w.KeysDir, w.Sealer = signingKeys(t)
	return w
}

// Namespace makes a namespace.
func Namespace(t testing.TB, client kubernetes.Interface) string {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "airflow-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	return ns.Name
}

// Database makes a metadata database by the statements of a file.
func Database(t testing.TB, ddl string) *airflowdb.DB {
	t.Helper()
	statements, err := os.ReadFile(ddl)
	require.NoError(t, err)
	db, err := airflowdb.Create(t.Context(), filepath.Join(t.TempDir(), "airflow.db"), string(statements))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func signingKeys(t testing.TB) (dir string, sealer *requeue.Sealer) {
	t.Helper()
	keys := requeue.Keys{Current: "k1", Secrets: map[string][]byte{"k1": []byte("a secret of the tests, 32 bytes or more")}}
	sealer, err := requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(t, err)
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "current"), []byte(keys.Current), 0o600))
	for id, secret := range keys.Secrets {
		require.NoError(t, os.WriteFile(filepath.Join(dir, id), secret, 0o600))
	}
	return dir, sealer
}

// RunKubelets has kubelets run pods until the test ends.
func (w *World) RunKubelets(options kubelet.Options) {
	ctx, cancel := context.WithCancel(context.Background())
	kubelets := kubelet.New(w.Client, options)
	var playing sync.WaitGroup
	playing.Go(func() { _ = kubelets.Run(ctx) })
	w.T.Cleanup(func() {
		cancel()
		playing.Wait()
	})
}

// WatchAs runs the watch of a scheduler's executor on its pods.
func (w *World) WatchAs(jobID int64) {
	started := make(chan struct{})
	var once sync.Once
	watch := &executor.Watch{Client: w.Client, Namespace: w.Namespace, JobID: jobID,
		Started: func() { once.Do(func() { close(started) }) },
		Report: func(s executor.Seen) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen = append(w.seen, s)
		}}
	go func() { _ = watch.Run(w.T.Context()) }()
	<-started
}

// Queue is a task instance that the scheduler has just queued, with its row.
func (w *World) Queue(taskID string) executor.Task {
	w.T.Helper()
	task := executor.NewTask("dag", taskID, "manual__1", time.Now().UTC().Truncate(time.Microsecond))
	require.NoError(w.T, w.DB.Insert(w.T.Context(), task.Row()))
	return task
}

// Submit creates the task's pod as the executor makes it and the webhook stamps it.
func (w *World) Submit(task executor.Task) *corev1.Pod {
	w.T.Helper()
	pod, err := Stamped(w.Sealer, Installation, w.Namespace, task)
	require.NoError(w.T, err)
	pod, err = w.Client.CoreV1().Pods(w.Namespace).Create(w.T.Context(), pod, metav1.CreateOptions{})
	require.NoError(w.T, err)
	return pod
}

// Stamped is a task's pod as the executor makes it and the webhook of an installation stamps it.
func Stamped(sealer *requeue.Sealer, installation, namespace string, task executor.Task) (*corev1.Pod, error) {
	task.Namespace = namespace
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(executor.Pod(task))
	if err != nil {
		return nil, fmt.Errorf("stamping a pod: %w", err)
	}
	u := &unstructured.Unstructured{Object: object}
	spec, err := requeue.JobSpec(u)
	if err != nil {
		return nil, err
	}
	if err := sealer.Stamp(u, installation, namespace, spec); err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, pod); err != nil {
		return nil, fmt.Errorf("stamping a pod: %w", err)
	}
	return pod, nil
}

// Pods returns the namespace's pods as the API server has them, by name.
func (w *World) Pods() map[string]*corev1.Pod {
	w.T.Helper()
	list, err := w.Client.CoreV1().Pods(w.Namespace).List(w.T.Context(), metav1.ListOptions{})
	require.NoError(w.T, err)
	pods := map[string]*corev1.Pod{}
	for i := range list.Items {
		pods[list.Items[i].Name] = &list.Items[i]
	}
	return pods
}

// Until waits for a pod to be as wanted, and returns it; nil stands for a pod that is gone.
func (w *World) Until(name, what string, want func(*corev1.Pod) bool) *corev1.Pod {
	w.T.Helper()
	var pod *corev1.Pod
	require.Eventually(w.T, func() bool {
		pod = w.Pods()[name]
		return want(pod)
	}, Patience, 10*time.Millisecond, "pod %s: %s", name, what)
	return pod
}
