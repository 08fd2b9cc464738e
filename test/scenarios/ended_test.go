package scenarios

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func ended() []scenario {
	return []scenario{
		{row: "20", seen: "Succeeded, neither del nor DisruptionTarget=True nor detached", want: "release, Succeeded", play: func(s *stage) {
			pod := s.ok(s.Kubelet.Succeed(s.T.Context(), s.running(s.queue())))
			s.released(pod)
			s.saw("succeeded " + pod.Name)
		}},
		{row: "20", seen: "Succeeded, DisruptionTarget=True, row queued", want: "not released: it was taken before its task began, requeue", play: func(s *stage) {
			pod := s.running(s.queue())
			s.ok(s.Kubelet.Disrupt(s.T.Context(), pod, "EvictionByEvictionAPI", "evicting"))
			s.ok(s.Kubelet.Succeed(s.T.Context(), pod))
			s.replaced(pod, requeue.ReasonEvicted, "evicting")
			s.sawNothing()
		}},
		{row: "20", seen: "Succeeded, del, row queued (it exits with 0 on SIGTERM)", want: "not released: it was taken before its task began, requeue", play: func(s *stage) {
			pod := s.running(s.queue())
			s.delete(pod)
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 0))
			s.replaced(pod, requeue.ReasonDeleted, "deleted on node "+node)
			s.sawNothing()
		}},

		{row: "21", seen: "row not read, unreadable for 60 s", want: "report, DatabaseUnavailable; the Lease is marked not ready, nothing new is held", alone: true, grace: time.Minute, play: func(s *stage) {
			pod, well, runs := s.creating(s.queue()), s.running(s.queue()), s.running(s.queue())
			s.stays(runs)
			back := s.databaseGone()
			began := time.Now()
			s.drain(pod)
			s.ok(s.Kubelet.Succeed(s.T.Context(), well))
			s.released(well) // row 20: no query
			s.eventually("the Lease says that the leader can't decide", func() bool { return !s.leaderReady() })
			programs.UntilNotStamping(s.T, s.airflow)
			s.reported(pod, requeue.ReasonDatabaseUnavailable, "the metadata database could not be read for 1m0s; ")
			assert.GreaterOrEqual(s.T, s.at(pod, "the hold is lifted", func(p *corev1.Pod) bool { return !requeue.Held(p) }).Sub(began), time.Minute)
			assert.Equal(s.T, runs.ResourceVersion, s.live(runs).ResourceVersion, "a pod that runs is left alone")
			back()
			s.eventually("the Lease says that the leader can decide", s.leaderReady)
			programs.UntilStamping(s.T, s.airflow)
			s.saw("succeeded "+well.Name, "failed "+pod.Name)
		}},
		{row: "21", seen: "row not read, readable again within 60 s", want: "read, then as any other", alone: true, play: func(s *stage) {
			pod := s.creating(s.queue())
			s.stays(pod)
			back := s.databaseGone()
			s.drain(pod)
			s.eventually("the Lease says that the leader can't decide", func() bool { return !s.leaderReady() })
			assert.False(s.T, requeue.Detached(s.live(pod)), "nothing is decided")
			back()
			s.replaced(pod, requeue.ReasonEvicted, "Eviction API: evicting")
			s.sawNothing()
		}},

		secondStart("alive, attached and not revoked", "discard, Superseded", nil),
		secondStart("deleted", "report, NotQueued", func(s *stage, winner *corev1.Pod) {
			now := int64(0)
			s.do(s.Client.CoreV1().Pods(s.Namespace).Delete(s.T.Context(), winner.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
		}),
		secondStart("revoked", "report, NotQueued", func(s *stage, winner *corev1.Pod) { s.do(s.airflow.MarkRevoked(s.T.Context(), winner.Name)) }),

		{row: "23", seen: "row queued by a later queueing, whose pod exists", want: "discard, Superseded", play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			later := s.submit(s.queueAgain(task, time.Minute))
			s.reject(pod)
			s.discarded(pod, "queued again, for "+later.Name)
			s.stays(s.live(later))
			s.sawNothing()
		}},
		{row: "23", seen: "row scheduled, then queued by a later queueing, whose pod comes", want: "wait for it; discard, Superseded", play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.row(task, state(requeue.StateScheduled))
			s.reject(pod)
			later := s.submit(s.queueAgain(task, time.Minute))
			s.discarded(pod, "queued again, for "+later.Name)
			s.stays(s.live(later))
			s.sawNothing()
		}},
		{row: "23", seen: "row queued by a later queueing, no pod of it within 30 s", want: "report, NotQueued", grace: 30 * time.Second, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.queueAgain(task, time.Minute)
			began := time.Now()
			s.reject(pod)
			s.reported(pod, requeue.ReasonNotQueued, "queued again, but no later pod has come")
			assert.GreaterOrEqual(s.T, s.at(pod, "reported", func(p *corev1.Pod) bool { return !requeue.Held(p) }).Sub(began), 30*time.Second)
			s.saw("failed " + pod.Name)
		}},
		{row: "23", seen: "nothing but the pod's creation says that the row is its queueing, and a later pod of the same try is there", want: "discard, Superseded", alone: true, play: func(s *stage) {
			task := s.queue(airflow2)
			pod := s.submit(task)
			var later *corev1.Pod
			s.withoutWatcher(func() { // and what it had seen is forgotten
				later = s.ok(s.airflow.Create(s.T.Context(), s.queueAgain(task, 5*time.Second)))
				pod = s.reject(pod)
			})
			s.discarded(pod, "queued again, for "+later.Name)
			s.sawNothing()
		}},
		{row: "23", seen: "ended long ago, row queued by a later queueing just now", want: "wait for its pod; discard, Superseded", alone: true, grace: 40 * time.Second, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.stays(pod)
			s.row(task, state(requeue.StateScheduled)) // unseen
			back := s.databaseGone()
			began := time.Now()
			pod = s.reject(pod)
			s.eventually("it has ended more than 30 s ago", func() bool { return time.Since(began) > 35*time.Second })
			back()
			later := s.submit(s.queueAgain(task, time.Minute))
			s.discarded(pod, "queued again, for "+later.Name)
			s.sawNothing()
		}},

		{row: "24", seen: "runs here, adopted by job 2, and the row says so after a while", want: "wait, then release to job 2", play: func(s *stage) {
			task := s.queue()
			pod := s.running(task)
			s.adopt(task, pod)
			s.row(task, runs(pod.Name))
			s.stays(s.live(pod))
			s.row(task, func(row *requeue.TaskInstance) { runs(pod.Name)(row); row.QueuedByJobID = 2 })
			assert.Equal(s.T, "2", s.released(pod).Labels[requeue.LabelWorker])
			s.sawNothing()
		}},
		{row: "24", seen: "queued, adopted by job 2, and the row says so after a while", want: "replace, ungate when the row says job 2", play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.adopt(task, pod)
			s.reject(pod)
			s.untilNothingFree(pod)
			s.row(task, queuedBy(2))
			replacement := s.replaced(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
			assert.Equal(s.T, "2", replacement.Labels[requeue.LabelWorker])
			s.sawNothing()
		}},
		{row: "24", seen: "queued, adopted by job 2, and the row never says so", want: "replace, ungate after 2 min under the row's job", grace: 2 * time.Minute, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.adopt(task, pod)
			began := time.Now()
			s.reject(pod)
			replacement := s.replaced(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
			assert.GreaterOrEqual(s.T, s.at(replacement, "free", func(p *corev1.Pod) bool { return !requeue.Gated(p) }).Sub(began), 2*time.Minute)
			assert.Equal(s.T, "1", replacement.Labels[requeue.LabelWorker])
			s.sawNothing()
		}},
		{row: "24", seen: "queued, adopted by job 2, and the failure is real", want: "wait, then report to job 2", play: func(s *stage) {
			task := s.queue()
			pod := s.running(task)
			s.adopt(task, pod)
			pod = s.ok(s.Kubelet.Fail(s.T.Context(), pod))
			s.stays(pod)
			s.row(task, queuedBy(2))
			last := s.reported(pod, requeue.ReasonExcludedReason, "container base: Error, exit code 1")
			assert.Equal(s.T, "2", last.Labels[requeue.LabelWorker])
			s.saw("failed " + pod.Name)
		}},
	}
}

// secondStart is row 22: a pod fails since its task runs in another, of which that is true.
func secondStart(of, want string, meanwhile func(*stage, *corev1.Pod)) scenario {
	return scenario{row: "22", seen: "row running under another pod's hostname, which is " + of, want: want, play: func(s *stage) {
		task := s.queue()
		loser := s.running(task)
		winner := s.running(task.Again(task.QueuedAt))
		s.row(task, runs(winner.Name))
		s.released(winner)
		if meanwhile != nil {
			meanwhile(s, winner)
		}
		s.ok(s.Kubelet.Fail(s.T.Context(), loser)) // the task's API answered 409
		if meanwhile != nil {
			s.reported(loser, requeue.ReasonNotQueued, "the task instance is running")
			return
		}
		s.discarded(loser, "the task runs in "+winner.Name)
		s.ok(s.Kubelet.Succeed(s.T.Context(), winner))
		s.saw("succeeded " + winner.Name)
	}}
}

// queuedBy is a row that is queued, by a scheduler job.
func queuedBy(job int64) func(*requeue.TaskInstance) {
	return func(row *requeue.TaskInstance) { row.QueuedByJobID = job }
}

// adopt has scheduler job 2 adopt a pod of job 1, which is gone. The row follows later.
func (s *stage) adopt(task executor.Task, pod *corev1.Pod) {
	s.T.Helper()
	adopted, err := s.SchedulerAs(2).Adopt(s.T.Context(), 1, task.Row())
	require.NoError(s.T, err)
	require.Equal(s.T, []string{pod.Name}, adopted)
}

// untilNothingFree says that no replacement of a pod may run, nor the pod itself, when all that can happen has.
func (s *stage) untilNothingFree(pod *corev1.Pod) {
	s.T.Helper()
	s.untilFree(s.reject(s.submit(s.queue())))
	for _, r := range s.replacements(pod) {
		require.True(s.T, requeue.Gated(r), "it is not given to a scheduler that may be gone")
	}
}
