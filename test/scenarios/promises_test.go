package scenarios

import (
	"slices"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// promises are the cases of the letters, in their order.
func promises() []scenario {
	return slices.Concat(duplicates(), races(), outages(), refusals(), queueings(), modes())
}

// duplicates are a and b.
func duplicates() []scenario {
	return []scenario{
		{row: "a", seen: "several Failed events, then DELETED", want: "one replacement per pod UID", play: func(s *stage) {
			pod := s.running(s.queue())
			s.do(s.Kubelet.Evict(s.T.Context(), pod))
			for range 3 {
				s.ok(s.Kubelet.Kill(s.T.Context(), pod, 143))
				s.ok(s.Kubelet.Disrupt(s.T.Context(), pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"))
			}
			s.do(s.Kubelet.Terminate(s.T.Context(), pod, 143))
			replacement := s.replaced(pod, requeue.ReasonEvicted, "Eviction API: evicting")
			s.stays(replacement)
			assert.Len(s.T, s.replacements(pod), 1)
			s.sawNothing()
		}},
		{row: "a", seen: "a watcher that starts anew lists what was replaced", want: "one replacement per pod UID", alone: true, play: func(s *stage) {
			pod := s.reject(s.submit(s.queue()))
			replacement := s.replaced(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
			for range 3 {
				s.withoutWatcher(func() {})
				s.stays(replacement)
			}
			assert.Len(s.T, s.replacements(pod), 1)
			s.sawNothing()
		}},
		{row: "a", seen: "410 Gone while pods fail, relist", want: "one replacement per pod UID", alone: true, play: func(s *stage) {
			wire := s.rewire()
			var pods []*corev1.Pod
			for range 5 {
				pods = append(pods, s.submit(s.queue()))
			}
			s.stays(pods[4])
			wire.gone()
			for _, pod := range pods {
				s.reject(pod)
			}
			for _, pod := range pods {
				s.stays(s.replaced(pod, requeue.ReasonKubeletRejected, "OutOfcpu"))
				assert.Len(s.T, s.replacements(pod), 1)
			}
			assert.Equal(s.T, 1, wire.expired, "the API server was asked for a version that is gone")
			s.sawNothing()
		}},

		{row: "b", seen: "the watcher is killed while 20 pods are replaced, and starts again", want: "no pod lost, none doubled, no finalizer left", alone: true, grace: 20 * time.Second, play: func(s *stage) {
			pods := s.twentyUnderWay()
			s.watcher.Kill()
			s.watcher = s.startWatcher(s.Access(s.WatcherUser()))
			for _, pod := range pods {
				s.takenOver(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
				assert.Len(s.T, s.replacements(pod), 1)
			}
			s.sawNothing()
		}},
		{row: "b", seen: "the leader is stopped while 20 pods are replaced, another leads, the first goes on", want: "no pod lost, none doubled, no finalizer left", alone: true, grace: 20 * time.Second, play: func(s *stage) {
			first, second := s.watcher, s.startWatcher(s.Access(s.WatcherUser()))
			pods := s.twentyUnderWay()
			first.Signal(syscall.SIGSTOP)
			for _, pod := range pods {
				s.untilFree(pod)
			}
			first.Signal(syscall.SIGCONT)
			s.eventually("the first has lost the Lease and ends", first.HasEnded)
			for _, pod := range pods {
				s.takenOver(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
				assert.Len(s.T, s.replacements(pod), 1)
			}
			s.watcher = second
			s.sawNothing()
		}},
	}
}

// twentyUnderWay are 20 pods that were rejected, some of which have a replacement by now.
func (s *stage) twentyUnderWay() []*corev1.Pod {
	s.T.Helper()
	var pods []*corev1.Pod
	for range 20 {
		pods = append(pods, s.submit(s.queue()))
	}
	for _, pod := range pods {
		s.reject(pod)
	}
	s.eventually("some have a replacement", func() bool {
		return slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return len(s.replacements(p)) > 0 })
	})
	return pods
}

// races are c, d and e.
func races() []scenario {
	return []scenario{
		{row: "c", seen: "the row changes between decision and create, before the read after the detach", want: "no replacement, report", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			wire := s.rewire()
			wire.afterThe(detaching, func() { s.row(task, state("failed")) })
			s.reject(pod)
			last := s.reported(pod, requeue.ReasonNotQueued, "the task instance is failed; OutOfcpu")
			assert.True(s.T, wire.done())
			assert.Equal(s.T, "1", last.Labels[requeue.LabelWorker], "the detach is undone")
			s.saw("failed " + pod.Name)
		}},
		{row: "c", seen: "the row changes between the read after the detach and the create", want: "the replacement never runs, report", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.rewire().beforeThe(creating, func() { s.row(task, state("failed")) })
			s.reject(pod)
			s.eventually("the replacement is there", func() bool { return len(s.replacements(pod)) == 1 })
			replacement := s.replacements(pod)[0]
			s.untilGone(replacement)
			s.neverRan(replacement)
			s.untilLetGo(pod)
			s.saw("failed " + replacement.Name)
		}},
		{row: "c", seen: "the row changes after the ungating", want: "as any pod of Airflow's own", play: func(s *stage) {
			task := s.queue()
			pod := s.started(s.untilFree(s.reject(s.submit(task))))
			s.row(task, state("failed"))
			s.stays(pod)
			s.ok(s.Kubelet.Fail(s.T.Context(), pod)) // the task's API answered that it is not to run
			s.reported(pod, requeue.ReasonNotQueued, "the task instance is failed")
			s.saw("failed " + pod.Name)
		}},

		{row: "d", seen: "another scheduler adopts while held", want: "the task runs once", play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.adopt(task, pod)
			s.row(task, queuedBy(2))
			s.runsOnceUnder2(task, s.replaced(s.reject(pod), requeue.ReasonKubeletRejected, "OutOfcpu"))
		}},
		{row: "d", seen: "another scheduler adopts while detached: it finds no pod and sets the task back", want: "the task runs once: no replacement", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			wire := s.rewire()
			wire.afterThe(detaching, func() {
				adopted, err := s.SchedulerAs(2).Adopt(s.T.Context(), 1, task.Row())
				assert.NoError(s.T, err)
				assert.Empty(s.T, adopted)
				next := task.NextTry(task.QueuedAt.Add(time.Minute))
				s.row(next, state(requeue.StateScheduled))
			})
			s.reject(pod)
			s.reported(pod, requeue.ReasonNotQueued, "the task instance is at try 2, the pod at try 1")
			assert.True(s.T, wire.done())
			s.saw("failed " + pod.Name)
		}},
		{row: "d", seen: "another scheduler adopts, and its patch lands after our detach", want: "the task runs once", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			found, err := s.SchedulerAs(2).Adoptable(s.T.Context(), 1)
			require.NoError(s.T, err)
			require.Len(s.T, found, 1)
			wire := s.rewire()
			wire.afterThe(detaching, func() {
				assert.NoError(s.T, s.SchedulerAs(2).AdoptPod(s.T.Context(), &found[0]))
				s.row(task, queuedBy(2))
			})
			s.reject(pod)
			s.runsOnceUnder2(task, s.takenOver(pod, requeue.ReasonKubeletRejected, "OutOfcpu"))
			assert.True(s.T, wire.done())
		}},
		{row: "d", seen: "another scheduler adopts, and its patch lands after our commit", want: "the task runs once, under the adopter", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			wire := s.rewire()
			wire.afterThe(committing, func() {
				s.change(pod, map[string]any{requeue.LabelWorker: "2"}, nil) // the executor's patch, of before the detach
				s.row(task, queuedBy(2))
			})
			s.reject(pod)
			s.runsOnceUnder2(task, s.takenOver(pod, requeue.ReasonKubeletRejected, "OutOfcpu"))
			assert.True(s.T, wire.done())
		}},
		{row: "d", seen: "another scheduler adopts after the replacement exists", want: "the task runs once", play: func(s *stage) {
			task := s.queue()
			replacement := s.untilFree(s.reject(s.submit(task)))
			s.adopt(task, replacement)
			s.row(task, queuedBy(2))
			s.runsOnceUnder2(task, replacement)
		}},

		{row: "e", seen: "Airflow revokes while we release", want: "Airflow wins", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.running(task)
			wire := s.rewire()
			wire.beforeThe(lifting, func() { s.revoke(task, pod) })
			s.ok(s.Kubelet.Fail(s.T.Context(), pod))
			s.untilGone(pod)
			assert.True(s.T, wire.done())
			assert.Equal(s.T, "True", s.untilLetGo(pod).Labels[requeue.LabelHold])
			s.sawNothing()
		}},
		{row: "e", seen: "Airflow revokes while we detach", want: "Airflow wins", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			wire := s.rewire()
			wire.beforeThe(detaching, func() { s.revoke(task, pod) })
			s.reject(pod)
			s.untilGone(pod)
			assert.True(s.T, wire.done())
			assert.Empty(s.T, s.replacements(pod))
			s.sawNothing()
		}},
		{row: "e", seen: "Airflow revokes while we create: it finds no pod and queues the task again", want: "Airflow wins: the replacement never runs", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			var later *corev1.Pod
			s.rewire().beforeThe(creating, func() {
				revoked, err := s.airflow.Revoke(s.T.Context(), task.Row())
				assert.NoError(s.T, err)
				assert.Empty(s.T, revoked)
				later = s.submit(s.queueAgain(task, time.Minute))
			})
			s.reject(pod)
			s.eventually("the replacement is there", func() bool { return len(s.replacements(pod)) == 1 })
			replacement := s.replacements(pod)[0]
			s.untilGone(replacement)
			s.neverRan(replacement)
			s.untilLetGo(pod)
			s.stays(s.live(later))
			s.sawNothing()
		}},
		{row: "e", seen: "Airflow revokes before we ungate", want: "Airflow wins: the replacement never runs", alone: true, play: func(s *stage) {
			task := s.queue()
			pod := s.submit(task)
			s.rewire().beforeThe(ungating, func() {
				revoked, err := s.airflow.Revoke(s.T.Context(), task.Row())
				assert.NoError(s.T, err)
				assert.Len(s.T, revoked, 1)
			})
			s.reject(pod)
			s.eventually("the replacement is there", func() bool { return len(s.replacements(pod)) == 1 })
			replacement := s.replacements(pod)[0]
			s.untilGone(replacement)
			s.neverRan(replacement)
			s.untilLetGo(pod)
			s.sawNothing()
		}},
	}
}

// runsOnceUnder2 takes a replacement to its success, which scheduler job 2 sees.
func (s *stage) runsOnceUnder2(task executor.Task, replacement *corev1.Pod) {
	s.T.Helper()
	s.sawNothing()
	replacement = s.started(replacement)
	s.row(task, func(row *requeue.TaskInstance) { runs(replacement.Name)(row); row.QueuedByJobID = 2 })
	assert.Equal(s.T, "2", s.released(replacement).Labels[requeue.LabelWorker])
	s.ok(s.Kubelet.Succeed(s.T.Context(), replacement))
	s.saw("succeeded " + replacement.Name)
}
