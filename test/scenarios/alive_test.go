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

// airflow2 makes the pod by Airflow 2: it names neither a row's ID nor a token's time.
func airflow2(task *executor.Task) { task.Airflow = executor.Airflow2 }

// patient makes replacements without end, each after a while from the second on.
func patient(backoff string) func(*executor.Task) {
	return func(task *executor.Task) {
		task.Annotations[requeue.AnnotationMaxRetries] = "-1"
		task.Annotations[requeue.AnnotationBackoff] = backoff
	}
}

// gated is a task's second replacement, whose gate is on until its backoff is over.
func (s *stage) gated(task executor.Task) *corev1.Pod {
	s.T.Helper()
	first := s.untilFree(s.reject(s.submit(task)))
	s.reject(first)
	var gated *corev1.Pod
	s.eventually("the second replacement is on its own", func() bool {
		found := s.replacements(first)
		if len(found) == 1 {
			gated = found[0]
		}
		old := s.record.Latest(first.Name)
		return len(found) == 1 && requeue.Committed(gated) && old != nil && !requeue.Tracked(old)
	})
	require.True(s.T, requeue.Gated(gated))
	return gated
}

// neverRan says that a pod had its gate on all its life.
func (s *stage) neverRan(pod *corev1.Pod) {
	s.T.Helper()
	for _, m := range s.record.Of(pod.Name) {
		assert.True(s.T, requeue.Gated(m.Pod), "it never ran")
	}
}

// queueAgain has Airflow queue the same try once more, without a pod of its own yet.
func (s *stage) queueAgain(task executor.Task, later time.Duration) executor.Task {
	s.T.Helper()
	again := task.Again(task.QueuedAt.Add(later))
	s.row(again, state(requeue.StateQueued))
	return again
}

func alive() []scenario {
	const deadline = 30 * time.Second
	return []scenario{
		{row: "9", seen: "row not read, at first sight", want: "read: it tells this queueing from a later one", play: func(s *stage) {
			task := s.queue(airflow2)
			pod := s.submit(task)
			s.stays(pod)                               // by now its row has been read
			again := s.queueAgain(task, 5*time.Second) // less than the clocks may differ
			later := s.submit(again)
			s.reject(pod)
			s.discarded(pod, "queued again, for "+later.Name)
			s.sawNothing()
		}},
		{row: "9", seen: "row not read, Running", want: "read about once a second, without any event of the pod", play: func(s *stage) {
			task := s.queue()
			pod := s.running(task)
			s.stays(pod)
			s.row(task, runs(pod.Name))
			s.released(pod)
			s.sawNothing()
		}},

		{row: "10", seen: "our gate is on, never committed, its predecessor is no longer tracked", want: "delete, hold kept, Superseded", play: func(s *stage) {
			task := s.queue()
			pod := s.creating(task)
			late := s.late(pod, task)
			s.withdraw(pod)
			s.deleted(late, requeue.ReasonSuperseded, "the pod it was to replace is gone")
			s.untilGone(late)
			s.neverRan(late)
			s.sawNothing()
		}},
		{row: "10", seen: "our gate is on, row failed", want: "delete, hold kept, Superseded; at its end report", grace: time.Minute, play: func(s *stage) {
			task := s.queue(patient("1m"))
			pod := s.gated(task)
			s.row(task, state("failed"))
			s.deleted(pod, requeue.ReasonSuperseded, "no longer queued as it was for this pod")
			s.reported(pod, requeue.ReasonNotQueued, "the task instance is failed")
			s.untilGone(pod)
			s.neverRan(pod)
			s.saw("failed " + pod.Name)
		}},
		{row: "10", seen: "our gate is on, row queued again with a pod of its own", want: "delete, hold kept, Superseded; at its end discard", grace: time.Minute, play: func(s *stage) {
			task := s.queue(patient("1m"))
			pod := s.gated(task)
			later := s.submit(s.queueAgain(task, time.Minute))
			s.deleted(pod, requeue.ReasonSuperseded, "no longer queued as it was for this pod")
			s.discarded(pod, "queued again, for "+later.Name)
			s.untilGone(pod)
			s.neverRan(pod)
			s.stays(s.live(later))
			s.sawNothing()
		}},
		{row: "10", seen: "our gate is on, row 29 applies", want: "delete, hold kept, Superseded", webhook: []string{"--no-leader-release-after=10m"}, grace: 2 * time.Minute, play: func(s *stage) {
			task := s.queue(patient("1m"), func(task *executor.Task) { task.TokenLifetime = 150 * time.Second })
			pod := s.gated(task)
			s.withoutWatcher(func() {
				s.eventually("less than 30 s of the token are left", func() bool { return time.Since(task.QueuedAt) > 121*time.Second })
			})
			s.deleted(pod, requeue.ReasonSuperseded, "it could not start before Airflow gives the task up")
			s.reported(pod, requeue.ReasonTooLate, "")
			s.neverRan(pod)
			s.saw("failed " + pod.Name)
		}},

		{row: "11", seen: "our gate is on", want: "wait until its backoff is over, then ungate", grace: time.Minute, play: func(s *stage) {
			pod := s.gated(s.queue(patient("1m")))
			over, err := time.Parse(time.RFC3339Nano, pod.Annotations[requeue.AnnotationNotBefore])
			require.NoError(s.T, err)
			assert.Greater(s.T, over.Sub(pod.CreationTimestamp.Time), 45*time.Second, "a minute, up to a fifth taken off, and whole seconds")
			s.until(pod.Name, "free to run", func(p *corev1.Pod) bool { return !requeue.Gated(p) })
			assert.False(s.T, s.at(pod, "free", func(p *corev1.Pod) bool { return !requeue.Gated(p) }).Before(over))
			s.sawNothing()
		}},

		{row: "12", seen: "a replacement, Pending, row failed", want: "delete, hold kept, Superseded; at its end report", play: func(s *stage) {
			task := s.queue()
			pod := s.untilFree(s.reject(s.submit(task)))
			s.row(task, state("failed"))
			pod = s.ok(s.Kubelet.Bind(s.T.Context(), pod, node))
			s.deleted(pod, requeue.ReasonSuperseded, "no longer queued as it was for this pod")
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 137))
			s.reported(pod, requeue.ReasonNotQueued, "the task instance is failed")
			s.untilGone(pod)
			s.saw("failed " + pod.Name)
		}},
		{row: "12", seen: "a replacement, Pending, row running under its hostname (its phase lags)", want: "leave it, release when it is Running", play: func(s *stage) {
			task := s.queue()
			pod := s.untilFree(s.reject(s.submit(task)))
			s.row(task, runs(pod.Name))
			pod = s.made(pod)
			s.stays(pod)
			s.ok(s.Kubelet.Start(s.T.Context(), pod))
			s.released(pod)
			s.sawNothing()
		}},
		{row: "12", seen: "a replacement, Pending on a node, row running under a hostname that can't be told", want: "leave it", play: func(s *stage) {
			task := s.queue()
			pod := s.untilFree(s.reject(s.submit(task)))
			pod = s.ok(s.Kubelet.Bind(s.T.Context(), pod, node))
			s.stays(pod)
			s.row(task, runs("10.1.2.3")) // an address, which the pod's status has not said yet
			s.stays(s.ok(s.Kubelet.Create(s.T.Context(), pod)))
			s.sawNothing()
		}},

		started("name", func(pod *corev1.Pod) string { return pod.Name }),
		started("FQDN", func(pod *corev1.Pod) string { return pod.Name + ".workers.airflow.svc.cluster.local" }),
		started("address", func(pod *corev1.Pod) string { return pod.Status.PodIP }),

		{row: "14", seen: "Running, del, nodeName set", want: "wait for its end, then requeue", play: func(s *stage) {
			pod := s.running(s.queue())
			s.delete(pod)
			s.stays(s.live(pod))
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 143))
			s.replaced(pod, requeue.ReasonDeleted, "deleted on node "+node)
			s.sawNothing()
		}},
		silent("Running", (*stage).running, "failed"),
		silent("Pending", (*stage).creating, ""),

		{row: "15", seen: "Running, row queued", want: "wait", play: func(s *stage) {
			s.stays(s.running(s.queue()))
			s.sawNothing()
		}},
		{row: "15", seen: "Running, another's run", want: "wait, its end decides", play: func(s *stage) {
			task := s.queue()
			pod := s.running(task)
			s.row(task, runs("somebody-else"))
			s.stays(pod)
			s.ok(s.Kubelet.Fail(s.T.Context(), pod))
			s.reported(pod, requeue.ReasonNotQueued, "the task instance is running")
			s.saw("failed " + pod.Name)
		}},
		{row: "15", seen: "all containers terminated but the phase not final, Running", want: "wait, its end decides", play: func(s *stage) {
			pod := s.ok(s.Kubelet.EndContainers(s.T.Context(), s.running(s.queue()), 1, ""))
			s.stays(pod)
			s.ok(s.Kubelet.EndPod(s.T.Context(), pod))
			s.reported(pod, requeue.ReasonExcludedReason, "container base: Error, exit code 1")
			s.saw("failed " + pod.Name)
		}},
		{row: "15", seen: "all containers terminated but the phase not final, Pending", want: "wait, its end decides", grace: deadline, play: func(s *stage) {
			task := s.queue(tuned(requeue.AnnotationStartDeadline, deadline.String())) // row 18 does not apply
			pod := s.ok(s.Kubelet.EndContainers(s.T.Context(), s.creating(task), 1, ""))
			s.eventually("it is past its start deadline", func() bool { return time.Since(pod.CreationTimestamp.Time) > deadline+time.Second })
			s.patch(pod.Name, `{"metadata":{"annotations":{"somebody":"looks at it"}}}`)
			pod = s.live(pod)
			s.stays(pod)
			s.ok(s.Kubelet.EndPod(s.T.Context(), pod))
			s.reported(pod, requeue.ReasonExcludedReason, "container base: Error, exit code 1")
			s.saw("failed " + pod.Name)
		}},
	}
}

// started is row 13 under one of the hostnames that a pod goes by.
func started(called string, hostname func(*corev1.Pod) string) scenario {
	return scenario{row: "13", seen: "Running, and the row runs under this pod's " + called, want: "release, Started", play: func(s *stage) {
		task := s.queue()
		pod := s.running(task)
		s.row(task, runs(hostname(pod)))
		left := s.released(pod)
		assert.Equal(s.T, "1", left.Labels[requeue.LabelWorker])
		assert.Equal(s.T, corev1.PodRunning, left.Status.Phase)
		s.sawNothing()
		s.ok(s.Kubelet.Succeed(s.T.Context(), pod))
		s.saw("succeeded " + pod.Name)
	}}
}

// silent is row 14 of a pod whose node says nothing any more.
func silent(phase string, to func(*stage, executor.Task) *corev1.Pod, seen string) scenario {
	const overdue = 5 * time.Minute
	return scenario{row: "14", seen: phase + ", del, no kubelet answers", want: "release, NodeSilent, past its grace by 5 min", grace: overdue + 5*time.Second, play: func(s *stage) {
		pod := to(s, s.queue())
		second := int64(1)
		s.do(s.Client.CoreV1().Pods(s.Namespace).Delete(s.T.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &second}))
		deleted := s.live(pod)
		s.stays(deleted)
		left := s.untilLetGo(pod)
		assert.NotContains(s.T, left.Labels, requeue.LabelHold, "Airflow gets its pod back")
		assert.Equal(s.T, "1", left.Labels[requeue.LabelWorker])
		lifted := s.at(pod, "the hold is lifted", func(p *corev1.Pod) bool { return !requeue.Held(p) })
		assert.GreaterOrEqual(s.T, lifted.Sub(deleted.DeletionTimestamp.Time), overdue)
		assert.GreaterOrEqual(s.T, s.at(pod, "let go", func(p *corev1.Pod) bool { return !requeue.Tracked(p) }).Sub(requeue.ReleasedAt(left)), 3*time.Second)
		assert.Empty(s.T, s.replacements(pod), "it may run still")
		now := int64(0) // a person, or the garbage collector when the node's object is gone
		s.do(s.Client.CoreV1().Pods(s.Namespace).Delete(s.T.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
		s.untilGone(pod)
		if seen == "" {
			s.sawNothing()
		} else {
			s.saw(seen + " " + pod.Name)
		}
	}}
}
