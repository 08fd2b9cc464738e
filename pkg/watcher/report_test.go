package watcher_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestARealFailureIsReportedInOnePatch(t *testing.T) {
	t.Parallel()
	fail := func(w *world, pod *corev1.Pod) {
		_, err := w.kubelet.Fail(w.ctx, w.started(pod))
		require.NoError(w.t, err)
	}
	for _, tt := range []struct {
		name    string
		reason  requeue.Reason
		task    func(*world) executor.Task
		end     func(*world, *corev1.Pod)
		row     func(*corev1.Pod, *requeue.TaskInstance)
		message string // of the Event
	}{
		{name: "the container ended by itself with an excluded reason", reason: requeue.ReasonExcludedReason,
			end: fail, message: "container base: Error, exit code 1"},
		{name: "the task had run", reason: requeue.ReasonStarted, end: fail, row: func(pod *corev1.Pod, row *requeue.TaskInstance) { running(pod.Name)(row) },
			message: "the task ran"},
		{name: "the task had run, and Airflow has failed it already", reason: requeue.ReasonStarted, end: fail, message: "the task ran",
			row: func(pod *corev1.Pod, row *requeue.TaskInstance) { row.State, row.Hostname = "failed", pod.Name }},
		{name: "the task is at another try", reason: requeue.ReasonNotQueued, end: fail, row: func(_ *corev1.Pod, row *requeue.TaskInstance) { row.TryNumber = 2 },
			message: "the task instance is at try 2, the pod at try 1"},
		{name: "the task was set to failed by hand", reason: requeue.ReasonNotQueued, end: fail,
			row: func(_ *corev1.Pod, row *requeue.TaskInstance) { row.State = "failed" }, message: "the task instance is failed"},
		{name: "the pod's own deadline is over", reason: requeue.ReasonDeadlineExceeded, message: "Pod was active too long",
			end: func(w *world, pod *corev1.Pod) {
				_, err := w.kubelet.FailWith(w.ctx, w.started(pod), "DeadlineExceeded", "Pod was active too long")
				require.NoError(w.t, err)
			}},
		{name: "a replacement would come after the token has expired", reason: requeue.ReasonTooLate, message: "a replacement could not start before",
			task: func(w *world) executor.Task {
				task := executor.NewTask("dag", "too-late", "manual__1", time.Now().UTC().Truncate(time.Microsecond).Add(-9*time.Minute-45*time.Second))
				require.NoError(w.t, w.db.Insert(w.ctx, task.Row()))
				return task
			},
			end: func(w *world, pod *corev1.Pod) {
				_, err := w.kubelet.Reject(w.ctx, pod, "NodeAffinity", "no")
				require.NoError(w.t, err)
			}},
		{name: "an annotation that was sealed has been changed", reason: requeue.ReasonTampered, message: "the signature does not match the stamps",
			end: func(w *world, pod *corev1.Pod) {
				w.patch(pod.Name, `{"metadata":{"annotations":{"`+requeue.AnnotationAttempt+`":"-7"}}}`)
				fail(w, pod)
			}},
		{name: "the signature is garbage", reason: requeue.ReasonTampered, message: "the signature is missing or malformed",
			end: func(w *world, pod *corev1.Pod) {
				w.patch(pod.Name, `{"metadata":{"annotations":{"`+requeue.AnnotationSignature+`":"v1:k1"}}}`)
				fail(w, pod)
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			task := w.queued("real")
			if tt.task != nil {
				task = tt.task(w)
			}
			pod := w.submit(task)
			tt.end(w, pod)
			if tt.row != nil {
				w.row(task, func(row *requeue.TaskInstance) { tt.row(pod, row) })
			}
			p := w.run()
			pod = w.untilUntracked(pod.Name)
			require.NotContains(t, pod.Labels, requeue.LabelHold)
			require.Equal(t, "1", pod.Labels[requeue.LabelWorker])
			w.untilSeenOf(pod.Name, "failed")
			require.Equal(t, []string{"PATCH " + pod.Name}, p.wire.requests())
			require.Len(t, w.pods(task), 1)
			w.untilEvent(pod, string(tt.reason), tt.message)
		})
	}
}

func TestTheBudgetIsSpentAndTheLastPodReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("spent", requeue.AnnotationMaxRetries, "2", requeue.AnnotationBackoff, "0s")
	pod := w.submit(task)
	for _, name := range []string{pod.Name, pod.Name + "-r1", pod.Name + "-r2"} {
		_, err := w.kubelet.Reject(t.Context(), w.untilFree(name), "NodeAffinity", "no")
		require.NoError(t, err)
	}
	last := w.until(pod.Name+"-r2", "reported", func(p *corev1.Pod) bool { return !requeue.Tracked(p) })
	require.NotContains(t, last.Labels, requeue.LabelHold)
	w.untilEvent(last, "Exhausted", "2 of 2 replacements made; NodeAffinity: Pod was rejected: no")
	w.untilSeen("failed " + last.Name)
	w.seenOnly("failed " + last.Name)
	require.Equal(t, []string{pod.Name, pod.Name + "-r1", pod.Name + "-r2"}, names(w.pods(task)))
}

func TestAFreshPodOfASpentQueueingIsReported(t *testing.T) {
	t.Parallel()
	for _, create := range []fate{arrives, answerLost} {
		t.Run(fmt.Sprintf("the watcher was killed before its create was answered: %t", create == answerLost), func(t *testing.T) {
			t.Parallel()
			aFreshPodOfASpentQueueing(t, create)
		})
	}
}

func aFreshPodOfASpentQueueing(t *testing.T, create fate) {
	t.Helper()
	w := newWorld(t)
	p := w.run(func(p *process) {
		p.wire.write = func(_ int, request string) fate {
			if request == "POST" {
				return create
			}
			return arrives
		}
	})
	task := w.queued("spent")
	pod := w.submit(task)
	if create == answerLost {
		_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
		require.NoError(t, err)
		w.eventually("the watcher is killed", p.wire.isDead)
		p.stop()
		w.run()
	}
	for _, name := range []string{pod.Name, pod.Name + "-r1"} {
		_, err := w.kubelet.Reject(t.Context(), w.untilFree(name), "NodeAffinity", "no")
		require.NoError(t, err)
	}
	w.untilSeen("failed " + pod.Name + "-r1")
	again := task // the executor's own requeue: the same queueing, another pod
	again.Suffix = "k8sown00"
	fresh := w.submit(again)
	_, err := w.kubelet.Reject(t.Context(), fresh, "NodeAffinity", "no")
	require.NoError(t, err)
	w.untilEvent(fresh, "Exhausted", "1 of 1 replacements made")
	w.untilSeenOf(fresh.Name, "failed")
}

func TestAPodThatCanNeverStartIsReportedInTheKubeletsWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	task := w.queued("typo")
	pod := w.onNode(w.submit(task))
	pod, err := w.kubelet.Waiting(t.Context(), pod, "InvalidImageName", `Failed to apply default image tag "a b": invalid reference format`)
	require.NoError(t, err)
	pod = w.until(pod.Name, "deleted", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	require.Equal(t, `container base: InvalidImageName: Failed to apply default image tag "a b": invalid reference format`,
		pod.Annotations[requeue.AnnotationMessage])
	w.nothingSeen()
	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 137))
	w.untilSeenOf(pod.Name, "failed")
	w.untilEvent(pod, "Misconfigured", "invalid reference format")
	w.passing(time.Second, "the pod goes", func() bool { return w.history.Latest(pod.Name) == nil })
	require.Equal(t, []string{"PATCH " + pod.Name, "DELETE " + pod.Name}, p.wire.requests()[:2], "its reason first, on the pod")
	require.Equal(t, 1, p.wire.count("DELETE "+pod.Name))
	require.Empty(t, w.pods(task))
}

func TestAnImageThatIsNotThereIsReportedWhenItsGraceIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("no-such-image")
	began := w.clock.Now()
	pod := w.onNode(w.submit(task))
	_, err := w.kubelet.ImagePull(t.Context(), pod, `failed to resolve reference "a:b": rpc error: code = NotFound desc = not found`)
	require.NoError(t, err)
	w.passing(10*time.Second, "the pod is deleted", func() bool { return w.history.Latest(pod.Name).DeletionTimestamp != nil })
	require.GreaterOrEqual(t, w.clock.Since(began), w.policy.ImagePullGrace)
	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 137))
	w.untilSeenOf(pod.Name, "failed")
	w.untilEvent(pod, "Misconfigured", "code = NotFound")
	require.Len(t, w.pods(task), 1)
}

func TestAPodDeletedUnscheduledWithoutABudgetIsMarkedFailedBeforeItIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("no-budget", requeue.AnnotationMaxRetries, "0") // never held by the webhook; a pod from before it was set
	pod := w.submit(task)
	w.delete(pod.Name)
	w.untilSeen("failed " + pod.Name)
	w.passing(time.Second, "the pod goes", func() bool { return w.history.Latest(pod.Name) == nil })
	var phases []string
	for _, m := range w.history.Of(pod.Name) {
		held := ""
		if requeue.Held(m.Pod) {
			held = " held"
		}
		phases = append(phases, string(m.EventType)+" "+string(m.Pod.Status.Phase)+held)
	}
	require.Equal(t, []string{"ADDED Pending held", "MODIFIED Pending held", "MODIFIED Failed held", "MODIFIED Failed", "DELETED Failed"}, phases)
	last := w.history.Of(pod.Name)[4].Pod
	require.Equal(t, "Exhausted", last.Status.Reason)
	require.Contains(t, last.Status.Message, "deleted before it had a node")
}

func TestAReportOfATerminatingPodIsSeenByAWatchThatBeginsBetweenItsTwoPatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("terminating")
	pod := w.started(w.submit(task))
	w.row(task, state("failed")) // by hand, before it had begun
	w.delete(pod.Name)
	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 1))

	lifted := w.until(pod.Name, "its hold lifted", func(p *corev1.Pod) bool { return p == nil || !requeue.Held(p) })
	require.Contains(t, lifted.Finalizers, requeue.Finalizer)
	between := w.watchAsExecutor(1) // the executor's watch was between two connections
	w.eventually("both watches see the failure", func() bool {
		return len(between.saw()) == 1 && len(w.executor.saw()) == 1
	})
	require.NotNil(t, w.now(pod.Name), "seen before the object is gone")
	w.untilGone(pod.Name)
	require.Equal(t, []string{"failed " + pod.Name}, between.saw())
	require.Equal(t, []string{"failed " + pod.Name}, w.executor.saw())

	moments := w.history.Of(pod.Name)
	last := moments[len(moments)-1]
	require.Equal(t, watch.Deleted, last.EventType)
	require.NotContains(t, last.Pod.Labels, requeue.LabelHold)
	var at time.Time
	for _, m := range moments {
		if !requeue.Held(m.Pod) {
			at = m.At
			break
		}
	}
	require.GreaterOrEqual(t, last.At.Sub(at), requeue.LingerFor-500*time.Millisecond, "two patches, apart")
}

func TestAPodThatIsDeletedWhileItsReportIsOnItsWayIsSeenFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reached, goOn := w.paused(1)
	pod := w.started(w.submit(w.queued("fails")))
	_, err := w.kubelet.Fail(t.Context(), pod)
	require.NoError(t, err)
	w.untilReached(reached)
	w.delete(pod.Name) // one patch would now be one too few
	goOn()
	w.untilSeen("failed " + pod.Name)
	w.passing(time.Second, "the pod goes", func() bool { return w.history.Latest(pod.Name) == nil })
	w.seenOnly("failed " + pod.Name)
}

// untilEvent waits for an Event on the pod with a reason, whose note contains the words.
func (w *world) untilEvent(pod *corev1.Pod, reason, words string) {
	w.t.Helper()
	w.eventually("Event "+reason+" on "+pod.Name+": "+words, func() bool {
		for _, e := range w.eventsOn(pod) {
			if strings.HasPrefix(e, reason+": ") && strings.Contains(e, words) {
				return true
			}
		}
		return false
	})
}
