package outages

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	ddl = "../../pkg/tidb/testdata/3.3.2-sqlite.sql"
	// pace is how often a test looks for what it waits for.
	pace = 100 * time.Millisecond
)

// site is an installation: a namespace with Airflow at work, and the programs that serve it.
type site struct {
	*programs.Site
	t       *testing.T
	webhook *process
	watcher *process
	timeout int32 // seconds that the API server gives the webhook; the manifests say 2
	*load
}

func newSite(t *testing.T, servers *controlplane.ControlPlane) *site {
	t.Helper()
	// A busy machine must not let a pod through unheld.
	s := &site{Site: programs.NewSite(world.New(t, servers.Config(), ddl), servers), t: t, timeout: 30}
	s.load = newLoad(t, s.World, s.SchedulerAs(1), s.DB)
	return s
}

// watcherConfig is the access of the account that the webhook knows as the watcher's.
func (s *site) watcherConfig() *rest.Config {
	s.t.Helper()
	return s.Access(s.WatcherUser())
}

// startWatcher runs a watcher against the API server, or against what stands before it.
func (s *site) startWatcher(config *rest.Config, flags ...string) *process {
	s.t.Helper()
	s.watcher = start(s.t, "watcher", slices.Concat(s.WatcherFlags(config),
		[]string{"--lease-duration=20s", "--lease-renew-deadline=16s", "--lease-retry-period=500ms"}, flags)...)
	return s.watcher
}

// startWebhook runs the webhook and registers it for the namespace.
func (s *site) startWebhook(flags ...string) *process {
	s.t.Helper()
	s.webhook = start(s.t, "webhook", slices.Concat(s.RegisterWebhook(s.timeout), []string{"--shutdown-delay=0s"}, flags)...)
	return s.webhook
}

// eventually waits until nothing is left of what a test waits for, and says what is if that never comes.
func eventually(t *testing.T, what string, left func() []string) {
	t.Helper()
	deadline := time.Now().Add(world.Patience)
	for {
		missing := left()
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			require.FailNow(t, what+": it never came", strings.Join(missing, "\n"))
		}
		time.Sleep(pace)
	}
}

// until waits for what is to come.
func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	eventually(t, what, func() []string {
		if come() {
			return nil
		}
		return []string{what}
	})
}

// ready is what the Lease says: "true" while its holder can decide.
func (s *site) ready() string {
	lease, err := s.Client.CoordinationV1().Leases(s.Namespace).Get(s.t.Context(), world.Installation, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return lease.Labels[requeue.LabelReady]
}

// untilHolding submits pods until one is held: the webhook holds once it has seen a leader renew its Lease.
func (s *site) untilHolding() {
	s.t.Helper()
	until(s.t, "a pod is held", func() bool { return s.submitted(runs) })
}

// untilNotHolding submits pods until one is not held, and returns how long that took.
func (s *site) untilNotHolding() time.Duration {
	s.t.Helper()
	began := time.Now()
	until(s.t, "a pod is not held", func() bool { return !s.submitted(runs) })
	return time.Since(began)
}
