package scenarios

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// ours is the patch that puts tracked label and finalizer on a pod.
const ours = `{"metadata":{"labels":{"` + requeue.LabelTracked + `":"airflow-requeue"},"finalizers":["` + requeue.Finalizer + `"]}}`

// unheld has Airflow create a pod that the webhook lets through as it is.
func (s *stage) unheld(task executor.Task) *corev1.Pod {
	s.T.Helper()
	pod := s.ok(s.airflow.Create(s.T.Context(), task))
	require.False(s.T, requeue.Held(pod) || requeue.Tracked(pod) || len(pod.Finalizers) > 0, "the webhook lets it through")
	return pod
}

// off is max-retries 0: the webhook does not hold the pod.
func off() func(*executor.Task) { return tuned(requeue.AnnotationMaxRetries, "0") }

// stripped waits for finalizer and tracked label to go, and says that all else is as it was.
func (s *stage) stripped(before *corev1.Pod) {
	s.T.Helper()
	after := s.untilLetGo(before)
	assert.Equal(s.T, without(before.Labels, requeue.LabelTracked), after.Labels)
	assert.Equal(s.T, before.Annotations, after.Annotations)
	assert.Nil(s.T, after.DeletionTimestamp)
	assert.Empty(s.T, s.replacements(before))
}

func gone() []scenario {
	return []scenario{
		{row: "1", seen: "no stamps, with our finalizer", want: "strip", play: func(s *stage) {
			s.stripped(s.patch(s.unheld(s.queue(off())).Name, ours))
		}},
		{row: "1", seen: "callback_id, with our finalizer", want: "strip", play: func(s *stage) {
			pod := s.unheld(s.queue(func(task *executor.Task) { task.Annotations[requeue.AnnotationCallbackID] = "callback-1" }))
			s.patch(pod.Name, `{"metadata":{"annotations":{"`+requeue.AnnotationAttempt+`":"0"}}}`)
			s.stripped(s.patch(pod.Name, ours))
		}},
		{row: "1", seen: "not kubernetes_executor=True, with our finalizer", want: "strip", play: func(s *stage) {
			pod := s.unheld(s.queue(off()))
			s.patch(pod.Name, `{"metadata":{"labels":{"kubernetes_executor":null},"annotations":{"`+requeue.AnnotationAttempt+`":"0"}}}`)
			s.stripped(s.patch(pod.Name, ours))
		}},
		{row: "1", seen: "not kubernetes_executor=True any more, with our hold", want: "report, NotOurs", play: func(s *stage) {
			pod := s.submit(s.queue())
			s.change(pod, map[string]any{requeue.LabelKubernetesExecutor: nil}, nil)
			s.released(pod)
			s.ok(s.Kubelet.Fail(s.T.Context(), s.started(pod)))
			s.reported(pod, requeue.ReasonNotOurs, "not a task instance's pod")
			s.saw("failed " + pod.Name)
		}},
		{row: "1", seen: "callback_id, with our hold", want: "report, NotOurs", play: func(s *stage) {
			pod := s.submit(s.queue())
			s.change(pod, nil, map[string]any{requeue.AnnotationCallbackID: "callback-1"})
			s.reject(pod)
			s.reported(pod, requeue.ReasonNotOurs, "not a task instance's pod")
			s.saw("failed " + pod.Name)
		}},
		{row: "1", seen: "no stamps, without our finalizer", want: "ignore", play: func(s *stage) {
			pod := s.unheld(s.queue(off()))
			s.stays(s.patch(pod.Name, `{"metadata":{"labels":{"`+requeue.LabelTracked+`":"airflow-requeue"}}}`))
		}},

		{row: "2", seen: "the pod it replaces is still tracked", want: "wait, and take its place when it ends", play: func(s *stage) {
			task := s.queue()
			pod := s.creating(task)
			replacement := s.late(pod, task) // a create of before the detach was undone
			s.stays(replacement)
			s.drain(pod)
			free := s.takenOver(pod, requeue.ReasonEvicted, "Eviction API: evicting")
			assert.Equal(s.T, replacement.UID, free.UID, "no other is made")
			s.sawNothing()
		}},

		{row: "3", seen: "seal Bad", want: "report, Tampered", play: func(s *stage) {
			pod := s.submit(s.queue())
			s.patch(pod.Name, `{"metadata":{"annotations":{"`+requeue.AnnotationAttempt+`":"-7"}}}`)
			s.released(pod)
			s.ok(s.Kubelet.Fail(s.T.Context(), s.started(pod)))
			s.reported(pod, requeue.ReasonTampered, "the signature does not match the stamps")
			s.saw("failed " + pod.Name)
		}},
		{row: "3", seen: "UnknownKey for over 2 min", want: "wait until then; report, Tampered", grace: 2 * time.Minute, play: func(s *stage) {
			task := s.queue()
			pod := s.postSealedWith(task, "k-unknown")
			s.stays(pod)
			pod = s.released(pod)
			assert.GreaterOrEqual(s.T, s.at(pod, "released", func(p *corev1.Pod) bool { return !requeue.Held(p) }).Sub(pod.CreationTimestamp.Time), 2*time.Minute)
			s.ok(s.Kubelet.Fail(s.T.Context(), s.started(pod)))
			s.reported(pod, requeue.ReasonTampered, "a key that is not mounted")
			s.saw("failed " + pod.Name)
		}},
		{row: "3", seen: "UnknownKey, and the mounted Secret lags", want: "wait, then as any other", play: func(s *stage) {
			pod := s.postSealedWith(s.queue(), "k-lags")
			pod = s.reject(pod)
			s.stays(pod)
			s.mountKey("k-lags")
			s.untilFree(pod)
			s.sawNothing()
		}},
		{row: "3", seen: "seal Bad, and Airflow has revoked the pod", want: "strip, Revoked", play: func(s *stage) {
			pod := s.submit(s.queue())
			pod = s.patch(pod.Name, `{"metadata":{"labels":{"airflow_pod_revoked":"True"},"annotations":{"`+requeue.AnnotationAttempt+`":"-7"}}}`)
			s.stripped(pod)
			s.ok(s.Kubelet.Fail(s.T.Context(), s.started(pod)))
			s.sawNothing()
		}},

		{row: "4", seen: "airflow_pod_revoked absent but tracked", want: "strip", play: func(s *stage) {
			pod := s.submit(s.queue())
			s.stripped(s.change(pod, map[string]any{requeue.LabelHold: nil}, nil))
			s.ok(s.Kubelet.Fail(s.T.Context(), s.started(pod)))
			s.saw("failed " + pod.Name)
		}},
		{row: "4", seen: "airflow_pod_revoked absent but tracked, terminating", want: "strip 3 s after the hold was lifted", play: func(s *stage) {
			pod := s.running(s.queue())
			s.delete(pod)
			at := time.Now()
			pod = s.change(pod, map[string]any{requeue.LabelHold: nil}, map[string]any{requeue.AnnotationReleasedAt: requeue.FormatTime(at)})
			s.untilLetGo(pod)
			assert.GreaterOrEqual(s.T, s.at(pod, "let go", func(p *corev1.Pod) bool { return !requeue.Tracked(p) }).Sub(at), 3*time.Second)
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 143))
			s.untilGone(pod)
			s.saw("failed " + pod.Name)
		}},
		{row: "4", seen: "discarded", want: "strip, and keep it a tombstone", play: func(s *stage) {
			pod := s.submit(s.queue())
			s.stripped(s.change(pod, map[string]any{requeue.LabelWorker: nil, requeue.LabelExecutorDone: "True"},
				map[string]any{requeue.AnnotationDiscarded: "true", requeue.AnnotationReason: "Superseded"}))
			s.ok(s.Kubelet.Fail(s.T.Context(), s.started(pod)))
			s.sawNothing()
		}},

		{row: "5", seen: "Airflow revokes a pod without a node", want: "strip, Revoked", play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.revoke(task, pod)
			s.untilGone(pod)
			assert.Equal(s.T, "True", s.untilLetGo(pod).Labels[requeue.LabelHold], "Airflow's mark stays")
			assert.Empty(s.T, s.replacements(pod))
			s.sawNothing()
		}},
		{row: "5", seen: "Airflow revokes a pod on its node", want: "strip, Revoked", play: func(s *stage) {
			task := s.queue()
			pod := s.running(task)
			s.revoke(task, pod)
			left := s.untilLetGo(pod)
			assert.Equal(s.T, "True", left.Labels[requeue.LabelHold], "Airflow's mark stays")
			assert.Equal(s.T, "1", left.Labels[requeue.LabelWorker])
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 143))
			s.untilGone(pod)
			assert.Empty(s.T, s.replacements(pod))
			s.sawNothing()
		}},

		{row: "6", seen: "namespace terminating, pods alive and ended", want: "strip, NamespaceTerminating", alone: true, play: func(s *stage) {
			alive, runs, ended := s.submit(s.queue()), s.running(s.queue()), s.submit(s.queue())
			s.withoutWatcher(func() {
				ended = s.reject(ended)
				s.do(s.Client.CoreV1().Namespaces().Delete(s.T.Context(), s.Namespace, metav1.DeleteOptions{}))
			})
			for _, pod := range []*corev1.Pod{alive, runs, ended} {
				s.stripped(s.live(pod))
				assert.Equal(s.T, requeue.HoldValue, s.live(pod).Labels[requeue.LabelHold], "nothing but finalizer and tracked label goes")
				s.delete(pod) // as the namespace's controller does
			}
			s.untilGone(alive)
			s.do(s.Kubelet.Terminate(s.T.Context(), runs, 143))
			s.untilGone(runs)
		}},

		{row: "7a", seen: "ended, its gate on, never committed", want: "discard, Superseded", play: func(s *stage) {
			task := s.queue()
			pod := s.creating(task)
			late := s.late(pod, task)
			s.delete(late)
			s.stays(s.live(late)) // row 2
			s.withdraw(pod)
			s.discarded(late, "never took the place of the one it was to replace")
			s.untilGone(late)
			s.sawNothing()
		}},
		{row: "7a", seen: "ended, Superseded recorded, never committed, and adopted meanwhile", want: "discard, Superseded", play: func(s *stage) {
			task := s.queue()
			pod := s.creating(task)
			late := s.late(pod, task)
			s.change(pod, map[string]any{requeue.LabelWorker: nil, requeue.LabelExecutorDone: "True"}, nil)
			s.change(late, map[string]any{requeue.LabelWorker: "2"}, nil) // an adoption that found this one
			s.withdraw(pod)
			s.discarded(late, "never took the place of the one it was to replace")
			s.untilGone(late)
			s.sawNothing()
		}},

		{row: "7b", seen: "ended, a live read finds its replacement, not committed", want: "commit it, then strip, Replaced", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.creating(task)
			s.withoutWatcher(func() {
				s.drain(pod)
				pod = s.detach(pod, requeue.ReasonEvicted, "it was evicted")
				s.late(pod, task)
			})
			s.takenOver(pod, requeue.ReasonEvicted, "it was evicted")
			s.sawNothing()
		}},
		{row: "7b", seen: "ended, a live read finds its replacement, committed", want: "strip, Replaced", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.withoutWatcher(func() {
				pod = s.detach(s.reject(pod), requeue.ReasonKubeletRejected, "it was rejected")
				s.commit(s.late(pod, task))
			})
			s.takenOver(pod, requeue.ReasonKubeletRejected, "it was rejected")
			s.sawNothing()
		}},

		{row: "8", seen: "detached, no replacement", want: "requeue as if just ended, with the reason that was frozen", alone: true, play: func(s *stage) {
			pod := s.submit(s.queue())
			s.withoutWatcher(func() { pod = s.detach(s.reject(pod), requeue.ReasonNodePressure, "low on memory") })
			s.replaced(pod, requeue.ReasonNodePressure, "low on memory")
			s.sawNothing()
		}},
		{row: "8", seen: "detached, no replacement, row failed meanwhile", want: "report, the detach undone", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.withoutWatcher(func() {
				pod = s.detach(s.reject(pod), requeue.ReasonKubeletRejected, "it was rejected")
				s.row(task, state("failed"))
			})
			last := s.reported(pod, requeue.ReasonNotQueued, "the task instance is failed; it was rejected")
			assert.Equal(s.T, "1", last.Labels[requeue.LabelWorker])
			s.saw("failed " + pod.Name)
		}},
		{row: "8", seen: "detached, no replacement, Succeeded and row success", want: "release, the detach undone", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.running(task)
			s.withoutWatcher(func() {
				s.ok(s.Kubelet.Disrupt(s.T.Context(), pod, "EvictionByEvictionAPI", "evicting"))
				pod = s.ok(s.Kubelet.Succeed(s.T.Context(), pod))
				pod = s.detach(pod, requeue.ReasonEvicted, "it was evicted")
				s.row(task, state("success"))
			})
			last := s.released(pod)
			assert.Equal(s.T, "1", last.Labels[requeue.LabelWorker])
			s.saw("succeeded " + pod.Name)
		}},
	}
}

// revoke is Airflow's revoke_task: it marks the pod and deletes it.
func (s *stage) revoke(task executor.Task, pod *corev1.Pod) {
	s.T.Helper()
	revoked, err := s.airflow.Revoke(s.T.Context(), task.Row())
	require.NoError(s.T, err)
	require.Equal(s.T, []string{pod.Name}, revoked)
}

// withdraw takes a pod away for good, as one whose hold was lifted in an emergency, and with it its replacement's claim.
func (s *stage) withdraw(pod *corev1.Pod) {
	s.T.Helper()
	s.patch(pod.Name, `{"metadata":{"finalizers":null,"labels":{"`+requeue.LabelTracked+`":null}}}`)
}
