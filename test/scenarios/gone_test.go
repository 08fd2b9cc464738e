package scenarios

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

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
			free := s.replaced(pod, requeue.ReasonEvicted, "Eviction API: evicting")
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
	}
}
