package executor

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// patience is how long a test waits for what is bound to come.
const patience = 30 * time.Second

// TestOnAnAPIServer runs all that needs a real API server, on one.
func TestOnAnAPIServer(t *testing.T) {
	server, err := controlplane.Start(t.Context(), controlplane.Options{Progress: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Stop()) })
	client, err := kubernetes.NewForConfig(server.Config())
	require.NoError(t, err)

	t.Run("watch", func(t *testing.T) { testWatch(t, client) })
	t.Run("adopt", func(t *testing.T) { testAdopt(t, client) })
	t.Run("revoke", func(t *testing.T) { testRevoke(t, client) })
	t.Run("finish", func(t *testing.T) { testFinish(t, client) })
}

// world is a namespace of its own, with a scheduler, job 17, and a kubelet.
type world struct {
	*testing.T
	Scheduler
	kubelet *kubelet.Kubelet
}

func newWorld(t *testing.T, client kubernetes.Interface) *world {
	t.Helper()
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "executor-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	return &world{
		T:         t,
		Scheduler: Scheduler{Client: client, Namespace: namespace.Name, JobID: 17},
		kubelet:   kubelet.New(client, kubelet.Options{}),
	}
}

// other is another scheduler in the same namespace.
func (w *world) other(jobID int64) *world {
	other := *w
	other.JobID = jobID
	return &other
}

func task(taskID string) Task {
	return NewTask("etl", taskID, "run", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
}

// held is a task whose pod the webhook has held.
func held(taskID string) Task {
	t := task(taskID)
	t.Labels = map[string]string{requeue.LabelHold: requeue.HoldValue}
	t.Mutate = func(pod *corev1.Pod) { pod.Finalizers = []string{requeue.Finalizer} }
	return t
}

func (w *world) create(task Task) *corev1.Pod {
	w.Helper()
	pod, err := w.Create(w.Context(), task)
	require.NoError(w, err)
	return pod
}

// begun is a pod that is Running.
func (w *world) begun(task Task) *corev1.Pod {
	w.Helper()
	pod, err := w.kubelet.Bind(w.Context(), w.create(task), "node")
	require.NoError(w, err)
	pod, err = w.kubelet.Start(w.Context(), pod)
	require.NoError(w, err)
	return pod
}

func (w *world) failed(task Task) *corev1.Pod {
	w.Helper()
	pod, err := w.kubelet.Fail(w.Context(), w.begun(task))
	require.NoError(w, err)
	return pod
}

func (w *world) succeeded(task Task) *corev1.Pod {
	w.Helper()
	pod, err := w.kubelet.Succeed(w.Context(), w.begun(task))
	require.NoError(w, err)
	return pod
}

func (w *world) patch(pod *corev1.Pod, patch string) {
	w.Helper()
	_, err := w.pods().Patch(w.Context(), pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(w, err)
}

// names lists the pods that still are, by the value of a label: "" where it is not there.
func (w *world) labels(label string) map[string]string {
	w.Helper()
	list, err := w.pods().List(w.Context(), metav1.ListOptions{})
	require.NoError(w, err)
	values := map[string]string{}
	for _, pod := range list.Items {
		values[pod.Annotations["task_id"]] = pod.Labels[label]
	}
	return values
}

// watching runs a scheduler's watch until the test ends. The channel gets what it reports, in one line each.
func (w *world) watching(rules Rules) <-chan string {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	reports, started, done := make(chan string, 1000), make(chan struct{}, 1000), make(chan error, 1)
	watched := Watch{
		Client: w.Client, Namespace: w.Namespace, JobID: w.JobID, Rules: rules,
		Report:  func(seen Seen) { reports <- line(seen) },
		Started: func() { started <- struct{}{} },
	}
	go func() { done <- watched.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		assert.NoError(w, <-done)
	})
	<-started
	return reports
}

func line(seen Seen) string {
	reason := ""
	if seen.Failure != nil {
		reason = " " + seen.Failure.ContainerReason
	}
	return fmt.Sprintf("%s %s %s%s", seen.Key.TaskID, seen.Event, seen.State, reason)
}

// reported are the lines up to the end of a last pod, which this scheduler makes for it.
func (w *world) reported(reports <-chan string) []string {
	w.Helper()
	w.failed(task("the-last"))
	var lines []string
	for {
		select {
		case line := <-reports:
			if line == "the-last MODIFIED failed Error" {
				return lines
			}
			lines = append(lines, line)
		case <-time.After(patience):
			require.Fail(w, "the last pod was not seen", "seen: %v", lines)
		}
	}
}

func testWatch(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	release := fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, requeue.LabelHold)
	detach := fmt.Sprintf(`{"metadata":{"labels":{%q:null,%q:"True"}}}`, requeue.LabelWorker, requeue.LabelExecutorDone)
	freeFinalizer := `{"metadata":{"finalizers":null}}`
	freeBoth := fmt.Sprintf(`{"metadata":{"finalizers":null,"labels":{%q:null}}}`, requeue.LabelHold)

	for _, tt := range []struct {
		name    string
		do      func(w *world)
		want    []string
		without []string // what is seen when the hold is overlooked, where that differs
	}{
		{
			name: "a pod that fails",
			do:   func(w *world) { w.failed(task("load")) },
			want: []string{"load MODIFIED failed Error"},
		},
		{
			name:    "a held pod that fails is not seen",
			do:      func(w *world) { w.failed(held("load")) },
			without: []string{"load MODIFIED failed Error"},
		},
		{
			name:    "a held pod that is let go of after it has failed",
			do:      func(w *world) { w.patch(w.failed(held("load")), release) },
			want:    []string{"load MODIFIED failed Error"},
			without: []string{"load MODIFIED failed Error", "load MODIFIED failed Error"},
		},
		{
			name: "a held pod that is let go of while it runs",
			do: func(w *world) {
				pod := w.begun(held("load"))
				w.patch(pod, release)
				_, err := w.kubelet.Succeed(w.Context(), pod)
				require.NoError(w, err)
			},
			want: []string{"load MODIFIED succeeded"},
		},
		{
			name: "a held pod that is detached is not seen to leave",
			do:   func(w *world) { w.patch(w.failed(held("load")), detach) },
			without: []string{
				"load MODIFIED failed Error", // this is what the executor would have acted on
				"load DELETED adopted",
			},
		},
		{
			name: "a pod without a hold that leaves the selection counts as adopted",
			do:   func(w *world) { w.patch(w.begun(task("load")), detach) },
			want: []string{"load DELETED adopted"},
		},
		{
			name: "a terminating pod that is let go of in two writes is seen to fail",
			do: func(w *world) {
				pod := w.begun(held("load"))
				require.NoError(w, w.Delete(w.Context(), pod.Name))
				require.NoError(w, w.kubelet.Terminate(w.Context(), pod, 143))
				w.patch(pod, release)
				w.patch(pod, freeFinalizer)
			},
			want: []string{"load MODIFIED failed Error", "load DELETED failed Error"},
			without: []string{
				"load MODIFIED failed Error", // the kubelet's last status
				"load MODIFIED failed Error", // its removal
				"load MODIFIED failed Error", // the release
				"load DELETED failed Error",
			},
		},
		{
			name: "a terminating pod that is let go of in one write is not seen: its last event has the old labels",
			do: func(w *world) {
				pod := w.begun(held("load"))
				require.NoError(w, w.Delete(w.Context(), pod.Name))
				require.NoError(w, w.kubelet.Terminate(w.Context(), pod, 143))
				w.patch(pod, freeBoth)
			},
			without: []string{"load MODIFIED failed Error", "load MODIFIED failed Error", "load DELETED failed Error"},
		},
		{
			name: "a pod that is deleted while unscheduled is seen as failed only once the garbage collector says so",
			do: func(w *world) {
				pod := w.create(held("load"))
				require.NoError(w, w.Delete(w.Context(), pod.Name))
				w.patch(pod, release)
				require.NoError(w, w.kubelet.CollectGarbage(w.Context(), pod))
			},
			want: []string{"load MODIFIED failed "},
		},
		{
			name: "a pod that is deleted while unscheduled and unheld is not seen at all",
			do: func(w *world) {
				require.NoError(w, w.Delete(w.Context(), w.create(task("load")).Name))
			},
		},
		{
			name: "an image that cannot be pulled fails the task at once",
			do: func(w *world) {
				pod, err := w.kubelet.Bind(w.Context(), w.create(task("load")), "node")
				require.NoError(w, err)
				_, err = w.kubelet.ImagePull(w.Context(), pod, "503 Service Unavailable")
				require.NoError(w, err)
			},
			want: []string{"load MODIFIED failed"},
		},
		{
			name: "another scheduler's pod is not seen until it is adopted",
			do: func(w *world) {
				pod := w.other(3).failed(task("load"))
				require.NoError(w, w.AdoptPod(w.Context(), pod))
			},
			want: []string{"load ADDED failed Error"},
		},
		{
			name: "a pod that another scheduler adopts is let go of",
			do: func(w *world) {
				require.NoError(w, w.other(3).AdoptPod(w.Context(), w.begun(task("load"))))
			},
			want: []string{"load DELETED adopted"},
		},
		{
			name: "a pod that Airflow revokes is not seen, hold or not",
			do: func(w *world) {
				for _, task := range []Task{held("first"), task("second")} {
					w.begun(task)
					_, err := w.Revoke(w.Context(), task.Row())
					require.NoError(w, err)
				}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, client)
			reports, overlooking := w.watching(Rules{}), w.watching(Rules{IgnoreHold: true})
			tt.do(w)
			assert.Equal(t, tt.want, w.reported(reports))
			if tt.without == nil {
				tt.without = tt.want
			}
			assert.Equal(t, tt.without, drain(overlooking, "the-last MODIFIED failed Error"))
		})
	}

	t.Run("a watch that begins late sees what has failed before", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, client)
		w.failed(task("load"))
		w.failed(held("store"))
		assert.Equal(t, []string{"load ADDED failed Error"}, w.reported(w.watching(Rules{})))
	})
}

// drain are the lines before the last one, which is on its way.
func drain(reports <-chan string, last string) []string {
	var lines []string
	for line := range reports {
		if line == last {
			break
		}
		lines = append(lines, line)
	}
	return lines
}
