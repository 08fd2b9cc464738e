package watcher_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// paused is a process that stops before its n-th write until it may go on.
func (w *world) paused(n int) (reached <-chan struct{}, goOn func()) {
	w.t.Helper()
	at, proceed := make(chan struct{}), make(chan struct{})
	w.run(func(p *process) {
		p.wire.write = func(i int, _ string) fate {
			if i == n {
				close(at)
				select {
				case <-proceed:
				case <-w.ctx.Done():
				}
			}
			return arrives
		}
	})
	return at, func() { close(proceed) }
}

func (w *world) untilReached(reached <-chan struct{}) {
	w.t.Helper()
	w.eventually("the write that is paused", func() bool {
		select {
		case <-reached:
			return true
		default:
			return false
		}
	})
}

func (w *world) revoke(task executor.Task) []string {
	w.t.Helper()
	revoked, err := w.scheduler.Revoke(w.ctx, task.Row())
	require.NoError(w.t, err)
	return revoked
}

func TestAHeldPodThatAirflowRevokesGoesAndNothingReplacesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("stuck")
	pod := w.submit(task)
	require.Equal(t, []string{pod.Name}, w.revoke(task))
	w.untilGone(pod.Name)
	require.Empty(t, w.pods(task))
	require.Empty(t, w.replacementsOf(pod))
	w.nothingSeen()
}

func TestAirflowWinsWhenItRevokesAPodWhoseHoldIsBeingLifted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(*world, executor.Task, *corev1.Pod)
	}{
		{"by a release of a running pod", func(w *world, task executor.Task, pod *corev1.Pod) { w.row(task, running(pod.Name)) }},
		{"by a report of a failed pod", func(w *world, _ executor.Task, pod *corev1.Pod) {
			_, err := w.kubelet.Fail(w.ctx, pod)
			require.NoError(w.t, err)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			reached, goOn := w.paused(1)
			task := w.queued("stuck")
			pod := w.started(w.submit(task))
			tt.end(w, task, pod)
			w.untilReached(reached)
			require.Equal(t, []string{pod.Name}, w.revoke(task))
			goOn()
			w.until(pod.Name, "without our finalizer", func(p *corev1.Pod) bool {
				return p == nil || !slices.Contains(p.Finalizers, requeue.Finalizer)
			})
			if left := w.now(pod.Name); left != nil { // its kubelet takes its time
				require.Equal(t, "True", left.Labels[requeue.LabelHold])
				require.NoError(t, w.kubelet.Terminate(t.Context(), left, 143))
			}
			w.untilGone(pod.Name)
			w.nothingSeen()
		})
	}
}

func TestAirflowThatRevokesAGatedReplacementWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("stuck", requeue.AnnotationMaxRetries, "-1", requeue.AnnotationBackoff, "1m")
	pod := w.submit(task)
	for _, name := range []string{pod.Name, pod.Name + "-r1"} {
		_, err := w.kubelet.Reject(t.Context(), w.untilFree(name), "NodeAffinity", "no")
		require.NoError(t, err)
	}
	gated := w.until(pod.Name+"-r2", "alone", func(p *corev1.Pod) bool {
		return p != nil && requeue.Committed(p) && isUntracked(w.history.Latest(pod.Name+"-r1"))
	})
	require.True(t, requeue.Gated(gated))
	require.Equal(t, []string{gated.Name}, w.revoke(task))
	w.untilGone(gated.Name)
	require.Empty(t, w.replacementsOf(gated))
	w.nothingSeen()
}

func TestAPodOfAnEarlierQueueingIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		airflow executor.Airflow
		seen    bool          // the watcher saw the pod's own queueing
		later   time.Duration // after which the task is queued again
	}{
		// Airflow 2 has no token, and five seconds may be the clocks' difference.
		{"when only the watcher, which saw its own queueing, can tell", executor.Airflow2, true, 5 * time.Second},
		{"when only the token's time tells them apart", executor.Airflow3, false, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			task := w.queued("deferred")
			task.Airflow = tt.airflow
			w.row(task, state(requeue.StateQueued))
			pod := w.submit(task)
			if tt.seen {
				p := w.run()
				w.eventually("the row was read", func() bool { return p.rows.count() > 0 })
			}
			// It ran, deferred and exited well, all within a second of trouble at the node; now it is resumed.
			again := task.Again(task.QueuedAt.Add(tt.later))
			require.NoError(t, w.db.Update(t.Context(), again.Row()))
			resumed := w.submit(again)
			_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
			require.NoError(t, err)
			if !tt.seen {
				w.run()
			}
			old := w.untilUntracked(pod.Name)
			require.True(t, requeue.Held(old) && !requeue.Attached(old), "Airflow would take its end for that of the resumed pod")
			require.Empty(t, w.replacementsOf(pod))
			require.ElementsMatch(t, []string{pod.Name, resumed.Name}, names(w.pods(task)))
			w.untilEvent(pod, "Superseded", "queued again, for "+resumed.Name)
			w.nothingSeen()

			// The resumed pod is as good as any: it is replaced when it is taken.
			_, err = w.kubelet.Reject(t.Context(), resumed, "NodeAffinity", "no")
			require.NoError(t, err)
			w.checkReplacement(w.untilFree(resumed.Name+"-r1"), resumed, again, 1)
		})
	}
}

func TestAPodOfAnEarlierQueueingIsReportedWhenNoPodOfTheLaterOneComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("sensor")
	pod := w.submit(task)
	again := task.Again(task.QueuedAt.Add(time.Minute))
	require.NoError(t, w.db.Update(t.Context(), again.Row()))
	began := w.clock.Now()
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	w.passing(4*time.Second, "the report", func() bool { return len(w.executor.sawOf(pod.Name)) > 0 })
	require.GreaterOrEqual(t, w.clock.Since(began), 30*time.Second)
	w.seenOnly("failed " + pod.Name)
	require.Empty(t, w.replacementsOf(pod))
}

func TestARowThatChangesWhileARequeueIsDecidedStopsIt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		read     int // it changes after this read, unseen by it
		replaced int // pods made in vain
	}{{"after the decision", 1, 0}, {"after the read that follows the detach", 2, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			task := w.queued("changes")
			pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
			require.NoError(t, err)
			w.run(func(p *process) {
				p.rows.after = func(n int, _ requeue.Ref) {
					if n == tt.read {
						row := task.Row()
						row.State = "failed"
						_ = w.db.Update(w.ctx, row)
					}
				}
			})
			w.eventually("the report", func() bool { return len(w.executor.saw()) > 0 })
			old := w.untilUntracked(pod.Name)
			w.passing(time.Second, "the replacement is gone", func() bool { return w.history.Latest(pod.Name+"-r1") == nil })
			require.Len(t, w.replacementsOf(pod), tt.replaced)
			for _, m := range w.history.Of(pod.Name + "-r1") {
				require.True(t, requeue.Gated(m.Pod), "it never runs")
			}
			if tt.replaced == 0 {
				require.Equal(t, "1", old.Labels[requeue.LabelWorker], "the detach is undone")
				require.NotContains(t, old.Labels, requeue.LabelExecutorDone)
				w.seenOnly("failed " + pod.Name)
			} else {
				w.seenOnly("failed " + pod.Name + "-r1")
			}
		})
	}
}

func TestAHeldPodThatIsAdoptedIsReplacedUnderTheNewScheduler(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("adopted")
	pod := w.submit(task)
	second := executor.Scheduler{Client: w.client, Namespace: w.namespace, JobID: 2}
	adopted, err := second.Adopt(t.Context(), 1, task.Row())
	require.NoError(t, err)
	require.Equal(t, []string{pod.Name}, adopted)
	_, err = w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	// The rows are committed seconds after the pods were relabelled; until then the replacement does not run.
	w.untilUntracked(pod.Name)
	began := w.clock.Now()
	w.passing(time.Second, "ten seconds", func() bool { return w.clock.Since(began) > 10*time.Second })
	require.True(t, requeue.Gated(w.now(pod.Name+"-r1")))
	w.row(task, func(row *requeue.TaskInstance) { row.QueuedByJobID = 2 })
	w.passing(time.Second, "the replacement", func() bool { return isFree(w.history.Latest(pod.Name + "-r1")) })
	require.Equal(t, "2", w.now(pod.Name + "-r1").Labels[requeue.LabelWorker])
	w.nothingSeen()
}

func TestAnAdoptionThatNeverCommitsItsRowIsWaitedForTwoMinutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.queued("adopted")
	pod := w.submit(task)
	_, err := executor.Scheduler{Client: w.client, Namespace: w.namespace, JobID: 2}.Adopt(t.Context(), 1, task.Row())
	require.NoError(t, err)
	began := w.clock.Now()
	_, err = w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	w.passing(15*time.Second, "the replacement", func() bool { return isFree(w.history.Latest(pod.Name + "-r1")) })
	require.GreaterOrEqual(t, w.clock.Since(began), 2*time.Minute)
	require.Equal(t, "1", w.now(pod.Name + "-r1").Labels[requeue.LabelWorker], "the next to adopt looks for what the row names")
}

func TestTheGateComesOffUnderTheSchedulerThatTheRowNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reached, goOn := w.paused(4) // the replacement is committed, under scheduler 1
	task := w.queued("adopted")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	w.untilReached(reached)
	require.Equal(t, "1", w.now(pod.Name + "-r1").Labels[requeue.LabelWorker])
	w.row(task, func(row *requeue.TaskInstance) { row.QueuedByJobID = 2 }) // adopted when it was listed, before the detach
	goOn()
	w.passing(time.Second, "the gate comes off", func() bool { return isFree(w.history.Latest(pod.Name + "-r1")) })
	require.Equal(t, "2", w.now(pod.Name + "-r1").Labels[requeue.LabelWorker])
	w.nothingSeen()
}

func TestAReportReachesTheSchedulerThatTheRowNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("reported")
	pod := w.submit(task)
	w.row(task, func(row *requeue.TaskInstance) { row.QueuedByJobID = 2 }) // adopted in the database, its pod was missed
	_, err := w.kubelet.Fail(t.Context(), w.started(pod))
	require.NoError(t, err)
	second := w.watchAsExecutor(2)
	w.run()
	w.passing(time.Second, "the living scheduler sees the failure", func() bool {
		return slices.Equal(second.saw(), []string{"failed " + pod.Name})
	})
	require.Equal(t, "2", w.now(pod.Name).Labels[requeue.LabelWorker])
}

func TestAnAdoptionThatLandsBeforeTheCommitIsTakenBackFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("adopted")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	reached, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.run(func(p *process) {
		p.wire.any = func(r *http.Request) error {
			if request, _ := describeRequest(r); request == "GET "+pod.Name { // the last look at the pod
				once.Do(func() {
					close(reached)
					select {
					case <-proceed:
					case <-w.ctx.Done():
					}
				})
			}
			return nil
		}
	})
	w.untilReached(reached)
	require.False(t, requeue.Committed(w.now(pod.Name+"-r1")))
	second := executor.Scheduler{Client: w.client, Namespace: w.namespace, JobID: 2}
	require.NoError(t, second.AdoptPod(t.Context(), pod))
	w.row(task, func(row *requeue.TaskInstance) { row.QueuedByJobID = 2 })
	close(proceed)
	replacement := w.untilFree(pod.Name + "-r1") // and the history has not seen two with airflow-worker
	require.Equal(t, "2", replacement.Labels[requeue.LabelWorker])
	w.checkTombstone(w.untilUntracked(pod.Name))
	w.nothingSeen()
}
