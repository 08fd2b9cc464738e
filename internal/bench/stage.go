package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/scrape"
	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// stage is what a benchmark has to itself: servers. What an etcd was full of before, it compacts in the middle of the next.
type stage struct {
	testing.TB
	*backdrop

	servers   *controlplane.ControlPlane
	serverLog programs.Log // of etcd and the API server
	sql       *testdb.Server
	client    kubernetes.Interface // an administrator's, whom the API server never has wait
	etcd      etcd
	sites     int
}

// backdrop is what all stages share: what does not matter to what is measured.
type backdrop struct {
	options Options
	root    string // of the checkout
	built   programs.Built
	tables  string
	report  *Report
	began   time.Time
}

// newBackdrop builds the programs, which go with t.
func newBackdrop(t testing.TB, o Options, report *Report) *backdrop {
	t.Helper()
	b := &backdrop{options: o, report: report, began: time.Now()}
	b.say("builds the programs")
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	require.NoError(t, err)
	b.root = filepath.Dir(strings.TrimSpace(string(out)))
	dir := t.TempDir()
	b.built, err = programs.Build(t.Context(), dir, nil, "watcher", "webhook")
	require.NoError(t, err)
	b.built["emptywebhook"], err = programs.BuildPackage(t.Context(), dir, nil, "bench/emptywebhook")
	require.NoError(t, err)
	tables, err := os.ReadFile(filepath.Join(b.root, "pkg", "tidb", "testdata", string(executor.Airflow3)+"-postgresql.sql"))
	require.NoError(t, err)
	b.tables = string(tables)
	return b
}

// say is a line of progress.
func (b *backdrop) say(format string, args ...any) {
	fmt.Fprintf(b.options.Progress, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// newStage starts the servers, which end with t.
func newStage(t testing.TB, b *backdrop) *stage {
	t.Helper()
	b.say("starts etcd, kube-apiserver and PostgreSQL")
	s := &stage{TB: t, backdrop: b}
	var err error
	s.servers, err = controlplane.Start(t.Context(), controlplane.Options{Progress: b.options.Progress, Log: &s.serverLog,
		APIServerFlags: map[string][]string{"request-timeout": {"5m"}}}) // slow is an outcome like any other
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.servers.Stop() })
	s.sql = testdb.PostgreSQL(t)
	s.client = s.unlimited(s.servers.Config())
	s.etcd = etcd{url: s.servers.Etcd()}
	s.grant()
	return s
}

// grant gives service accounts all rights. That they need none but their own is another test's to say; here it matters that
// they are service accounts: unlike an administrator's, their requests wait for a seat by priority and fairness.
func (s *stage) grant() {
	s.Helper()
	_, err := s.client.RbacV1().ClusterRoleBindings().Create(s.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "service-accounts"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts"}},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
}

// unlimited is a client without a limiter of its own.
func (s *stage) unlimited(config *rest.Config) kubernetes.Interface {
	s.Helper()
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(s, err)
	return client
}

// as is a client of a service account of its own.
func (s *stage) as(user string) kubernetes.Interface {
	s.Helper()
	config, err := s.servers.User(user)
	require.NoError(s, err)
	return s.unlimited(config)
}

// site is an Airflow with a namespace and a database of its own, and the programs that serve it.
type site struct {
	*programs.Site
	*stage
	t       testing.TB // ends with the site
	rows    rows
	said    *programs.Log
	watcher string // address of its metrics
	webhook string // address of its metrics
	reviews string // address of the webhook
	key     string // in etcd, of the namespace's pods
}

// with runs f on a new site, and ends all that belongs to it: what the API server keeps as well, since else each benchmark
// would pay for those before it.
func (s *stage) with(f func(*site)) {
	s.Helper()
	err := Scoped(s.Context(), func(t testing.TB) {
		w := world.Bare(t, s.servers.Config())
		s.sites++
		i := &site{stage: s, t: t, said: &programs.Log{}, key: "/registry/pods/" + w.Namespace + "/",
			Site: &programs.Site{World: w, Servers: s.servers}}
		name := fmt.Sprintf("airflow%d", s.sites)
		i.rows = rows{t: t, db: s.sql.Create(t, name, s.tables)}
		i.DatabaseURL = s.sql.URL(name, testdb.ReaderUser, testdb.ReaderPassword)
		t.Cleanup(func() { s.etcd.forget(s, i.key, "/registry/events/"+w.Namespace+"/") })
		t.Cleanup(func() { // after the watcher's end
			if t.Failed() {
				t.Logf("the programs said:\n%s", i.said.About("level=WARN", "level=ERROR", "panic"))
				t.Logf("the API server said:\n%s", s.serverLog.About("failing open"))
			}
		})
		f(i)
	})
	require.NoError(s, err)
}

// startWatcher runs the watcher as it ships, with flags beside those that it needs.
func (i *site) startWatcher(flags ...string) *programs.Process {
	i.t.Helper()
	config, err := i.servers.User(i.WatcherUser())
	require.NoError(i.t, err)
	var started *programs.Process
	flags = append(append(i.WatcherFlags(config), "--task-queued-timeout=2h"), flags...)
	started, i.watcher = i.start("watcher", flags)
	return started
}

// start runs a program, and returns once it has said where its metrics are.
func (i *site) start(name string, flags []string) (started *programs.Process, metrics string) {
	i.t.Helper()
	said := &programs.Log{To: i.said}
	started = programs.Start(i.t, said, i.built[name], append(flags, "--metrics-listen=127.0.0.1:0", "--log-format=text", "--pprof")...)
	i.until("the "+name+" serves its metrics", func() bool {
		require.False(i.t, started.HasEnded(), "the %s has ended: %s", name, said)
		_, after, _ := strings.Cut(said.String(), " metrics=")
		address, _, whole := strings.Cut(after, "\n")
		metrics, _, _ = strings.Cut(address, " ")
		return whole
	})
	return started, metrics
}

// startWebhook runs the webhook as it ships, registered for the namespace.
func (i *site) startWebhook() {
	i.t.Helper()
	flags := i.RegisterWebhook(30)
	for _, f := range flags {
		if address, ok := strings.CutPrefix(f, "--listen="); ok {
			i.reviews = address
		}
	}
	_, i.webhook = i.start("webhook", append(flags, "--task-queued-timeout=2h", "--lease-max-age=2m", "--no-leader-release-after=3m"))
}

// install runs both, and returns when pods are held. Nothing takes the Lease from the watcher, however busy the machine is.
func (i *site) install() {
	i.t.Helper()
	i.startWatcher(programs.Steady()...)
	i.startWebhook()
	programs.UntilStamping(i.t, i.SchedulerAs(1))
}

// metrics are what a program serves at an address.
func (i *site) metrics(address string) scrape.Samples {
	i.t.Helper()
	found, err := scrape.Get(i.t.Context(), address)
	require.NoError(i.t, err)
	return found
}

// until waits for what must come.
func (i *site) until(what string, cond func() bool) {
	i.t.Helper()
	require.Eventually(i.t, cond, world.Patience, 50*time.Millisecond, what)
}

// untilLeads waits until the watcher leads, and knows of n pods.
func (i *site) untilLeads(n int) {
	i.t.Helper()
	i.until("the watcher leads", func() bool {
		found, err := scrape.Get(i.t.Context(), i.watcher)
		return err == nil && found.Sum("airflow_requeue_leader") == 1 && int(found.Sum("airflow_requeue_tracked_pods")) == n
	})
}

// concurrently calls f for 0 to n-1, by so many at a time. A client takes the next when it has done with the last.
func concurrently(clients, n int, f func(client, k int)) {
	var next int
	var mu sync.Mutex
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for {
				mu.Lock()
				k := next
				next++
				mu.Unlock()
				if k >= n {
					return
				}
				f(c, k)
			}
		})
	}
	all.Wait()
}
