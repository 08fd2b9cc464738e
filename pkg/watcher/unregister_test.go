package watcher_test

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// register makes a configuration of the world's name. Nobody listens, and nobody is asked: it is for another namespace.
func (w *world) register() {
	w.t.Helper()
	configuration := programs.Configuration("https://127.0.0.1:1/mutate", nil, w.namespace)
	configuration.Webhooks[0].NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"nobody": "here"}}
	programs.Register(w.t, w.client, configuration)
}

func (w *world) registered() bool {
	w.t.Helper()
	_, err := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(w.ctx, w.namespace, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		require.NoError(w.t, err)
	}
	return err == nil
}

func (w *world) uninstall(client kubernetes.Interface) (done watcher.Released, err error) {
	w.t.Helper()
	over := make(chan struct{})
	go func() {
		defer close(over)
		done, err = watcher.Uninstall(w.ctx, client, w.namespace, w.releasing())
	}()
	w.eventually("the end of the uninstallation", func() bool {
		select {
		case <-over:
			return true
		default:
		}
		if w.clock.HasWaiters() { // it waits, and is at nothing else
			w.clock.forward(5 * time.Second)
		}
		return false
	})
	return done, err
}

// requests has a client call do before, and after, each request for a resource.
func (w *world) requests(do func(before bool, method, resource string)) kubernetes.Interface {
	return w.wired(&wire{bell: w.bell, via: func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			do(true, r.Method, path.Base(r.URL.Path))
			response, err := next.RoundTrip(r)
			do(false, r.Method, path.Base(r.URL.Path))
			return response, err
		})
	}})
}

func TestAnUninstallationDeletesTheConfigurationBeforeItLiftsAHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register()
	pod := w.submit(w.queued("held"))
	done, err := w.uninstall(w.requests(func(before bool, method, resource string) {
		if before && resource == "pods" {
			require.False(t, w.registered(), method)
		}
	}))
	require.NoError(t, err)
	require.Equal(t, watcher.Released{Released: 1}, done)
	require.Equal(t, attached, howLeft(w.now(pod.Name)))

	done, err = w.uninstall(w.client)
	require.NoError(t, err, "it may be repeated: what is gone is gone")
	require.Zero(t, done)
}

func TestAnUninstallationLiftsWhatWasHeldWhileTheAPIServersLearntOfIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register()
	var late []string
	var gone time.Time
	done, err := w.uninstall(w.requests(func(before bool, method, resource string) {
		switch {
		case before:
		case method == http.MethodDelete && resource == w.namespace:
			gone = w.clock.Now()
		case method == http.MethodGet && resource == "pods" && (late == nil || len(late) == 1 && w.clock.Since(gone) > 40*time.Second):
			late = append(late, w.submit(w.queued(fmt.Sprintf("late-%d", len(late)))).Name) // no list that is under way has it
		}
	}))
	require.NoError(t, err)
	require.Equal(t, watcher.Released{Released: 2}, done)
	require.Len(t, late, 2, "one at once, and one that other webhooks kept for long")
	for _, name := range late {
		require.Equal(t, attached, howLeft(w.now(name)))
		require.Empty(t, w.now(name).Finalizers)
	}
	require.GreaterOrEqual(t, w.clock.Since(gone), time.Minute, "a request may take a minute")
}

func TestAConfigurationThatIsMadeAnewMeanwhileIsDeletedToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register()
	again := false
	_, err := w.uninstall(w.requests(func(before bool, method, resource string) {
		if before && method == http.MethodDelete && resource == w.namespace && !again {
			again = true // somebody applies the manifests at this moment
			require.NoError(t, w.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(t.Context(), w.namespace, metav1.DeleteOptions{}))
			w.register()
		}
	}))
	require.NoError(t, err)
	require.True(t, again)
	require.False(t, w.registered())
}

func TestTheConfigurationOfAnotherWebhookIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	none := admissionregistrationv1.SideEffectClassNone
	url := "https://127.0.0.1:1/"
	programs.Register(t, w.client, &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "another.example.com", SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url}}}})
	pod := w.submit(w.queued("held"))
	_, err := w.uninstall(w.client)
	require.EqualError(t, err, "deleting MutatingWebhookConfiguration "+w.namespace+": it has no webhook pods.airflow-requeue.dev, so it is not airflow-requeue's")
	require.True(t, w.registered())
	require.NotEmpty(t, w.now(pod.Name).Finalizers, "nothing is released while pods may be held")
}

func TestAConfigurationThatAFinalizerKeepsIsNamedWithIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register()
	finalizers := func(json string) {
		_, err := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(context.WithoutCancel(t.Context()), w.namespace,
			types.MergePatchType, []byte(`{"metadata":{"finalizers":`+json+`}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	finalizers(`["example.com/keep"]`)
	defer finalizers("null")
	deleted := 0
	_, err := w.uninstall(w.requests(func(before bool, method, _ string) {
		if before && method == http.MethodDelete {
			deleted++
		}
	}))
	require.EqualError(t, err, "deleting MutatingWebhookConfiguration "+w.namespace+
		": it stays, and has pods held, until its finalizers are taken off: example.com/keep")
	require.Equal(t, 1, deleted)
}
