package watcher_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// rejectedOften is a task whose pods are rejected by their kubelets again and again.
func (w *world) rejectedOften(times int) (task executor.Task, origin string) {
	w.t.Helper()
	task = w.queued("often", requeue.AnnotationMaxRetries, "-1", requeue.AnnotationBackoff, "0s")
	pod := w.submit(task)
	name := pod.Name
	for i := range times {
		_, err := w.kubelet.Reject(w.ctx, w.untilFree(name), "NodeAffinity", "no")
		require.NoError(w.t, err)
		name = fmt.Sprintf("%s-r%d", pod.Name, i+1)
	}
	w.untilFree(name)
	return task, pod.Name
}

func TestAReplacedPodIsDeletedAtOnceWithoutATimeToLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ttl = 0
	w.run()
	task, origin := w.rejectedOften(1)
	w.untilGone(origin)
	require.Equal(t, []string{origin + "-r1"}, names(w.pods(task)))
	moments := w.history.Of(origin)
	w.checkTombstone(moments[len(moments)-1].Pod)
	w.nothingSeen()
}

func TestThreeReplacedPodsOfATaskAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task, origin := w.rejectedOften(5)
	require.Len(t, w.pods(task), 6)
	w.passing(20*time.Second, "the oldest are gone", func() bool {
		return w.history.Latest(origin) == nil && w.history.Latest(origin+"-r1") == nil
	})
	require.Equal(t, []string{origin + "-r2", origin + "-r3", origin + "-r4", origin + "-r5"}, names(w.pods(task)))
	w.nothingSeen()
}

func TestAReplacedPodIsDeletedWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task, origin := w.rejectedOften(1)
	w.untilUntracked(origin)
	other := w.unheld(executor.NewTask("other", "installation", "manual__1", time.Now().UTC()))
	w.patch(other.Name, `{"metadata":{"labels":{"airflow-requeue.dev/replaced":"another"}}}`)
	began := w.clock.Now()
	w.passing(5*time.Minute, "it is gone", func() bool { return w.history.Latest(origin) == nil })
	require.GreaterOrEqual(t, w.clock.Since(began), w.ttl-time.Minute)
	require.Equal(t, []string{origin + "-r1"}, names(w.pods(task)))
	require.NotNil(t, w.now(other.Name), "another installation's is not ours to delete")
}

func TestAPodThatSomebodyElseLabelledAsReplacedIsNotDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	const replaced = `{"metadata":{"labels":{"airflow-requeue.dev/replaced":"` + installation + `"},` +
		`"annotations":{"airflow-requeue.dev/detached-airflow-worker":"1","airflow-requeue.dev/replaced-at":"2020-01-01T00:00:00Z"}}}`
	stranger := w.unheld(executor.NewTask("other", "stranger", "manual__1", time.Now().UTC()))
	_, err := w.kubelet.Fail(w.ctx, stranger)
	require.NoError(t, err)
	task := w.queued("running")
	runs := w.started(w.submit(task))
	w.row(task, running(runs.Name))
	w.untilUntracked(runs.Name)
	for _, pod := range []string{stranger.Name, runs.Name} {
		w.patch(pod, replaced)
	}
	_, origin := w.rejectedOften(1)
	w.passing(5*time.Minute, "what was replaced is gone", func() bool { return w.history.Latest(origin) == nil })
	for _, pod := range []string{stranger.Name, runs.Name} {
		require.Nil(t, w.now(pod).DeletionTimestamp, pod)
	}
}

func TestAWatcherThatFollowsSettlesAndDeletesNothingUntilItLeads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ttl = 0
	follower := w.start()
	require.False(t, follower.Ready())
	task := w.queued("follow")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	leader := w.run()
	w.untilFree(pod.Name + "-r1")
	w.untilGone(pod.Name)
	leader.stop()
	require.Empty(t, follower.wire.requests())

	// It knows all pods when it takes over, and what it was told meanwhile is not lost.
	other := w.queued("other")
	rejected, err := w.kubelet.Reject(t.Context(), w.submit(other), "NodeAffinity", "no")
	require.NoError(t, err)
	w.lead(follower)
	w.until(rejected.Name+"-r1", "free to run", isFree)
}
