package scenarios

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// saw says that of the case's pods the executors have seen exactly this up to now, as "state pod". They have then seen
// a pod that failed last of all, unheld.
func (s *stage) saw(want ...string) {
	s.T.Helper()
	s.eventually(fmt.Sprintf("the executor sees %v", want), func() bool { return len(s.SawOf(s.tasks...)) >= len(want) })
	for _, job := range []int64{1, 2} {
		task := executor.NewTask("marker", "marker", "manual__1", time.Now().UTC())
		marker := s.ok(executor.Scheduler{Client: s.Client, Namespace: s.Namespace, JobID: job}.Create(s.T.Context(), task))
		s.reject(marker)
		s.eventually("the executor sees the marker", func() bool { return slices.Contains(s.SawOf(task.Key), "failed "+marker.Name) })
		s.delete(marker)
	}
	require.ElementsMatch(s.T, want, s.SawOf(s.tasks...), "what the executors saw")
}

// sawNothing says that the executors have seen nothing of the case's pods.
func (s *stage) sawNothing() {
	s.T.Helper()
	s.saw()
}

// stays says that nothing is done to a pod: one that failed after it is replaced by now, and this one is as it was.
func (s *stage) stays(pod *corev1.Pod) {
	s.T.Helper()
	s.untilFree(s.reject(s.submit(s.queue())))
	live := s.ok(s.Client.CoreV1().Pods(s.Namespace).Get(s.T.Context(), pod.Name, metav1.GetOptions{}))
	require.Equal(s.T, pod.ResourceVersion, live.ResourceVersion, "the pod is as it was")
}

// untilGone waits for a pod's object to go.
func (s *stage) untilGone(pod *corev1.Pod) {
	s.T.Helper()
	s.eventually("pod "+pod.Name+" is gone", func() bool {
		moments := s.record.Of(pod.Name)
		return len(moments) > 0 && moments[len(moments)-1].EventType == watch.Deleted
	})
}

// untilLetGo waits for us to be done with a pod, and returns it as it was seen last: it may be gone.
func (s *stage) untilLetGo(pod *corev1.Pod) *corev1.Pod {
	s.T.Helper()
	var last *corev1.Pod
	s.eventually("pod "+pod.Name+" is let go", func() bool {
		moments := s.record.Of(pod.Name)
		if len(moments) == 0 {
			return false
		}
		moment := moments[len(moments)-1]
		last = moment.Pod
		// The last event of a terminating pod carries the labels of before the patch that let it go.
		return moment.EventType == watch.Deleted || s.version(last) >= s.version(pod) && !requeue.Tracked(last) && !slices.Contains(last.Finalizers, requeue.Finalizer)
	})
	return last
}

// version is a pod's resourceVersion, which grows.
func (s *stage) version(pod *corev1.Pod) int {
	s.T.Helper()
	n, err := strconv.Atoi(pod.ResourceVersion)
	require.NoError(s.T, err)
	return n
}

// replacements are all pods that ever claimed to replace a pod, as they were seen last.
func (s *stage) replacements(pod *corev1.Pod) []*corev1.Pod {
	s.T.Helper()
	var found []*corev1.Pod
	for _, key := range s.tasks {
		for _, p := range s.record.Ever(key) {
			if requeue.RequeueOf(p) == string(pod.UID) {
				found = append(found, p)
			}
		}
	}
	return found
}

// untilFree waits for a pod's replacement to be free to run.
func (s *stage) untilFree(pod *corev1.Pod) *corev1.Pod {
	s.T.Helper()
	var replacement *corev1.Pod
	s.eventually("pod "+pod.Name+" has a replacement that may run", func() bool {
		found := s.replacements(pod)
		if len(found) == 1 {
			replacement = found[0]
		}
		return len(found) == 1 && requeue.Committed(found[0]) && !requeue.Gated(found[0])
	})
	return replacement
}

// replaced waits for a pod to be replaced, for that reason and with that in the Events on both, and returns the
// replacement, which may run.
func (s *stage) replaced(pod *corev1.Pod, reason requeue.Reason, note string) *corev1.Pod {
	s.T.Helper()
	replacement := s.takenOver(pod, reason, note)
	s.tells(pod, corev1.EventTypeNormal, reason, "Requeue: Replaced by "+replacement.Name+": ", note)
	s.tells(replacement, corev1.EventTypeNormal, reason, "Requeue: Replaces "+pod.Name+": ", note)
	return replacement
}

// takenOver is replaced without the Events: a create that was made before tells nothing any more. It looks at both pods
// whole, and at the order of the five writes.
func (s *stage) takenOver(pod *corev1.Pod, reason requeue.Reason, note string) *corev1.Pod {
	s.T.Helper()
	replacement, old := s.untilFree(pod), s.untilLetGo(pod)
	first := s.record.Of(pod.Name)[0].Pod // as the webhook stamped it
	origin := first.Annotations[requeue.AnnotationOrigin]
	attempt := requeue.Attempt(first) + 1
	if len(origin) <= 60 {
		assert.Equal(s.T, origin+"-r"+strconv.Itoa(attempt), replacement.Name)
	}
	assert.Equal(s.T, without(first.Labels, requeue.LabelWorker), without(replacement.Labels, requeue.LabelWorker), "labels")
	assert.NotEmpty(s.T, replacement.Labels[requeue.LabelWorker])
	assert.Equal(s.T, []string{requeue.Finalizer}, replacement.Finalizers)
	own := []string{requeue.AnnotationAttempt, requeue.AnnotationSignature, requeue.AnnotationRequeueOf, requeue.AnnotationQueuedAt,
		requeue.AnnotationNotBefore, requeue.AnnotationCommitted, requeue.AnnotationWaitingSince}
	assert.Equal(s.T, without(first.Annotations, own...), without(replacement.Annotations, own...), "annotations")
	assert.Equal(s.T, strconv.Itoa(attempt), replacement.Annotations[requeue.AnnotationAttempt])
	assert.Equal(s.T, string(pod.UID), replacement.Annotations[requeue.AnnotationRequeueOf])
	assert.Equal(s.T, requeue.SealValid, s.Sealer.Verify(replacement).State, "it is sealed")
	assert.Empty(s.T, replacement.Spec.SchedulingGates)
	assert.Equal(s.T, first.Spec.Containers, replacement.Spec.Containers)
	assert.Equal(s.T, first.Spec.ServiceAccountName, replacement.Spec.ServiceAccountName)

	assert.Equal(s.T, requeue.HoldValue, old.Labels[requeue.LabelHold], "the hold stays as a tombstone")
	assert.Equal(s.T, "True", old.Labels[requeue.LabelExecutorDone])
	assert.NotContains(s.T, old.Labels, requeue.LabelWorker)
	assert.Equal(s.T, string(reason), old.Annotations[requeue.AnnotationReason])
	assert.Contains(s.T, old.Annotations[requeue.AnnotationMessage], note)
	if old.DeletionTimestamp != nil {
		s.untilGone(old)
	} else {
		assert.NotNil(s.T, s.record.Latest(old.Name), "it is kept for its logs")
		assert.Contains(s.T, old.Labels, requeue.LabelReplaced)
		assert.NotEmpty(s.T, old.Annotations[requeue.AnnotationReplacedAt])
	}
	s.ordered(pod, replacement)
	return replacement
}

// ordered says that a replacement was made gated and unattached while the old pod was detached, and came free when the
// old one was let go.
func (s *stage) ordered(old, replacement *corev1.Pod) {
	s.T.Helper()
	born := s.record.Of(replacement.Name)[0].Pod
	assert.True(s.T, requeue.Gated(born) && !requeue.Committed(born) && requeue.Held(born) && !requeue.Attached(born), "it is born gated")
	const letGo = "let go"
	version := func(name, what string, is func(*corev1.Pod) bool) int {
		for _, m := range s.record.Of(name) {
			if is(m.Pod) || what == letGo && m.EventType == watch.Deleted {
				return s.version(m.Pod)
			}
		}
		require.FailNow(s.T, "never seen: "+what)
		return 0
	}
	detached := version(old.Name, "detached", requeue.Detached)
	committed := version(replacement.Name, "committed", requeue.Committed)
	stripped := version(old.Name, letGo, func(p *corev1.Pod) bool { return !requeue.Tracked(p) })
	ungated := version(replacement.Name, "free", func(p *corev1.Pod) bool { return !requeue.Gated(p) })
	assert.Less(s.T, detached, committed, "detached, then committed")
	assert.Less(s.T, committed, stripped, "committed, then let go")
	assert.Less(s.T, stripped, ungated, "let go, then ungated")
}

// reported waits for a pod to be shown to Airflow as failed, for that reason and with that in its Event: hold and
// finalizer are off, and nothing replaces it.
func (s *stage) reported(pod *corev1.Pod, reason requeue.Reason, note string) *corev1.Pod {
	s.T.Helper()
	last := s.untilLetGo(pod)
	assert.NotContains(s.T, last.Labels, requeue.LabelHold)
	assert.NotContains(s.T, last.Labels, requeue.LabelExecutorDone)
	assert.NotContains(s.T, last.Labels, requeue.LabelReplaced)
	assert.NotContains(s.T, last.Annotations, requeue.AnnotationDetached)
	assert.NotEmpty(s.T, last.Labels[requeue.LabelWorker])
	assert.Empty(s.T, s.replacements(pod), "nothing replaces it")
	s.eventually("the executor sees it fail", func() bool { return slices.Contains(s.SawOf(s.tasks...), "failed "+pod.Name) })
	s.tells(pod, corev1.EventTypeWarning, reason, "Report: Reported to Airflow: ", note)
	return last
}

// released waits for a pod's hold to be lifted: all that is ours comes off in one patch, and Airflow has it back.
func (s *stage) released(pod *corev1.Pod) *corev1.Pod {
	s.T.Helper()
	last := s.untilLetGo(pod)
	assert.NotContains(s.T, last.Labels, requeue.LabelHold)
	assert.NotContains(s.T, last.Labels, requeue.LabelExecutorDone)
	assert.NotEmpty(s.T, last.Labels[requeue.LabelWorker])
	if last.DeletionTimestamp == nil {
		for _, m := range s.record.Of(pod.Name) {
			assert.Equal(s.T, requeue.Held(m.Pod), slices.Contains(m.Pod.Finalizers, requeue.Finalizer), "hold and finalizer go in one patch")
		}
	}
	assert.Empty(s.T, s.replacements(pod))
	return last
}

// discarded waits for a pod to be kept from Airflow for good.
func (s *stage) discarded(pod *corev1.Pod, note string) *corev1.Pod {
	s.T.Helper()
	last := s.untilLetGo(pod)
	assert.Equal(s.T, requeue.HoldValue, last.Labels[requeue.LabelHold], "the hold stays as a tombstone")
	assert.Equal(s.T, "True", last.Labels[requeue.LabelExecutorDone])
	assert.NotContains(s.T, last.Labels, requeue.LabelWorker)
	assert.Equal(s.T, "true", last.Annotations[requeue.AnnotationDiscarded])
	assert.Equal(s.T, string(requeue.ReasonSuperseded), last.Annotations[requeue.AnnotationReason])
	assert.Empty(s.T, s.replacements(pod), "nothing replaces it")
	s.tells(pod, corev1.EventTypeWarning, requeue.ReasonSuperseded, "Discard: Kept from Airflow: ", note)
	return last
}

// deleted waits for a pod to be deleted by the watcher, its reason written on it before.
func (s *stage) deleted(pod *corev1.Pod, reason requeue.Reason, note string) *corev1.Pod {
	s.T.Helper()
	var moments []history.Moment
	deleted := -1
	s.eventually("pod "+pod.Name+" is deleted by the watcher", func() bool {
		moments = s.record.Of(pod.Name)
		deleted = slices.IndexFunc(moments, func(m history.Moment) bool { return m.Pod.DeletionTimestamp != nil })
		return deleted >= 0
	})
	pod = moments[deleted].Pod
	assert.True(s.T, slices.ContainsFunc(moments[:deleted], func(m history.Moment) bool {
		return m.Pod.Annotations[requeue.AnnotationReason] == string(reason)
	}), "the reason is on the pod before it is deleted")
	assert.Contains(s.T, pod.Annotations[requeue.AnnotationMessage], note)
	assert.True(s.T, requeue.Held(pod) && requeue.Tracked(pod) && slices.Contains(pod.Finalizers, requeue.Finalizer), "it is held on")
	s.tells(pod, corev1.EventTypeWarning, reason, "Delete: Deleted: ", note)
	return pod
}

// tells waits for an Event on a pod, where `kubectl describe` shows it. The note begins with one text and contains the
// other.
func (s *stage) tells(pod *corev1.Pod, kind string, reason requeue.Reason, begins, contains string) {
	s.T.Helper()
	want := fmt.Sprintf("%s %s %s", kind, reason, begins)
	s.eventually(fmt.Sprintf("an Event on %s: %s…%s", pod.Name, want, contains), func() bool {
		return slices.ContainsFunc(s.events.On(pod), func(e string) bool {
			return strings.HasPrefix(e, want) && strings.Contains(e, contains)
		})
	})
}

// at is when a pod was first seen like that.
func (s *stage) at(pod *corev1.Pod, what string, is func(*corev1.Pod) bool) time.Time {
	s.T.Helper()
	for _, m := range s.record.Of(pod.Name) {
		if is(m.Pod) {
			return m.At
		}
	}
	require.FailNow(s.T, "never seen: "+what)
	return time.Time{}
}

// late creates the replacement of a pod as a watcher does whose create arrives late: sealed, gated, uncommitted.
func (s *stage) late(pod *corev1.Pod, task executor.Task) *corev1.Pod {
	s.T.Helper()
	next := requeue.Next{Attempt: requeue.Attempt(pod) + 1, QueuedAt: task.QueuedAt, NotBefore: time.Now()}
	body, err := s.Sealer.Replacement(pod, next, requeue.ReplacementName(pod, next, false))
	require.NoError(s.T, err)
	return s.post(body)
}

// post creates a pod under the watcher's account.
func (s *stage) post(body []byte) *corev1.Pod {
	s.T.Helper()
	client, err := kubernetes.NewForConfig(s.Access(s.WatcherUser()))
	require.NoError(s.T, err)
	created := &corev1.Pod{}
	require.NoError(s.T, client.CoreV1().RESTClient().Post().Namespace(s.Namespace).Resource("pods").
		SetHeader("Content-Type", "application/json").Body(body).Do(s.T.Context()).Into(created))
	require.True(s.T, requeue.Held(created) && requeue.Tracked(created), "the webhook lets the watcher's pod pass as it is")
	return created
}

func without(m map[string]string, keys ...string) map[string]string {
	rest := map[string]string{}
	for k, v := range m {
		if !slices.Contains(keys, k) {
			rest[k] = v
		}
	}
	return rest
}
