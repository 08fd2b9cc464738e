package watcher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// expiring is a queued task whose token is good for a time, with backoffs of a minute, less a fifth at most.
func (w *world) expiring(lifetime time.Duration) executor.Task {
	w.t.Helper()
	task := w.queued("expiring", requeue.AnnotationMaxRetries, "-1", requeue.AnnotationBackoff, "1m")
	task.TokenLifetime = lifetime
	return task
}

// rejectedTwice has a pod and its replacement rejected by their kubelets, and returns the pod.
func (w *world) rejectedTwice(task executor.Task) *corev1.Pod {
	w.t.Helper()
	pod := w.submit(task)
	for _, name := range []string{pod.Name, pod.Name + "-r1"} {
		_, err := w.kubelet.Reject(w.ctx, w.untilFree(name), "NodeAffinity", "no")
		require.NoError(w.t, err)
	}
	return pod
}

func TestABackoffThatPassesTheTokensExpiryIsNotBegun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.expiring(70 * time.Second)
	pod := w.rejectedTwice(task)
	last := w.untilUntracked(pod.Name + "-r1")
	w.seenOnly("failed " + last.Name)
	w.untilEvent(last, "TooLate", "a replacement could not start before")
	require.Len(t, w.pods(task), 2, "no second replacement was made")
}

func TestABackoffThatEndsInTimeForTheTokenIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run()
	task := w.expiring(3 * time.Minute)
	pod := w.rejectedTwice(task)
	gated := w.until(pod.Name+"-r2", "committed", func(p *corev1.Pod) bool { return p != nil && requeue.Committed(p) })
	require.True(t, requeue.Gated(gated))
	w.within(time.Minute, 2*time.Second, "the gate comes off", func() bool { return isFree(w.history.Latest(gated.Name)) })
	require.Less(t, w.clock.Now(), task.QueuedAt.Add(task.TokenLifetime-30*time.Second))
	w.checkReplacement(w.now(gated.Name), w.history.Latest(pod.Name+"-r1"), task, 2)
	w.nothingSeen()
}

func TestAReplacementWhoseTokenExpiresWhileNobodyLeadsNeverRunsAndIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	task := w.expiring(3 * time.Minute)
	pod := w.rejectedTwice(task)
	gated := w.until(pod.Name+"-r2", "alone", func(p *corev1.Pod) bool {
		return p != nil && requeue.Committed(p) && isUntracked(w.history.Latest(pod.Name+"-r1"))
	})
	p.stop()
	w.clock.forward(160 * time.Second)
	w.run()
	w.passing(time.Second, "the executor sees it", func() bool { return len(w.executor.sawOf(gated.Name)) > 0 })
	w.passing(time.Second, "it goes", func() bool { return w.history.Latest(gated.Name) == nil })
	for _, m := range w.history.Of(gated.Name) {
		require.True(t, requeue.Gated(m.Pod), "it never runs")
	}
	w.seenOnly("failed " + gated.Name)
}

func TestAReplacementThatTheQuotaRefusesToTheEndIsReportedInTimeWithTheDetachUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	task := w.queued("quota")
	task.TokenLifetime = 3 * time.Minute
	pod := w.submit(task)
	w.quota(true)
	_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
	require.NoError(t, err)
	w.within(task.TokenLifetime-30*time.Second, time.Second, "the report, in time", func() bool { return len(w.executor.saw()) > 0 })
	left := w.untilUntracked(pod.Name)
	require.Equal(t, attached, howLeft(left))
	require.NotContains(t, left.Labels, requeue.LabelExecutorDone)
	require.Greater(t, p.wire.count("POST"), 2, "it was tried again and again")
	require.Less(t, p.wire.count("POST"), 12, "ever more rarely")
	w.quota(false) // seenOnly makes a pod
	w.seenOnly("failed " + pod.Name)
	w.untilEvent(pod, "Refused", "exceeded quota")
	w.untilEvent(pod, "TooLate", "")
	require.Empty(t, w.replacementsOf(pod))
}

func TestAnImagePullIsJudgedByTheKubeletsWords(t *testing.T) {
	t.Parallel()
	const manifests = "failed to pull and unpack image \"registry.example/a:b\": failed to copy: httpReadSeeker: failed open: failed with status code [manifests b]: "
	for _, tt := range []struct {
		name, message string
		reason        requeue.Reason
	}{
		{"404", `rpc error: code = NotFound desc = failed to pull and unpack image "registry.example/a:b": failed to resolve reference: not found`, requeue.ReasonMisconfigured},
		{"401", manifests + "401 Unauthorized", requeue.ReasonImagePull},
		{"403", manifests + "403 Forbidden", requeue.ReasonImagePull},
		{"429", manifests + "429 Too Many Requests", requeue.ReasonImagePull},
		{"503", manifests + "503 Service Unavailable", requeue.ReasonImagePull},
		{"no DNS", `failed to do request: Head "https://registry.example/v2/a/manifests/b": dial tcp: lookup registry.example on 10.0.0.10:53: no such host`, requeue.ReasonImagePull},
		{"no route", `failed to do request: Head "https://registry.example/v2/a/manifests/b": dial tcp 192.0.2.1:443: i/o timeout`, requeue.ReasonImagePull},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.run()
			task := w.queued("pulls", requeue.AnnotationImagePullGrace, "30s")
			began := w.clock.Now()
			pod := w.onNode(w.submit(task))
			pod, err := w.kubelet.ImagePull(t.Context(), pod, tt.message) // ends in ImagePullBackOff, around it
			require.NoError(t, err)
			w.passing(5*time.Second, "the pod is deleted", func() bool { return w.history.Latest(pod.Name).DeletionTimestamp != nil })
			require.GreaterOrEqual(t, w.clock.Since(began), 30*time.Second, "after its own grace")
			deleted := w.now(pod.Name)
			require.Equal(t, string(tt.reason), deleted.Annotations[requeue.AnnotationReason])
			require.Contains(t, deleted.Annotations[requeue.AnnotationMessage], tt.message)
			w.nothingSeen()
			require.NoError(t, w.kubelet.Terminate(t.Context(), pod, 137))
			if tt.reason == requeue.ReasonMisconfigured {
				w.untilSeenOf(pod.Name, "failed")
				require.Empty(t, w.replacementsOf(pod))
				return
			}
			w.checkReplacement(w.untilFree(pod.Name+"-r1"), pod, task, 1)
			w.untilGone(pod.Name)
			require.Empty(t, w.executor.sawOf(pod.Name))
		})
	}
}

func TestAReplacementKeepsTheAffinityThatThePodHad(t *testing.T) {
	t.Parallel()
	zone := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}}}
	own := &corev1.Affinity{
		NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution:  &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{zone}},
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 7, Preference: zone}},
		},
		PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname}}},
	}
	for _, avoid := range []string{"true", "false"} {
		t.Run("avoid-failed-node "+avoid, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.run()
			task := w.queued("choosy", requeue.AnnotationAvoidFailedNode, avoid, requeue.AnnotationMaxRetries, "2", requeue.AnnotationBackoff, "0s")
			task.Mutate = func(pod *corev1.Pod) { pod.Spec.Affinity = own.DeepCopy() }
			pod := w.submit(task)
			last := pod
			for i, node := range []string{"node-a", "node-b"} {
				bound, err := w.kubelet.Bind(t.Context(), last, node)
				require.NoError(t, err)
				_, err = w.kubelet.NodeShutdown(t.Context(), bound)
				require.NoError(t, err)
				last = w.untilFree(pod.Name + []string{"-r1", "-r2"}[i])

				want := own.DeepCopy()
				if avoid == "true" {
					want.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(want.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution,
						corev1.PreferredSchedulingTerm{Weight: 100, Preference: corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
							{Key: "metadata.name", Operator: corev1.NodeSelectorOpNotIn, Values: []string{node}}}}})
				}
				require.Equal(t, want, last.Spec.Affinity)
			}
		})
	}
}
