package watcher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// writer makes the writes there are, each one guarded request. The watcher and ReleaseAll share it.
type writer struct{ client kubernetes.Interface }

// errStale says that a pod is no longer as it was when the write was decided: read again, decide again.
var errStale = errors.New("the pod has changed")

func (w writer) get(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	fresh, err := w.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if fresh.UID != pod.UID {
		return nil, fmt.Errorf("reading pod %s/%s: %w", pod.Namespace, pod.Name,
			apierrors.NewNotFound(corev1.Resource("pods"), pod.Name))
	}
	return fresh, nil
}

// family lists the pods with the labels that Airflow gives all pods of a task instance, the pod itself among them.
func (w writer) family(ctx context.Context, pod *corev1.Pod) ([]corev1.Pod, error) {
	selector := labels.Set{requeue.LabelKubernetesExecutor: "True"}
	for _, name := range requeue.IdentityLabels() {
		if v, ok := pod.Labels[name]; ok {
			selector[name] = v
		}
	}
	list, err := w.client.CoreV1().Pods(pod.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of the task of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return list.Items, nil
}

func (w writer) patch(ctx context.Context, p *patch, subresources ...string) (*corev1.Pod, error) {
	body, err := p.bytes()
	if err != nil {
		return nil, err
	}
	pod, err := w.client.CoreV1().Pods(p.pod.Namespace).Patch(ctx, p.pod.Name, types.JSONPatchType, body,
		metav1.PatchOptions{FieldManager: "airflow-requeue"}, subresources...)
	if err != nil {
		return nil, fmt.Errorf("patching pod %s/%s: %w", p.pod.Namespace, p.pod.Name, w.stale(ctx, p.pod, err))
	}
	return pod, nil
}

// stale turns the answer to a lost guard into errStale. A failed test is answered 422, as is a patch that the API
// server finds invalid: the pod itself tells which it was.
func (w writer) stale(ctx context.Context, pod *corev1.Pod, err error) error {
	if apierrors.IsConflict(err) {
		return errStale
	}
	if !apierrors.IsInvalid(err) {
		return err
	}
	fresh, getErr := w.get(ctx, pod)
	if getErr != nil {
		return getErr
	}
	if fresh.ResourceVersion != pod.ResourceVersion {
		return errStale
	}
	return err
}

// lift takes the hold off, and undoes a detach. The pod of a linger keeps finalizer and tracked label: in one patch the
// last event of a terminating pod would carry the old labels, and the executor would never see it.
func (w writer) lift(ctx context.Context, pod *corev1.Pod, worker string, linger bool, now time.Time) (*corev1.Pod, error) {
	p := newPatch(pod)
	p.label(requeue.LabelHold, "")
	reattach(p, worker)
	if linger {
		p.annotate(requeue.AnnotationReleasedAt, requeue.FormatTime(now))
	} else {
		p.letGo()
	}
	return w.patch(ctx, p)
}

// attach undoes a detach; the hold stays.
func (w writer) attach(ctx context.Context, pod *corev1.Pod, worker string) (*corev1.Pod, error) {
	p := newPatch(pod)
	reattach(p, worker)
	return w.patch(ctx, p)
}

func reattach(p *patch, worker string) {
	if worker != "" && p.pod.Labels[requeue.LabelWorker] != worker {
		p.label(requeue.LabelWorker, worker)
	}
	if requeue.Detached(p.pod) {
		p.label(requeue.LabelExecutorDone, "")
		p.annotate(requeue.AnnotationDetached, "")
		p.annotate(requeue.AnnotationUndoing, "")
	}
}

// detach takes the pod out of the executor's watch and out of adoption; the hold label stays as a tombstone.
func (w writer) detach(ctx context.Context, pod *corev1.Pod, annotations map[string]string) (*corev1.Pod, error) {
	p := newPatch(pod)
	p.label(requeue.LabelWorker, "")
	p.label(requeue.LabelExecutorDone, "True")
	p.annotateAll(annotations)
	return w.patch(ctx, p)
}

// annotate records facts on the pod.
func (w writer) annotate(ctx context.Context, pod *corev1.Pod, annotations map[string]string) (*corev1.Pod, error) {
	p := newPatch(pod)
	p.annotateAll(annotations)
	return w.patch(ctx, p)
}

// commit lets the replacement take its predecessor's place, under the predecessor's scheduler.
func (w writer) commit(ctx context.Context, replacement *corev1.Pod, worker string) (*corev1.Pod, error) {
	p := newPatch(replacement)
	p.annotate(requeue.AnnotationCommitted, "true")
	p.label(requeue.LabelWorker, worker)
	return w.patch(ctx, p)
}

func (w writer) ungate(ctx context.Context, pod *corev1.Pod, worker string) (*corev1.Pod, error) {
	p := newPatch(pod)
	p.ungate()
	reattach(p, worker)
	return w.patch(ctx, p)
}

// strip lets go of the pod. One that was replaced is marked, so that it is found when its time to live is over.
func (w writer) strip(ctx context.Context, pod *corev1.Pod, annotations map[string]string, replaced bool) (*corev1.Pod, error) {
	p := newPatch(pod)
	p.annotateAll(annotations)
	if replaced {
		p.label(requeue.LabelReplaced, pod.Labels[requeue.LabelTracked])
	}
	p.letGo()
	return w.patch(ctx, p)
}

// markFailed writes the end of a pod that no kubelet will ever end. Never on a bound pod: its kubelet writes it back.
func (w writer) markFailed(ctx context.Context, pod *corev1.Pod, reason requeue.Reason, message string) (*corev1.Pod, error) {
	p := newPatch(pod)
	p.add("add", "/status/phase", corev1.PodFailed)
	p.add("add", "/status/reason", reason)
	p.add("add", "/status/message", message)
	return w.patch(ctx, p, "status")
}

// delete asks for the pod's deletion, and returns the pod as that left it: the finalizer keeps it until its end is
// decided. Without a resourceVersion the UID is the only guard. The typed client would throw the answer away.
func (w writer) delete(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	guard := &metav1.Preconditions{UID: &pod.UID}
	if pod.ResourceVersion != "" {
		guard.ResourceVersion = &pod.ResourceVersion
	}
	left := &corev1.Pod{}
	err := w.client.CoreV1().RESTClient().Delete().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).
		Body(&metav1.DeleteOptions{Preconditions: guard}).Do(ctx).Into(left)
	if apierrors.IsConflict(err) {
		err = errStale
	}
	if err != nil {
		return nil, fmt.Errorf("deleting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return left, nil
}

// create submits the JSON of a replacement as it is: a typed object would lose the fields that this build's API does
// not know.
func (w writer) create(ctx context.Context, namespace string, body []byte) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := w.client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").
		Param("fieldManager", "airflow-requeue").SetHeader("Content-Type", "application/json").
		Body(body).Do(ctx).Into(pod)
	if err != nil {
		return nil, err
	}
	return pod, nil
}

// refusal says how a create was answered; ok is false where the answer says nothing about the pod itself, so that the
// same create is to be tried again.
func refusal(err error) (kind requeue.RefusalKind, namespaceTerminating, ok bool) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return requeue.NotRefused, false, false // no answer
	}
	code := int(status.Status().Code)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return requeue.RefusedForGood, true, true
	case code == http.StatusForbidden && strings.Contains(err.Error(), "exceeded quota"),
		code == http.StatusConflict, // creates that race for a quota's usage
		code == http.StatusUnauthorized, code == http.StatusRequestTimeout, code == http.StatusTooManyRequests,
		code >= http.StatusInternalServerError:
		return requeue.RefusedForNow, false, true
	default:
		return requeue.RefusedForGood, false, true
	}
}
