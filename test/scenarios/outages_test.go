package scenarios

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// outages are f to i.
func outages() []scenario {
	return []scenario{
		{row: "f", seen: "database down for good while a pod is drained", want: "row 21: reported after a minute, the drain goes on", alone: true, grace: time.Minute, play: func(s *stage) {
			pod := s.running(s.queue())
			s.stays(pod)
			s.databaseGone()
			began := time.Now()
			s.drain(pod)
			s.reported(pod, requeue.ReasonDatabaseUnavailable, "the metadata database could not be read for 1m0s; ")
			s.untilGone(pod)
			assert.GreaterOrEqual(s.T, time.Since(began), time.Minute)
			s.saw("failed " + pod.Name)
		}},
		{row: "f", seen: "API server down while pods are replaced", want: "nothing is decided, all is caught up after", outage: true, play: func(s *stage) {
			var pods []*corev1.Pod
			for range 10 {
				pods = append(pods, s.submit(s.queue()))
			}
			for _, pod := range pods {
				s.reject(pod)
			}
			s.do(s.Servers.StopAPIServer())
			s.do(s.Servers.StartAPIServer())
			s.eventually("all have a replacement that may run", func() bool {
				s.revive()
				return !slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
					found := s.replacements(pod)
					return len(found) != 1 || requeue.Gated(found[0])
				})
			})
			for _, pod := range pods {
				s.takenOver(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
				assert.Len(s.T, s.replacements(pod), 1)
			}
			s.sawNothing()
		}},

		{row: "g", seen: "webhook down", want: "pods start unheld, all is as without us", alone: true, play: func(s *stage) {
			held := s.submit(s.queue())
			s.webhook.Kill()
			pod := s.unheld(s.queue())
			s.reject(pod)
			s.saw("failed " + pod.Name)
			s.replaced(s.reject(held), requeue.ReasonKubeletRejected, "OutOfcpu") // the watcher goes on; its replacement is let through as it is
		}},
		{row: "g", seen: "watcher down", want: "new pods start unheld after 30 s; after 60 s all holds are lifted", alone: true, grace: 90 * time.Second, play: func(s *stage) {
			alive, ended, gated := s.submit(s.queue()), s.submit(s.queue()), s.gated(s.queue(patient("2m")))
			s.watcher.Kill()
			began := time.Now()
			s.reject(ended)
			programs.UntilNotStamping(s.T, s.airflow)
			assert.Greater(s.T, time.Since(began), 20*time.Second, "30 s after the last renewal that was seen; renewals are 2 s apart, and so are looks")
			unheld := s.unheld(s.queue())
			s.untilLetGo(alive)
			s.untilLetGo(ended)
			s.untilLetGo(gated)
			assert.Greater(s.T, s.at(alive, "the hold is lifted", func(p *corev1.Pod) bool { return !requeue.Held(p) }).Sub(began), 50*time.Second)
			for _, pod := range []*corev1.Pod{alive, ended, gated} {
				assert.NotContains(s.T, s.live(pod).Labels, requeue.LabelHold)
				assert.Equal(s.T, "1", s.live(pod).Labels[requeue.LabelWorker])
			}
			assert.Equal(s.T, corev1.PodFailed, s.live(gated).Status.Phase, "it could not run any more")
			s.reject(unheld)
			s.saw("failed "+ended.Name, "failed "+gated.Name, "failed "+unheld.Name)
		}},

		{row: "h", seen: "webhook configuration deleted, then release --all", want: "no attached pod keeps a hold, no pod a finalizer", alone: true, play: (*stage).uninstalled},

		{row: "i", seen: "namespace being deleted, its phase", want: "finalizers go", alone: true, play: func(s *stage) {
			alive, runs := s.submit(s.queue()), s.running(s.queue())
			s.do(s.Client.CoreV1().Namespaces().Delete(s.T.Context(), s.Namespace, metav1.DeleteOptions{}))
			s.stripped(alive)
			s.stripped(runs)
			s.sawNone()
		}},
		{row: "i", seen: "namespace being deleted, a create answered 403 with cause NamespaceTerminating", want: "finalizers go", alone: true, play: func(s *stage) {
			pod := s.submit(s.queue())
			wire := s.rewire()
			wire.beforeThe(creating, func() {
				assert.NoError(s.T, s.Client.CoreV1().Namespaces().Delete(s.T.Context(), s.Namespace, metav1.DeleteOptions{}))
			})
			s.reject(pod)
			s.untilLetGo(pod)
			assert.True(s.T, wire.done())
			assert.Empty(s.T, s.replacements(pod))
			s.sawNone()
		}},
	}
}

// revive is the watcher's Deployment: it starts the watcher again that has ended, since it lost its Lease.
func (s *stage) revive() {
	if s.watcher.HasEnded() {
		s.watcher = s.startWatcher(s.Access(s.WatcherUser()))
	}
}

// sawNone is sawNothing where no pod can be created any more to mark the end.
func (s *stage) sawNone() {
	s.T.Helper()
	assert.Empty(s.T, s.SawOf(s.tasks...))
}

// uninstalled leaves pods in every state that there is, then takes airflow-requeue out of the cluster.
func (s *stage) uninstalled() {
	s.T.Helper()
	alive, runs := s.submit(s.queue()), s.running(s.queue())
	ended, revoked, discarded := s.submit(s.queue()), s.running(s.queue()), s.submit(s.queue())
	undone, replaced := s.submit(s.queue()), s.submit(s.queue())
	lateTask, committedTask := s.queue(), s.queue()
	late, committed := s.submit(lateTask), s.submit(committedTask)
	gated := s.gated(s.queue(patient("2m")))
	free := s.untilFree(s.reject(replaced))
	s.untilLetGo(replaced)
	s.watcher.Stop()

	s.reject(ended)
	s.do(s.airflow.MarkRevoked(s.T.Context(), revoked.Name))
	s.change(discarded, map[string]any{requeue.LabelWorker: nil, requeue.LabelExecutorDone: "True"}, map[string]any{requeue.AnnotationDiscarded: "true"})
	undone = s.detach(s.reject(undone), requeue.ReasonKubeletRejected, "it was rejected")
	late = s.detach(s.reject(late), requeue.ReasonKubeletRejected, "it was rejected")
	uncommitted := s.late(late, lateTask)
	s.change(uncommitted, map[string]any{requeue.LabelWorker: "2"}, nil) // an adoption that found it, its predecessor being detached
	committed = s.detach(s.reject(committed), requeue.ReasonKubeletRejected, "it was rejected")
	taken := s.commit(s.late(committed, committedTask))

	s.UnregisterWebhook()
	s.webhook.Stop()
	for range 2 { // it may be repeated
		release := programs.Start(s.T, &s.log, s.built["watcher"], s.Release(s.Access(s.WatcherUser()))...)
		require.Zero(s.T, release.Exit(), "%s", &s.log)
	}

	job := func(pod *corev1.Pod) string { return s.live(pod).Labels[requeue.LabelWorker] }
	for _, pod := range []*corev1.Pod{alive, runs, ended, undone, late, gated, free, taken} {
		assert.NotContains(s.T, s.live(pod).Labels, requeue.LabelHold, pod.Name)
		assert.NotContains(s.T, s.live(pod).Labels, requeue.LabelExecutorDone, pod.Name)
	}
	assert.Equal(s.T, []string{"1", "1", "1", "1", "2", "1"}, []string{job(alive), job(runs), job(ended), job(undone), job(late), job(taken)},
		"an airflow-worker that an adoption put on an uncommitted replacement is copied to the old pod")
	assert.Equal(s.T, "True", s.live(revoked).Labels[requeue.LabelHold])
	for _, pod := range []*corev1.Pod{discarded, committed, replaced} {
		assert.True(s.T, requeue.Held(s.live(pod)) && !requeue.Attached(s.live(pod)), "%s is a tombstone", pod.Name)
	}
	s.untilGone(uncommitted)
	s.neverRan(uncommitted)
	for _, pod := range []*corev1.Pod{gated, taken} {
		assert.Equal(s.T, corev1.PodFailed, s.live(pod).Status.Phase, "%s could not run any more", pod.Name)
	}
	for name, pod := range s.Pods() {
		assert.NotContains(s.T, pod.Finalizers, requeue.Finalizer, name)
		assert.NotContains(s.T, pod.Labels, requeue.LabelTracked, name)
		assert.False(s.T, requeue.Held(pod) && requeue.Attached(pod), name)
	}
	s.unheld(s.queue())
	var want []string
	for _, pod := range []*corev1.Pod{ended, undone, late, gated, taken} {
		want = append(want, "failed "+pod.Name)
	}
	s.saw(want...)
}

// refusals are j.
func refusals() []scenario {
	return []scenario{
		{row: "j", seen: "create refused: exceeded quota", want: "undo the detach at once, then retry", alone: true, play: func(s *stage) {
			pod := s.submit(s.queue())
			s.quota(true)
			s.reject(pod)
			s.refusedForNow(pod, "exceeded quota")
			s.quota(false)
			s.replaced(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
			s.sawNothing()
		}},
		refusedFor(http.StatusTooManyRequests), refusedFor(http.StatusServiceUnavailable), refusedFor(http.StatusConflict),
		{row: "j", seen: "create refused: any other 403", want: "undo, report", play: func(s *stage) { s.refusedForGood(metav1.StatusReasonForbidden, "other") }},
		{row: "j", seen: "create refused: any other 422", want: "undo, report", play: func(s *stage) { s.refusedForGood(metav1.StatusReasonInvalid, "other") }},
	}
}

func refusedFor(code int) scenario {
	return scenario{row: "j", seen: "create refused: " + strings.ToLower(http.StatusText(code)), want: "undo the detach at once, then retry", play: func(s *stage) {
		label, allow := s.answering(code)
		pod := s.submit(s.queue(func(task *executor.Task) { task.Labels = label }))
		s.reject(pod)
		s.refusedForNow(pod, "not now")
		allow()
		s.replaced(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
		s.sawNothing()
	}}
}

// refusedForNow says that a pod whose replacement is refused is held on, and attached.
func (s *stage) refusedForNow(pod *corev1.Pod, note string) {
	s.T.Helper()
	s.tells(pod, corev1.EventTypeWarning, requeue.ReasonRefused, "Requeue: The replacement is refused for now: ", note)
	pod = s.until(pod.Name, "attached again", func(p *corev1.Pod) bool { return requeue.Attached(p) && p.Annotations[requeue.AnnotationReason] != "" })
	assert.True(s.T, requeue.Held(pod) && requeue.Tracked(pod) && !requeue.Detached(pod))
	assert.Equal(s.T, "1", pod.Labels[requeue.LabelWorker])
	assert.Empty(s.T, s.replacements(pod))
}
