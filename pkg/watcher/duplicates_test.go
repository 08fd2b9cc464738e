package watcher_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestManyEventsOfOneEndMakeOneReplacement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("events")
	pod := w.onNode(w.submit(task))
	require.NoError(t, w.kubelet.Evict(t.Context(), pod))
	_, err := w.kubelet.Kill(t.Context(), pod, 137) // Failed
	require.NoError(t, err)
	_, _ = w.kubelet.Disrupt(t.Context(), pod, "EvictionByEvictionAPI", "once more") // Failed again, or gone by now
	_ = w.kubelet.Terminate(t.Context(), pod, 137)                                   // DELETED
	w.untilGone(pod.Name)
	replacement := w.untilFree(pod.Name + "-r1")
	require.Equal(t, []string{string(replacement.UID)}, w.replacementsOf(pod))
	require.Equal(t, []string{replacement.Name}, names(w.pods(task)))
}

func TestAWatcherThatFindsEverythingDoneDoesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.run()
	task := w.queued("done")
	pod := w.submit(task)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	replacement := w.untilFree(pod.Name + "-r1")
	w.untilUntracked(pod.Name)
	first.stop()

	next := w.run() // lists everything anew
	w.eventually("it has looked at the replacement", func() bool { return next.rows.count() > 0 })
	// A stale event of the old pod: the kubelet writes once more, eviction marks it.
	_, err = w.kubelet.Disrupt(t.Context(), w.now(pod.Name), "EvictionByEvictionAPI", "late")
	require.NoError(t, err)
	other := w.submit(w.queued("other"))
	w.delete(other.Name)
	w.untilFree(other.Name + "-r1") // whatever was to come of the late write would have come before
	for _, request := range next.wire.requests() {
		require.NotContains(t, request, pod.Name)
	}
	require.Equal(t, []string{string(replacement.UID)}, w.replacementsOf(pod))
}

func TestAWatcherThatIsRestartedBeforeEachWriteMakesOneReplacement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("restarts")
	pod := w.submit(task)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	free := func() bool {
		p := w.history.Latest(pod.Name + "-r1")
		return p != nil && !requeue.Gated(p)
	}
	for range 10 {
		var stop sync.Once
		stopped := make(chan struct{})
		p := w.run(func(p *process) {
			p.wire.write = func(n int, _ string) fate {
				if n > 1 { // one write is all it gets
					stop.Do(func() { close(stopped) })
					return lost
				}
				return arrives
			}
		})
		w.eventually("a write", func() bool { return p.wire.isDead() || free() })
		p.stop()
	}
	replacement := w.untilFree(pod.Name + "-r1")
	w.checkReplacement(replacement, pod, task, 1)
	w.checkTombstone(w.untilUntracked(pod.Name))
	require.Equal(t, []string{string(replacement.UID)}, w.replacementsOf(pod))
	require.Equal(t, []string{pod.Name, replacement.Name}, names(w.pods(task)))
	w.nothingSeen()
}

func TestTwoWatchersThatBothLeadMakeOneReplacementOfEachPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	w.run()
	var tasks []executor.Task
	pods := map[string]*corev1.Pod{}
	for i := range 8 {
		task := w.queued(fmt.Sprintf("task-%d", i))
		pods[task.TaskID] = w.submit(task)
		tasks = append(tasks, task)
	}
	var ends sync.WaitGroup
	for i, task := range tasks {
		pod := pods[task.TaskID]
		ends.Go(func() {
			if i%2 == 0 {
				_, _ = w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
			} else {
				_ = w.kubelet.NodeLost(t.Context(), pod)
			}
		})
	}
	ends.Wait()
	for i, task := range tasks {
		pod := pods[task.TaskID]
		replacement := w.untilFree(pod.Name + "-r1")
		w.checkReplacement(replacement, pod, task, 1)
		require.Equal(t, []string{string(replacement.UID)}, w.replacementsOf(pod))
		if i%2 == 0 {
			w.checkTombstone(w.untilUntracked(pod.Name))
		} else {
			w.untilGone(pod.Name)
		}
	}
	w.nothingSeen()
}

func TestTwoWatchersThatBothLeadReportAPodOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	w.run()
	task := w.queued("fails")
	pod := w.started(w.submit(task))
	w.delete(pod.Name)
	w.row(task, state("failed"))
	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 1))
	w.passing(time.Second, "the pod goes", func() bool { return w.history.Latest(pod.Name) == nil })
	w.seenOnly("failed " + pod.Name)
}

func TestWhatHappenedWhileTheAPIServerWasOutOfReachIsCaughtUpWith(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var down atomic.Bool
	var lost atomic.Int32
	w.run(func(p *process) {
		p.wire.any = func(r *http.Request) error {
			if request, _ := describeRequest(r); request == "" || !down.Load() {
				return nil // what it watches it still sees
			}
			lost.Add(1)
			return errLost
		}
	})
	taken, ran := w.queued("taken"), w.queued("ran")
	pod, runner := w.submit(taken), w.started(w.submit(ran))
	down.Store(true)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	w.row(ran, running(runner.Name))
	w.passing(time.Second, "it has tried and failed", func() bool { return lost.Load() > 6 })
	require.True(t, requeue.Held(w.now(runner.Name)) && !requeue.Detached(w.now(pod.Name)))

	down.Store(false)
	w.passing(time.Second, "the replacement", func() bool { return isFree(w.history.Latest(pod.Name + "-r1")) })
	w.checkReplacement(w.now(pod.Name+"-r1"), pod, taken, 1)
	require.NotContains(t, w.untilUntracked(runner.Name).Labels, requeue.LabelHold)
	w.nothingSeen()
}
