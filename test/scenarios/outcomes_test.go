package scenarios

import (
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Rows 25 to 30: a pod that ended without its task, and is not replaced.

// notQueued is row 25 of a pod that failed before its task began.
func notQueued(seen, note string, change func(*requeue.TaskInstance)) scenario {
	return scenario{row: "25", seen: seen, want: "report, NotQueued", play: func(s *stage) {
		task := s.queue()
		pod := s.submit(task)
		s.row(task, change)
		s.reject(pod)
		last := s.reported(pod, requeue.ReasonNotQueued, note)
		assert.Equal(s.T, "1", last.Labels[requeue.LabelWorker])
		s.saw("failed " + pod.Name)
	}}
}

// byItself is row 27 of a container that ended by itself.
func byItself(seen string, change func(*executor.Task), note string, end func(s *stage, pod *corev1.Pod) (*corev1.Pod, error)) scenario {
	return scenario{row: "27", seen: seen, want: "report, ExcludedReason", play: func(s *stage) {
		pod := s.submit(s.queue(change))
		s.ok(end(s, pod))
		s.reported(pod, requeue.ReasonExcludedReason, note)
		s.saw("failed " + pod.Name)
	}}
}

// notByItself is row 27 of a container that the node took, or that ended with a reason that is not excluded.
func notByItself(seen string, reason requeue.Reason, note string, change func(*executor.Task), end func(s *stage, pod *corev1.Pod)) scenario {
	return scenario{row: "27", seen: seen, want: "go on: requeue, " + string(reason), play: func(s *stage) {
		pod := s.submit(s.queue(change))
		end(s, pod)
		s.replaced(pod, reason, note)
		s.sawNothing()
	}}
}

func asIs(*executor.Task) {}

// withSidecar gives a pod a native sidecar.
func withSidecar(task *executor.Task) {
	always := corev1.ContainerRestartPolicyAlways
	task.Mutate = func(pod *corev1.Pod) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "proxy", Image: "proxy", RestartPolicy: &always})
	}
}

func notReplaced() []scenario {
	return []scenario{
		notQueued("row at another try", "the task instance is at try 2, the pod at try 1", func(row *requeue.TaskInstance) { row.TryNumber = 2 }),
		notQueued("row with another id", "the task instance is another one", func(row *requeue.TaskInstance) { row.ID = "0192aaaa-0000-7000-8000-" + row.ID[24:] }),
		{row: "25", seen: "no row", want: "report, NotQueued", play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.do(s.DB.Delete(s.T.Context(), task.Key))
			s.reject(pod)
			s.reported(pod, requeue.ReasonNotQueued, "there is no such task instance")
			s.saw("failed " + pod.Name)
		}},
		notQueued("row running elsewhere, where no pod is", "the task instance is running", runs("no-pod-of-ours")),
		notQueued("row success", "the task instance is success", state("success")),
		notQueued("row failed", "the task instance is failed", state("failed")),
		notQueued("row up_for_retry", "the task instance is up_for_retry", state("up_for_retry")),
		notQueued("row deferred", "the task instance is deferred", state("deferred")),
		notQueued("row removed", "the task instance is removed", state("removed")),
		notQueued("row without a state", "the task instance has no state", state("")),
		{row: "25", seen: "row running where it ran, Failed", want: "report, Started", play: func(s *stage) {
			task := s.queue()
			pod := s.creating(task)
			s.row(task, runs(pod.Name))
			s.ok(s.Kubelet.Fail(s.T.Context(), pod)) // all within a second: its kubelet never said Running
			s.reported(pod, requeue.ReasonStarted, "the task ran; container base: Error, exit code 1")
			s.saw("failed " + pod.Name)
		}},
		{row: "25", seen: "row running where it ran, Failed, del", want: "report, Started: the hold is lifted, 3 s later the finalizer", play: func(s *stage) {
			task := s.queue()
			pod := s.creating(task)
			s.row(task, runs(pod.Name))
			s.drain(pod)
			s.reported(pod, requeue.ReasonStarted, "the task ran; ")
			s.untilGone(pod)
			moments := s.record.Of(pod.Name)
			last := moments[len(moments)-1]
			assert.GreaterOrEqual(s.T, last.At.Sub(requeue.ReleasedAt(last.Pod)), 3*time.Second, "a watch between two connections sees it")
			s.saw("failed " + pod.Name)
		}},
		{row: "25", seen: "row success, Succeeded, del", want: "release, Succeeded: the hold is lifted, 3 s later the finalizer", play: func(s *stage) {
			task := s.queue()
			pod := s.creating(task)
			s.row(task, func(row *requeue.TaskInstance) { row.State, row.Hostname = "success", pod.Name })
			s.do(s.Kubelet.Evict(s.T.Context(), pod))
			s.ok(s.Kubelet.Succeed(s.T.Context(), pod))
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 0))
			s.released(pod)
			s.untilGone(pod)
			s.saw("succeeded " + pod.Name)
		}},
		{row: "25", seen: "row failed, deleted without a node", want: "phase Failed is written, then report, NotQueued", play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.row(task, state("failed"))
			s.delete(pod)
			s.reported(pod, requeue.ReasonNotQueued, "the task instance is failed; deleted before it had a node")
			s.untilGone(pod)
			last := s.untilLetGo(pod)
			assert.Equal(s.T, corev1.PodFailed, last.Status.Phase)
			assert.Equal(s.T, string(requeue.ReasonNotQueued), last.Status.Reason)
			assert.Contains(s.T, last.Status.Message, "the task instance is failed")
			s.saw("failed " + pod.Name)
		}},

		{row: "26", seen: "the reason recorded on the pod is Misconfigured", want: "report, Misconfigured", play: func(s *stage) {
			pod := s.ok(s.Kubelet.Waiting(s.T.Context(), s.creating(s.queue()), "InvalidImageName", "no such name"))
			pod = s.deleted(pod, requeue.ReasonMisconfigured, "no such name")
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
			s.reported(pod, requeue.ReasonMisconfigured, "container base: InvalidImageName: no such name")
			s.saw("failed " + pod.Name)
		}},
		{row: "26", seen: "status.reason DeadlineExceeded", want: "report, DeadlineExceeded", play: func(s *stage) {
			pod := s.creating(s.queue())
			s.ok(s.Kubelet.FailWith(s.T.Context(), pod, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"))
			s.reported(pod, requeue.ReasonDeadlineExceeded, "Pod was active on the node longer than the specified deadline")
			s.saw("failed " + pod.Name)
		}},

		byItself("the main container ended by itself with Error", asIs, "container base: Error, exit code 1", func(s *stage, pod *corev1.Pod) (*corev1.Pod, error) {
			return s.Kubelet.Fail(s.T.Context(), s.started(pod))
		}),
		byItself("an init container ended by itself with Error", withInit, "container prepare: Error, exit code 3", func(s *stage, pod *corev1.Pod) (*corev1.Pod, error) {
			return s.Kubelet.FailInit(s.T.Context(), s.made(pod), 3, "")
		}),
		byItself("a container ended by itself with a reason that the task excludes", tuned(requeue.AnnotationExcludedReasons, "OOMKilled"),
			"container base: OOMKilled, exit code 137", func(s *stage, pod *corev1.Pod) (*corev1.Pod, error) {
				return s.Kubelet.OOMKill(s.T.Context(), s.started(pod))
			}),
		byItself("a container ended with Error and exit code 1 though its node was drained", asIs, "container base: Error, exit code 1", func(s *stage, pod *corev1.Pod) (*corev1.Pod, error) {
			pod = s.started(pod)
			s.do(s.Kubelet.Evict(s.T.Context(), pod))
			return pod, s.Kubelet.Terminate(s.T.Context(), pod, 1)
		}),
		notByItself("del, and exit code 143", requeue.ReasonDeleted, "container base: Error, exit code 143", asIs, func(s *stage, pod *corev1.Pod) {
			pod = s.started(pod)
			s.delete(pod)
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 143))
		}),
		notByItself("DisruptionTarget=True, and exit code 137", requeue.ReasonNodePressure, "container base: Error, exit code 137", asIs, func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.NodePressure(s.T.Context(), s.started(pod), "The node was low on resource: memory."))
		}),
		notByItself("a native sidecar ended with Error", requeue.ReasonContainerFailed, "container base: OOMKilled, exit code 137", withSidecar, func(s *stage, pod *corev1.Pod) {
			s.ok(s.Kubelet.OOMKill(s.T.Context(), s.started(pod)))
		}),

		{row: "28", seen: "attempt >= max-retries", want: "report, Exhausted", play: func(s *stage) {
			pod := s.spent(s.queue())
			s.reject(pod)
			s.reported(pod, requeue.ReasonExhausted, "1 of 1 replacements made; OutOfcpu")
			s.saw("failed " + pod.Name)
		}},
		{row: "28", seen: "attempt below max-retries, then at it", want: "requeue twice, then report, Exhausted", play: func(s *stage) {
			pod := s.submit(s.queue(tuned(requeue.AnnotationMaxRetries, "2"), tuned(requeue.AnnotationBackoff, "0s")))
			for range 2 {
				pod = s.replaced(s.reject(pod), requeue.ReasonKubeletRejected, "OutOfcpu")
			}
			assert.Equal(s.T, "2", pod.Annotations[requeue.AnnotationAttempt])
			s.reject(pod)
			s.reported(pod, requeue.ReasonExhausted, "2 of 2 replacements made; OutOfcpu")
			s.saw("failed " + pod.Name)
		}},

		{row: "29", seen: "the token's exp leaves under 30 s", want: "report, TooLate", play: func(s *stage) {
			pod := s.submit(s.queue(func(task *executor.Task) { task.TokenLifetime = 25 * time.Second }))
			s.reject(pod)
			s.reported(pod, requeue.ReasonTooLate, "a replacement could not start before")
			s.saw("failed " + pod.Name)
		}},
		{row: "29", seen: "queued_dttm + task_queued_timeout leaves under 30 s", want: "report, TooLate", play: func(s *stage) {
			pod := s.submit(s.queue(airflow2, func(task *executor.Task) { task.QueuedAt = task.QueuedAt.Add(-9*time.Minute - 40*time.Second) }))
			s.reject(pod)
			s.reported(pod, requeue.ReasonTooLate, "a replacement could not start before")
			s.saw("failed " + pod.Name)
		}},
		{row: "29", seen: "the backoff leaves under 30 s", want: "report, TooLate", play: func(s *stage) {
			// The first replacement waits for nothing, the second would wait for two minutes.
			pod := s.spent(s.queue(patient("2m"), func(task *executor.Task) { task.TokenLifetime = 2 * time.Minute }))
			s.reject(pod)
			s.reported(pod, requeue.ReasonTooLate, "a replacement could not start before")
			s.saw("failed " + pod.Name)
		}},

		{row: "30", seen: "create refused for good, 403", want: "report, Refused", play: func(s *stage) { s.refusedForGood(metav1.StatusReasonForbidden, "row30") }},
		{row: "30", seen: "create refused for good, 422", want: "report, Refused", play: func(s *stage) { s.refusedForGood(metav1.StatusReasonInvalid, "row30") }},
		{row: "30", seen: "the storm breaker is open", want: "report, Storm", watcher: []string{"--storm-breaker=1"}, play: func(s *stage) {
			first, second := s.submit(s.queue()), s.submit(s.queue())
			s.reject(first)
			s.replaced(first, requeue.ReasonKubeletRejected, "OutOfcpu")
			s.reject(second)
			s.reported(second, requeue.ReasonStorm, "too many replacements lately; OutOfcpu")
			s.saw("failed " + second.Name)
		}},
	}
}
