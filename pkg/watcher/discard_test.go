package watcher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestASecondStartOfARunningTaskIsKeptFromAirflow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("twice")
	loser := w.submit(task)
	winner := w.started(w.unheld(task.Again(task.QueuedAt)))
	w.row(task, running(winner.Name))
	_, err := w.kubelet.Fail(t.Context(), w.started(loser)) // the API answered 409
	require.NoError(t, err)
	loser = w.untilUntracked(loser.Name)
	require.True(t, requeue.Held(loser) && !requeue.Attached(loser) && requeue.Discarded(loser))
	w.untilEvent(loser, "Superseded", "the task runs in "+winner.Name)
	_, err = w.kubelet.Succeed(t.Context(), winner)
	require.NoError(t, err)
	w.seenOnly("succeeded " + winner.Name)
	require.Empty(t, w.replacementsOf(loser))
}

func TestALoserWhoseWinnerIsGoneIsReported(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		loss func(*world, *corev1.Pod)
	}{
		{"deleted", func(w *world, winner *corev1.Pod) {
			now := int64(0)
			require.NoError(w.t, w.client.CoreV1().Pods(w.namespace).Delete(w.ctx, winner.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
		}},
		{"revoked", func(w *world, winner *corev1.Pod) { require.NoError(w.t, w.scheduler.MarkRevoked(w.ctx, winner.Name)) }},
		{"failed", func(w *world, winner *corev1.Pod) {
			_, err := w.kubelet.Fail(w.ctx, winner)
			require.NoError(w.t, err)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			task := w.queued("twice")
			loser := w.submit(task)
			winner := w.started(w.unheld(task.Again(task.QueuedAt)))
			w.row(task, running(winner.Name))
			tt.loss(w, winner)
			_, err := w.kubelet.Fail(t.Context(), w.started(loser))
			require.NoError(t, err)
			w.run()
			w.untilUntracked(loser.Name)
			w.untilSeenOf(loser.Name, "failed")
			w.untilEvent(loser, "NotQueued", "the task instance is running")
		})
	}
}

// created leaves a pod detached and its replacement created, and no watcher running.
func (w *world) created(task executor.Task) (pod, replacement *corev1.Pod) {
	w.t.Helper()
	pod = w.after(task, isCreated)
	return pod, w.now(pod.Name + "-r1")
}

func TestALateCreateWhosePredecessorIsGoneIsDeletedAndNeverSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("late")
	pod, late := w.created(task)
	w.patch(pod.Name, `{"metadata":{"finalizers":null}}`)
	w.delete(pod.Name) // a person's work
	w.untilGone(pod.Name)
	w.run()
	w.untilGone(late.Name)
	var seen []string
	for _, m := range w.history.Of(late.Name) {
		require.True(t, requeue.Gated(m.Pod), "it never ran")
		require.False(t, requeue.Attached(m.Pod))
		if reason := m.Pod.Annotations[requeue.AnnotationReason]; len(seen) == 0 || seen[len(seen)-1] != reason {
			seen = append(seen, reason)
		}
	}
	require.Equal(t, []string{"", "Superseded"}, seen)
	require.Empty(t, w.replacementsOf(late))
	w.nothingSeen()
}

func TestACreateThatLandsAfterThePodWasReportedNeverRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("late")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	reached, goOn := w.paused(2) // the create of a leader that is cut off
	w.untilReached(reached)
	w.row(task, state("failed"))
	next := w.run()
	w.untilUntracked(pod.Name)
	w.untilSeen("failed " + pod.Name)
	goOn()
	w.until(pod.Name+"-r1", "created", func(p *corev1.Pod) bool { return p != nil })
	w.untilGone(pod.Name + "-r1")
	for _, m := range w.history.Of(pod.Name + "-r1") {
		require.True(t, requeue.Gated(m.Pod) && !requeue.Attached(m.Pod))
	}
	w.seenOnly("failed " + pod.Name)
	next.stop()
}

func TestAReplacementWhoseTaskMovesOnBeforeItRunsIsDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("moves-on")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	replacement := w.untilFree(pod.Name + "-r1")
	w.row(task, state("failed")) // by hand
	replacement = w.onNode(replacement)
	replacement = w.until(replacement.Name, "deleted", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	require.Equal(t, "Superseded", replacement.Annotations[requeue.AnnotationReason])
	require.True(t, requeue.Held(replacement), "its hold is kept")
	require.NoError(t, w.kubelet.Terminate(t.Context(), replacement, 137))
	w.passing(time.Second, "the replacement goes", func() bool { return w.history.Latest(replacement.Name) == nil })
	w.seenOnly("failed " + replacement.Name) // the executor waits for an end
}

func TestADeleteNeverMeetsAStrangerOfTheSameName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy.ImagePullGrace = 0
	task := w.queued("namesake")
	pod, err := w.kubelet.ImagePull(t.Context(), w.onNode(w.submit(task)), "503 Service Unavailable")
	require.NoError(t, err)
	reached, goOn := w.paused(3) // since when it waits, why it goes, and the delete
	w.untilReached(reached)
	require.NotEmpty(t, w.now(pod.Name).Annotations[requeue.AnnotationReason])

	w.patch(pod.Name, `{"metadata":{"finalizers":null}}`)
	now := int64(0)
	require.NoError(t, w.client.CoreV1().Pods(w.namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	stranger := executor.NewTask("other", "other", "manual__1", time.Now().UTC())
	stranger.Name = pod.Name
	other := w.unheld(stranger)
	goOn()
	fence := w.submit(w.queued("fence")) // the watcher has got on when it has dealt with this
	w.delete(fence.Name)
	w.untilFree(fence.Name + "-r1")
	left := w.now(pod.Name)
	require.Equal(t, other.UID, left.UID)
	require.Nil(t, left.DeletionTimestamp)
}
