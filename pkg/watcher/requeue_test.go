package watcher_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestADrainedPodIsReplacedAndItsTaskSucceedsUnseen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("drained")
	pod := w.onNode(w.submit(task))
	require.NoError(t, w.kubelet.Evict(t.Context(), pod))
	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 137))
	w.untilGone(pod.Name)
	replacement := w.started(w.untilFree(pod.Name + "-r1"))
	w.nothingSeen()

	w.row(task, running(replacement.Name))
	replacement = w.untilUntracked(replacement.Name)
	require.NotContains(t, replacement.Labels, requeue.LabelHold)
	_, err := w.kubelet.Succeed(t.Context(), replacement)
	require.NoError(t, err)
	w.seenOnly("succeeded " + replacement.Name)
}

func TestARequeueTakesFiveWritesOneGetAndThreeReadsOfTheRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod, err := w.kubelet.Reject(t.Context(), w.submit(w.queued("counted")), "NodeAffinity", "no")
	require.NoError(t, err)
	var reads atomic.Int64 // before the last write
	p := w.run(func(p *process) {
		p.wire.write = func(n int, _ string) fate {
			if n == 5 {
				reads.Store(int64(p.rows.count()))
			}
			return arrives
		}
	})
	replacement := w.untilFree(pod.Name + "-r1").Name
	require.Equal(t, []string{"PATCH " + pod.Name, "POST", "GET " + pod.Name, "PATCH " + replacement, "PATCH " + pod.Name, "PATCH " + replacement},
		p.wire.requests())
	require.EqualValues(t, 3, reads.Load())
}

func TestAPodThatIsTakenBeforeItsTaskBeganIsReplaced(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		reason  requeue.Reason
		message string
		end     func(*world, *corev1.Pod) error
		node    bool // it had one, to be avoided
		stays   bool // nobody deleted the old pod
	}{
		{name: "drained in ContainerCreating", reason: requeue.ReasonEvicted, message: "Eviction API: evicting", node: true,
			end: func(w *world, pod *corev1.Pod) error {
				pod = w.onNode(pod)
				if err := w.kubelet.Evict(w.ctx, pod); err != nil {
					return err
				}
				return w.kubelet.Terminate(w.ctx, pod, 137)
			}},
		{name: "evicted while Running, the row still queued", reason: requeue.ReasonEvicted, message: "container base: Error, exit code 143", node: true,
			end: func(w *world, pod *corev1.Pod) error {
				pod = w.started(pod)
				if err := w.kubelet.Evict(w.ctx, pod); err != nil {
					return err
				}
				return w.kubelet.Terminate(w.ctx, pod, 143)
			}},
		{name: "preempted", reason: requeue.ReasonEvicted, message: "preempting to accommodate a higher priority pod", node: true,
			end: func(w *world, pod *corev1.Pod) error {
				pod = w.onNode(pod)
				if err := w.kubelet.Preempt(w.ctx, pod); err != nil {
					return err
				}
				return w.kubelet.Terminate(w.ctx, pod, 137)
			}},
		{name: "deleted on its node by a person", reason: requeue.ReasonDeleted, message: "deleted on node node-a", node: true,
			end: func(w *world, pod *corev1.Pod) error {
				pod = w.onNode(pod)
				w.delete(pod.Name)
				return w.kubelet.Terminate(w.ctx, pod, 137)
			}},
		{name: "deleted before it had a node", reason: requeue.ReasonDeletedUnscheduled, message: "deleted before it had a node",
			end: func(w *world, pod *corev1.Pod) error { w.delete(pod.Name); return nil }},
		{name: "its node lost", reason: requeue.ReasonNodeLost, message: "PodGC: node no longer exists", node: true,
			end: func(w *world, pod *corev1.Pod) error { return w.kubelet.NodeLost(w.ctx, w.started(pod)) }},
		{name: "rejected by the kubelet", reason: requeue.ReasonKubeletRejected, message: "NodeAffinity: Pod was rejected: no", stays: true,
			end: func(w *world, pod *corev1.Pod) error {
				_, err := w.kubelet.Reject(w.ctx, pod, "NodeAffinity", "no")
				return err
			}},
		{name: "evicted by its kubelet", reason: requeue.ReasonNodePressure, message: "The node was low on resource: memory.", node: true, stays: true,
			end: func(w *world, pod *corev1.Pod) error {
				_, err := w.kubelet.NodePressure(w.ctx, w.onNode(pod), "The node was low on resource: memory.")
				return err
			}},
		{name: "ended by the shutdown of its node", reason: requeue.ReasonNodeShutdown, message: "node shutdown", node: true, stays: true,
			end: func(w *world, pod *corev1.Pod) error {
				_, err := w.kubelet.NodeShutdown(w.ctx, w.started(pod))
				return err
			}},
		{name: "given up by a virtual node", reason: requeue.ReasonProviderFailed, message: "ProviderFailed: out of capacity", node: true, stays: true,
			end: func(w *world, pod *corev1.Pod) error {
				_, err := w.kubelet.FailWith(w.ctx, w.onNode(pod), "ProviderFailed", "out of capacity")
				return err
			}},
		{name: "ended by a start error", reason: requeue.ReasonContainerFailed, message: "container base: StartError, exit code 128", node: true, stays: true,
			end: func(w *world, pod *corev1.Pod) error {
				_, err := w.kubelet.StartError(w.ctx, w.onNode(pod))
				return err
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.run()
			task := w.queued("taken")
			pod := w.submit(task)
			require.NoError(t, tt.end(w, pod))
			replacement := w.untilFree(pod.Name + "-r1")
			w.checkReplacement(replacement, pod, task, 1)
			if !tt.stays {
				w.untilGone(pod.Name)
			} else {
				old := w.untilUntracked(pod.Name)
				require.Equal(t, string(tt.reason), old.Annotations[requeue.AnnotationReason])
				w.checkTombstone(old)
			}
			w.checkHandOver(pod.Name, replacement.Name)
			require.Equal(t, tt.node, avoids(replacement, "node-a"))
			w.untilEvent(pod, string(tt.reason), "Replaced by "+replacement.Name)
			w.untilEvent(pod, string(tt.reason), tt.message)
			w.untilEvent(replacement, string(tt.reason), "Replaces "+pod.Name)
			w.nothingSeen()
		})
	}
}

// checkReplacement says that a pod is what takes another's place, and held.
func (w *world) checkReplacement(p, old *corev1.Pod, task executor.Task, attempt int) {
	w.t.Helper()
	require.Equal(w.t, string(old.UID), requeue.RequeueOf(p))
	require.Equal(w.t, attempt, requeue.Attempt(p))
	require.Equal(w.t, old.Annotations[requeue.AnnotationOrigin], p.Annotations[requeue.AnnotationOrigin])
	require.Equal(w.t, requeue.FormatTime(task.QueuedAt), p.Annotations[requeue.AnnotationQueuedAt])
	require.Equal(w.t, "1", p.Labels[requeue.LabelWorker])
	require.True(w.t, requeue.Committed(p) && requeue.Held(p) && requeue.Tracked(p))
	require.Contains(w.t, p.Finalizers, requeue.Finalizer)
	require.Equal(w.t, old.Spec.Containers[0].Args, p.Spec.Containers[0].Args)
	seal := w.sealer.Verify(p)
	require.Equal(w.t, requeue.SealValid, seal.State, seal.Error)
}

// checkTombstone says that a pod that was replaced is out of everybody's way.
func (w *world) checkTombstone(p *corev1.Pod) {
	w.t.Helper()
	require.NotContains(w.t, p.Labels, requeue.LabelWorker)
	require.Equal(w.t, "True", p.Labels[requeue.LabelExecutorDone])
	require.Equal(w.t, requeue.HoldValue, p.Labels[requeue.LabelHold])
	require.Equal(w.t, installation, p.Labels[requeue.LabelReplaced])
	require.NotEmpty(w.t, p.Annotations[requeue.AnnotationReplacedAt])
	require.NotContains(w.t, p.Finalizers, requeue.Finalizer)
}

// checkHandOver says in which order a pod took the other's place.
func (w *world) checkHandOver(old, replacement string) {
	w.t.Helper()
	for _, m := range w.history.Of(replacement) {
		p := m.Pod
		require.Equal(w.t, requeue.Committed(p), p.Labels[requeue.LabelWorker] != "", "airflow-worker comes with the commit")
		if !requeue.Committed(p) {
			require.True(w.t, requeue.Gated(p), "what is not committed never runs")
		}
	}
	detached := w.first(func(p *corev1.Pod) bool { return p.Name == old && requeue.Detached(p) })
	created := w.first(func(p *corev1.Pod) bool { return p.Name == replacement })
	require.Less(w.t, detached, created)
}

// avoids reports whether a pod prefers other nodes.
func avoids(pod *corev1.Pod, node string) bool {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil {
		return false
	}
	for _, term := range pod.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		for _, e := range term.Preference.MatchFields {
			if e.Operator == corev1.NodeSelectorOpNotIn && slices.Contains(e.Values, node) {
				return true
			}
		}
	}
	return false
}

func TestTheSecondReplacementStaysGatedUntilItsBackoffIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("backoff", requeue.AnnotationMaxRetries, "-1", requeue.AnnotationBackoff, "40s")
	pod := w.submit(task)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	first := w.untilFree(pod.Name + "-r1") // at once
	began := w.clock.Now()
	_, err = w.kubelet.Reject(t.Context(), first, "NodeAffinity", "no")
	require.NoError(t, err)
	second := w.until(pod.Name+"-r2", "committed", func(p *corev1.Pod) bool { return p != nil && requeue.Committed(p) })
	require.True(t, requeue.Gated(second))
	w.untilUntracked(first.Name)
	w.passing(4*time.Second, "the gate comes off", func() bool { return !requeue.Gated(w.history.Latest(second.Name)) })
	require.GreaterOrEqual(t, w.clock.Since(began), 32*time.Second, "40 s, less a fifth at most")
	w.checkReplacement(w.history.Latest(second.Name), first, task, 2)
	w.nothingSeen()
}

func TestAnImageThatCannotBePulledIsRecordedDeletedWaitedForAndReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	task := w.queued("registry")
	began := w.clock.Now()
	pod := w.onNode(w.submit(task))
	pod, err := w.kubelet.ImagePull(t.Context(), pod, "failed with status code [manifests latest]: 503 Service Unavailable")
	require.NoError(t, err)
	w.until(pod.Name, "seen waiting", func(p *corev1.Pod) bool { return p.Annotations[requeue.AnnotationWaitingSince] != "" })
	p.stop() // memory does not survive, the record does
	p = w.run()
	w.passing(10*time.Second, "the pod is deleted", func() bool { return w.history.Latest(pod.Name).DeletionTimestamp != nil })
	require.GreaterOrEqual(t, w.clock.Since(began), w.policy.ImagePullGrace)
	require.Equal(t, []string{"PATCH " + pod.Name, "DELETE " + pod.Name}, p.wire.requests(), "no word of a replacement while it may yet run")
	require.Contains(t, p.wire.body("DELETE "+pod.Name), `"uid":"`+string(pod.UID)+`"`)

	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 137))
	replacement := w.untilFree(pod.Name + "-r1")
	w.checkReplacement(replacement, pod, task, 1)
	w.untilGone(pod.Name)
	w.untilEvent(pod, "ImagePull", "503 Service Unavailable")
	w.nothingSeen()
}

func TestAnImageThatIsPulledInTheEndIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	task := w.queued("slow-registry")
	pod := w.onNode(w.submit(task))
	pod, err := w.kubelet.ImagePull(t.Context(), pod, "503 Service Unavailable")
	require.NoError(t, err)
	w.until(pod.Name, "seen waiting", func(p *corev1.Pod) bool { return p.Annotations[requeue.AnnotationWaitingSince] != "" })
	pod, err = w.kubelet.Start(t.Context(), pod)
	require.NoError(t, err)
	reads := p.rows.count()
	w.clock.forward(2 * w.policy.ImagePullGrace)
	w.eventually("the pod was looked at since", func() bool { return p.rows.count() > reads+1 })
	require.Nil(t, w.now(pod.Name).DeletionTimestamp)
}

func TestAPodThatStaysPendingIsReplacedWhenItsStartDeadlineIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("volume", requeue.AnnotationStartDeadline, "3m")
	pod := w.onNode(w.submit(task)) // ContainerCreating, for ever
	began := w.clock.Now()
	w.passing(15*time.Second, "the pod is deleted", func() bool { return w.history.Latest(pod.Name).DeletionTimestamp != nil })
	require.GreaterOrEqual(t, w.clock.Since(began), 2*time.Minute)
	require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 137))
	w.checkReplacement(w.untilFree(pod.Name+"-r1"), pod, task, 1)
	w.untilEvent(pod, "StartDeadline", "Pending for longer than the start deadline of 3m0s")
	w.nothingSeen()
}

func TestAReplacementMayRunBeforeTheInformerHasSeenItsPredecessorGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	front := faultproxy.New(t, w.config)
	w.config = front.Config()
	pod, err := w.kubelet.Reject(t.Context(), w.submit(w.queued("late")), "NodeAffinity", "no")
	require.NoError(t, err)
	p := w.run(func(p *process) {
		p.wire.write = func(n int, _ string) fate {
			if n == 1 {
				front.Lag(pod.Name, time.Hour) // nothing is heard of the pod from here on
			}
			return arrives
		}
	})
	replacement := w.untilFree(pod.Name + "-r1").Name
	require.Equal(t, []string{"PATCH " + pod.Name, "POST", "GET " + pod.Name, "PATCH " + replacement, "PATCH " + pod.Name, "PATCH " + replacement},
		p.wire.requests())
}
