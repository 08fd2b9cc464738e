package watcher_test

import (
	"fmt"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// measured returns a metric of the process by its name and the values of its labels in the order of their names; 0 where
// there is none.
func (p *process) measured(w *world, name string, labels ...string) int {
	w.t.Helper()
	families, err := p.metrics.Gather()
	require.NoError(w.t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && fmt.Sprint(valuesOf(m)) == fmt.Sprint(labels) {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	return 0
}

func valuesOf(m *dto.Metric) []string {
	values := []string{}
	for _, l := range m.GetLabel() {
		values = append(values, l.GetValue())
	}
	return values
}

func (w *world) rejected(taskID string) *corev1.Pod {
	w.t.Helper()
	pod, err := w.kubelet.Reject(w.ctx, w.submit(w.queued(taskID)), "NodeAffinity", "no")
	require.NoError(w.t, err)
	return pod
}

func TestInAStormNoMoreThanTheLimitAreReplacedWithinAMinuteAndTheRestAreReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const limit, failing = 3, 10
	// What fails for a reason of its own takes no slot.
	own := w.started(w.submit(w.queued("own")))
	_, err := w.kubelet.Fail(t.Context(), own)
	require.NoError(t, err)
	var pods []*corev1.Pod
	for i := range failing {
		pods = append(pods, w.rejected(fmt.Sprintf("taken-%d", i)))
	}
	p := w.run(func(p *process) { p.options.StormBreaker = limit })
	for _, pod := range append(pods, own) {
		w.until(pod.Name, "settled", isUntracked)
	}
	replaced, reported := 0, []string{"failed " + own.Name}
	for _, pod := range pods {
		if len(w.replacementsOf(pod)) > 0 {
			replaced++
			w.untilFree(pod.Name + "-r1")
			continue
		}
		reported = append(reported, "failed "+pod.Name)
		w.untilEvent(pod, "Storm", "too many replacements lately; NodeAffinity: Pod was rejected: no")
	}
	require.Equal(t, limit, replaced)
	w.eventually("the reports are seen", func() bool { return len(w.executor.saw()) == len(reported) })
	w.seenOnly(reported...)
	require.Equal(t, 1, p.measured(w, "airflow_requeue_storm_breaker_open"))
	require.Equal(t, failing-limit, p.measured(w, "airflow_requeue_outcomes_total", "report", "Storm"))

	w.clock.forward(time.Minute)
	next := w.rejected("after-a-minute")
	w.untilFree(next.Name + "-r1")
	w.passing(4*time.Second, "the breaker closes", func() bool { return p.measured(w, "airflow_requeue_storm_breaker_open") == 0 })
	require.Equal(t, limit+1, p.measured(w, "airflow_requeue_requeues_total", "KubeletRejected"))
}

func TestAPodThatIsBeingReplacedIsNotStoppedByAStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begun := w.after(w.queued("begun"), isDetached) // by a watcher that is gone, and its count with it
	require.True(t, requeue.Detached(begun))
	first := w.rejected("first")
	w.run(func(p *process) { p.options.StormBreaker = 1 })
	w.untilFree(begun.Name + "-r1")
	w.untilFree(first.Name + "-r1")
	second := w.rejected("second")
	w.untilSeenOf(second.Name, "failed")
	w.seenOnly("failed " + second.Name)
}

func TestAPodThatIsNotReplacedAfterAllGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.queued("moved-on")
	pod, err := w.kubelet.Reject(t.Context(), w.submit(task), "NodeAffinity", "no")
	require.NoError(t, err)
	w.run(func(p *process) {
		p.options.StormBreaker = 1
		p.wire.write = func(n int, _ string) fate {
			if n == 1 { // the detach: it is no longer the pod, nor the row, that it was decided on
				w.patch(pod.Name, `{"metadata":{"labels":{"touched":"true"}}}`)
				w.row(task, state("failed"))
			}
			return arrives
		}
	})
	w.untilSeen("failed " + pod.Name)
	require.Empty(t, w.replacementsOf(pod))
	w.untilFree(w.rejected("next").Name + "-r1")
	last := w.rejected("last")
	w.untilEvent(last, "Storm", "too many replacements lately")
}
