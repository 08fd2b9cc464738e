package programs

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
)

// Mount is a Secret as the kubelet mounts it for one pod: each has a kubelet, and so a delay, of its own.
type Mount struct {
	t    testing.TB
	dir  string
	last string // the version that is mounted
	mu   sync.Mutex
	held bool
}

// MountSecret mounts a Secret in a folder, and brings its changes every so often until the test ends.
func MountSecret(t testing.TB, client kubernetes.Interface, namespace, name, dir string, every time.Duration) *Mount {
	t.Helper()
	m := &Mount{t: t, dir: dir}
	get := func() (*corev1.Secret, error) {
		return client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	}
	secret, err := get()
	require.NoError(t, err)
	m.bring(secret)
	var following sync.WaitGroup
	following.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-t.Context().Done():
				return
			case <-ticker.C:
			}
			if secret, err := get(); err == nil { // a kubelet tries again
				m.bring(secret)
			}
		}
	})
	t.Cleanup(following.Wait)
	return m
}

func (m *Mount) bring(secret *corev1.Secret) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.held && secret.ResourceVersion != m.last {
		assert.NoError(m.t, kubelet.Mount(m.dir, "..version-"+secret.ResourceVersion, secret.Data))
		m.last = secret.ResourceVersion
	}
}

// Hold has the kubelet bring nothing for a while; Release ends that.
func (m *Mount) Hold() { m.hold(true) }

// Release has the kubelet bring what has changed.
func (m *Mount) Release() { m.hold(false) }

func (m *Mount) hold(held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = held
}
