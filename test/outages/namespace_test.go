package outages

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestANamespaceIsDeletedWithPodsInEveryStateInIt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		serve func(*site)
	}{
		{"while a watcher works", func(s *site) { s.startWatcher(s.watcherConfig()) }},
		{"with no watcher, and the webhook alone", func(*site) {}},
		{"after all pods were released", func(s *site) {
			s.UnregisterWebhook()
			release := s.release(s.watcherConfig())
			assert.Zero(s.t, release.Exit())
			s.webhook.Kill()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, shared.Servers)
			inEveryState(s, 2, "--lease-max-age=5s", "--no-leader-release-after=10s")
			tt.serve(s)
			began := time.Now()
			require.NoError(t, s.Client.CoreV1().Namespaces().Delete(t.Context(), s.Namespace, metav1.DeleteOptions{}))
			// No namespace controller runs here: it deletes what is in the namespace, again and again, and then lets it go.
			until(t, "no pod is left", func() bool {
				require.NoError(t, s.Client.CoreV1().Pods(s.Namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
				return len(s.Pods()) == 0
			})
			t.Logf("no pod is left %s after", time.Since(began).Round(time.Millisecond))
			ns, err := s.Client.CoreV1().Namespaces().Get(t.Context(), s.Namespace, metav1.GetOptions{})
			require.NoError(t, err)
			ns.Spec.Finalizers = nil
			_, err = s.Client.CoreV1().Namespaces().Finalize(t.Context(), ns, metav1.UpdateOptions{})
			require.NoError(t, err)
			_, err = s.Client.CoreV1().Namespaces().Get(t.Context(), s.Namespace, metav1.GetOptions{})
			assert.True(t, apierrors.IsNotFound(err), "the namespace is gone")
			s.webhook.sparing()
			s.watcher.sparing()
			t.Log(s.watcher.messages())
		})
	}
}
