package watcher_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// course is something that a watcher does in several writes.
type course struct {
	name string
	// begin leaves a pod for the watcher to find.
	begin func(w *world, task executor.Task) *corev1.Pod
	// over says that there is nothing left to do.
	over func(w *world, pod *corev1.Pod) bool
	// check says what must be in the end.
	check func(w *world, pod *corev1.Pod, task executor.Task)
	// writes is how many writes it takes at least, so that a sweep can't pass by doing nothing.
	writes int
}

func isFree(p *corev1.Pod) bool { return p != nil && !requeue.Gated(p) }

func isUntracked(p *corev1.Pod) bool { return p == nil || !requeue.Tracked(p) }

func courses() []course {
	replaced := func(w *world, pod *corev1.Pod) bool {
		return isFree(w.history.Latest(pod.Name+"-r1")) && isUntracked(w.history.Latest(pod.Name))
	}
	return []course{
		{
			name: "a requeue", writes: 5,
			begin: func(w *world, task executor.Task) *corev1.Pod {
				pod, err := w.kubelet.Reject(w.ctx, w.submit(task), "NodeAffinity", "no")
				require.NoError(w.t, err)
				return pod
			},
			over: replaced,
			check: func(w *world, pod *corev1.Pod, task executor.Task) {
				replacement := w.now(pod.Name + "-r1")
				w.checkReplacement(replacement, pod, task, 1)
				w.checkTombstone(w.now(pod.Name))
				require.Equal(w.t, []string{string(replacement.UID)}, w.replacementsOf(pod))
				require.Equal(w.t, []string{pod.Name, replacement.Name}, names(w.pods(task)))
				w.seenNothingOf(pod.Name, replacement.Name)
			},
		},
		{
			name: "a deletion of a pod that cannot pull its image, and its requeue", writes: 8,
			begin: func(w *world, task executor.Task) *corev1.Pod {
				pod, err := w.kubelet.ImagePull(w.ctx, w.onNode(w.submit(task)), "503 Service Unavailable")
				require.NoError(w.t, err)
				return pod
			},
			over: replaced,
			check: func(w *world, pod *corev1.Pod, task executor.Task) {
				replacement := w.now(pod.Name + "-r1")
				w.checkReplacement(replacement, pod, task, 1)
				require.Equal(w.t, []string{string(replacement.UID)}, w.replacementsOf(pod))
				require.Equal(w.t, []string{replacement.Name}, names(w.pods(task)))
				w.seenNothingOf(pod.Name, replacement.Name)
			},
		},
		{
			name: "a report of a terminating pod", writes: 2,
			begin: func(w *world, task executor.Task) *corev1.Pod {
				pod := w.started(w.submit(task))
				w.row(task, state("failed"))
				w.delete(pod.Name)
				require.NoError(w.t, w.kubelet.Terminate(w.ctx, pod, 1))
				return pod
			},
			over: func(w *world, pod *corev1.Pod) bool { return w.history.Latest(pod.Name) == nil },
			check: func(w *world, pod *corev1.Pod, task executor.Task) {
				require.Empty(w.t, w.pods(task))
				w.untilSeenOf(pod.Name, "failed")
			},
		},
		{
			name: "a report of a pod deleted before it had a node", writes: 3,
			begin: func(w *world, task executor.Task) *corev1.Pod {
				pod := w.submit(task)
				w.row(task, state("failed"))
				w.delete(pod.Name)
				return pod
			},
			over: func(w *world, pod *corev1.Pod) bool { return w.history.Latest(pod.Name) == nil },
			check: func(w *world, pod *corev1.Pod, task executor.Task) {
				require.Empty(w.t, w.pods(task))
				w.untilSeenOf(pod.Name, "failed")
			},
		},
		discarding(),
	}
}

// discarding is a course of its own, since its pod is of use elsewhere.
func discarding() course {
	return course{
		name: "a discard", writes: 2,
		begin: func(w *world, task executor.Task) *corev1.Pod {
			pod := w.submit(task)
			winner := w.started(w.unheld(task.Again(task.QueuedAt)))
			w.row(task, running(winner.Name))
			_, err := w.kubelet.Fail(w.ctx, w.started(pod))
			require.NoError(w.t, err)
			return pod
		},
		over: func(w *world, pod *corev1.Pod) bool { return isUntracked(w.history.Latest(pod.Name)) },
		check: func(w *world, pod *corev1.Pod, _ executor.Task) {
			p := w.now(pod.Name)
			require.NotContains(w.t, p.Finalizers, requeue.Finalizer)
			require.True(w.t, requeue.Held(p), "a tombstone")
			require.False(w.t, requeue.Attached(p))
			w.seenNothingOf(pod.Name)
		},
	}
}

// seenNothingOf says that the executor's watch has made nothing of these pods.
func (w *world) seenNothingOf(pods ...string) {
	w.t.Helper()
	for _, pod := range pods {
		require.Empty(w.t, w.executor.sawOf(pod))
	}
}

// sweepWorld has a kubelet that finishes deletions by itself, and no image pull grace.
func sweepWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.policy.ImagePullGrace = 0
	k := kubelet.New(w.client, kubelet.Options{Namespace: w.namespace, GarbageCollection: -1,
		Script: func(*corev1.Pod) kubelet.Script { return kubelet.Script{Unschedulable: "driven by hand"} }})
	go func() { _ = k.Run(w.ctx) }()
	return w
}

// TestAKillAfterAnyWriteLosesAndDoublesNothing kills the watcher at its n-th write, for every n that there is: with the
// write done and its answer lost, and with the write lost. The next watcher brings it to the same end.
func TestAKillAfterAnyWriteLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range courses() {
		for what, how := range map[string]fate{"after": answerLost, "before": lost} {
			t.Run(c.name+", killed "+what+" a write", func(t *testing.T) {
				t.Parallel()
				w := sweepWorld(t)
				for n := 1; ; n++ {
					require.Less(t, n, 30, "it never ends")
					task := w.queued(fmt.Sprintf("killed-%s-%d", what, n))
					pod := c.begin(w, task)
					p := w.run(func(p *process) {
						p.wire.write = func(i int, _ string) fate {
							if i == n {
								return how
							}
							return arrives
						}
					})
					w.passing(time.Second, "the end, or the fault", func() bool { return p.wire.isDead() || c.over(w, pod) })
					p.stop()
					killed := p.wire.isDead()
					if killed {
						next := w.run()
						w.passing(time.Second, "the end", func() bool { return c.over(w, pod) })
						next.stop()
					}
					c.check(w, pod, task)
					if !killed {
						require.Greater(t, n, c.writes)
						return
					}
				}
			})
		}
	}
}
