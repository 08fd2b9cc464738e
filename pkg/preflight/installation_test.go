package preflight

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/keyfile"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

const tables = "../tidb/testdata/3.3.2-sqlite.sql"

// installation is one that is well but for what a test spoils. It is named as the namespace, so that a cluster can have many.
type installation struct {
	*world.World

	options Options
	client  kubernetes.Interface // who checks
	url     string               // the webhook's
	ca      []byte
	stop    func()   // ends the webhook
	names   []string // what differs from run to run, each with what stands for it
}

// newInstallation has keys and a database, and nothing in the cluster.
func newInstallation(t *testing.T) *installation {
	t.Helper()
	i := &installation{World: world.New(t, shared.Servers.Config(), tables)}
	i.client = i.Client
	i.options = Options{
		Installation: i.Namespace, Namespaces: []string{i.Namespace}, Policy: requeue.DefaultPolicy(), Clock: clock.RealClock{},
		// Tests may be slow: a Lease is fresh for as long as they take.
		Lease:    watcher.LeaseOptions{Namespace: i.Namespace, Name: i.Namespace, Duration: time.Hour, RetryPeriod: 10 * time.Millisecond},
		Database: tidb.Source{File: programs.File(t, "url", []byte(i.DB.URL()))},
		Keys:     func() (requeue.Keys, error) { return keyfile.Load(i.KeysDir) },
	}
	return i
}

// find runs all checks and returns what one of them found, by the names of every run.
func (i *installation) find(check string) Finding {
	i.T.Helper()
	all := Run(i.T.Context(), i.client, i.options)
	for _, found := range all {
		if found.Check == check {
			return i.normal(found)
		}
	}
	require.Failf(i.T, "no such check was made", "%s among %+v", check, all)
	return Finding{}
}

var dates = regexp.MustCompile(`\d{4}-\d\d-\d\d`)

// normal has DATE and NS for what differs from run to run, and no more to do than there must be.
func (i *installation) normal(f Finding) Finding {
	i.T.Helper()
	withoutRights := f.State == Warn && strings.HasSuffix(f.Seen, "without the rights that are missing")
	assert.Equal(i.T, f.State == OK || withoutRights, f.ToDo == "", "what is not well is to be mended: %+v", f)
	f.Seen = strings.NewReplacer(append(i.names, i.Namespace, "NS")...).Replace(dates.ReplaceAllString(f.Seen, "DATE"))
	f.ToDo = ""
	return f
}

// as has another user check, who has no rights but those given.
func (i *installation) as(rules ...rbacv1.PolicyRule) {
	i.T.Helper()
	name := "checker-of-" + i.Namespace
	config, err := shared.Servers.User(name)
	require.NoError(i.T, err)
	i.client, err = kubernetes.NewForConfig(config)
	require.NoError(i.T, err)
	if len(rules) == 0 {
		return
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	_, err = i.Client.RbacV1().ClusterRoles().Create(i.T.Context(), role, metav1.CreateOptions{})
	require.NoError(i.T, err)
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: []rbacv1.Subject{{Kind: "User", Name: name}}}
	_, err = i.Client.RbacV1().ClusterRoleBindings().Create(i.T.Context(), binding, metav1.CreateOptions{})
	require.NoError(i.T, err)
	// The API server's authorizer learns of it a moment later.
	require.Eventually(i.T, func() bool {
		_, err := i.client.CoreV1().Pods(i.Namespace).List(i.T.Context(), metav1.ListOptions{})
		return err == nil
	}, world.Patience, 20*time.Millisecond)
}

// serve runs the webhook, with a certificate for a name that an authority signs; both end at a time.
func (i *installation) serve(name string, authorityUntil, certificateUntil time.Time) {
	i.T.Helper()
	certificate, ca := issue(i.T, name, authorityUntil, certificateUntil)
	marker := mutate.Marker{Installation: i.Namespace, Namespaces: []string{i.Namespace}, Policy: requeue.DefaultPolicy(), Sealer: i.Sealer}
	handler := mutate.Handler(&mutate.Webhook{Mark: marker.Mark, Ready: func(string) bool { return true },
		Metrics: mutate.NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)})
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	i.T.Cleanup(server.Close)
	i.url, i.ca, i.stop = server.URL+mutate.Path, ca, server.Close
}

// wellServed is served by a webhook whose certificates are good for a year.
func (i *installation) wellServed() {
	i.T.Helper()
	year := time.Now().AddDate(1, 0, 0)
	i.serve("127.0.0.1", year, year)
}

func issue(t testing.TB, name string, authorityUntil, certificateUntil time.Time) (leaf tls.Certificate, ca []byte) {
	t.Helper()
	sign := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		if by == nil {
			parent, by = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		require.NoError(t, err)
		return der, key
	}
	since := time.Now().AddDate(-2, 0, 0)
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority for " + name}, NotBefore: since, NotAfter: authorityUntil,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	authorityDER, authorityKey := sign(authority, nil, nil)
	server := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: since, NotAfter: certificateUntil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(name); ip != nil {
		server.IPAddresses = []net.IP{ip}
	} else {
		server.DNSNames = []string{name}
	}
	der, key := sign(server, authority, authorityKey)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorityDER})
}

// register creates the webhook configuration as the manifests have it, but by URL, and changed by a test.
func (i *installation) register(changes ...func(*admissionregistrationv1.MutatingWebhook)) {
	i.T.Helper()
	configuration := programs.Configuration(i.url, i.ca, i.Namespace)
	configuration.Webhooks[0].TimeoutSeconds = ptr.To(int32(30)) // a busy machine is no broken webhook
	for _, change := range changes {
		change(&configuration.Webhooks[0])
	}
	programs.Register(i.T, i.Client, configuration)
}

// registered waits until the API server has learnt of the webhook.
func (i *installation) registered() {
	i.T.Helper()
	i.register()
	require.Eventually(i.T, func() bool {
		pod, err := i.Client.CoreV1().Pods(i.Namespace).Create(i.T.Context(), probe(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && pod.Annotations[requeue.AnnotationMessage] == ""
	}, world.Patience, 50*time.Millisecond)
}

// lead writes the Lease of a watcher that has led for an hour.
func (i *installation) lead(holder, ready string, renewed time.Time) *coordinationv1.Lease {
	i.T.Helper()
	return i.leadFor(0, holder, ready, renewed)
}

// leadFor is lead for a shard.
func (i *installation) leadFor(shard int, holder, ready string, renewed time.Time) *coordinationv1.Lease {
	i.T.Helper()
	lease, err := i.Client.CoordinationV1().Leases(i.Namespace).Create(i.T.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: requeue.LeaseOf(i.Namespace, shard, i.options.Shards), Labels: map[string]string{requeue.LabelReady: ready}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: ptr.To(metav1.NewMicroTime(renewed)),
			AcquireTime: ptr.To(metav1.NewMicroTime(time.Now().Add(-time.Hour)))}}, metav1.CreateOptions{})
	require.NoError(i.T, err)
	return lease
}

// worker creates a pod that nobody has stamped.
func (i *installation) worker(airflow string) {
	i.T.Helper()
	task := executor.NewTask("dag", "unheld", "manual__1", time.Now())
	task.Namespace, task.Labels = i.Namespace, map[string]string{requeue.LabelAirflowVersion: airflow}
	_, err := i.Client.CoreV1().Pods(i.Namespace).Create(i.T.Context(), executor.Pod(task), metav1.CreateOptions{})
	require.NoError(i.T, err)
}

// submit creates a pod that is held, or observed.
func (i *installation) submit(mode string) *corev1.Pod {
	i.T.Helper()
	pod := i.Submit(i.Queue("task-" + mode))
	pod.Labels[requeue.LabelTracked] = i.Namespace
	if mode == requeue.ModeObserve {
		delete(pod.Labels, requeue.LabelHold)
		pod.Annotations[requeue.AnnotationMode] = mode
		pod.Finalizers = nil
	}
	pod, err := i.Client.CoreV1().Pods(i.Namespace).Update(i.T.Context(), pod, metav1.UpdateOptions{})
	require.NoError(i.T, err)
	return pod
}

// scheduler creates a pod as the chart's scheduler is, with an environment.
func (i *installation) scheduler(env ...corev1.EnvVar) {
	i.T.Helper()
	pod := probe()
	pod.GenerateName, pod.Name = "", "airflow-scheduler-0"
	pod.Labels, pod.Annotations = map[string]string{"component": "scheduler"}, nil
	pod.Spec.Containers[0].Env = env
	_, err := i.Client.CoreV1().Pods(i.Namespace).Create(i.T.Context(), pod, metav1.CreateOptions{})
	require.NoError(i.T, err)
}
