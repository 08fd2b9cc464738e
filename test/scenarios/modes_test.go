package scenarios

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// modes are o to q: what the operator's flags make of it.
func modes() []scenario {
	bounds := []string{"--max-retries-cap=2", "--backoff-floor=5s"}
	return []scenario{
		{row: "o", seen: "max-retries above the cap, and no backoff", want: "the cap and the floor", watcher: bounds, webhook: bounds, grace: 10 * time.Second, play: func(s *stage) {
			pod := s.submit(s.queue(patient("0s")))
			first := s.replaced(s.reject(pod), requeue.ReasonKubeletRejected, "OutOfcpu")
			second := s.replaced(s.reject(first), requeue.ReasonKubeletRejected, "OutOfcpu")
			rejected := s.at(first, "rejected", requeue.Ended)
			over, err := time.Parse(time.RFC3339Nano, second.Annotations[requeue.AnnotationNotBefore])
			require.NoError(s.T, err)
			free := s.at(second, "free", func(p *corev1.Pod) bool { return !requeue.Gated(p) })
			assert.False(s.T, free.Before(over))
			assert.GreaterOrEqual(s.T, free.Sub(s.at(second, "made", func(*corev1.Pod) bool { return true })), 4*time.Second, "observed, not by the same clock")
			assert.True(s.T, rejected.Before(over))
			s.reject(second)
			s.reported(second, requeue.ReasonExhausted, "2 of 2 replacements made")
			s.saw("failed " + second.Name)
		}},

		{row: "p", seen: "more than --storm-breaker pods fail within a minute", want: "no more begin to be replaced, the rest is reported, Storm", watcher: []string{"--storm-breaker=3"}, play: func(s *stage) {
			own := s.running(s.queue()) // a failure of its own stands in nobody's way
			s.ok(s.Kubelet.Fail(s.T.Context(), own))
			s.reported(own, requeue.ReasonExcludedReason, "container base: Error")
			var pods []*corev1.Pod
			for range 8 {
				pods = append(pods, s.submit(s.queue()))
			}
			for _, pod := range pods {
				s.reject(pod)
			}
			saw := []string{"failed " + own.Name}
			replaced := 0
			for _, pod := range pods {
				last := s.untilLetGo(pod)
				if last.Labels[requeue.LabelReplaced] != "" {
					replaced++
					s.replaced(pod, requeue.ReasonKubeletRejected, "OutOfcpu")
					continue
				}
				s.reported(pod, requeue.ReasonStorm, "too many replacements lately; OutOfcpu")
				saw = append(saw, "failed "+pod.Name)
			}
			assert.Equal(s.T, 3, replaced)
			s.saw(saw...)
		}},
		{row: "p", seen: "a storm, and the watcher starts anew", want: "the count begins at zero", watcher: []string{"--storm-breaker=1"}, play: func(s *stage) {
			first := s.submit(s.queue())
			second := s.submit(s.queue())
			s.reject(first)
			s.replaced(first, requeue.ReasonKubeletRejected, "OutOfcpu")
			s.watcher.Stop()
			s.reject(second)
			s.watcher = s.startWatcher(s.Access(s.WatcherUser()), "--storm-breaker=1")
			s.replaced(second, requeue.ReasonKubeletRejected, "OutOfcpu")
			s.sawNothing()
		}},

		{row: "q", seen: "--mode=observe, a pod is drained before its task starts", want: "nothing is done, what would be is told", webhook: []string{"--mode=observe"}, play: func(s *stage) {
			pod := s.ok(s.airflow.Create(s.T.Context(), s.queue()))
			require.True(s.T, requeue.Observed(pod))
			require.NotContains(s.T, pod.Labels, requeue.LabelHold)
			pod = s.reject(pod)
			s.tells(pod, corev1.EventTypeNormal, requeue.ReasonKubeletRejected, "Observe: Observed: would be replaced: ", "OutOfcpu")
			s.saw("failed " + pod.Name)
			assert.Equal(s.T, pod.ResourceVersion, s.live(pod).ResourceVersion, "nothing is written to it")
			assert.Empty(s.T, s.replacements(pod))
		}},
		{row: "q", seen: "--mode=observe, a failure of its own", want: "nothing is done, what would be is told", webhook: []string{"--mode=observe"}, play: func(s *stage) {
			pod := s.started(s.ok(s.airflow.Create(s.T.Context(), s.queue())))
			pod = s.ok(s.Kubelet.Fail(s.T.Context(), pod))
			s.tells(pod, corev1.EventTypeNormal, requeue.ReasonExcludedReason, "Observe: Observed: would be reported to Airflow: ", "container base: Error, exit code 1")
			s.saw("failed " + pod.Name)
			assert.Equal(s.T, pod.ResourceVersion, s.live(pod).ResourceVersion, "nothing is written to it")
		}},
		{row: "q", seen: "--mode=observe, a pod that is deleted before it is decided on", want: "it is gone at once, what would be is told", webhook: []string{"--mode=observe"}, play: func(s *stage) {
			pod := s.ok(s.airflow.Create(s.T.Context(), s.queue()))
			s.delete(pod)
			s.untilGone(pod)
			s.tells(pod, corev1.EventTypeNormal, requeue.ReasonDeletedUnscheduled, "Observe: Observed: would be replaced: ", "deleted before it had a node")
			assert.Empty(s.T, s.replacements(pod))
		}},
	}
}
