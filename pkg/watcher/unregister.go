package watcher

import (
	"context"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// webhookName is that of the one webhook in an installation's configuration.
const webhookName = "pods.airflow-requeue.dev"

// settleFor is how long after a configuration's end an API server may still ask the webhook: it learns of it by a watch,
// and a request that is under way by then has the webhook's timeout.
const settleFor = 5 * time.Second

// Uninstall deletes the webhook's configuration, so that nothing new is held, and lifts every hold. It may be repeated,
// and run beside webhook and watcher. What was held while the API servers learnt that the configuration is gone is
// released by a second look.
func Uninstall(ctx context.Context, client kubernetes.Interface, configuration string, opts ReleaseOptions) (Released, error) {
	if err := unregister(ctx, client, configuration); err != nil {
		return Released{}, err
	}
	opts.Log.Info("webhook configuration deleted", "name", configuration)
	gone := opts.Clock.Now()
	first, err := ReleaseAll(ctx, client, opts)
	if err != nil {
		return first, err
	}
	select {
	case <-ctx.Done():
		return first, fmt.Errorf("looking for pods that were held meanwhile: %w", context.Cause(ctx))
	case <-opts.Clock.After(settleFor - opts.Clock.Since(gone)):
	}
	second, err := ReleaseAll(ctx, client, opts)
	return first.plus(second), err
}

// unregister deletes a configuration that is ours, however often others make it anew. One that is not there is deleted.
func unregister(ctx context.Context, client kubernetes.Interface, name string) error {
	configurations := client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	for {
		found, err := configurations.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading MutatingWebhookConfiguration %s: %w", name, err)
		}
		if !slices.ContainsFunc(found.Webhooks, func(w admissionregistrationv1.MutatingWebhook) bool { return w.Name == webhookName }) {
			return fmt.Errorf("deleting MutatingWebhookConfiguration %s: it has no webhook %s, so it is not airflow-requeue's", name, webhookName)
		}
		err = configurations.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &found.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("deleting MutatingWebhookConfiguration %s: %w", name, err)
		}
	}
}

func (r Released) plus(more Released) Released {
	return Released{Released: r.Released + more.Released, Reported: r.Reported + more.Reported,
		Deleted: r.Deleted + more.Deleted, Stripped: r.Stripped + more.Stripped}
}
