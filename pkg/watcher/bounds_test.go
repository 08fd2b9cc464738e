package watcher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestNoPodIsReplacedMoreOftenThanTheCapWhateverItAsksFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy.MaxRetriesCap = 2
	w.run()
	task := w.queued("capped", requeue.AnnotationMaxRetries, "-1", requeue.AnnotationBackoff, "0s")
	pod := w.submit(task)
	for _, name := range []string{pod.Name, pod.Name + "-r1", pod.Name + "-r2"} {
		_, err := w.kubelet.Reject(t.Context(), w.untilFree(name), "NodeAffinity", "no")
		require.NoError(t, err)
	}
	last := pod.Name + "-r2"
	w.untilSeen("failed " + last)
	w.untilEvent(w.now(last), "Exhausted", "2 of 2 replacements made; NodeAffinity: Pod was rejected: no")
	w.seenOnly("failed " + last)
	require.Equal(t, []string{pod.Name, pod.Name + "-r1", last}, names(w.pods(task)))
}

func TestFromTheSecondReplacementOnNoneRunsBeforeTheBackoffFloorIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy.BackoffFloor = 40 * time.Second
	w.run()
	task := w.queued("floored", requeue.AnnotationMaxRetries, "-1", requeue.AnnotationBackoff, "0s")
	pod := w.submit(task)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	first := w.untilFree(pod.Name + "-r1") // at once: the clock has not been moved
	for _, next := range []string{pod.Name + "-r2", pod.Name + "-r3"} {
		began := w.clock.Now()
		_, err = w.kubelet.Reject(t.Context(), first, "NodeAffinity", "no")
		require.NoError(t, err)
		w.until(next, "committed", func(p *corev1.Pod) bool { return p != nil && requeue.Committed(p) })
		w.passing(4*time.Second, "the gate comes off", func() bool { return !requeue.Gated(w.history.Latest(next)) })
		require.GreaterOrEqual(t, w.clock.Since(began), 40*time.Second)
		first = w.untilFree(next)
	}
	w.nothingSeen()
}
