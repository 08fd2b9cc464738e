package airflow_test

import (
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/airflow"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// cases are played with every version.
func cases() map[string]func(*stage) {
	return map[string]func(*stage){
		"a task that goes well is not touched":          func(s *stage) { s.comes(s.run("well", works), once(1)) },
		"a pod that is evicted before its task starts":  func(s *stage) { s.comes(s.run("evicted", evicted, works), once(2)) },
		"a pod that its kubelet rejects":                func(s *stage) { s.comes(s.run("rejected", rejected, works), once(2)) },
		"a pod whose node shuts down":                   func(s *stage) { s.comes(s.run("lost", lost, works), once(2)) },
		"a pod whose image cannot be pulled":            imageCannotBePulled,
		"a pod that is deleted while unscheduled":       deletedWhileUnscheduled,
		"a pod that breaks is reported at once":         breaksIsReported,
		"a task that fails is a failure":                func(s *stage) { s.comes(s.run("fails", fails), failure(1)) },
		"a budget that is used up is reported":          func(s *stage) { s.comes(s.run("spent", evicted), failure(2)) },
		"a running pod that is deleted is a failure":    runningIsDeleted,
		"the log of a running pod can be read":          logCanBeRead,
		"mapped tasks are told apart":                   mappedTasks,
		"names that are long and not in ASCII":          longNames,
		"a deferred task is resumed":                    func(s *stage) { resumed(s, "deferred") },
		"a reschedule sensor pokes again":               func(s *stage) { resumed(s, "up_for_reschedule") },
		"a task that is revoked and queued anew":        revoked,
		"a task that is stuck in queued is queued anew": stuckInQueued,
	}
}

// failure is the outcome of a task that has failed, as far as Airflow knows at its first pod.
func failure(pods int) outcome {
	return outcome{Events: []string{"queued", "failed"}, State: "failed", Try: 1, Pods: pods}
}

func imageCannotBePulled(s *stage) {
	key := s.task("imageless", imageless, works)
	s.queueWith(key, map[string]string{requeue.AnnotationImagePullGrace: "1s"}, "")
	s.comes(key, once(2))
}

func deletedWhileUnscheduled(s *stage) {
	key := s.run("unplaced", unplaced, works)
	s.delete(s.pod(key, 0, "it has no node", hasNoNode))
	s.comes(key, once(2))
}

func breaksIsReported(s *stage) {
	key := s.run("breaks", breaks)
	s.comes(key, failure(1))
	pod := s.seen(key)[0]
	assert.Contains(s.T, s.read(s.executorLog), "Event: "+pod.Name+" Failed", "the executor logs it as ever")
	if s.version.DetailsLogged {
		assert.Contains(s.T, s.read(s.executorLog), "failed in pod "+pod.Namespace+"/"+pod.Name+". Pod phase: Failed, reason: None, message: None, "+
			"container_type: main, container_name: base, container_state: terminated, container_reason: Error, container_message: None, exit_code: 1")
	}
}

func runningIsDeleted(s *stage) {
	key := s.run("runs", runsUntil(s.T.Context().Done()))
	s.delete(s.pod(key, 0, "its hold is lifted", isReleased))
	s.comes(key, failure(1))
}

func logCanBeRead(s *stage) {
	over := make(chan struct{})
	key := s.run("talks", evicted, runsUntil(over))
	pod := s.pod(key, 1, "its hold is lifted", isReleased)
	messages, log, err := s.scheduler.ReadLog(s.T.Context(), key)
	require.NoError(s.T, err)
	assert.Equal(s.T, said(pod.Name), strings.Join(log, ""), messages)
	close(over)
	s.comes(key, once(2))
}

func mappedTasks(s *stage) {
	first, second := s.mapped("mapped", 0, evicted, works), s.mapped("mapped", 1, works)
	s.queue(first)
	s.queue(second)
	s.comes(first, once(2))
	s.comes(second, once(1))
}

func longNames(s *stage) {
	key := s.run(strings.Repeat("zażółć-gęślą.jaźń_ダグ", 8), evicted, works)
	s.comes(key, once(2))
}

// resumed is a task that leaves its pod before it is done, and goes on in another pod at the same try.
func resumed(s *stage, state string) {
	key := s.run("resumed", leaves(state), evicted, works)
	s.comes(key, outcome{Events: []string{"queued", state}, State: state, Try: 1, Pods: 1})
	s.queue(key)
	s.comes(key, outcome{Events: []string{"queued", state, "queued", "success"}, State: "success", Try: 1, Pods: 3})
}

func revoked(s *stage) {
	key := s.run("revoked", unplaced, evicted, works)
	s.pod(key, 0, "it has no node", hasNoNode)
	require.NoError(s.T, s.scheduler.Revoke(s.T.Context(), key))
	s.settled(key)
	s.queue(key)
	s.comes(key, outcome{Events: []string{"queued", "queued", "success"}, State: "success", Try: 1, Pods: 3})
}

func stuckInQueued(s *stage) {
	s.change(nil)
	key := s.run("stuck", unplaced, evicted, works)
	s.pod(key, 0, "it has no node", hasNoNode)
	s.eventually("it counts as stuck", func() bool {
		require.NoError(s.T, s.scheduler.Unstick(s.T.Context(), time.Second))
		row, err := s.database.Row(s.T.Context(), key)
		require.NoError(s.T, err)
		return row.State == "scheduled"
	})
	s.queue(key)
	s.comes(key, outcome{Events: []string{"queued", "queued", "success"}, State: "success", Try: 1, Pods: 3})
}

// namespaceCases are played where Airflow puts pods in several namespaces.
func namespaceCases() map[string]func(*stage) {
	return map[string]func(*stage){
		"a pod in the first namespace": func(s *stage) { s.comes(s.run("evicted", evicted, works), once(2)) },
		"a pod in another namespace": func(s *stage) {
			key := s.task("elsewhere", evicted, works)
			s.queueWith(key, nil, s.Others[0])
			s.comes(key, once(2))
			for _, pod := range s.seen(key) {
				assert.Equal(s.T, s.Others[0], pod.Namespace)
			}
		},
	}
}

// ownRequeueCases are played where the executor has a requeue of its own, and it is on.
func ownRequeueCases() map[string]func(*stage) {
	on := map[string]string{"kubernetes_executor.pod_launch_failure_retries": "1"}
	const its = "Requeuing without consuming a task retry"
	return map[string]func(*stage){
		"own requeue: it is not needed": func(s *stage) {
			s.change(on)
			s.comes(s.run("evicted", evicted, works), once(2))
			assert.NotContains(s.T, s.read(s.executorLog), its)
		},
		"own requeue: it comes after ours": func(s *stage) {
			s.change(on)
			s.comes(s.run("evicted", evicted, evicted, works), once(3))
			assert.Contains(s.T, s.read(s.executorLog), its)
		},
		"own requeue: both are used up, and ours is not begun anew": func(s *stage) {
			s.change(on)
			s.comes(s.run("evicted", evicted), failure(3))
		},
		"own requeue: a pod that breaks is reported at once": func(s *stage) {
			s.change(on)
			s.comes(s.run("breaks", breaks), failure(1))
		},
	}
}

// casesWithout are what Airflow makes of the same without us: a test that passes there too would show nothing.
func casesWithout() map[string]func(*stage) {
	return map[string]func(*stage){
		"a task that goes well":                        func(s *stage) { s.comes(s.run("well", works), once(1)) },
		"a pod that is evicted before its task starts": func(s *stage) { s.comes(s.run("evicted", evicted), failure(1)) },
		"a pod that its kubelet rejects":               func(s *stage) { s.comes(s.run("rejected", rejected), failure(1)) },
		"a pod whose node shuts down":                  func(s *stage) { s.comes(s.run("lost", lost), failure(1)) },
		"a pod whose image cannot be pulled":           func(s *stage) { s.comes(s.run("imageless", imageless), failure(1)) },
		"a pod that is deleted while unscheduled":      deletedWhileUnscheduledWithout,
	}
}

// deletedWhileUnscheduledWithout is a failure, or nobody notices for ten minutes: by version.
func deletedWhileUnscheduledWithout(s *stage) {
	key := s.run("unplaced", unplaced)
	s.delete(s.pod(key, 0, "it has no node", hasNoNode))
	if s.version.FailsDeletedPending {
		s.comes(key, failure(1))
		return
	}
	s.fence()
	reported, err := s.scheduler.Reported(s.T.Context(), key)
	require.NoError(s.T, err)
	assert.Equal(s.T, airflow.Reported{Events: []string{"queued"}, Running: true}, reported)
}

func (s *stage) delete(pod *corev1.Pod) {
	s.T.Helper()
	require.NoError(s.T, s.Client.CoreV1().Pods(pod.Namespace).Delete(s.T.Context(), pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}))
}

func hasNoNode(pod *corev1.Pod) bool {
	return len(pod.Status.Conditions) > 0 && pod.Spec.NodeName == ""
}

func hasNode(pod *corev1.Pod) bool { return len(pod.Status.ContainerStatuses) > 0 }

func isReleased(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodRunning && !requeue.Tracked(pod)
}
