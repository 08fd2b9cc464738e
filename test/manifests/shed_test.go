package manifests_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/mutate"
)

// TestTheAPIServerLetsAPodThroughAtOnceWhoseReviewIsOneTooMany has reviews under way that do not end: whatever waited for one would
// wait for ever.
func TestTheAPIServerLetsAPodThroughAtOnceWhoseReviewIsOneTooMany(t *testing.T) {
	t.Parallel()
	const ns = "busy"
	namespace(t, ns, nil)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	var seen atomic.Bool
	blocked := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		seen.Store(true)
		arrived <- struct{}{}
		<-goOn
		http.Error(w, "over", http.StatusServiceUnavailable)
	})
	webhook := httptest.NewTLSServer(mutate.Bound(blocked, 1, mutate.NewMetrics(prometheus.NewRegistry())))
	t.Cleanup(webhook.Close)
	configuration := programs.Configuration(webhook.URL+mutate.Path, pemOf(webhook.Certificate()), ns)
	configuration.Webhooks[0].TimeoutSeconds = ptr.To[int32](30)
	require.Equal(t, admissionregistrationv1.Ignore, *configuration.Webhooks[0].FailurePolicy)
	programs.Register(t, admin(t), configuration)
	submit := func(name string) error {
		_, err := admin(t).CoreV1().Pods(ns).Create(t.Context(), workerPod(ns, name), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	first := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !seen.Load() { // the API server learns of the webhook a moment later
			err = submit("first")
		}
		first <- err
	}()
	<-arrived

	for range 3 {
		require.NoError(t, submit("one-too-many"))
	}

	assert.Empty(t, first, "it is still under way")
	close(goOn)
	assert.NoError(t, <-first)
}
