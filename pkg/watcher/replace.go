package watcher

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// replace creates the replacement. The name is the same each time, so a second create of the same replacement meets the
// first; how a refusal was worded is remembered for the next decision.
func (w *Watcher) replace(ctx context.Context, in requeue.Input, d requeue.Decision) (outcome, error) {
	old := in.Pod
	if old.Annotations[requeue.AnnotationJobSpec] == "" { // the informer's has none
		whole, err := w.unchanged(ctx, old)
		if err != nil {
			return outcome{}, fmt.Errorf("replacing pod %s/%s: %w", old.Namespace, old.Name, err)
		}
		old = whole
	}
	for _, taken := range []bool{false, true} {
		out, free, err := w.createAs(ctx, in, d, old, requeue.ReplacementName(old, d.Next, taken))
		if free {
			out.pod = in.Pod
			return out, err
		}
	}
	w.remember(old.UID, requeue.RefusedForNow, false, "both names of the replacement are taken")
	return outcome{pod: in.Pod}, nil
}

// createAs creates the replacement under a name; free is false when a stranger has it. A replacement that was refused
// is nil: the refusal is remembered.
func (w *Watcher) createAs(ctx context.Context, in requeue.Input, d requeue.Decision, old *corev1.Pod, name string) (out outcome, free bool, err error) {
	refuse := func(kind requeue.RefusalKind, namespaceTerminating bool, why string) (outcome, bool, error) {
		w.remember(old.UID, kind, namespaceTerminating, why)
		return outcome{}, true, nil
	}
	body, broken := w.sealer.Replacement(old, d.Next, name)
	if broken != nil {
		return refuse(requeue.RefusedForGood, false, "the replacement can't be built: "+broken.Error())
	}
	pod, err := w.create(ctx, old.Namespace, body)
	switch {
	case apierrors.IsAlreadyExists(err):
		out.created, free, err = w.existing(ctx, old, name)
		return out, free, err
	case err != nil:
		kind, terminating, answered := refusal(err)
		if !answered {
			return outcome{}, true, fmt.Errorf("creating pod %s/%s: %w", old.Namespace, name, err)
		}
		return refuse(kind, terminating, err.Error())
	case !asCreated(pod, old):
		// Without its gate it would run beside what comes next: it goes at once, and nothing like it is tried again.
		// By its UID alone: the scheduler may have bound it by now.
		pod.ResourceVersion = ""
		if _, err := w.delete(ctx, pod); ignoreGone(err) != nil {
			return outcome{}, true, err
		}
		return refuse(requeue.RefusedForGood, false, "admission took the stamps off the replacement: is this account the webhook's --watcher-user?")
	}
	return outcome{created: pod, events: w.tellReplaced(in, d, pod)}, true, nil
}

// existing returns the pod that has the replacement's name, if it is the replacement.
func (w *Watcher) existing(ctx context.Context, old *corev1.Pod, name string) (pod *corev1.Pod, ours bool, err error) {
	pod, err = w.client.CoreV1().Pods(old.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		err = errLater
	}
	if err != nil {
		return nil, true, fmt.Errorf("reading pod %s/%s: %w", old.Namespace, name, err)
	}
	return pod, requeue.RequeueOf(pod) == string(old.UID), nil
}

// asCreated reports whether a replacement came through admission as it was sent.
func asCreated(pod, old *corev1.Pod) bool {
	return requeue.Gated(pod) && requeue.Held(pod) && requeue.Tracked(pod) && requeue.RequeueOf(pod) == string(old.UID)
}

// takeOver commits the replacement, while the old pod is live as it was decided on: a create that lands late finds it
// changed.
func (w *Watcher) takeOver(ctx context.Context, in requeue.Input, d requeue.Decision) (outcome, error) {
	old := in.Pod
	live, err := w.unchanged(ctx, old)
	if err != nil {
		return outcome{}, fmt.Errorf("committing pod %s/%s: %w", old.Namespace, d.Replacement.Name, err)
	}
	committed, err := w.commit(ctx, d.Replacement, d.Worker)
	if errors.Is(err, errStale) || apierrors.IsNotFound(err) {
		return outcome{}, fmt.Errorf("committing pod %s/%s: %w", old.Namespace, d.Replacement.Name, errLater)
	}
	if err != nil {
		return outcome{}, err
	}
	// Here and not with the create, whose answer may have been lost, or another's.
	w.memory.spend(queueingOf(in.Seal.Job, requeue.QueuedAt(committed)), old.UID, w.clock.Now())
	return outcome{pod: live, created: committed}, nil
}

// unchanged reads a pod live, whole, and fails with errStale when it is no longer the one that was decided on.
func (w *Watcher) unchanged(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	live, err := w.get(ctx, pod)
	if err == nil && live.ResourceVersion != pod.ResourceVersion {
		err = errStale
	}
	return live, err
}
