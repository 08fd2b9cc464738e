package watcher_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestADrainedPodIsReplacedAndItsTaskSucceedsUnseen(t *testing.T) {
	w := newWorld(t)
	w.run()
	task := w.queued("drained")
	pod := w.submit(task)
	pod, err := w.kubelet.Bind(t.Context(), pod, "node-a")
	require.NoError(t, err)
	pod, err = w.kubelet.Create(t.Context(), pod)
	require.NoError(t, err)
	require.NoError(t, w.kubelet.Evict(t.Context(), pod))
	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 137))
	w.until(pod.Name, "gone", func(p *corev1.Pod) bool { return p == nil })
	replacement := w.until(pod.Name+"-r1", "free to run", func(p *corev1.Pod) bool { return p != nil && !requeue.Gated(p) })
	require.Equal(t, "1", replacement.Labels[requeue.LabelWorker])
	require.Empty(t, w.executorSaw())

	replacement, err = w.kubelet.Bind(t.Context(), replacement, "node-b")
	require.NoError(t, err)
	replacement, err = w.kubelet.Start(t.Context(), replacement)
	require.NoError(t, err)
	row := task.Row()
	row.State, row.Hostname = requeue.StateRunning, replacement.Name
	require.NoError(t, w.db.Update(t.Context(), row))
	replacement = w.until(replacement.Name, "released", func(p *corev1.Pod) bool { return !requeue.Tracked(p) })
	require.False(t, requeue.Held(replacement))
	require.Empty(t, replacement.Finalizers)
	_, err = w.kubelet.Succeed(t.Context(), replacement)
	require.NoError(t, err)
	w.untilSeen("succeeded " + replacement.Name)
}
