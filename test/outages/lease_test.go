package outages

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestAWatcherThatIsGoneOrHangsPastItsLeaseHoldsNobodyUpAndDoesNoHarmWhenItIsBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		away func(*process)
		back func(*testing.T, *site, *process) *process
	}{
		{"killed, and started again", func(p *process) { p.Kill() }, func(_ *testing.T, s *site, _ *process) *process {
			return s.startWatcher(s.watcherConfig())
		}},
		{"stopped, and continued", func(p *process) { p.Signal(syscall.SIGSTOP) }, func(t *testing.T, s *site, p *process) *process {
			p.Signal(syscall.SIGCONT)
			// It may find that it still has its Lease, or end; then its Deployment starts it again.
			until(t, "it leads, or has ended", func() bool {
				return p.HasEnded() || s.ready() == "true" && s.webhook.metric("airflow_requeue_leader_ready") == 1
			})
			if p.HasEnded() {
				return s.startWatcher(s.watcherConfig())
			}
			return p
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, shared.Servers)
			watcher := s.startWatcher(s.watcherConfig())
			webhook := s.startWebhook("--lease-max-age=20s", "--no-leader-release-after=30s")
			s.untilHolding()
			s.submit(unfit)
			lasting, _ := s.submit(lasts)
			stop := s.work(time.Second/4, day()...)
			s.untilReplaced(time.Time{})

			watcher.anew()
			webhook.anew()
			tt.away(watcher)
			began := time.Now()
			until(t, "the webhook holds nothing", func() bool { return webhook.metric("airflow_requeue_leader_ready") == 0 })
			unheld := time.Now()
			t.Logf("nothing is held %s after the watcher went", unheld.Sub(began).Round(time.Millisecond))
			s.untilNotHolding()
			assert.NotEmpty(t, s.endedHeld(), "what ended waits for a decision")
			until(t, "all holds are lifted", func() bool { return webhook.metric("airflow_requeue_sweeps_total", `result="done"`) >= 1 })
			t.Logf("all holds were lifted %s after the watcher went", time.Since(began).Round(time.Millisecond))
			assert.GreaterOrEqual(t, time.Since(began), 29*time.Second, "not before its time")
			assert.Empty(t, s.trackedNow())
			swept := s.left()

			returned := time.Now()
			watcher = tt.back(t, s, watcher)
			s.untilHolding()
			again := time.Now()
			s.untilReplaced(again)
			stop()
			close(s.over)
			s.settles()
			assert.NotNil(t, lasting)
			s.leftAlone(swept)
			s.unseen(func(e *entry) bool { return took(e) && e.at.After(again) })
			assert.Zero(t, s.count(func(e *entry) bool {
				return e.held && e.at.After(unheld) && e.made.Before(returned)
			}))
			webhook.logged(1, "leader changed: no leader, pods are not held", "no watcher leads, lifting all holds", "holds lifted",
				"leader changed: leader ready, pods are held")
			webhook.sparing()
			watcher.sparing()
			t.Logf("the watcher's lines: %v; the webhook's: %v", watcher.messages(), webhook.messages())
		})
	}
}

// trackedNow are the pods that carry anything of ours that holds them.
func (l *load) trackedNow() []string {
	var names []string
	for name, p := range l.world.Pods() {
		if requeue.Tracked(p) || requeue.Held(p) && requeue.Attached(p) {
			names = append(names, name)
		}
	}
	return names
}

// left are pods as they were when all holds had been lifted, by UID.
type left map[string]*corev1.Pod

func (s *site) left() left {
	pods := left{}
	for _, p := range s.Pods() {
		pods[string(p.UID)] = p
	}
	return pods
}

// leftAlone says that nobody has held or replaced any of the pods since.
func (s *site) leftAlone(then left) {
	s.t.Helper()
	for name, p := range s.Pods() {
		_, old := then[string(p.UID)]
		assert.False(s.t, old && requeue.Tracked(p), "pod %s is held again", name)
		_, of := then[requeue.RequeueOf(p)]
		assert.False(s.t, of && !old, "pod %s replaces one that had been let go", name)
	}
}
