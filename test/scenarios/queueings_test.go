package scenarios

import (
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// cameBack is l of a pod whose task goes on in a later pod of the same key, try, id and job.
func cameBack(seen string, until requeue.State) scenario {
	return scenario{row: "l", seen: seen, want: "the pod of before is kept from Airflow, the later one is as any other", play: func(s *stage) {
		task := s.queue()
		first := s.running(task)
		s.stays(first) // it was seen while it was queued
		s.row(task, state(until))
		again := s.queueAgain(task, time.Minute)
		later := s.submit(again)
		s.ok(s.Kubelet.NodePressure(s.T.Context(), first, "The node was low on resource: memory.")) // before it could end well
		s.discarded(first, "queued again, for "+later.Name)
		replacement := s.replaced(s.reject(later), requeue.ReasonKubeletRejected, "OutOfcpu")
		queued, err := time.Parse(time.RFC3339Nano, replacement.Annotations[requeue.AnnotationQueuedAt])
		require.NoError(s.T, err)
		assert.True(s.T, queued.Equal(again.QueuedAt))
		s.sawNothing()
	}}
}

// named is l of a task instance whose name is not what a label takes.
func named(seen string, change func(*executor.Task)) scenario {
	return scenario{row: "l", seen: seen, want: "requeue as any other, to its success", play: func(s *stage) {
		task := s.queue(change)
		pod := s.submit(task)
		replacement := s.replaced(s.reject(pod), requeue.ReasonKubeletRejected, "OutOfcpu")
		assert.True(s.T, requeue.SameTaskInstance(replacement, task.Key))
		replacement = s.started(replacement)
		s.row(task, runs(replacement.Name))
		s.released(replacement)
		s.ok(s.Kubelet.Succeed(s.T.Context(), replacement))
		s.saw("succeeded " + replacement.Name)
	}}
}

// queueings are k to n.
func queueings() []scenario {
	return []scenario{
		{row: "k", seen: "Airflow's own requeue makes a fresh pod after we reported Exhausted", want: "the budget is used up for that pod too", play: func(s *stage) {
			task := s.queue()
			spent := s.spent(task)
			s.reject(spent)
			s.reported(spent, requeue.ReasonExhausted, "1 of 1 replacements made")
			fresh := task
			fresh.Suffix = "0wnreq00" // the same queueing, and token
			pod := s.submit(fresh)
			s.reject(pod)
			s.reported(pod, requeue.ReasonExhausted, "1 of 1 replacements made")
			s.saw("failed "+spent.Name, "failed "+pod.Name)
		}},

		cameBack("deferrable resume", "deferred"),
		cameBack("reschedule sensor's next poke", "up_for_reschedule"),
		{row: "l", seen: "stuck-in-queue requeue", want: "the revoked pod goes, the later one is as any other", play: func(s *stage) {
			task := s.queue()
			stuck := s.submit(task)
			s.revoke(task, stuck)
			s.row(task, state(requeue.StateScheduled))
			later := s.submit(s.queueAgain(task, time.Minute))
			s.untilGone(stuck)
			assert.Empty(s.T, s.replacements(stuck))
			s.replaced(s.reject(later), requeue.ReasonKubeletRejected, "OutOfcpu")
			s.sawNothing()
		}},
		{row: "l", seen: "cleared while queued, and the pod ends", want: "report: it belongs to another try", play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			next := task.NextTry(task.QueuedAt.Add(time.Minute))
			s.row(next, state(""))
			s.reject(pod)
			s.reported(pod, requeue.ReasonNotQueued, "the task instance is at try 2, the pod at try 1")
			s.saw("failed " + pod.Name)
		}},
		{row: "l", seen: "mapped tasks, of which one pod fails", want: "requeue that one, and leave the other", play: func(s *stage) {
			first := s.queue(func(task *executor.Task) { task.TaskID, task.MapIndex = "mapped-"+task.TaskID, 0 })
			second := s.queue(func(task *executor.Task) { task.TaskID, task.MapIndex = first.TaskID, 1 })
			pod, other := s.submit(first), s.submit(second)
			s.stays(other)
			replacement := s.replaced(s.reject(pod), requeue.ReasonKubeletRejected, "OutOfcpu")
			assert.Equal(s.T, "0", replacement.Labels["map_index"])
			s.stays(other)
			assert.Empty(s.T, s.replacements(other))
			s.sawNothing()
		}},
		named("ids longer than a label", func(task *executor.Task) {
			task.DagID, task.TaskID = strings.Repeat("a_very_long_dag.", 12), strings.Repeat("group.", 20)+task.TaskID
		}),
		named("ids that are not ASCII", func(task *executor.Task) { task.DagID, task.TaskID = "przegląd_日報", "größe-"+task.TaskID }),

		{row: "m", seen: "a node's late status write after the decision", want: "the decision stands", play: func(s *stage) {
			pod := s.ok(s.Kubelet.NodePressure(s.T.Context(), s.running(s.queue()), "The node was low on resource: memory."))
			replacement := s.replaced(pod, requeue.ReasonNodePressure, "The node was low on resource: memory.")
			s.patch(pod.Name, `{"status":{"reason":"OutOfcpu","message":"late","phase":"Failed"}}`, "status")
			s.stands(pod, replacement, requeue.ReasonNodePressure)
		}},
		{row: "m", seen: "an eviction of an already Failed pod", want: "the decision stands", play: func(s *stage) {
			pod := s.reject(s.submit(s.queue()))
			replacement := s.replaced(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
			s.do(s.Kubelet.Evict(s.T.Context(), pod))
			s.untilGone(pod)
			s.stands(pod, replacement, requeue.ReasonKubeletRejected)
		}},
		{row: "m", seen: "a DisruptionTarget that turns False", want: "the decision stands", play: func(s *stage) {
			pod := s.running(s.queue())
			s.ok(s.Kubelet.Disrupt(s.T.Context(), pod, "EvictionByEvictionAPI", "evicting"))
			s.ok(s.Kubelet.Exit(s.T.Context(), pod, 143, ""))
			replacement := s.replaced(pod, requeue.ReasonEvicted, "evicting")
			s.ok(s.Kubelet.Undisrupt(s.T.Context(), pod))
			s.stands(pod, replacement, requeue.ReasonEvicted)
		}},
		{row: "m", seen: "a DisruptionTarget that turns False between detach and create", want: "the decision stands", alone: true, play: func(s *stage) {
			pod := s.running(s.queue())
			s.withoutWatcher(func() {
				s.ok(s.Kubelet.Exit(s.T.Context(), pod, 143, "")) // a failure of its own, now that the node has it on
				pod = s.detach(s.live(pod), requeue.ReasonEvicted, "evicting")
			})
			s.stands(pod, s.replaced(pod, requeue.ReasonEvicted, "evicting"), requeue.ReasonEvicted)
		}},

		{row: "n", seen: "cleanup-pods deletes a held pod that has ended", want: "as any deletion: its end is decided", play: func(s *stage) {
			pod := s.reject(s.submit(s.queue()))
			s.delete(pod)
			s.untilGone(pod)
			s.untilFree(pod)
			assert.Len(s.T, s.replacements(pod), 1)
			s.sawNothing()
		}},
		{row: "n", seen: "cleanup-pods deletes a held pod that is Pending", want: "as any deletion: requeue", play: func(s *stage) {
			pod := s.submit(s.queue())
			s.delete(pod)
			s.replaced(pod, requeue.ReasonDeletedUnscheduled, "deleted before it had a node")
			s.sawNothing()
		}},
		{row: "n", seen: "cleanup-pods deletes a held pod that is Pending for long", want: "bounded by row 29: report, TooLate", play: func(s *stage) {
			pod := s.submit(s.queue(func(task *executor.Task) { task.QueuedAt = task.QueuedAt.Add(-9*time.Minute - 40*time.Second) }))
			s.delete(pod)
			s.reported(pod, requeue.ReasonTooLate, "a replacement could not start before")
			s.untilGone(pod)
			s.saw("failed " + pod.Name)
		}},
	}
}

// stands says that nothing comes of what was seen of a pod after it was replaced.
func (s *stage) stands(pod, replacement *corev1.Pod, reason requeue.Reason) {
	s.T.Helper()
	s.stays(replacement)
	assert.Len(s.T, s.replacements(pod), 1)
	if left := s.record.Latest(pod.Name); left != nil {
		assert.Equal(s.T, string(reason), left.Annotations[requeue.AnnotationReason])
		assert.False(s.T, requeue.Attached(left))
	}
	s.sawNothing()
}
