// Package world is a piece of an Airflow cluster for tests: a namespace of a real API server, a metadata database with
// Airflow's own tables, the executor's writes and its watch, and a kubelet that is driven by hand.
package world

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	ns, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "airflow-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	statements, err := os.ReadFile(ddl)
	require.NoError(t, err)
	dir := t.TempDir()
	db, err := airflowdb.Create(t.Context(), filepath.Join(dir, "airflow.db"), string(statements))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	w := &World{T: t, Config: config, Client: client, Namespace: ns.Name, DB: db, KeysDir: filepath.Join(dir, "keys"),
		Kubelet:   kubelet.New(client, kubelet.Options{Namespace: ns.Name, GarbageCollection: -1}),
		Scheduler: executor.Scheduler{Client: client, Namespace: ns.Name, JobID: 1}}
	w.makeKeys()
	w.WatchAs(1)
	return w
}

func (w *World) makeKeys() {
	w.T.Helper()
	keys := requeue.Keys{Current: "k1", Secrets: map[string][]byte{"k1": []byte("a secret of the tests, 32 bytes or more")}}
	var err error
	w.Sealer, err = requeue.NewSealer(func() requeue.Keys { return keys })
	require.NoError(w.T, err)
	require.NoError(w.T, os.Mkdir(w.KeysDir, 0o700))
	require.NoError(w.T, os.WriteFile(filepath.Join(w.KeysDir, "current"), []byte(keys.Current), 0o600))
	for id, secret := range keys.Secrets {
		require.NoError(w.T, os.WriteFile(filepath.Join(w.KeysDir, id), secret, 0o600))
	}
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
	task.Namespace = w.Namespace
	raw, err := json.Marshal(executor.Pod(task))
	require.NoError(w.T, err)
	u := &unstructured.Unstructured{}
	require.NoError(w.T, json.Unmarshal(raw, &u.Object))
	spec, err := requeue.JobSpec(u)
	require.NoError(w.T, err)
	require.NoError(w.T, w.Sealer.Stamp(u, Installation, w.Namespace, spec))
	raw, err = json.Marshal(u.Object)
	require.NoError(w.T, err)
	pod := &corev1.Pod{}
	require.NoError(w.T, w.Client.CoreV1().RESTClient().Post().Namespace(w.Namespace).Resource("pods").
		SetHeader("Content-Type", "application/json").Body(raw).Do(w.T.Context()).Into(pod))
	return pod
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
