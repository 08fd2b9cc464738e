package manifests_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// A namespace can't end while a pod in it has our finalizer, and the watcher's rights end with it. What deletes its
// contents is a controller, which the tests play.

func TestANamespaceThatIsDeletedPodsFirstIsNotHeldUp(t *testing.T) {
	ctx, s := newSite(t, "airflow-requeue-watcher")
	granted(t, s.Namespace, moved(t, s.Namespace, s.Namespace).rights())
	stop, err := s.lead(ctx)
	require.NoError(t, err)
	s.heldPods(ctx, t)

	s.deleteNamespace(t)
	s.deletePods(t)
	require.NoError(t, s.untilEmpty(ctx))
	require.NoError(t, stop())
	require.Empty(t, s.refusals.list())
}

func TestWhatAWatcherWithoutRightsLeavesAnAdministratorLetsGo(t *testing.T) {
	ctx, s := newSite(t, "airflow-requeue-watcher")
	rights := moved(t, s.Namespace, s.Namespace).rights()
	granted(t, s.Namespace, rights)
	stop, err := s.lead(ctx)
	require.NoError(t, err)
	s.heldPods(ctx, t)

	s.deleteNamespace(t)
	require.NoError(t, s.Client.RbacV1().RoleBindings(s.Namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	<-ctx.Done() // the first refusal
	_ = stop()
	s.deletePods(t)
	_, err = watcher.ReleaseAll(t.Context(), s.Client,
		watcher.ReleaseOptions{Installation: s.Namespace, Namespaces: []string{s.Namespace}, Clock: clock.RealClock{}, Log: s.log})
	require.NoError(t, err)
	require.NoError(t, s.untilEmpty(t.Context()))
}

// heldPods are one that waits for a node and one that runs.
func (s *site) heldPods(ctx context.Context, t *testing.T) {
	t.Helper()
	_, err := s.submit(ctx, "pending")
	require.NoError(t, err)
	running, err := s.submit(ctx, "running")
	require.NoError(t, err)
	running, err = s.Kubelet.Bind(ctx, running, "node-a")
	require.NoError(t, err)
	_, err = s.Kubelet.Start(ctx, running)
	require.NoError(t, err)
}

func (s *site) deleteNamespace(t *testing.T) {
	t.Helper()
	require.NoError(t, s.Client.CoreV1().Namespaces().Delete(t.Context(), s.Namespace, metav1.DeleteOptions{}))
}

// deletePods deletes the pods, and their kubelet ends those that have one.
func (s *site) deletePods(t *testing.T) {
	t.Helper()
	require.NoError(t, s.Client.CoreV1().Pods(s.Namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	for _, pod := range s.Pods() {
		if pod.Spec.NodeName != "" && pod.Status.Phase == corev1.PodRunning {
			require.NoError(t, s.Kubelet.Terminate(t.Context(), pod, 143))
		}
	}
}

func (s *site) untilEmpty(ctx context.Context) error {
	return until(ctx, "the namespace to be empty", func() (bool, error) { return len(s.Pods()) == 0, nil })
}
