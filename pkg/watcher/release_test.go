package watcher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// onNode binds a pod and lets its kubelet begin with it.
func (w *world) onNode(pod *corev1.Pod) *corev1.Pod {
	w.t.Helper()
	pod, err := w.kubelet.Bind(w.ctx, pod, "node-a")
	require.NoError(w.t, err)
	pod, err = w.kubelet.Create(w.ctx, pod)
	require.NoError(w.t, err)
	return pod
}

// started is a pod on a node whose containers run.
func (w *world) started(pod *corev1.Pod) *corev1.Pod {
	w.t.Helper()
	pod, err := w.kubelet.Start(w.ctx, w.onNode(pod))
	require.NoError(w.t, err)
	return pod
}

func TestTheExecutorSeesNothingOfAHeldPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t) // no watcher leads
	begin := func(task string) *corev1.Pod { return w.submit(w.queued(task)) }

	_, err := w.kubelet.Fail(t.Context(), w.started(begin("fails")))
	require.NoError(t, err)
	_, err = w.kubelet.Succeed(t.Context(), w.started(begin("succeeds")))
	require.NoError(t, err)
	_, err = w.kubelet.ImagePull(t.Context(), w.onNode(begin("waits-for-its-image")), "not there")
	require.NoError(t, err)
	_, err = w.kubelet.Reject(t.Context(), begin("is-rejected"), "OutOfcpu", "no room")
	require.NoError(t, err)
	evicted := w.onNode(begin("is-evicted"))
	require.NoError(t, w.kubelet.Evict(t.Context(), evicted))
	require.NoError(t, w.kubelet.Terminate(t.Context(), evicted, 137))
	require.NoError(t, w.kubelet.NodeLost(t.Context(), w.started(begin("loses-its-node"))))
	w.delete(begin("is-deleted-unscheduled").Name)

	w.nothingSeen()
	list, err := w.client.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, list.Items, 8, "seven held pods, all still there, and the marker")
}

func TestATaskThatStartsCostsOnePatchAndNoGet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	task := w.queued("starts")
	pod := w.started(w.submit(task))
	w.eventually("the row was read while the pod ran", func() bool { return p.rows.count() >= 2 })
	require.Empty(t, p.wire.requests(), "nothing is asked or written while the task is queued")

	w.row(task, running(pod.Name))
	pod = w.untilUntracked(pod.Name)
	require.NotContains(t, pod.Labels, requeue.LabelHold)
	require.Equal(t, "1", pod.Labels[requeue.LabelWorker])
	require.Equal(t, []string{"PATCH " + pod.Name}, p.wire.requests())
	_, err := w.kubelet.Succeed(t.Context(), pod)
	require.NoError(t, err)
	w.untilSeen("succeeded " + pod.Name)
	require.Len(t, p.wire.requests(), 1)
}

func TestAPodIsReleasedInOnePatchByWhateverItsHostnameIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	for name, hostname := range map[string]func(*corev1.Pod) string{
		"name":    func(p *corev1.Pod) string { return p.Name },
		"fqdn":    func(p *corev1.Pod) string { return p.Name + ".airflow.svc.cluster.local" },
		"address": func(p *corev1.Pod) string { return p.Status.PodIP },
	} {
		task := w.queued(name)
		pod := w.started(w.submit(task))
		w.row(task, running(hostname(pod)))
		pod = w.untilUntracked(pod.Name)
		require.NotContains(t, pod.Labels, requeue.LabelHold)
	}
}

func TestAPodThatSucceedsBeforeItsRunWasSeenIsReleased(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("quick")
	pod := w.started(w.submit(task))
	w.row(task, state("success"))
	_, err := w.kubelet.Succeed(t.Context(), pod)
	require.NoError(t, err)
	w.nothingSeen()

	p := w.run()
	pod = w.untilUntracked(pod.Name)
	require.NotContains(t, pod.Labels, requeue.LabelHold)
	w.untilSeenOf(pod.Name, "succeeded")
	require.Equal(t, []string{"PATCH " + pod.Name}, p.wire.requests())
	require.Zero(t, p.rows.count(), "a pod that succeeded needs no row")
}

func TestAPodThatExitsWellWhenItIsEvictedIsReleasedAndSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("well")
	pod := w.started(w.submit(task))
	w.row(task, state("success")) // it ran in this second, and ended
	require.NoError(t, w.kubelet.Evict(t.Context(), pod))
	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 0))
	w.passing(time.Second, "the pod goes", func() bool { return w.history.Latest(pod.Name) == nil })
	w.seenOnly("succeeded " + pod.Name)
}

func TestAHeldPodThatIsNoTasksAnyMoreIsGivenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("callback")
	pod := w.submit(task)
	w.patch(pod.Name, `{"metadata":{"annotations":{"callback_id":"c-1"}}}`)
	w.run()
	pod = w.untilUntracked(pod.Name)
	require.NotContains(t, pod.Labels, requeue.LabelHold, "nobody else would lift it")
	require.True(t, requeue.Attached(pod))
}

func TestAPodWhoseNodeIsSilentIsLetGoFiveMinutesAfterItsGrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy.TaskQueuedTimeout = time.Hour // the clock moves past ten minutes
	task := w.queued("silent")
	pod := w.onNode(w.submit(task))
	w.delete(pod.Name) // no kubelet answers
	pod = w.now(pod.Name)
	w.run()
	w.passing(time.Minute, "the pod is let go", func() bool { return !requeue.Tracked(w.history.Latest(pod.Name)) })
	w.untilUntracked(pod.Name)
	require.Greater(t, w.clock.Now(), pod.DeletionTimestamp.Add(5*time.Minute))
	require.Len(t, w.pods(task), 1, "no replacement while the old pod may still run")
	w.nothingSeen()
}
