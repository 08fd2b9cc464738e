package scenarios

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"

	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// root is the checkout, seen from this folder.
const root = "../.."

// programs are the paths of built programs, by the name of their folder under cmd.
type programs map[string]string

// build builds programs into a folder. The overlay is what `go build -overlay` takes; nil for none.
func build(ctx context.Context, dir string, overlay []string, names ...string) (programs, error) {
	built := programs{}
	for _, name := range names {
		built[name] = filepath.Join(dir, name)
		args := append([]string{"build", "-ldflags=-s -w", "-o", built[name]}, overlay...)
		cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/"+name)...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	return built, nil
}

// process is a program that runs, until it is stopped or its test ends.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// start runs a program; all that it says goes to the log.
func (i *installation) start(program string, args ...string) *process {
	i.T.Helper()
	p := &process{cmd: exec.Command(i.programs[program], args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &i.log, &i.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(i.T, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	i.T.Cleanup(p.kill)
	return p
}

// kill is kill -9.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// stop is what the kubelet does to the program's pod: SIGTERM.
func (p *process) stop() { p.end(syscall.SIGTERM) }

func (p *process) end(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal)
	<-p.exited
}

// signal sends a signal that does not end the program.
func (p *process) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(signal))
}

// programLog is what the programs of an installation have said, for a test that failed.
type programLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *programLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// about returns the lines that name one of the words, warnings and errors.
func (l *programLog) about(words ...string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for line := range strings.Lines(l.text.String()) {
		for _, w := range append(words, "level=ERROR", "level=WARN", "panic") {
			if strings.Contains(line, w) {
				b.WriteString(line)
				break
			}
		}
	}
	return b.String()
}

// file writes a file for a program to read, and returns its path.
func file(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func (i *installation) kubeconfig(config *rest.Config) string {
	i.T.Helper()
	content, err := i.servers.Kubeconfig(config)
	require.NoError(i.T, err)
	return file(i.T, "kubeconfig", content)
}

// watcherUser is the account that the webhook knows as the watcher's.
func (i *installation) watcherUser() string {
	return "system:serviceaccount:" + i.Namespace + ":airflow-requeue-watcher"
}

// access is a user's access to the API server; RBAC binds nobody here.
func (i *installation) access(user string) *rest.Config {
	i.T.Helper()
	config, err := i.servers.User(user, "system:masters")
	require.NoError(i.T, err)
	return config
}

// startWatcher runs a watcher against the API server, or against what stands before it.
func (i *installation) startWatcher(config *rest.Config, flags ...string) *process {
	i.T.Helper()
	return i.start("watcher", append([]string{"--kubeconfig=" + i.kubeconfig(config),
		"--database-url-file=" + file(i.T, "url", []byte(i.DB.URL())), "--signing-keys-dir=" + i.KeysDir,
		"--installation=" + world.Installation, "--namespace=" + i.Namespace, "--lease-namespace=" + i.Namespace,
		"--metrics-listen=127.0.0.1:0", "--log-format=text", "--log-level=debug"}, flags...)...)
}

// startWebhook runs the webhook and registers it for the namespace.
func (i *installation) startWebhook(flags ...string) *process {
	i.T.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	require.NoError(i.T, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a free port; whoever takes it meanwhile fails the test
	require.NoError(i.T, err)
	address := listener.Addr().String()
	require.NoError(i.T, listener.Close())
	p := i.start("webhook", append([]string{"--kubeconfig=" + i.kubeconfig(i.Config), "--tls-cert-file=" + file(i.T, "tls.crt", certificate),
		"--tls-private-key-file=" + file(i.T, "tls.key", key), "--signing-keys-dir=" + i.KeysDir, "--installation=" + world.Installation,
		"--namespace=" + i.Namespace, "--lease-namespace=" + i.Namespace, "--watcher-user=" + i.watcherUser(), "--airflow-user=" + account,
		"--listen=" + address, "--metrics-listen=127.0.0.1:0", "--log-format=text", "--log-level=debug"}, flags...)...)
	url := "https://" + address + mutate.Path
	// Its own timeout is 2 s; a busy machine must not let a pod through unheld.
	ignore, none, timeout := admissionv1.Ignore, admissionv1.SideEffectClassNone, int32(30)
	_, err = i.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(i.T.Context(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: i.Namespace},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "pods.airflow-requeue.dev", FailurePolicy: &ignore, SideEffects: &none, TimeoutSeconds: &timeout,
			AdmissionReviewVersions: []string{"v1"},
			ClientConfig:            admissionv1.WebhookClientConfig{URL: &url, CABundle: certificate},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: i.Namespace}},
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{requeue.LabelKubernetesExecutor: "True"}},
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(i.T, err)
	i.T.Cleanup(func() {
		_ = i.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(context.Background(), i.Namespace, metav1.DeleteOptions{})
	})
	return p
}
