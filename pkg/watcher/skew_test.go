package watcher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// whicheverWayItsClockIsOff plays with watchers whose clock is five minutes ahead of the API server's and of Airflow's, and
// with watchers whose clock is as far behind.
func whicheverWayItsClockIsOff(t *testing.T, play func(t *testing.T, w *world, off time.Duration)) {
	t.Helper()
	for name, off := range map[string]time.Duration{"five minutes ahead": 5 * time.Minute, "five minutes behind": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.clock.forward(off)
			play(t, w, off)
		})
	}
}

func TestAWatcherWhoseClockIsOffReplacesWhatIsTaken(t *testing.T) {
	t.Parallel()
	whicheverWayItsClockIsOff(t, func(t *testing.T, w *world, _ time.Duration) {
		w.run()
		task := w.queued("drained")
		pod := w.started(w.submit(task)) // it takes its grace
		require.NoError(t, w.kubelet.Evict(t.Context(), pod))
		require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 143))
		w.checkReplacement(w.untilFree(pod.Name+"-r1"), pod, task, 1)
		w.untilGone(pod.Name)

		unscheduled := w.queued("unscheduled")
		pod = w.submit(unscheduled)
		w.delete(pod.Name)
		w.checkReplacement(w.untilFree(pod.Name+"-r1"), pod, unscheduled, 1)
		w.nothingSeen()
	})
}

func TestAWatcherWhoseClockIsOffCountsItsOwnWaitsByIt(t *testing.T) {
	t.Parallel()
	whicheverWayItsClockIsOff(t, func(t *testing.T, w *world, _ time.Duration) {
		w.run()
		task := w.queued("backoff", requeue.AnnotationMaxRetries, "-1", requeue.AnnotationBackoff, "40s")
		pod := w.submit(task)
		var began time.Time
		for _, name := range []string{pod.Name, pod.Name + "-r1"} {
			began = w.clock.Now()
			_, err := w.kubelet.Reject(t.Context(), w.untilFree(name), "NodeAffinity", "no")
			require.NoError(t, err)
		}
		w.within(time.Minute, 2*time.Second, "the gate comes off", func() bool { return isFree(w.history.Latest(pod.Name + "-r2")) })
		require.GreaterOrEqual(t, w.clock.Since(began), 32*time.Second)
		w.nothingSeen()

		pulling := w.queued("registry", requeue.AnnotationImagePullGrace, "40s")
		pod = w.onNode(w.submit(pulling))
		began = w.clock.Now()
		pod, err := w.kubelet.ImagePull(t.Context(), pod, "503 Service Unavailable")
		require.NoError(t, err)
		w.within(time.Minute, 2*time.Second, "the pod is deleted", func() bool { return w.history.Latest(pod.Name).DeletionTimestamp != nil })
		require.GreaterOrEqual(t, w.clock.Since(began), 40*time.Second)
	})
}

func TestAReportByAWatcherWhoseClockIsOffIsSeenAndThePodGoes(t *testing.T) {
	t.Parallel()
	whicheverWayItsClockIsOff(t, func(t *testing.T, w *world, _ time.Duration) {
		w.run()
		pod := w.reportedWhileItLeaves()
		w.within(time.Minute, time.Second, "the pod goes", func() bool { return w.history.Latest(pod.Name) == nil })
		w.seenOnly("failed " + pod.Name)
	})
}

// reportedWhileItLeaves is a terminating pod whose hold was just lifted; the finalizer follows 3 s later.
func (w *world) reportedWhileItLeaves() *corev1.Pod {
	w.t.Helper()
	task := w.queued("leaving")
	pod := w.started(w.submit(task))
	w.row(task, state("failed"))
	w.delete(pod.Name)
	require.NoError(w.t, w.kubelet.Terminate(w.ctx, pod, 1))
	w.until(pod.Name, "its hold lifted", func(p *corev1.Pod) bool { return p == nil || !requeue.Held(p) })
	return pod
}

// A watcher takes over from another whose clock was off: what that one wrote on pods lies five minutes in its past or
// future.

func TestWhatAWatcherWithAnotherClockHasReleasedGoes(t *testing.T) {
	t.Parallel()
	whicheverWayItsClockIsOff(t, func(t *testing.T, w *world, off time.Duration) {
		p := w.run(func(p *process) {
			p.wire.write = func(int, string) fate { // it is killed after the hold, before the finalizer
				if w.first(func(p *corev1.Pod) bool { return !requeue.Held(p) }) >= 0 {
					return lost
				}
				return arrives
			}
		})
		pod := w.reportedWhileItLeaves()
		w.passing(time.Second, "it is killed", p.wire.isDead)
		p.stop()
		w.clock.forward(-off)
		w.run()
		w.within(time.Minute, time.Second, "the pod goes: a finalizer holds nobody up", func() bool { return w.history.Latest(pod.Name) == nil })
		w.seenOnly("failed " + pod.Name)
	})
}

func TestABackoffThatAWatcherWithAnotherClockBeganIsTwoMinutesAtMost(t *testing.T) {
	t.Parallel()
	whicheverWayItsClockIsOff(t, func(t *testing.T, w *world, off time.Duration) {
		p := w.run()
		task := w.queued("backoff", requeue.AnnotationMaxRetries, "-1", requeue.AnnotationBackoff, "40s")
		pod := w.submit(task)
		for _, name := range []string{pod.Name, pod.Name + "-r1"} {
			_, err := w.kubelet.Reject(t.Context(), w.untilFree(name), "NodeAffinity", "no")
			require.NoError(t, err)
		}
		w.until(pod.Name+"-r2", "alone", func(r *corev1.Pod) bool {
			return r != nil && requeue.Committed(r) && isUntracked(w.history.Latest(pod.Name+"-r1"))
		})
		p.stop()
		w.clock.forward(-off)
		w.run()
		w.within(requeue.MaxBackoff, 2*time.Second, "the gate comes off: no backoff is longer, whoever's clock is off", func() bool { return isFree(w.history.Latest(pod.Name + "-r2")) })
		w.checkReplacement(w.history.Latest(pod.Name+"-r2"), w.history.Latest(pod.Name+"-r1"), task, 2)
		w.nothingSeen()
	})
}

func TestAGraceThatAWatcherWithAnotherClockBeganEndsInTime(t *testing.T) {
	t.Parallel()
	whicheverWayItsClockIsOff(t, func(t *testing.T, w *world, off time.Duration) {
		p := w.run()
		task := w.queued("registry")
		pod := w.onNode(w.submit(task))
		pod, err := w.kubelet.ImagePull(t.Context(), pod, "503 Service Unavailable")
		require.NoError(t, err)
		w.until(pod.Name, "seen waiting", func(p *corev1.Pod) bool { return p.Annotations[requeue.AnnotationWaitingSince] != "" })
		p.stop()
		w.clock.forward(-off)
		w.run()
		w.within(w.policy.ImagePullGrace, 2*time.Second, "the pod is deleted: no grace is longer, whoever's clock is off", func() bool { return w.history.Latest(pod.Name).DeletionTimestamp != nil })
		require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 137))
		w.checkReplacement(w.untilFree(pod.Name+"-r1"), pod, task, 1)
		w.nothingSeen()
	})
}

// Airflow's clock is five minutes behind the API server's: a later queueing's queued_dttm lies before the creation of
// the pod of the earlier one. Airflow 2 has no token to tell them apart, and this watcher has not seen the row before.
func TestAPodOfAnEarlierQueueingByAClockThatIsBehindGetsNoReplacementBesideTheLaterPod(t *testing.T) {
	t.Parallel()
	for _, airflow := range []executor.Airflow{executor.Airflow2, executor.Airflow3} {
		t.Run(string(airflow), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			task := executor.NewTask("dag", "deferred", "manual__1", time.Now().UTC().Truncate(time.Microsecond).Add(-5*time.Minute))
			task.Airflow = airflow
			require.NoError(t, w.db.Insert(w.ctx, task.Row()))
			pod := w.submit(task)
			again := task.Again(task.QueuedAt.Add(time.Minute)) // it was deferred, and is resumed
			require.NoError(t, w.db.Update(t.Context(), again.Row()))
			resumed := w.submit(again)
			_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
			require.NoError(t, err)
			w.run()
			w.passing(time.Second, "the pod is settled", func() bool { return isUntracked(w.history.Latest(pod.Name)) })
			require.Empty(t, w.replacementsOf(pod), "the resumed pod is there: a second process would run beside it")
			require.ElementsMatch(t, []string{pod.Name, resumed.Name}, names(w.pods(task)))
			w.nothingSeen()
		})
	}
}
