package outages

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// awaits is a fate: the pods are drained when the webhook is gone.
const awaits fate = "awaits"

func TestWithoutTheWebhookPodsStartUnheldAndThoseThatAreHeldAreSettled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		away func(*process)
		back func(*process) *process
	}{
		{"killed, and started again", func(p *process) { p.Kill() }, again},
		{"stopped, and continued", func(p *process) { p.Signal(syscall.SIGSTOP) }, func(p *process) *process {
			p.Signal(syscall.SIGCONT)
			return p
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, shared.Servers)
			s.timeout = 2
			gone := make(chan struct{})
			s.scripts = map[fate]func(*corev1.Pod) kubelet.Script{awaits: func(*corev1.Pod) kubelet.Script {
				return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Until(gone), kubelet.Evict()}}
			}}
			watcher, webhook := s.startWatcher(s.watcherConfig(), programs.Steady()...), s.startWebhook()
			s.untilHolding()
			for range 10 {
				s.submit(awaits)
			}
			tt.away(webhook)
			began := time.Now()
			close(gone)
			for _, f := range []fate{runs, rejected, broken, shutdown, runs} {
				asked := time.Now()
				_, held := s.submit(f)
				assert.False(t, held)
				assert.Less(t, time.Since(asked), 10*time.Second, "a pod waits for the webhook's timeout at most")
			}
			until(t, "what was held is replaced", func() bool {
				return s.count(func(e *entry) bool { return e.fate == awaits && e.succeeded }) == 10
			})
			webhook = tt.back(webhook)
			s.untilHolding()
			back := time.Now()
			stop := s.work(time.Second/4, day()...)
			s.untilReplaced(back)
			stop()
			s.settles()

			s.unseen(func(e *entry) bool { return e.held && e.fate != broken })
			unheld := s.entries(func(e *entry) bool { return e.at.After(began) && e.at.Before(back) && !e.held })
			assert.GreaterOrEqual(t, len(unheld), 5)
			for _, e := range unheld {
				assert.Equal(t, e.fate == runs, e.succeeded, "task %s: as without us", e.TaskID)
				assert.Equal(t, e.fate != runs, len(e.failed) == 1, "task %s: as without us", e.TaskID)
			}
			assert.Positive(t, webhook.metric("airflow_requeue_admissions_total", `outcome="Held"`))
			assert.Zero(t, webhook.metric("airflow_requeue_sweeps_total"))
			watcher.sparing()
			webhook.sparing()
		})
	}
}
