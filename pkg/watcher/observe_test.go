package watcher_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// observed creates the task's pod as the executor makes it and the webhook stamps it in observe mode.
func (w *world) observed(task executor.Task) *corev1.Pod {
	w.t.Helper()
	task.Namespace = w.namespace
	raw, err := json.Marshal(executor.Pod(task))
	require.NoError(w.t, err)
	u := &unstructured.Unstructured{}
	require.NoError(w.t, json.Unmarshal(raw, &u.Object))
	require.NoError(w.t, w.sealer.Observe(u, installation, w.namespace, raw))
	raw, err = json.Marshal(u.Object)
	require.NoError(w.t, err)
	pod := &corev1.Pod{}
	err = w.client.CoreV1().RESTClient().Post().Namespace(w.namespace).Resource("pods").
		SetHeader("Content-Type", "application/json").Body(raw).Do(w.ctx).Into(pod)
	require.NoError(w.t, err)
	return pod
}

// wroteNothing says that the process has sent no write about any pod.
func (p *process) wroteNothing(w *world) {
	w.t.Helper()
	writes := slices.DeleteFunc(p.wire.requests(), func(r string) bool {
		return strings.HasPrefix(r, "GET ") || r == "LIST"
	})
	require.Empty(w.t, writes)
}

const observedTotal = "airflow_requeue_observed_total"

// toldOnly waits for the process to have told of so many pods, by outcome and reason, and of no others.
func (p *process) toldOnly(w *world, want map[[2]string]int) {
	w.t.Helper()
	total := 0
	for _, n := range want {
		total += n
	}
	w.passing(time.Second, "all pods were told of", func() bool { return p.toldOf(w) >= total })
	for labels, n := range want {
		require.Equal(w.t, n, p.measured(w, observedTotal, labels[0], labels[1]), "%v", labels)
	}
	require.Equal(w.t, total, p.toldOf(w))
}

// toldOf counts the pods that the process has told of.
func (p *process) toldOf(w *world) int {
	w.t.Helper()
	families, err := p.metrics.Gather()
	require.NoError(w.t, err)
	n := 0
	for _, family := range families {
		if family.GetName() == observedTotal {
			for _, m := range family.GetMetric() {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

func TestAnObservedPodIsTreatedAsWithoutUsAndWhatWouldBecomeOfItIsTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		outcome string
		reason  requeue.Reason
		event   string // empty for none
		tuning  []string
		end     func(*world, executor.Task, *corev1.Pod) error
	}{
		{name: "rejected by the kubelet", outcome: "requeue", reason: requeue.ReasonKubeletRejected,
			event: "Observed: would be replaced: NodeAffinity: Pod was rejected: no",
			end: func(w *world, _ executor.Task, pod *corev1.Pod) error {
				_, err := w.kubelet.Reject(w.ctx, pod, "NodeAffinity", "no")
				return err
			}},
		{name: "drained, and gone at its end", outcome: "requeue", reason: requeue.ReasonEvicted, event: "Observed: would be replaced: EvictionByEvictionAPI",
			end: func(w *world, _ executor.Task, pod *corev1.Pod) error {
				pod = w.onNode(pod)
				if err := w.kubelet.Evict(w.ctx, pod); err != nil {
					return err
				}
				return w.kubelet.Terminate(w.ctx, pod, 137)
			}},
		{name: "deleted before it had a node", outcome: "requeue", reason: requeue.ReasonDeletedUnscheduled,
			event: "Observed: would be replaced: deleted before it had a node",
			end:   func(w *world, _ executor.Task, pod *corev1.Pod) error { w.delete(pod.Name); return nil }},
		{name: "gone from its node without a word of its kubelet's", outcome: "requeue", reason: requeue.ReasonDeleted,
			event: "Observed: would be replaced: deleted on node node-a",
			end: func(w *world, _ executor.Task, pod *corev1.Pod) error {
				pod = w.started(pod)
				w.delete(pod.Name)
				return w.client.CoreV1().Pods(w.namespace).Delete(w.ctx, pod.Name, *forced())
			}},
		{name: "failed by itself", outcome: "report", reason: requeue.ReasonExcludedReason, event: "Observed: would be reported to Airflow: container base: Error",
			end: func(w *world, _ executor.Task, pod *corev1.Pod) error {
				_, err := w.kubelet.Fail(w.ctx, w.started(pod))
				return err
			}},
		{name: "without a budget, deleted before it had a node", outcome: "report", reason: requeue.ReasonExhausted,
			event: "Observed: would be reported to Airflow: 0 of 0 replacements made", tuning: []string{requeue.AnnotationMaxRetries, "0"},
			end: func(w *world, _ executor.Task, pod *corev1.Pod) error { w.delete(pod.Name); return nil }},
		{name: "failed when Airflow knew already", outcome: "report", reason: requeue.ReasonNotQueued, event: "Observed: would be reported to Airflow: the task instance is failed",
			end: func(w *world, task executor.Task, pod *corev1.Pod) error {
				w.row(task, state("failed"))
				_, err := w.kubelet.Reject(w.ctx, pod, "NodeAffinity", "no")
				return err
			}},
		{name: "an image that can't be pulled", outcome: "delete", reason: requeue.ReasonImagePull, event: "Observed: would be deleted: container base: ",
			end: func(w *world, _ executor.Task, pod *corev1.Pod) error {
				_, err := w.kubelet.ImagePull(w.ctx, w.onNode(pod), "503 Service Unavailable")
				return err
			}},
		{name: "Pending for too long", outcome: "delete", reason: requeue.ReasonStartDeadline, event: "Observed: would be deleted: Pending for longer",
			tuning: []string{requeue.AnnotationStartDeadline, "3m"},
			end:    func(w *world, _ executor.Task, pod *corev1.Pod) error { w.onNode(pod); return nil }},
		{name: "started", outcome: "release", reason: requeue.ReasonStarted,
			end: func(w *world, task executor.Task, pod *corev1.Pod) error {
				w.started(pod)
				w.row(task, running(pod.Name))
				return nil
			}},
		{name: "revoked by Airflow", outcome: "strip", reason: requeue.ReasonRevoked,
			end: func(w *world, task executor.Task, _ *corev1.Pod) error { w.revoke(task); return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := w.run()
			task := w.queued("observed", tt.tuning...)
			pod := w.observed(task)
			require.NoError(t, tt.end(w, task, pod))
			p.toldOnly(w, map[[2]string]int{{tt.outcome, string(tt.reason)}: 1})
			if tt.event != "" {
				w.untilEvent(pod, string(tt.reason), tt.event)
			}
			// What goes on after that is no concern of ours.
			if left := w.now(pod.Name); left != nil {
				w.patch(pod.Name, `{"metadata":{"labels":{"touched":"true"}}}`)
			}
			w.clock.forward(5 * time.Minute)

			twinTask := w.queued("twin", tt.tuning...)
			twin := w.unheld(twinTask)
			require.NoError(t, tt.end(w, twinTask, twin))
			w.caughtUp()
			require.Equal(t, sawWithout(w, twin), sawWithout(w, pod), "the executor sees what it sees of a pod that nobody stamped")
			p.toldOnly(w, map[[2]string]int{{tt.outcome, string(tt.reason)}: 1})
			p.wroteNothing(w)
			require.Empty(t, w.replacementsOf(pod))
			for _, m := range w.history.Of(pod.Name) {
				require.NotContains(t, m.Pod.Finalizers, requeue.Finalizer)
				require.False(t, requeue.Held(m.Pod))
			}
		})
	}
}

// sawWithout is what the executor saw of a pod, without its name.
func sawWithout(w *world, pod *corev1.Pod) []string {
	var states []string
	for _, s := range w.executor.sawOf(pod.Name) {
		states = append(states, strings.TrimSuffix(s, " "+pod.Name))
	}
	return states
}

func TestHeldAndObservedPodsGoTheirOwnWaysInOneWatcher(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	held, observed := w.submit(w.queued("held")), w.observed(w.queued("observed"))
	// Nobody gets a held pod out of our hands by the annotation.
	w.patch(held.Name, `{"metadata":{"annotations":{"`+requeue.AnnotationMode+`":"`+requeue.ModeObserve+`"}}}`)
	for _, pod := range []*corev1.Pod{held, observed} {
		_, err := w.kubelet.Reject(t.Context(), pod, "NodeAffinity", "no")
		require.NoError(t, err)
	}
	replacement := w.untilFree(held.Name + "-r1")
	require.NotContains(t, replacement.Annotations, requeue.AnnotationMode)
	p.toldOnly(w, map[[2]string]int{{"requeue", "KubeletRejected"}: 1})
	w.seenOnly("failed " + observed.Name)
	require.Equal(t, 1, p.measured(w, "airflow_requeue_requeues_total", "KubeletRejected"))
}

func TestAirflowsNextPodOfAQueueingStandsForTheReplacementThatWouldHaveBeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	task := w.queued("observed")
	for _, suffix := range []string{"k8sown00", "k8sown01"} { // the executor's own requeue: the same queueing, another pod
		task.Suffix = suffix
		told := p.toldOf(w)
		_, err := w.kubelet.Reject(t.Context(), w.observed(task), "NodeAffinity", "no")
		require.NoError(t, err)
		w.eventually("it was told of", func() bool { return p.toldOf(w) > told })
	}
	p.toldOnly(w, map[[2]string]int{{"requeue", "KubeletRejected"}: 1, {"report", "Exhausted"}: 1})
}

func TestObservedPodsTellHowAStormWouldEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		_, err := w.kubelet.Reject(t.Context(), w.observed(w.queued(name)), "NodeAffinity", "no")
		require.NoError(t, err)
	}
	p := w.run(func(p *process) { p.options.StormBreaker = 1 })
	w.eventually("all were told of", func() bool { return p.toldOf(w) == 3 })
	p.toldOnly(w, map[[2]string]int{{"requeue", "KubeletRejected"}: 1, {"report", "Storm"}: 2})
}

func TestAfterARestartNothingIsToldOfPodsThatEndedLongBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	_, err := w.kubelet.Reject(t.Context(), w.observed(w.queued("old")), "NodeAffinity", "no")
	require.NoError(t, err)
	w.eventually("it was told of", func() bool { return p.toldOf(w) == 1 })
	p.stop()
	w.clock.forward(11 * time.Minute)

	p = w.run()
	later := w.observed(w.queued("later")) // old too, by the watcher's clock, but seen alive
	w.eventually("it was looked at", func() bool { return p.rows.count() > 0 })
	_, err = w.kubelet.Reject(t.Context(), later, "NodeAffinity", "no")
	require.NoError(t, err)
	w.untilEvent(later, "TooLate", "Observed: would be reported to Airflow")
	p.toldOnly(w, map[[2]string]int{{"report", "TooLate"}: 1})
	require.Equal(t, 2, p.rows.count(), "nothing was read of the old one")
}

func TestReleaseAllOnlyEndsTheObservationOfAnObservedPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	pod := w.observed(w.queued("observed"))
	before := w.now(pod.Name)

	require.Equal(t, watcher.Released{}, w.releaseAll())

	after := w.untilUntracked(pod.Name)
	delete(before.Labels, requeue.LabelTracked)
	require.Equal(t, before.Labels, after.Labels)
	require.Equal(t, before.Annotations, after.Annotations)
	_, err := w.kubelet.Reject(t.Context(), after, "NodeAffinity", "no")
	require.NoError(t, err)
	w.untilSeenOf(pod.Name, "failed")
	require.Zero(t, p.toldOf(w))
	p.wroteNothing(w)
}

// forced is a deletion that waits for no kubelet.
func forced() *metav1.DeleteOptions {
	return &metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
}
