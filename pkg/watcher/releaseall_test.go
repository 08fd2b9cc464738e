package watcher_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// after leaves a pod as a watcher leaves it that is killed before its n-th write: rejected by its kubelet, and so to be
// replaced.
func (w *world) after(task executor.Task, writes int) *corev1.Pod {
	w.t.Helper()
	pod, err := w.kubelet.Reject(w.ctx, w.submit(task), "NodeAffinity", "no")
	require.NoError(w.t, err)
	p := w.run(dyingAt(writes + 1))
	w.eventually("the watcher is killed", p.wire.isDead)
	p.stop()
	return w.now(pod.Name)
}

// Writes of a requeue, as after counts them.
const (
	isDetached = 1 + iota
	isCreated
	isCommitted
	isStripped
)

func (w *world) releaseAll() watcher.Released { return w.releaseAllBy(w.client) }

func (w *world) releaseAllBy(client kubernetes.Interface) watcher.Released {
	w.t.Helper()
	var done watcher.Released
	var err error
	over := make(chan struct{})
	go func() {
		defer close(over)
		done, err = watcher.ReleaseAll(w.ctx, client, w.releasing())
	}()
	w.passing(time.Second, "all holds are lifted", func() bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	})
	require.NoError(w.t, err)
	return done
}

// leftAs is what becomes of a pod when all holds are lifted.
type leftAs string

const (
	gone      leftAs = "gone"
	attached  leftAs = "attached, without a hold"
	tombstone leftAs = "detached, its hold a tombstone"
	revoked   leftAs = "revoked"
)

func howLeft(pod *corev1.Pod) leftAs {
	switch {
	case pod == nil:
		return gone
	case requeue.Revoked(pod):
		return revoked
	case requeue.Attached(pod) && !requeue.Held(pod):
		return attached
	case !requeue.Attached(pod) && requeue.Held(pod):
		return tombstone
	}
	return leftAs(fmt.Sprintf("attached: %t, held: %t", requeue.Attached(pod), requeue.Held(pod)))
}

func TestReleaseAllEndsEveryHoldWhateverItsStateAndMayBeRepeated(t *testing.T) {
	t.Parallel()
	requeued := func(writes int, then ...func(w *world, replacement string)) func(w *world, task executor.Task) *corev1.Pod {
		return func(w *world, task executor.Task) *corev1.Pod {
			pod := w.after(task, writes)
			for _, f := range then {
				f(w, pod.Name+"-r1")
			}
			return pod
		}
	}
	for _, tt := range []struct {
		name        string
		begin       func(w *world, task executor.Task) *corev1.Pod
		want        watcher.Released
		old         leftAs
		replacement leftAs
		seen        string // "old" or "replacement": whose failure a scheduler sees
		by          int64  // which scheduler; the first where it is not said
	}{
		{name: "pending", begin: (*world).held, want: watcher.Released{Released: 1}, old: attached},
		{name: "running", begin: func(w *world, task executor.Task) *corev1.Pod { return w.started(w.submit(task)) },
			want: watcher.Released{Released: 1}, old: attached},
		{name: "failed", begin: func(w *world, task executor.Task) *corev1.Pod {
			pod, err := w.kubelet.Fail(w.ctx, w.started(w.submit(task)))
			require.NoError(w.t, err)
			return pod
		}, want: watcher.Released{Released: 1}, old: attached, seen: "old"},
		{name: "terminating on its node", begin: func(w *world, task executor.Task) *corev1.Pod {
			pod := w.started(w.submit(task))
			w.delete(pod.Name)
			return pod
		}, want: watcher.Released{Released: 1}, old: attached},
		{name: "terminating and failed", begin: func(w *world, task executor.Task) *corev1.Pod {
			pod := w.started(w.submit(task))
			w.delete(pod.Name)
			require.NoError(w.t, w.kubelet.Terminate(w.ctx, pod, 1))
			return pod
		}, want: watcher.Released{Released: 1}, old: gone, seen: "old"},
		{name: "deleted before it had a node", begin: func(w *world, task executor.Task) *corev1.Pod {
			pod := w.submit(task)
			w.delete(pod.Name)
			return pod
		}, want: watcher.Released{Released: 1}, old: gone, seen: "old"},
		{name: "detached without a replacement", begin: requeued(isDetached), want: watcher.Released{Released: 1}, old: attached, seen: "old"},
		{name: "detached with an uncommitted replacement", begin: requeued(isCreated),
			want: watcher.Released{Released: 1, Deleted: 1}, old: attached, seen: "old"},
		{name: "detached with an uncommitted replacement that was adopted",
			begin: requeued(isCreated, func(w *world, r string) { w.patch(r, `{"metadata":{"labels":{"airflow-worker":"2"}}}`) }),
			want:  watcher.Released{Released: 1, Deleted: 1}, old: attached, seen: "old", by: 2},
		{name: "detached with a committed replacement", begin: requeued(isCommitted),
			want: watcher.Released{Reported: 1, Stripped: 1}, old: tombstone, replacement: attached, seen: "replacement"},
		{name: "detached with a replacement that may run",
			begin: requeued(isCommitted, func(w *world, r string) { w.patch(r, `{"spec":{"schedulingGates":null}}`) }),
			want:  watcher.Released{Released: 1, Stripped: 1}, old: tombstone, replacement: attached},
		{name: "detached with a replacement that was let go already",
			begin: requeued(isCommitted, func(w *world, r string) {
				w.patch(r, `{"spec":{"schedulingGates":null},"metadata":{"finalizers":null,"labels":{"airflow_pod_revoked":null,"airflow-requeue.dev/tracked":null}}}`)
			}), want: watcher.Released{Stripped: 1}, old: tombstone, replacement: attached},
		{name: "replaced by a pod that waits for its backoff", begin: requeued(isStripped),
			want: watcher.Released{Reported: 1}, old: tombstone, replacement: attached, seen: "replacement"},
		{name: "revoked by Airflow", begin: func(w *world, task executor.Task) *corev1.Pod {
			pod := w.started(w.submit(task))
			require.NoError(w.t, w.scheduler.MarkRevoked(w.ctx, pod.Name))
			return pod
		}, want: watcher.Released{Stripped: 1}, old: revoked},
		{name: "discarded", begin: func(w *world, task executor.Task) *corev1.Pod {
			pod := discarding().begin(w, task)
			p := w.run(dyingAt(2))
			w.eventually("the watcher is killed", p.wire.isDead)
			p.stop()
			return pod
		}, want: watcher.Released{Stripped: 1}, old: tombstone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			eyes := map[int64]*eyes{0: w.executor, 2: w.watchAsExecutor(2)}
			pod := tt.begin(w, w.queued("released"))
			require.Equal(t, tt.want, w.releaseAll())
			require.Equal(t, tt.old, howLeft(w.now(pod.Name)))
			if tt.replacement == "" {
				tt.replacement = gone
			}
			require.Equal(t, tt.replacement, howLeft(w.now(pod.Name+"-r1")))
			for _, p := range []*corev1.Pod{w.now(pod.Name), w.now(pod.Name + "-r1")} {
				require.True(t, p == nil || !requeue.Tracked(p) && !slices.Contains(p.Finalizers, requeue.Finalizer))
			}
			switch tt.seen {
			case "old":
				w.eventually("the failure is seen", func() bool { return slices.Equal(eyes[tt.by].saw(), []string{"failed " + pod.Name}) })
			case "replacement":
				w.eventually("the failure is seen", func() bool { return slices.Equal(eyes[tt.by].saw(), []string{"failed " + pod.Name + "-r1"}) })
			default:
				w.nothingSeen()
			}
			require.Zero(t, w.releaseAll())
		})
	}
}

// held is a pod that nothing has happened to yet.
func (w *world) held(task executor.Task) *corev1.Pod { return w.submit(task) }

func TestReleaseAllBesideAWatcherThatLeadsLeavesNoHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	var pods []*corev1.Pod
	for i := range 12 {
		pods = append(pods, w.submit(w.queued(fmt.Sprintf("task-%d", i))))
	}
	taking := make(chan struct{})
	go func() {
		defer close(taking)
		for i, pod := range pods {
			if i%3 != 0 {
				_, _ = w.kubelet.Reject(w.ctx, pod, "NodeAffinity", "no")
			}
		}
	}()
	w.releaseAll()
	<-taking
	w.releaseAll()
	w.caughtUp()
	for _, pod := range pods {
		s := &scene{world: w, pod: pod}
		s.nothingLeft()
		failed := len(s.reported())
		require.Equal(t, 1, len(s.live())+failed, "%s: either one runs, or the executor has seen one failure", pod.Name)
	}
}

// TestReleaseAllAndAWatcherAtTheSameTimeLeaveOnePodOrOneFailure has a watcher get some way, then ReleaseAll, and, before
// its write, another watcher some way further: both decided on what is no longer true.
func TestReleaseAllAndAWatcherAtTheSameTimeLeaveOnePodOrOneFailure(t *testing.T) {
	t.Parallel()
	for first := range isStripped + 1 {
		t.Run(fmt.Sprintf("a watcher is killed after %d writes", first), func(t *testing.T) {
			t.Parallel()
			for more := 1; first+more <= isStripped+1; more++ {
				for at := 1; releaseMeanwhile(t, first, more, at); at++ {
					require.Less(t, at, 10, "it never ends")
				}
			}
		})
	}
}

func releaseMeanwhile(t *testing.T, first, more, at int) (met bool) {
	t.Helper()
	t.Run(fmt.Sprintf("and the next after %d more before write %d of the release", more, at), func(t *testing.T) {
		w := newWorld(t)
		pod := w.after(w.queued("met"), first)
		s := &scene{world: w, pod: pod}
		reached, proceed := make(chan struct{}), make(chan struct{})
		wire := &wire{bell: w.bell, write: func(n int, _ string) fate {
			if n == at {
				close(reached)
				select {
				case <-proceed:
				case <-w.ctx.Done():
				}
			}
			return arrives
		}}
		client, over := w.wired(wire), make(chan error, 1)
		go func() {
			_, err := watcher.ReleaseAll(w.ctx, client, w.releasing())
			over <- err
		}()
		ended := false
		w.passing(time.Second, "the write of the release, or its end", func() bool {
			select {
			case <-reached:
				met = true
			case err := <-over:
				require.NoError(t, err)
				ended = true
			default:
			}
			return met || ended
		})
		if !met {
			return
		}
		p := w.run(dyingAt(more + 1))
		w.passing(time.Second, "the watcher is killed, or has nothing to do", func() bool {
			return p.wire.isDead() || s.calm()
		})
		p.stop()
		close(proceed)
		w.passing(time.Second, "the end of the release", func() bool {
			select {
			case err := <-over:
				require.NoError(t, err)
				ended = true
			default:
			}
			return ended
		})
		w.releaseAll()
		w.caughtUp()
		s.nothingLeft()
		require.Equal(t, 1, len(s.live())+len(s.reported()), "either one runs, or the executor has seen one failure\n%s", w.dump())
	})
	return met
}

func TestAPodThatCannotBeReleasedKeepsNoOtherFromIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var pods []string
	for i := range 3 {
		pods = append(pods, w.submit(w.queued(fmt.Sprintf("task-%d", i))).Name)
	}
	slices.Sort(pods)
	client := w.wired(&wire{bell: w.bell, write: func(_ int, request string) fate {
		if request == "PATCH "+pods[0] {
			return failed
		}
		return arrives
	}})
	done, err := watcher.ReleaseAll(t.Context(), client, w.releasing())
	require.ErrorContains(t, err, "patching pod "+w.namespace+"/"+pods[0])
	require.Equal(t, watcher.Released{Released: 2}, done)
	require.True(t, requeue.Held(w.now(pods[0])))
	w.untilUntracked(pods[1])
	w.untilUntracked(pods[2])
	require.Equal(t, watcher.Released{Released: 1}, w.releaseAll(), "it may be repeated")
}

func TestAReplacementIsReleasedOnlyAfterItsPredecessor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.after(w.queued("kept"), isCommitted)
	client := w.wired(&wire{bell: w.bell, write: func(_ int, request string) fate {
		if request == "PATCH "+pod.Name {
			return failed
		}
		return arrives
	}})
	_, err := watcher.ReleaseAll(t.Context(), client, w.releasing())
	require.ErrorContains(t, err, "patching pod "+w.namespace+"/"+pod.Name)
	require.True(t, requeue.Held(w.now(pod.Name+"-r1")), "were it gone, a watcher would report both")
	require.Equal(t, watcher.Released{Reported: 1, Stripped: 1}, w.releaseAll())
	w.eventually("the failure is seen", func() bool { return slices.Equal(w.executor.saw(), []string{"failed " + pod.Name + "-r1"}) })
}

func TestReleaseAllEndsThoughPodsComeAndGoMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaving := func(n int) string { // takes two looks, since the executor is to see it before it goes
		pod := w.started(w.submit(w.queued(fmt.Sprintf("leaving-%d", n))))
		w.delete(pod.Name)
		return pod.Name
	}
	first, n := leaving(0), 0
	client := w.wired(&wire{bell: w.bell, via: func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Query().Get("labelSelector"), requeue.LabelTracked) {
				n++
				leaving(n)
			}
			return response, err
		})
	}})
	require.Equal(t, watcher.Released{Released: 2}, w.releaseAllBy(client), "the first, and who came in time for the second look")
	require.Equal(t, attached, howLeft(w.now(first)))
	require.Empty(t, w.now(first).Finalizers)
}

func TestReleaseAllReleasesThePodsOfItsOwnInstallationOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.submit(w.queued("other"))
	w.patch(pod.Name, `{"metadata":{"labels":{"airflow-requeue.dev/tracked":"another"}}}`)
	require.Zero(t, w.releaseAll())
	require.True(t, requeue.Held(w.now(pod.Name)))
}

func TestAReplacementThatIsAdoptedWhileItIsDroppedPassesItsSchedulerOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := w.watchAsExecutor(2)
	pod := w.after(w.queued("adopted"), isCreated)
	replacement := w.now(pod.Name + "-r1")
	var once sync.Once
	client := w.wired(&wire{bell: w.bell, write: func(int, string) fate {
		once.Do(func() { // its list is too old by now
			_ = executor.Scheduler{Client: w.client, Namespace: w.namespace, JobID: 2}.AdoptPod(w.ctx, replacement)
		})
		return arrives
	}})
	require.Equal(t, watcher.Released{Released: 1, Deleted: 1}, w.releaseAllBy(client))
	w.eventually("the living scheduler sees the failure", func() bool { return slices.Equal(second.saw(), []string{"failed " + pod.Name}) })
	require.Equal(t, gone, howLeft(w.now(replacement.Name)))
}
