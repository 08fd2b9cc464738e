package watcher_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// scene is one run of a sweep: the watcher works on a pod, and someone meddles with it just before its n-th write is sent.
type scene struct {
	*world
	n    int
	task executor.Task
	pod  *corev1.Pod
	// before is what Airflow knew before the watcher began.
	adoptable []corev1.Pod
	// next is the pod of a later queueing, when the meddling made one.
	next *corev1.Pod
	// other is what a scheduler sees that has taken over.
	other *eyes
	// reset says that Airflow found no pod to adopt and set the task back.
	reset bool
}

// chain are the pods of the chain that are there.
func (s *scene) chain() []*corev1.Pod {
	return s.history.Pods(s.pod.Name)
}

// live are the chain's pods that run, or may.
func (s *scene) live() []*corev1.Pod {
	return slices.DeleteFunc(s.chain(), func(p *corev1.Pod) bool {
		return requeue.Gated(p) || requeue.Ended(p) || p.DeletionTimestamp != nil
	})
}

// calm says that of the chain only the live pods are still tracked, and none is on its way to run.
func (s *scene) calm() bool {
	live := s.live()
	return !slices.ContainsFunc(s.chain(), func(p *corev1.Pod) bool { return requeue.Tracked(p) && !slices.Contains(live, p) })
}

// settled says that nothing of the chain is tracked any more.
func (s *scene) settled() bool { return s.calm() && len(s.live()) == 0 }

func (s *scene) reported() []string {
	var saw []string
	for _, line := range s.executor.saw() {
		if len(line) > len("failed ") && (line == "failed "+s.pod.Name || line == "failed "+s.pod.Name+"-r1" || line == "failed "+s.pod.Name+"-r2") {
			saw = append(saw, line)
		}
	}
	return saw
}

// nothingLeft says that no pod of the chain carries a finalizer, and no attached one a hold.
func (s *scene) nothingLeft() {
	s.t.Helper()
	for _, p := range s.chain() {
		require.NotContains(s.t, p.Finalizers, requeue.Finalizer, p.Name)
		require.False(s.t, requeue.Attached(p) && requeue.Held(p), "%s is attached and held", p.Name)
	}
}

// oneRuns says that one replacement runs, or may, held and attached, and that the executor knows nothing of it all.
func (s *scene) oneRuns(worker string) *corev1.Pod {
	s.t.Helper()
	live := s.live()
	require.Len(s.t, live, 1)
	require.True(s.t, requeue.Committed(live[0]) && requeue.Held(live[0]) && requeue.Tracked(live[0]))
	require.Equal(s.t, worker, live[0].Labels[requeue.LabelWorker])
	for _, p := range s.chain() {
		if p.UID != live[0].UID {
			require.NotContains(s.t, p.Finalizers, requeue.Finalizer, p.Name)
			require.False(s.t, requeue.Attached(p), "%s is attached", p.Name)
		}
	}
	s.caughtUp()
	require.Empty(s.t, s.reported(), s.dump())
	return live[0]
}

// queueAgain has Airflow queue the same try once more, for a pod of its own.
func (s *scene) queueAgain() {
	s.t.Helper()
	again := s.task.Again(s.task.QueuedAt.Add(time.Minute))
	require.NoError(s.t, s.db.Update(s.ctx, again.Row()))
	s.next = s.submit(again)
	// A replacement that is created from here on is the younger pod of an earlier queueing.
	s.eventually("the next second", func() bool { return time.Now().Unix() > s.next.CreationTimestamp.Unix() })
}

// nextRuns says that the later queueing's pod is the only one that runs, or may, and that nothing of the chain, whose
// end would be taken for that pod's, was shown to Airflow.
func (s *scene) nextRuns() {
	s.t.Helper()
	require.Empty(s.t, s.live())
	s.nothingLeft()
	s.caughtUp()
	require.Empty(s.t, s.reported(), s.dump())
	next := s.now(s.next.Name)
	require.True(s.t, requeue.Held(next) && requeue.Attached(next) && next.DeletionTimestamp == nil)
}

// meddling is what someone does in the middle of a requeue.
type meddling struct {
	name   string
	meddle func(s *scene)
	over   func(s *scene) bool
	check  func(s *scene)
	// lateAdoption: see history.Record.
	lateAdoption bool
}

func meddlings() []meddling {
	replaced := func(s *scene) bool { return s.calm() && len(s.live()) == 1 }
	return []meddling{
		{
			name: "another watcher, which has taken over, does it all",
			meddle: func(s *scene) {
				s.run()
				s.eventually("the other one is done", func() bool { return replaced(s) })
			},
			over: replaced,
			check: func(s *scene) {
				s.checkReplacement(s.oneRuns("1"), s.pod, s.task, 1)
				s.checkTombstone(s.now(s.pod.Name))
				require.Len(s.t, s.replacementsOf(s.pod), 1)
			},
		},
		{
			name: "Airflow revokes the pod that it knows, if any, and queues the task again",
			meddle: func(s *scene) {
				_, err := s.scheduler.Revoke(s.ctx, s.task.Row())
				require.NoError(s.t, err)
				s.queueAgain()
			},
			over:  (*scene).settled,
			check: (*scene).nextRuns,
		},
		{
			name:   "the task comes back from a deferral, with the same try and a pod of its own",
			meddle: (*scene).queueAgain,
			over:   (*scene).settled,
			check:  (*scene).nextRuns,
		},
		{
			name:   "someone sets the task to failed",
			meddle: func(s *scene) { s.row(s.task, state("failed")) },
			over:   func(s *scene) bool { return s.settled() && len(s.reported()) > 0 },
			check: func(s *scene) {
				s.nothingLeft()
				s.caughtUp()
				require.Len(s.t, s.reported(), 1, "the executor frees the slot, once")
			},
		},
		{
			name: "a new scheduler adopts what it finds",
			meddle: func(s *scene) {
				adopted, err := executor.Scheduler{Client: s.client, Namespace: s.namespace, JobID: 2}.Adopt(s.ctx, 1, s.task.Row())
				require.NoError(s.t, err)
				if s.reset = len(adopted) == 0; s.reset {
					next := s.task.NextTry(s.task.QueuedAt.Add(time.Minute))
					row := next.Row()
					row.State = requeue.StateScheduled
					require.NoError(s.t, s.db.Update(s.ctx, row))
					return
				}
				s.row(s.task, func(row *requeue.TaskInstance) { row.QueuedByJobID = 2 })
			},
			over: func(s *scene) bool { return s.reset && s.settled() || !s.reset && replaced(s) },
			check: func(s *scene) {
				if s.reset {
					s.nothingLeft() // whatever was reported went to a scheduler that is gone
					return
				}
				s.checkEndsUnder("2")
			},
		},
		{
			name: "the patch of an adoption that was decided before lands", lateAdoption: true,
			meddle: func(s *scene) {
				for i := range s.adoptable {
					require.NoError(s.t, executor.Scheduler{Client: s.client, Namespace: s.namespace, JobID: 2}.AdoptPod(s.ctx, &s.adoptable[i]))
				}
				s.row(s.task, func(row *requeue.TaskInstance) { row.QueuedByJobID = 2 })
			},
			over:  replaced,
			check: func(s *scene) { s.checkEndsUnder("2") },
		},
		{
			name:   "someone deletes the old pod",
			meddle: func(s *scene) { _ = s.scheduler.Delete(s.ctx, s.pod.Name) },
			over:   replaced,
			check:  func(s *scene) { s.oneRuns("1") },
		},
		{
			name:   "someone deletes the replacement, if there is one",
			meddle: func(s *scene) { _ = s.scheduler.Delete(s.ctx, s.pod.Name+"-r1") },
			over:   replaced,
			check:  func(s *scene) { s.oneRuns("1") },
		},
		{
			name: "all holds are lifted",
			meddle: func(s *scene) {
				_, err := watcher.ReleaseAll(s.ctx, s.client, s.releasing())
				require.NoError(s.t, err)
			},
			over: func(s *scene) bool {
				return s.calm() && !slices.ContainsFunc(s.chain(), func(p *corev1.Pod) bool { return requeue.Gated(p) && !requeue.Ended(p) })
			},
			check: func(s *scene) {
				if len(s.live()) == 0 {
					s.nothingLeft()
				}
				s.caughtUp()
				require.Less(s.t, len(s.live()), 2)
				require.Equal(s.t, len(s.live()) == 0, len(s.reported()) == 1, "either one runs, or the executor has seen one failure")
			},
		},
	}
}

// checkEndsUnder says that the replacement's end reaches the living scheduler.
func (s *scene) checkEndsUnder(worker string) {
	s.t.Helper()
	live := s.live()
	require.Len(s.t, live, 1)
	s.oneRuns(live[0].Labels[requeue.LabelWorker])
	runner := s.started(live[0])
	s.row(s.task, func(row *requeue.TaskInstance) {
		running(runner.Name)(row)
		row.QueuedByJobID = 2
	})
	s.passing(time.Second, "its release", func() bool { return !requeue.Tracked(s.history.Latest(runner.Name)) })
	runner = s.now(runner.Name)
	require.Equal(s.t, worker, runner.Labels[requeue.LabelWorker])
	require.NotContains(s.t, runner.Labels, requeue.LabelHold)
}

// TestWhoeverMeddlesWithARequeueTheTaskRunsOnce has someone meddle before the n-th write of a requeue is sent, for every n
// that there is: the write was decided on what is no longer true.
func TestWhoeverMeddlesWithARequeueTheTaskRunsOnce(t *testing.T) {
	t.Parallel()
	for _, m := range meddlings() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				require.Less(t, n, 30, "it never ends")
				meddled := true
				t.Run(fmt.Sprintf("before write %d", n), func(t *testing.T) { meddled = meddleWith(t, m, n) })
				if !meddled {
					require.Greater(t, n, 5, "a requeue takes five writes")
					return
				}
			}
		})
	}
}

func meddleWith(t *testing.T, m meddling, n int) (meddled bool) {
	t.Helper()
	s := &scene{world: newWorld(t), n: n}
	s.policy.MaxRetries = 2
	if m.lateAdoption {
		s.history.LateAdoption()
	}
	s.task = s.queued("meddled")
	var err error
	s.pod, err = s.kubelet.Reject(t.Context(), s.submit(s.task), "NodeAffinity", "no")
	require.NoError(t, err)
	s.adoptable, err = executor.Scheduler{Client: s.client, Namespace: s.namespace, JobID: 2}.Adoptable(t.Context(), 1)
	require.NoError(t, err)
	return s.meddled(m, func() bool { return s.calm() && len(s.live()) == 1 })
}

// meddled runs a watcher, meddles before its n-th write, and checks the end; false when it ended before.
func (s *scene) meddled(m meddling, ended func() bool) (met bool) {
	s.t.Helper()
	reached, goOn := s.paused(s.n)
	s.passing(100*time.Millisecond, "the write, or the end", func() bool {
		select {
		case <-reached:
			met = true
		default:
		}
		return met || ended()
	})
	if !met {
		return false
	}
	m.meddle(s)
	goOn()
	s.passing(time.Second, "the end", func() bool { return m.over(s) })
	m.check(s)
	return true
}

// TestWhoeverMeddlesWithAReportAirflowSeesItOnceOrNotAtAll does the same to the two patches of a report.
func TestWhoeverMeddlesWithAReportAirflowSeesItOnceOrNotAtAll(t *testing.T) {
	t.Parallel()
	isGone := func(s *scene) bool { return s.history.Latest(s.pod.Name) == nil }
	for _, m := range []meddling{
		{
			name: "another watcher, which has taken over, does it all",
			meddle: func(s *scene) {
				s.run()
				s.passing(time.Second, "the other one is done", func() bool { return isGone(s) })
			},
			check: func(s *scene) { s.seenOnly("failed " + s.pod.Name) },
		},
		{
			name:   "Airflow revokes the pod",
			meddle: func(s *scene) { require.Equal(s.t, []string{s.pod.Name}, s.revoke(s.task)) },
			check: func(s *scene) {
				if s.n == 1 {
					s.nothingSeen() // Airflow wins
				} else {
					s.seenOnly("failed " + s.pod.Name) // it had been shown before
				}
			},
		},
		{
			name: "a new scheduler adopts the pod",
			meddle: func(s *scene) {
				_, err := executor.Scheduler{Client: s.client, Namespace: s.namespace, JobID: 2}.Adopt(s.ctx, 1, s.task.Row())
				require.NoError(s.t, err)
				second := s.watchAsExecutor(2)
				s.row(s.task, func(row *requeue.TaskInstance) { row.State, row.QueuedByJobID = "failed", 2 })
				s.other = second
			},
			check: func(s *scene) {
				require.Equal(s.t, []string{"failed " + s.pod.Name}, s.other.saw())
			},
		},
		{
			name: "all holds are lifted",
			meddle: func(s *scene) {
				require.LessOrEqual(s.t, s.releaseAll().Released, 1)
			},
			check: func(s *scene) { s.seenOnly("failed " + s.pod.Name) },
		},
	} {
		m.over = isGone
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				s := &scene{world: newWorld(t), n: n}
				s.task = s.queued("meddled")
				s.pod = s.started(s.submit(s.task))
				s.row(s.task, state("failed"))
				s.delete(s.pod.Name)
				require.NoError(t, s.kubelet.Terminate(t.Context(), s.pod, 1))
				if !s.meddled(m, func() bool { return isGone(s) }) {
					require.Equal(t, 3, n, "a report of a terminating pod takes two writes")
					return
				}
			}
		})
	}
}
