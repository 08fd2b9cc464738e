package watcher

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

// webhookName is that of the one webhook in an installation's configuration.
const webhookName = "pods.airflow-requeue.dev"

const (
	// learnFor is how long after a configuration's end an API server may still ask the webhook for a new request: it learns
	// of it by a watch. A pod that is stamped by then may go through others' webhooks, and is stored within the request's time.
	learnFor = 5 * time.Second
	// lookEvery is between two looks for such pods.
	lookEvery = 5 * time.Second
	// againAfter is between two deletions of a configuration that others make anew.
	againAfter = time.Second
)

// Uninstall deletes the webhook's configuration, so that nothing new is held, and lifts every hold. It may be repeated,
// and run beside webhook and watcher. It looks for pods until no request is left that the webhook may have been asked about.
func Uninstall(ctx context.Context, client kubernetes.Interface, configuration string, opts ReleaseOptions) (Released, error) {
	if err := unregister(ctx, client, configuration, opts.Clock); err != nil {
		return Released{}, err
	}
	opts.Log.Info("webhook configuration deleted", "name", configuration)
	gone := opts.Clock.Now()
	var done Released
	for {
		last := opts.Clock.Since(gone) >= learnFor+opts.RequestTimeout
		more, err := ReleaseAll(ctx, client, opts)
		done = done.plus(more)
		if err != nil || last {
			return done, err
		}
		select {
		case <-ctx.Done():
			return done, fmt.Errorf("looking for pods that were held meanwhile: %w", context.Cause(ctx))
		case <-opts.Clock.After(lookEvery):
		}
	}
}

// unregister deletes a configuration that is ours, however often others make it anew. One that is not there is deleted; one
// that a finalizer keeps has pods held all the same.
func unregister(ctx context.Context, client kubernetes.Interface, name string, c clock.Clock) error {
	configurations := client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	for round := 0; ; round++ {
		if round > 1 { // the first look after a deletion mostly finds nothing
			select {
			case <-ctx.Done():
				return fmt.Errorf("deleting MutatingWebhookConfiguration %s, which is made anew each time: %w", name, context.Cause(ctx))
			case <-c.After(againAfter):
			}
		}
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
		if found.DeletionTimestamp != nil {
			return fmt.Errorf("deleting MutatingWebhookConfiguration %s: it stays, and has pods held, until its finalizers are taken off: %s",
				name, strings.Join(found.Finalizers, ", "))
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
