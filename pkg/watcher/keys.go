package watcher

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/pager"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Signed reports whether the watcher knows of a held pod that is signed with a key as wanted. There may be others: see the function.
func (w *Watcher) Signed(want func(key string) bool) bool {
	for t := range w.all() {
		if t.signedWith != "" && want(t.signedWith) {
			return true
		}
	}
	return false
}

// errFound ends a list.
var errFound = errors.New("a pod is found")

// Signed reports whether a pod whose seal is still to be looked at is signed with a key as wanted: one that is held, or one that
// was replaced and is to be deleted. All of them are read, in pages.
func Signed(ctx context.Context, client kubernetes.Interface, installation string, namespaces []string, want func(key string) bool) (bool, error) {
	for _, namespace := range namespaces {
		pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return client.CoreV1().Pods(namespace).List(ctx, opts)
		})
		for _, label := range []string{requeue.LabelTracked, requeue.LabelReplaced} {
			err := pages.EachListItem(ctx, metav1.ListOptions{LabelSelector: label + "=" + installation}, func(obj runtime.Object) error {
				if pod, ok := obj.(*corev1.Pod); ok && requeue.SignedWith(pod) != "" && want(requeue.SignedWith(pod)) {
					return errFound
				}
				return nil
			})
			switch {
			case errors.Is(err, errFound):
				return true, nil
			case err != nil:
				return false, fmt.Errorf("listing the signed pods of namespace %s: %w", namespace, err)
			}
		}
	}
	return false, nil
}
