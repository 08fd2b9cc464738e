package watcher

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestHowACreateWasRefusedSaysWhetherToTryAgain(t *testing.T) {
	t.Parallel()
	pods := corev1.Resource("pods")
	terminating := apierrors.NewForbidden(pods, "x", errors.New("unable to create new content"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for _, tt := range []struct {
		name        string
		err         error
		kind        requeue.RefusalKind
		terminating bool
		answered    bool
	}{
		{"a quota that is used up", apierrors.NewForbidden(pods, "x", errors.New("exceeded quota: pods")), requeue.RefusedForNow, false, true},
		{"a namespace that is being deleted", terminating, requeue.RefusedForGood, true, true},
		{"a right that is missing", apierrors.NewForbidden(pods, "x", errors.New("cannot create")), requeue.RefusedForGood, false, true},
		{"a pod that is not valid", apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "x", nil), requeue.RefusedForGood, false, true},
		{"a quota whose use others change at the same time", apierrors.NewConflict(corev1.Resource("resourcequotas"), "pods", errors.New("modified")),
			requeue.RefusedForNow, false, true},
		{"a token that has just expired", apierrors.NewUnauthorized("later"), requeue.RefusedForNow, false, true},
		{"too many requests", apierrors.NewTooManyRequests("later", 1), requeue.RefusedForNow, false, true},
		{"a server that is busy with itself", apierrors.NewInternalError(errors.New("etcd")), requeue.RefusedForNow, false, true},
		{"a webhook that does not answer", apierrors.NewTimeoutError("webhook", 1), requeue.RefusedForNow, false, true},
		{"no answer", context.DeadlineExceeded, requeue.NotRefused, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kind, terminating, answered := refusal(tt.err)
			require.Equal(t, tt.kind, kind)
			require.Equal(t, tt.terminating, terminating)
			require.Equal(t, tt.answered, answered)
		})
	}
}
