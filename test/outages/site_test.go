package outages

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	ddl = "../../pkg/tidb/testdata/3.3.2-sqlite.sql"
	// account is who Airflow's scheduler is to the API server here.
	account = "airflow-scheduler"
	// pace is how often a test looks for what it waits for.
	pace = 100 * time.Millisecond
)

// site is an installation: a namespace with Airflow at work, and the programs that serve it.
type site struct {
	*world.World
	t        *testing.T
	servers  *controlplane.ControlPlane
	database string // the SQLAlchemy URL that the watcher is given
	webhook  *process
	watcher  *process
	serving  []string // the webhook's flags, so that it can be started again
	timeout  int32    // seconds that the API server gives the webhook; the manifests say 2
	*load
}

func newSite(t *testing.T, servers *controlplane.ControlPlane) *site {
	t.Helper()
	w := world.New(t, servers.Config(), ddl)
	// A busy machine must not let a pod through unheld.
	s := &site{World: w, t: t, servers: servers, database: w.DB.URL(), timeout: 30}
	config, err := servers.User(account, "system:masters")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	s.load = newLoad(t, w, executor.Scheduler{Client: client, Namespace: w.Namespace, JobID: 1}, w.DB)
	return s
}

// file writes a file for a program to read, and returns its path.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func (s *site) kubeconfig(config *rest.Config) string {
	s.t.Helper()
	content, err := s.servers.Kubeconfig(config)
	require.NoError(s.t, err)
	return file(s.t, "kubeconfig", content)
}

// watcherConfig is the access of the account that the webhook knows as the watcher's.
func (s *site) watcherConfig() *rest.Config {
	s.t.Helper()
	config, err := s.servers.User("system:serviceaccount:"+s.Namespace+":airflow-requeue-watcher", "system:masters")
	require.NoError(s.t, err)
	return config
}

// steady are the flags of a watcher that nothing is to take the Lease from, however slow the machine is.
func steady() []string { return []string{"--lease-duration=2m", "--lease-renew-deadline=90s"} }

// startWatcher runs a watcher against the API server, or against what stands before it.
func (s *site) startWatcher(config *rest.Config, flags ...string) *process {
	s.t.Helper()
	s.watcher = start(s.t, "watcher", append([]string{"--kubeconfig=" + s.kubeconfig(config),
		"--database-url-file=" + file(s.t, "url", []byte(s.database)), "--signing-keys-dir=" + s.KeysDir,
		"--installation=" + world.Installation, "--namespace=" + s.Namespace, "--lease-namespace=" + s.Namespace,
		"--lease-duration=20s", "--lease-renew-deadline=16s", "--lease-retry-period=500ms"}, flags...)...)
	return s.watcher
}

// startWebhook runs the webhook and registers it for the namespace.
func (s *site) startWebhook(flags ...string) *process {
	s.t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	require.NoError(s.t, err)
	address := freeAddress(s.t)
	s.serving = append([]string{"--kubeconfig=" + s.kubeconfig(s.servers.Config()),
		"--tls-cert-file=" + file(s.t, "tls.crt", certificate), "--tls-private-key-file=" + file(s.t, "tls.key", key),
		"--signing-keys-dir=" + s.KeysDir, "--installation=" + world.Installation, "--namespace=" + s.Namespace,
		"--lease-namespace=" + s.Namespace, "--watcher-user=system:serviceaccount:" + s.Namespace + ":airflow-requeue-watcher",
		"--airflow-user=" + account, "--listen=" + address, "--shutdown-delay=0s"}, flags...)
	s.webhook = start(s.t, "webhook", s.serving...)
	url := "https://" + address + "/mutate"
	ignore, none := admissionv1.Ignore, admissionv1.SideEffectClassNone
	_, err = s.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(s.t.Context(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: s.Namespace},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "pods.airflow-requeue.dev", FailurePolicy: &ignore, SideEffects: &none, TimeoutSeconds: &s.timeout,
			AdmissionReviewVersions: []string{"v1"},
			ClientConfig:            admissionv1.WebhookClientConfig{URL: &url, CABundle: certificate},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.Namespace}},
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{requeue.LabelKubernetesExecutor: "True"}},
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(s.t, err)
	return s.webhook
}

func (s *site) unregisterWebhook() {
	s.t.Helper()
	require.NoError(s.t, s.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(s.t.Context(), s.Namespace, metav1.DeleteOptions{}))
}

// eventually waits until nothing is left of what a test waits for, and says what is if that never comes.
func eventually(t *testing.T, what string, left func() []string) {
	t.Helper()
	deadline := time.Now().Add(2 * world.Patience)
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
