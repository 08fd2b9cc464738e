package manifests_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// installed is an installation whose webhook the API server reaches as in a cluster, by its Service's name.
type installed struct {
	*world.World
	all     objects
	service *service
	airflow kubernetes.Interface // by a token of the scheduler's account
	anew    int                  // how often the API server was to make new connections
}

// install applies a folder of the manifests, and starts a watcher that leads.
func install(t *testing.T, name string) *installed {
	t.Helper()
	w := world.New(t, servers.Config(), filepath.Join("..", "..", "pkg", "tidb", "testdata", "3.3.2-sqlite.sql"))
	x := &installed{World: w, all: overlay(t, name, []string{"wiring"}, w.Namespace, w.Namespace), service: newService(t)}
	x.airflow = clientOf(t, account(t, w.Namespace, scheduler, schedulerRights))
	x.service.leadHere(t, x.all)
	granted(t, w.Namespace, x.all.rights())
	applyAll(t, x.all)
	t.Cleanup(func() {
		_ = w.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(context.Background(), w.Namespace, metav1.DeleteOptions{})
	})
	template := into[appsv1.Deployment](t, x.all, "Deployment", "airflow-requeue-watcher").Spec.Template
	c := newContainer(t, w.Namespace, template, template.Spec.Containers[0], secrets(t, w))
	c.args = append(c.args, programs.Steady()...)
	c.start(t, built["watcher"])
	return x
}

// webhook starts a pod of the webhook's Deployment with its Secrets, and returns when it is ready.
func (x *installed) webhook(t *testing.T, mounted map[string]map[string]string) (c *container, address string) {
	t.Helper()
	template := into[appsv1.Deployment](t, x.all, "Deployment", "airflow-requeue-webhook").Spec.Template
	c = newContainer(t, x.Namespace, template, template.Spec.Containers[0], mounted)
	c.args = append(c.args, "--lease-max-age=2m", "--no-leader-release-after=3m")
	return c, fmt.Sprintf("127.0.0.1:%d", c.ports["https"])
}

// secret reads a Secret of the installation.
func (x *installed) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret, err := x.Client.CoreV1().Secrets(x.Namespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return secret
}

// configuration reads the installation's.
func (x *installed) configuration(t *testing.T) *admissionregistrationv1.MutatingWebhookConfiguration {
	t.Helper()
	c, err := x.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), x.Namespace, metav1.GetOptions{})
	require.NoError(t, err)
	return c
}

// bundle is whom the API server trusts.
func (x *installed) bundle(t *testing.T) []byte {
	t.Helper()
	return x.configuration(t).Webhooks[0].ClientConfig.CABundle
}

// eventually waits for a condition.
func (x *installed) eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.NoError(t, until(t.Context(), what, func() (bool, error) { return condition(), nil }))
}

// submit creates a pod as Airflow, as a dry run: it costs what its review costs.
func (x *installed) submit(ctx context.Context) (held bool, err error) {
	pod, err := x.airflow.CoreV1().Pods(x.Namespace).Create(ctx, workerPod(x.Namespace, "load"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil && requeue.Held(pod), err
}

// untilHeld waits for pods to be held, the first time.
func (x *installed) untilHeld(t *testing.T) {
	t.Helper()
	var last error
	err := until(t.Context(), "pods to be held", func() (bool, error) {
		held, err := x.submit(t.Context())
		last = err
		return held, nil
	})
	require.NoError(t, err, "%v", last)
}

// load is Airflow that submits pods all the time, each of which is to be held.
type load struct {
	x      *installed
	cancel context.CancelFunc
	over   sync.WaitGroup
	held   atomic.Int64
	mu     sync.Mutex
	wrong  []string
}

// workers is how many pods are submitted at a time.
const workers = 6

// reconnect has the API server make new connections to the webhook, as it does for another caBundle. It is put right again, maybe
// before the API server has seen it.
func (x *installed) reconnect(t *testing.T) {
	t.Helper()
	x.anew++
	another := append(x.bundle(t), strings.Repeat("\n", x.anew)...)
	raw, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": another}})
	require.NoError(t, err)
	_, err = x.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), x.Namespace, types.JSONPatchType, raw, metav1.PatchOptions{})
	require.NoError(t, err)
}

func (x *installed) load(t *testing.T) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{x: x, cancel: cancel}
	for range workers {
		l.over.Go(func() {
			pace := time.NewTicker(pollInterval) // more would take the processor from the others
			defer pace.Stop()
			for ; ctx.Err() == nil; <-pace.C {
				held, err := x.submit(ctx)
				switch {
				case ctx.Err() != nil:
				case held:
					l.held.Add(1)
				default:
					l.mu.Lock()
					l.wrong = append(l.wrong, fmt.Sprintf("at %s: held: %t, %v", time.Now().Format(time.StampMilli), held, err))
					l.mu.Unlock()
				}
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

// goOn waits for so many more pods to be held, by connections made from now on.
func (l *load) goOn(t *testing.T, pods int64) {
	t.Helper()
	connections := l.x.service.count.Load()
	l.x.eventually(t, "new connections", func() bool {
		if l.x.service.count.Load() > connections || l.failed() > 0 {
			return true
		}
		l.x.reconnect(t)
		return false
	})
	held := l.held.Load()
	l.x.eventually(t, "more pods to be held", func() bool { return l.held.Load() >= held+pods || l.failed() > 0 })
}

func (l *load) failed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.wrong)
}

// stop ends the load, and returns what went wrong.
func (l *load) stop() []string {
	l.cancel()
	l.over.Wait()
	return l.wrong
}

// mount writes a Secret's files as a kubelet does: all change at once.
func mount(t *testing.T, dir string, secret *corev1.Secret) {
	t.Helper()
	version := filepath.Join(dir, "..version-"+secret.ResourceVersion)
	require.NoError(t, os.Mkdir(version, 0o700))
	point := func(name, to string) {
		temporary := filepath.Join(dir, name+".new")
		require.NoError(t, os.Symlink(to, temporary))
		require.NoError(t, os.Rename(temporary, filepath.Join(dir, name)))
	}
	for name, content := range secret.Data {
		require.NoError(t, os.WriteFile(filepath.Join(version, name), content, 0o600))
	}
	point("..data", filepath.Base(version))
	for name := range secret.Data {
		if target, _ := os.Readlink(filepath.Join(dir, name)); target == "" {
			point(name, filepath.Join("..data", name))
		}
	}
}

// mountedAt is the folder that a flag of a container names.
func (c *container) mountedAt(t *testing.T, flag string) string {
	t.Helper()
	for _, arg := range c.args {
		if path, ok := strings.CutPrefix(arg, flag+"="); ok {
			return filepath.Dir(path)
		}
	}
	require.FailNow(t, "no such flag", flag)
	return ""
}

// strings of a Secret, as secrets has them.
func texts(secret *corev1.Secret) map[string]string {
	all := map[string]string{}
	for key, value := range secret.Data {
		all[key] = string(value)
	}
	return all
}

// withoutFailure ends a load of which nothing may have gone wrong.
func (l *load) withoutFailure(t *testing.T) {
	t.Helper()
	assert.Empty(t, l.stop())
	t.Logf("%d pods were held, by %d connections", l.held.Load(), l.x.service.count.Load())
}
