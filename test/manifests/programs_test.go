package manifests_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/cluster"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// TestTheProgramsRunAsTheManifestsSay plays the kubelet: it starts each container's program with its arguments,
// environment, mounts and rights, asks its probes, and stops it.
func TestTheProgramsRunAsTheManifestsSay(t *testing.T) {
	w := world.New(t, servers.Config(), filepath.Join("..", "..", "pkg", "tidb", "testdata", "3.3.2-sqlite.sql"))
	all := moved(t, w.Namespace, w.Namespace)
	granted(t, w.Namespace, all.rights())
	secrets := secrets(t, w)

	for _, name := range []string{"webhook", "watcher"} {
		t.Run(name, func(t *testing.T) {
			d := into[appsv1.Deployment](t, all, "Deployment", "airflow-requeue-"+name)
			for _, spec := range d.Spec.Template.Spec.InitContainers {
				c := newContainer(t, w.Namespace, d.Spec.Template, spec, secrets)
				c.start(t, built[name])
				require.NoError(t, <-c.exited, "%s", &c.output)
			}
			c := newContainer(t, w.Namespace, d.Spec.Template, d.Spec.Template.Spec.Containers[0], secrets)
			c.start(t, built[name])
			c.probe(t, c.spec.LivenessProbe)
			c.probe(t, c.spec.ReadinessProbe)
			require.NoError(t, c.stop(t, time.Duration(*d.Spec.Template.Spec.TerminationGracePeriodSeconds)*time.Second), "%s", &c.output)
			assert.NotContains(t, c.output.String(), "forbidden")
		})
	}
	t.Run("release", func(t *testing.T) {
		job := into[batchv1.Job](t, overlay(t, "release", nil, w.Namespace, w.Namespace), "Job", "airflow-requeue-release")
		c := newContainer(t, w.Namespace, job.Spec.Template, job.Spec.Template.Spec.Containers[0], secrets)
		c.start(t, built["watcher"])
		require.NoError(t, <-c.exited, "%s", &c.output)
		assert.Contains(t, c.output.String(), "installation "+w.Namespace+": 0 released")
	})
}

// secrets are what ../../manifests/README.md and cert-manager put there, by name and key.
func secrets(t *testing.T, w *world.World) map[string]map[string]string {
	t.Helper()
	keys := map[string]string{}
	for _, name := range []string{"current", "k1"} {
		content, err := os.ReadFile(filepath.Join(w.KeysDir, name))
		require.NoError(t, err)
		keys[name] = string(content)
	}
	certificate, key := serving(t, "airflow-requeue-webhook."+w.Namespace+".svc")
	return map[string]map[string]string{
		"airflow-metadata":             {"connection": w.DB.URL(), "another": "never mounted"},
		"airflow-requeue-signing-keys": keys,
		"airflow-requeue-webhook-tls":  {"tls.crt": certificate, "tls.key": key, "ca.crt": certificate},
	}
}

// serving makes a certificate for a name.
func serving(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// container is one of a pod template's containers as a local process.
type container struct {
	spec   corev1.Container
	args   []string
	env    []string
	ports  map[string]int // by name: the local one
	cmd    *exec.Cmd
	exited chan error
	output programs.Log
}

func newContainer(t *testing.T, namespace string, template corev1.PodTemplateSpec, spec corev1.Container, secrets map[string]map[string]string) *container {
	t.Helper()
	c := &container{spec: spec, ports: map[string]int{}, exited: make(chan error, 1)}
	cfg, err := servers.User("system:serviceaccount:" + namespace + ":" + template.Spec.ServiceAccountName)
	require.NoError(t, err)
	kubeconfig, err := servers.Kubeconfig(cfg)
	require.NoError(t, err)

	args := strings.NewReplacer(append(c.environment(t, namespace, template), c.mounts(t, template, secrets)...)...)
	local := strings.NewReplacer(c.listening(t)...)
	for _, arg := range c.spec.Args {
		c.args = append(c.args, local.Replace(args.Replace(arg)))
	}
	c.args = append(c.args, "--kubeconfig="+programs.File(t, "kubeconfig", kubeconfig))
	return c
}

// environment returns what stands for $(NAME) in arguments, in pairs.
func (c *container) environment(t *testing.T, namespace string, template corev1.PodTemplateSpec) []string {
	t.Helper()
	variables, pairs, err := cluster.Environment(c.spec, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Labels: template.Labels}})
	require.NoError(t, err)
	c.env = variables
	return pairs
}

// mounts writes the Secrets' files and returns where they are instead of where they should be, in pairs.
func (c *container) mounts(t *testing.T, template corev1.PodTemplateSpec, secrets map[string]map[string]string) []string {
	t.Helper()
	var pairs []string
	for _, mount := range c.spec.VolumeMounts {
		dir := t.TempDir()
		pairs = append(pairs, mount.MountPath, dir)
		for _, volume := range template.Spec.Volumes {
			if volume.Name != mount.Name {
				continue
			}
			require.Contains(t, secrets, volume.Secret.SecretName)
			items := volume.Secret.Items
			if items == nil {
				for key := range secrets[volume.Secret.SecretName] {
					items = append(items, corev1.KeyToPath{Key: key, Path: key})
				}
			}
			for _, item := range items {
				content, ok := secrets[volume.Secret.SecretName][item.Key]
				require.True(t, ok, item.Key)
				require.NoError(t, os.WriteFile(filepath.Join(dir, item.Path), []byte(content), 0o600))
			}
		}
	}
	return pairs
}

// listening chooses a free port for each of the container's, and returns addresses with both, in pairs.
func (c *container) listening(t *testing.T) []string {
	t.Helper()
	var pairs []string
	for _, port := range c.spec.Ports {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		c.ports[port.Name] = free.Addr().(*net.TCPAddr).Port
		require.NoError(t, free.Close())
		pairs = append(pairs, "=:"+strconv.Itoa(int(port.ContainerPort)), fmt.Sprintf("=127.0.0.1:%d", c.ports[port.Name]))
	}
	return pairs
}

func (c *container) start(t *testing.T, program string) {
	t.Helper()
	c.cmd = exec.CommandContext(t.Context(), program, c.args...)
	c.cmd.Env = c.env
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	require.NoError(t, c.cmd.Start())
	go func() { c.exited <- c.cmd.Wait() }()
}

// probe asks until the answer is good.
func (c *container) probe(t *testing.T, probe *corev1.Probe) {
	t.Helper()
	port, ok := c.ports[probe.HTTPGet.Port.StrVal]
	require.True(t, ok, "no such port: %s", probe.HTTPGet.Port.StrVal)
	url := fmt.Sprintf("http://127.0.0.1:%d%s", port, probe.HTTPGet.Path)
	err := until(t.Context(), url, func() (bool, error) {
		if len(c.exited) > 0 {
			return false, errors.New("the program has exited")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(probe.TimeoutSeconds)*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil // it does not listen yet
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
	if err != nil {
		_ = c.cmd.Process.Kill()
		exit := <-c.exited
		require.NoError(t, err, "%v: %s", exit, &c.output)
	}
}

// log ends the process, and returns what it has said.
func (c *container) log(t *testing.T) string {
	t.Helper()
	require.NoError(t, c.stop(t, time.Minute), "%s", &c.output)
	return c.output.String()
}

// stop ends the process as a kubelet does, and waits no longer than one.
func (c *container) stop(t *testing.T, grace time.Duration) error {
	t.Helper()
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
	timer := time.AfterFunc(grace, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	return <-c.exited
}
