package outages

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// deployment starts a program again when it has ended.
type deployment struct {
	mu   sync.Mutex
	runs []*process
}

func deploy(t *testing.T, p *process) *deployment {
	t.Helper()
	d := &deployment{runs: []*process{p}}
	p.Keep(func() *programs.Process {
		d.mu.Lock()
		defer d.mu.Unlock()
		p = again(p)
		d.runs = append(d.runs, p)
		return p.Process
	})
	return d
}

func (d *deployment) all() []*process {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*process{}, d.runs...)
}

// claims is a fate: the pods run, and their tasks begin while the API server is away.
const claims fate = "claims"

func TestAnAPIServerThatIsRestartedUnderLoadLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	servers, err := controlplane.Start(t.Context(), controlplane.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, servers.Stop()) })

	down := make(chan struct{})
	busy := func(flags ...string) (*site, *deployment, func()) {
		s := newSite(t, servers)
		s.scripts = map[fate]func(*corev1.Pod) kubelet.Script{claims: func(*corev1.Pod) kubelet.Script {
			return kubelet.Script{Steps: []kubelet.Step{kubelet.Create(), kubelet.Start(), kubelet.Until(down), s.process(kubelet.Wait(3 * time.Second))}}
		}}
		d := deploy(t, s.startWatcher(s.watcherConfig(), flags...))
		s.startWebhook()
		s.untilHolding()
		for range 40 {
			s.submit(claims)
		}
		stop := s.work(time.Second/4, day()...)
		s.untilReplaced(time.Time{})
		return s, d, stop
	}
	patient, kept, stopPatient := busy("--lease-duration=90s", "--lease-renew-deadline=80s", "--lease-retry-period=1s")
	hasty, again, stopHasty := busy("--lease-duration=8s", "--lease-renew-deadline=7s", "--lease-retry-period=300ms")

	require.NoError(t, servers.StopAPIServer())
	began := time.Now()
	close(down)
	until(t, "the hasty watcher has given up its Lease", func() bool { return len(again.all()) > 1 })
	require.NoError(t, servers.StartAPIServer())
	back := time.Now()
	t.Logf("the API server was away for %s", back.Sub(began).Round(time.Millisecond))

	for what, s := range map[string]*site{"patient": patient, "hasty": hasty} {
		s.untilHolding()
		held := time.Now()
		t.Logf("%s: pods are held again %s after the outage", what, held.Sub(back).Round(time.Millisecond))
		s.untilReplaced(held)
	}
	stopPatient()
	stopHasty()
	for _, s := range []*site{patient, hasty} {
		s.settles()
		s.unseen(func(e *entry) bool { return e.fate == claims })
		s.unseen(took)
	}
	require.Len(t, kept.all(), 1, "an outage below the renew deadline does not end the watcher")
	first := again.all()[0]
	assert.Equal(t, 1, first.Exit())
	first.logged(1, "airflow-requeue-watcher: the lease is lost")
	for i, p := range append(append(kept.all(), again.all()...), patient.webhook, hasty.webhook) {
		t.Run(fmt.Sprintf("the log of process %d", i), func(t *testing.T) {
			p.spares(t)
			t.Log(p.messages())
		})
	}
	for _, s := range []*site{patient, hasty} {
		s.webhook.logged(1, "lease can't be read", "lease can be read again")
		assert.Zero(t, s.webhook.metric("airflow_requeue_sweeps_total"), "that nothing could be seen proves nothing")
	}
	assert.Positive(t, kept.all()[0].metric("airflow_requeue_errors_total"))
}
