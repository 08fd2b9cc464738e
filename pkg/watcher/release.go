package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/pager"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// ReleaseOptions say whose holds to lift.
type ReleaseOptions struct {
	Installation string
	Namespaces   []string
	// RequestTimeout is the API servers' own: a pod may be stored that long after its webhooks were asked. For Uninstall.
	RequestTimeout time.Duration
	Clock          clock.Clock
	Log            *slog.Logger
}

// Released counts what ReleaseAll did.
type Released struct {
	Released int // holds lifted, and detaches undone
	Reported int // replacements that will never run, told to Airflow as failed
	Deleted  int // uncommitted replacements
	Stripped int // pods that only lost their finalizer
}

// ReleaseAll lifts every hold of an installation and takes every finalizer off: for emergencies, for uninstalling, and
// for the webhook when no watcher leads. It needs no metadata database and no signing key, may run at any time, also
// beside a watcher, and may be repeated: no attached pod keeps a hold, no pod a finalizer. It ends when that is so of the
// pods that were tracked when it began and of their replacements, however many are held meanwhile.
func ReleaseAll(ctx context.Context, client kubernetes.Interface, opts ReleaseOptions) (Released, error) {
	r := releaser{writer: writer{client}, opts: opts}
	for {
		left, err := r.pass(ctx)
		if err != nil || left == 0 {
			return r.done, err
		}
		// What is left is terminating and lingers for the executor to see, or was changed by others meanwhile.
		select {
		case <-ctx.Done():
			return r.done, fmt.Errorf("releasing all pods: %d are left: %w", left, context.Cause(ctx))
		case <-opts.Clock.After(requeue.LingerFor):
		}
	}
}

type releaser struct {
	writer
	opts  ReleaseOptions
	first map[string]bool // the chains of pods that were tracked at first
	done  Released
}

// pass takes each tracked pod one step further and returns how many of those that matter are still tracked. A pod that
// fails keeps no other from being released. Where a watcher works and pods go on coming, some are always under way: all
// are released, but only those that were there at first are waited for.
func (r *releaser) pass(ctx context.Context) (left int, err error) {
	var failed failures
	begins := r.first == nil
	if begins {
		r.first = map[string]bool{}
	}
	for _, namespace := range r.opts.Namespaces {
		pods, err := r.list(ctx, namespace)
		if err != nil {
			failed.add(err)
			continue
		}
		// What was never committed goes first: its predecessor is released as if there had been no replacement. Then each
		// pod goes before its replacement.
		slices.SortStableFunc(pods, func(a, b corev1.Pod) int { return cmp.Compare(rank(&a), rank(&b)) })
		byUID := map[string]*corev1.Pod{} // pointers into the sorted list
		for i := range pods {
			byUID[string(pods[i].UID)] = &pods[i]
			if begins {
				r.first[chain(&pods[i])] = true
			}
		}
		for i := range pods {
			gone, err := r.release(ctx, &pods[i], byUID)
			if gone || apierrors.IsNotFound(err) {
				delete(byUID, string(pods[i].UID))
			}
			switch {
			case apierrors.IsNotFound(err):
			case ctx.Err() != nil:
				return left, context.Cause(ctx)
			case err != nil && !errors.Is(err, errStale):
				failed.add(err)
			case !gone && r.first[chain(&pods[i])]:
				left++
			}
		}
	}
	return left, failed.err()
}

// failures keeps the first of many errors, which mostly are one and the same.
type failures struct {
	first error
	n     int
}

func (f *failures) add(err error) {
	if f.n++; f.first == nil {
		f.first = err
	}
}

func (f *failures) err() error {
	if f.n > 1 {
		return fmt.Errorf("%w (and %d more errors)", f.first, f.n-1)
	}
	return f.first
}

// chain names a pod and all that replace it.
func chain(pod *corev1.Pod) string {
	return pod.Namespace + "/" + cmp.Or(pod.Annotations[requeue.AnnotationOrigin], pod.Name)
}

func rank(pod *corev1.Pod) int {
	if neverCommitted(pod) {
		return -1
	}
	return requeue.Attempt(pod)
}

func neverCommitted(pod *corev1.Pod) bool {
	return requeue.RequeueOf(pod) != "" && requeue.Gated(pod) && !requeue.Committed(pod)
}

// list reads all tracked pods before the first write: what becomes of one depends on its replacement.
func (r *releaser) list(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	var pods []corev1.Pod
	pages := pager.New(func(ctx context.Context, list metav1.ListOptions) (runtime.Object, error) {
		return r.client.CoreV1().Pods(namespace).List(ctx, list)
	})
	tracked := metav1.ListOptions{LabelSelector: requeue.LabelTracked + "=" + r.opts.Installation}
	err := pages.EachListItem(ctx, tracked, func(pod runtime.Object) error {
		pods = append(pods, *pod.(*corev1.Pod))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the held pods of namespace %s: %w", namespace, err)
	}
	return pods, nil
}

// replacementOf looks live for the pod that replaces one, also among those that nobody tracks any more. The list that the
// pass began with is too old for that: a watcher may have been at work since.
func (r *releaser) replacementOf(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	family, err := r.family(ctx, pod)
	if err != nil {
		return nil, err
	}
	var found *corev1.Pod
	for i := range family {
		if p := &family[i]; requeue.RequeueOf(p) == string(pod.UID) && (found == nil || neverCommitted(found)) {
			found = p
		}
	}
	return found, nil
}

// release takes a pod one step further; gone says that nothing of ours is left on it. byUID has the pods of this pass that
// are still tracked.
func (r *releaser) release(ctx context.Context, pod *corev1.Pod, byUID map[string]*corev1.Pod) (gone bool, err error) {
	now := r.opts.Clock.Now()
	_, held := pod.Labels[requeue.LabelHold]
	switch {
	case byUID[requeue.RequeueOf(pod)] != nil && !neverCommitted(pod):
		return false, nil // with this pod gone, nobody would find that one's replacement: Airflow would see two ends
	case requeue.Discarded(pod) || requeue.Revoked(pod):
		return r.let(ctx, pod, "finalizer dropped", &r.done.Stripped)
	case !held && pod.DeletionTimestamp != nil && now.Sub(requeue.ReleasedAt(pod)) < requeue.LingerFor:
		return false, nil
	case !held:
		return r.let(ctx, pod, "", nil) // counted when the hold was lifted
	case neverCommitted(pod):
		return r.drop(ctx, pod, byUID[requeue.RequeueOf(pod)])
	case requeue.Detached(pod):
		return r.undo(ctx, pod, now)
	}
	return r.lift(ctx, pod, now)
}

// undo brings a detached pod back, unless its replacement is in place: then the pod stays a tombstone. A watcher that
// would replace the pod finds the mark, or has made the replacement before the look for one.
func (r *releaser) undo(ctx context.Context, pod *corev1.Pod, now time.Time) (gone bool, err error) {
	if !requeue.Undoing(pod) {
		if pod, err = r.annotate(ctx, pod, map[string]string{requeue.AnnotationUndoing: "true"}); err != nil {
			return false, err
		}
	}
	replacement, err := r.replacementOf(ctx, pod)
	switch {
	case err != nil:
		return false, err
	case replacement == nil:
		return r.lift(ctx, pod, now)
	case neverCommitted(replacement):
		return false, nil // that goes first, in the next pass
	case requeue.Reattached(pod):
		if pod, err = r.detach(ctx, pod, map[string]string{requeue.AnnotationDetached: requeue.Worker(pod)}); err != nil {
			return false, err
		}
	}
	// Marked as a watcher marks it, for the next one to delete when its time is over.
	if _, err = r.strip(ctx, pod, map[string]string{requeue.AnnotationReplacedAt: requeue.FormatTime(now)}, true); err != nil {
		return false, err
	}
	r.tell(pod, "finalizer dropped, it was replaced", &r.done.Stripped)
	return true, nil
}

// lift ends a hold. Airflow must see an end where there is one: a pod that no kubelet will end is marked as failed.
func (r *releaser) lift(ctx context.Context, pod *corev1.Pod, now time.Time) (gone bool, err error) {
	open := pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
	count, what := &r.done.Released, "hold lifted"
	if open && (requeue.Ended(pod) || requeue.Gated(pod)) {
		pod, err = r.markFailed(ctx, pod, requeue.ReasonReleased, "airflow-requeue released all pods before this one could run")
		if err != nil {
			return false, err
		}
	}
	if requeue.Gated(pod) {
		count, what = &r.done.Reported, "reported as failed, it could not run any more"
	}
	linger := pod.DeletionTimestamp != nil
	if _, err = r.writer.lift(ctx, pod, requeue.Worker(pod), linger, now); err != nil {
		return false, err
	}
	r.tell(pod, what, count)
	return !linger, nil
}

// drop deletes a replacement that never took its predecessor's place. An adoption may have given it the living
// scheduler's id; that goes to the old pod, which is released next.
func (r *releaser) drop(ctx context.Context, pod, old *corev1.Pod) (gone bool, err error) {
	if worker := pod.Labels[requeue.LabelWorker]; old != nil && worker != "" && requeue.Detached(old) {
		patched, err := r.annotate(ctx, old, map[string]string{requeue.AnnotationDetached: worker})
		if err != nil {
			return false, err
		}
		*old = *patched
	}
	if pod.DeletionTimestamp == nil {
		if pod, err = r.delete(ctx, pod); err != nil {
			return false, err
		}
		r.tell(pod, "deleted, it had not taken its predecessor's place", &r.done.Deleted)
	}
	return r.let(ctx, pod, "", nil)
}

// let takes finalizer and tracked label off.
func (r *releaser) let(ctx context.Context, pod *corev1.Pod, what string, count *int) (gone bool, err error) {
	if _, err := r.strip(ctx, pod, nil, false); err != nil {
		return false, err
	}
	if count != nil {
		r.tell(pod, what, count)
	}
	return true, nil
}

func (r *releaser) tell(pod *corev1.Pod, what string, count *int) {
	*count++
	r.opts.Log.Info("pod released", "namespace", pod.Namespace, "pod", pod.Name, "uid", string(pod.UID), "reason", string(requeue.ReasonReleased), "what", what)
}
