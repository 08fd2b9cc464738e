package outages

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestAWatcherThatIsGoneOrHangsPastItsLeaseHoldsNobodyUpAndDoesNoHarmWhenItIsBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		away func(*process)
		back func(*testing.T, *site, *process) *process
	}{
		{"killed, and started again", (*process).kill, func(_ *testing.T, s *site, _ *process) *process {
			return s.startWatcher(s.watcherConfig())
		}},
		{"stopped, and continued", func(p *process) { p.signal(syscall.SIGSTOP) }, func(t *testing.T, s *site, p *process) *process {
			p.signal(syscall.SIGCONT)
			// It may find that it still has its Lease, or end; then its Deployment starts it again.
			until(t, "it leads, or has ended", func() bool { return p.hasEnded() || s.ready() == "true" && s.webhook.metric("airflow_requeue_leader_ready") == 1 })
			if p.hasEnded() {
				return s.startWatcher(s.watcherConfig())
			}
			return p
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, shared.servers)
			watcher := s.startWatcher(s.watcherConfig())
			webhook := s.startWebhook("--lease-max-age=10s", "--no-leader-release-after=20s")
			s.untilHolding()
			s.submit(unfit)
			lasting, _ := s.submit(lasts)
			stop := s.work(time.Second/4, day()...)
			until(t, "pods are replaced", func() bool { return watcher.metric("airflow_requeue_requeues_total") >= 3 })

			tt.away(watcher)
			began := time.Now()
			until(t, "the webhook holds nothing", func() bool { return webhook.metric("airflow_requeue_leader_ready") == 0 })
			unheld := time.Now()
			t.Logf("nothing is held %s after the watcher went", unheld.Sub(began).Round(time.Millisecond))
			s.untilNotHolding()
			assert.NotEmpty(t, s.endedHeld(), "what ended waits for a decision")
			until(t, "all holds are lifted", func() bool { return webhook.metric("airflow_requeue_sweeps_total", `result="done"`) >= 1 })
			t.Logf("all holds were lifted %s after the watcher went", time.Since(began).Round(time.Millisecond))
			assert.GreaterOrEqual(t, time.Since(began), 19*time.Second, "not before its time")
			assert.Empty(t, s.trackedNow())
			swept := s.versions()

			watcher = tt.back(t, s, watcher)
			s.untilHolding()
			again := time.Now()
			until(t, "pods are replaced again", func() bool { return watcher.metric("airflow_requeue_requeues_total") >= 3 })
			stop()
			close(s.over)
			s.settles()
			assert.NotNil(t, lasting)
			s.onlyAirflowTouched(swept)
			s.unseen(func(e *entry) bool { return took(e) && (e.at.Before(began.Add(-5*time.Second)) || e.at.After(again)) })
			assert.Zero(t, s.count(func(e *entry) bool { return e.held && e.at.After(unheld.Add(time.Second)) && e.at.Before(again.Add(-10*time.Second)) }))
			webhook.logged(1, "no watcher leads, lifting all holds", "leader changed: no leader, pods are not held")
			webhook.sparing()
			watcher.sparing()
			t.Logf("the watcher's lines: %v; the webhook's: %v", watcher.log.messages(), webhook.log.messages())
		})
	}
}

// trackedNow are the pods that carry anything of ours that holds them.
func (s *site) trackedNow() []string {
	var names []string
	for name, p := range s.Pods() {
		if requeue.Tracked(p) || requeue.Held(p) && requeue.Attached(p) {
			names = append(names, name)
		}
	}
	return names
}

// ours is all of a pod that is ours to write.
type ours struct {
	hold, tracked, worker string
	gated, finalizer      bool
}
