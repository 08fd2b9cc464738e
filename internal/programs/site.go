package programs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Site is a World, and what its programs need: who they are to the API server, and their flags.
type Site struct {
	*world.World
	Servers *controlplane.ControlPlane
	// DatabaseURL is the SQLAlchemy URL that a watcher is given.
	DatabaseURL string
	// Others are namespaces that the programs serve beside the World's.
	Others []string

	airflow *rest.Config // once it is asked for
}

// NewSite is a Site whose watchers read the World's own database.
func NewSite(w *world.World, servers *controlplane.ControlPlane) *Site {
	return &Site{World: w, Servers: servers, DatabaseURL: w.DB.URL()}
}

// WatcherUser is the account that the webhook knows as the watcher's.
func (s *Site) WatcherUser() string {
	return "system:serviceaccount:" + s.Namespace + ":airflow-requeue-watcher"
}

// Access is a user's access to the API server, which RBAC does not bind.
func (s *Site) Access(user string) *rest.Config {
	s.T.Helper()
	config, err := s.Servers.User(user, "system:masters")
	require.NoError(s.T, err)
	return config
}

// SchedulerAs is a scheduler's executor, under Airflow's account.
func (s *Site) SchedulerAs(jobID int64) executor.Scheduler {
	s.T.Helper()
	client, err := kubernetes.NewForConfig(s.AirflowAccess())
	require.NoError(s.T, err)
	return executor.Scheduler{Client: client, Namespace: s.Namespace, JobID: jobID}
}

// flags are those that webhook and watcher have in common.
func (s *Site) flags(config *rest.Config) []string {
	s.T.Helper()
	flags := []string{"--kubeconfig=" + s.Kubeconfig(config), "--signing-keys-dir=" + s.KeysDir, "--installation=" + world.Installation,
		"--lease-namespace=" + s.Namespace}
	for _, namespace := range s.Namespaces() {
		flags = append(flags, "--namespace="+namespace)
	}
	return flags
}

// Namespaces are all that the programs serve.
func (s *Site) Namespaces() []string { return append([]string{s.Namespace}, s.Others...) }

// WatcherFlags are the flags of a watcher that works by an access to the API server, or to what stands before it.
func (s *Site) WatcherFlags(config *rest.Config) []string {
	s.T.Helper()
	return append(s.flags(config), "--database-url-file="+File(s.T, "url", []byte(s.DatabaseURL)))
}

// Steady are flags of a watcher that nothing is to take the Lease from, however slow the machine is.
func Steady() []string { return []string{"--lease-duration=2m", "--lease-renew-deadline=90s"} }

// Release are the arguments with which a watcher lifts every hold.
func (s *Site) Release(config *rest.Config) []string {
	s.T.Helper()
	return []string{"release", "--all", "--kubeconfig=" + s.Kubeconfig(config), "--installation=" + world.Installation, "--namespace=" + s.Namespace}
}

// Install runs watcher and webhook until the test ends, and returns when pods are held: also on a machine so busy that a
// watcher would lose its Lease, or that the webhook would not answer in the 2 s that it has. config is the watcher's access.
func (s *Site) Install(built Built, log *Log, config *rest.Config) {
	s.T.Helper()
	both := []string{"--metrics-listen=127.0.0.1:0", "--log-format=text"}
	Start(s.T, log, built["watcher"], slices.Concat(s.WatcherFlags(config), Steady(), both)...)
	Start(s.T, log, built["webhook"], slices.Concat(s.RegisterWebhook(30), both, []string{"--lease-max-age=2m", "--no-leader-release-after=3m"})...)
	UntilStamping(s.T, s.SchedulerAs(1))
}

// UntilStamping waits for the webhook to hold, or to observe: it does once it has seen a leader renew its Lease.
func UntilStamping(t testing.TB, airflow executor.Scheduler) {
	t.Helper()
	until(t, airflow, "pods are stamped", requeue.Tracked)
}

// UntilNotStamping waits for the webhook to let pods through as they are.
func UntilNotStamping(t testing.TB, airflow executor.Scheduler) {
	t.Helper()
	until(t, airflow, "pods are not stamped", func(pod *corev1.Pod) bool { return !requeue.Tracked(pod) })
}

func until(t testing.TB, airflow executor.Scheduler, what string, want func(*corev1.Pod) bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		pod, err := airflow.Probe(t.Context())
		return assert.NoError(t, err) && want(pod)
	}, world.Patience, 200*time.Millisecond, what)
}

// RegisterWebhook has the API server ask a webhook about the namespaces' pods, for so many seconds each time, until the
// test ends. It returns that webhook's flags.
func (s *Site) RegisterWebhook(timeoutSeconds int32) []string {
	s.T.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	require.NoError(s.T, err)
	address := FreeAddress(s.T)
	configuration := Configuration("https://"+address+mutate.Path, certificate, s.Namespaces()...)
	configuration.Webhooks[0].TimeoutSeconds = &timeoutSeconds
	configuration.Webhooks[0].MatchConditions = NotReplacements(s.WatcherUser())
	Register(s.T, s.Client, configuration)
	return append(s.flags(s.Servers.Config()), "--tls-cert-file="+File(s.T, "tls.crt", certificate), "--tls-private-key-file="+File(s.T, "tls.key", key),
		"--watcher-user="+s.WatcherUser(), "--airflow-user="+s.AirflowUser(), "--listen="+address)
}

// Register registers a webhook until the test ends.
func Register(t testing.TB, client kubernetes.Interface, configuration *admissionv1.MutatingWebhookConfiguration) {
	t.Helper()
	configurations := client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := configurations.Create(t.Context(), configuration, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = configurations.Delete(context.Background(), configuration.Name, metav1.DeleteOptions{}) })
}

// Configuration has the API server ask the webhook at a URL about the worker pods of namespaces. It is named as the first.
func Configuration(url string, ca []byte, namespaces ...string) *admissionv1.MutatingWebhookConfiguration {
	ignore, none := admissionv1.Ignore, admissionv1.SideEffectClassNone
	return &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: namespaces[0]},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "pods.airflow-requeue.dev", FailurePolicy: &ignore, SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"},
			ClientConfig:            admissionv1.WebhookClientConfig{URL: &url, CABundle: ca},
			NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: namespaces}}},
			ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{requeue.LabelKubernetesExecutor: "True"}},
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}},
		}},
	}
}

// NotReplacements has the API server ask about no replacement that the watcher creates.
func NotReplacements(watcher string) []admissionv1.MatchCondition {
	return []admissionv1.MatchCondition{{Name: "not-a-replacement", Expression: fmt.Sprintf("request.userInfo.username != '%s' || "+
		"!has(object.metadata.annotations) || !('%s' in object.metadata.annotations)", watcher, requeue.AnnotationRequeueOf)}}
}

// UnregisterWebhook has the API server ask no webhook any more.
func (s *Site) UnregisterWebhook() {
	s.T.Helper()
	require.NoError(s.T, s.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(s.T.Context(), s.Namespace, metav1.DeleteOptions{}))
}

// Kubeconfig writes an access for a program to read, and returns its path.
func (s *Site) Kubeconfig(config *rest.Config) string {
	s.T.Helper()
	content, err := s.Servers.Kubeconfig(config)
	assert.NoError(s.T, err)
	return File(s.T, "kubeconfig", content)
}

// File writes a file for a program to read, and returns its path.
func File(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	assert.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

// FreeAddress is one that nobody listens on. Its port is below those that Linux gives to connections and to who asks for any
// (from 32768 on), so that nothing takes it meanwhile by accident.
func FreeAddress(t testing.TB) string {
	t.Helper()
	const lowest, beyond = 10000, 32768
	for {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(beyond-lowest)))
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		require.NoError(t, err)
		require.NoError(t, listener.Close())
		return address
	}
}
