package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const ddl = "../../pkg/tidb/testdata/3.3.2-sqlite.sql"

// start runs one of the programs until it is killed, by the test or at its end.
func start(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(shared.bin, program), args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if !assert.NoError(t, cmd.Start()) {
		return cmd
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// file writes a file for a program to read, and returns its path.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	assert.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func kubeconfig(t *testing.T, config *rest.Config) string {
	t.Helper()
	content, err := shared.servers.Kubeconfig(config)
	assert.NoError(t, err)
	return file(t, "kubeconfig", content)
}

// startWatcher runs the watcher against an API server, or against what stands before it.
func startWatcher(t *testing.T, w *world.World, config *rest.Config) *exec.Cmd {
	t.Helper()
	return start(t, "watcher", append(w.WatcherFlags(),
		"--kubeconfig="+kubeconfig(t, config), "--database-url-file="+file(t, "url", []byte(w.DB.URL())))...)
}

// startWebhook runs the webhook, registered for the world's namespace, with admission by the given user.
func startWebhook(t *testing.T, w *world.World, airflowUser string, flags ...string) {
	t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a free port; whoever takes it meanwhile fails the test
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	start(t, "webhook", append([]string{"--kubeconfig=" + kubeconfig(t, shared.servers.Config()),
		"--tls-cert-file=" + file(t, "tls.crt", certificate), "--tls-private-key-file=" + file(t, "tls.key", key),
		"--signing-keys-dir=" + w.KeysDir, "--installation=" + world.Installation, "--namespace=" + w.Namespace,
		"--lease-namespace=" + w.Namespace, "--watcher-user=system:serviceaccount:" + w.Namespace + ":airflow-requeue-watcher",
		"--airflow-user=" + airflowUser, "--listen=" + address, "--metrics-listen=127.0.0.1:0", "--log-format=text"}, flags...)...)
	url := "https://" + address + "/mutate"
	ignore, none, timeout := admissionv1.Ignore, admissionv1.SideEffectClassNone, int32(2)
	_, err = w.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "pods.airflow-requeue.dev", FailurePolicy: &ignore, SideEffects: &none, TimeoutSeconds: &timeout,
			AdmissionReviewVersions: []string{"v1"},
			ClientConfig:            admissionv1.WebhookClientConfig{URL: &url, CABundle: certificate},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.Namespace}},
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{requeue.LabelKubernetesExecutor: "True"}},
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}
