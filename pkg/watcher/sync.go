package watcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// maxSteps bounds the writes of one sync; a requeue takes four. What is left over goes on in the next.
const maxSteps = 16

// errLater says that the informer is behind on a sibling: the decision is made again when it has caught up.
var errLater = errors.New("a sibling has changed")

// sync takes a pod as far as it can go now: decide, write once, decide again on what the write returned. It returns
// when to look again; 0 leaves that to the next event.
func (w *Watcher) sync(ctx context.Context, name cache.ObjectName) (time.Duration, error) {
	p := w.cached(name)
	if p == nil || w.memory.behind(p.Pod) {
		return 0, nil
	}
	var created *corev1.Pod // a replacement that the informer may not have yet
	for range maxSteps {
		d, in, err := w.decide(ctx, p, created)
		if err == nil {
			if d.Action == requeue.Wait || d.Action == requeue.Ignore {
				return d.After, nil
			}
			var out outcome
			out, err = w.apply(ctx, in, d)
			if out.created != nil {
				created = out.created
			}
			if err == nil {
				if out.pod == nil {
					return 0, nil
				}
				p = &heldPod{Pod: out.pod, seal: in.Seal}
				continue
			}
		}
		if apierrors.IsNotFound(err) {
			return 0, nil // gone meanwhile: its DELETED event says the rest
		}
		if !errors.Is(err, errStale) {
			return 0, err
		}
		w.metrics.conflicts.Inc()
		fresh, err := w.get(ctx, p.Pod)
		if apierrors.IsNotFound(err) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if !requeue.Tracked(fresh) {
			return 0, nil
		}
		p = &heldPod{Pod: fresh, seal: w.sealer.Verify(fresh)}
	}
	return time.Second, nil
}

// outcome is what a write left behind.
type outcome struct {
	pod     *corev1.Pod // the pod as it is now, to decide on again; nil: nothing more to do for now
	created *corev1.Pod // its replacement, just created or committed
}

// apply does the one write of a decision, and tells of it.
func (w *Watcher) apply(ctx context.Context, in requeue.Input, d requeue.Decision) (outcome, error) {
	pod := in.Pod
	var out outcome
	var err error
	switch d.Action {
	case requeue.Record:
		out.pod, err = w.annotate(ctx, pod, d.Annotations)
	case requeue.Delete:
		err = w.writer.delete(ctx, pod)
	case requeue.Ungate:
		out.pod, err = w.ungate(ctx, pod, d.Worker)
	case requeue.MarkFailed:
		out.pod, err = w.markFailed(ctx, pod, d.Reason, d.Message)
	case requeue.Detach:
		out.pod, err = w.detach(ctx, pod, d.Annotations)
	case requeue.Attach:
		out.pod, err = w.attach(ctx, pod, d.Worker)
	case requeue.Create:
		out, err = w.replace(ctx, in, d)
	case requeue.Commit:
		out, err = w.takeOver(ctx, pod, d)
	case requeue.Discard:
		out.pod, err = w.detach(ctx, pod, map[string]string{
			requeue.AnnotationDiscarded: "true", requeue.AnnotationReason: string(d.Reason), requeue.AnnotationMessage: d.Message})
	case requeue.Release, requeue.Report:
		out.pod, err = w.lift(ctx, pod, d.Worker, d.Linger, w.clock.Now())
	case requeue.Strip:
		out.pod, err = w.strip(ctx, pod, d.Annotations, d.Reason == requeue.ReasonReplaced)
	default:
		return outcome{}, fmt.Errorf("applying a decision: %s is no write", d.Action)
	}
	if err != nil {
		return out, err
	}
	w.tell(in, d, out)
	if out.pod == nil {
		return out, nil
	}
	w.memory.wrote(out.pod)
	if !requeue.Tracked(out.pod) {
		if d.Reason == requeue.ReasonReplaced && w.opts.ReplacedPodTTL == 0 {
			err = ignoreGone(w.writer.delete(ctx, out.pod))
		}
		out.pod = nil
	}
	return out, err
}

// replace creates the replacement. The name is the same each time, so a second create of the same replacement meets the
// first; how a refusal was worded is remembered for the next decision.
func (w *Watcher) replace(ctx context.Context, in requeue.Input, d requeue.Decision) (outcome, error) {
	old := in.Pod
	if old.Annotations[requeue.AnnotationJobSpec] == "" { // the informer's has none
		fresh, err := w.get(ctx, old)
		if err != nil {
			return outcome{}, err
		}
		if fresh.ResourceVersion != old.ResourceVersion {
			return outcome{}, fmt.Errorf("replacing pod %s/%s: %w", old.Namespace, old.Name, errStale)
		}
		old = fresh
	}
	for _, taken := range []bool{false, true} {
		name := requeue.ReplacementName(old, d.Next, taken)
		body, err := w.sealer.Replacement(old, d.Next, name)
		if err != nil {
			w.remember(old.UID, requeue.RefusedForGood, false, "the replacement can't be built: "+err.Error())
			return outcome{pod: in.Pod}, nil
		}
		pod, err := w.create(ctx, old.Namespace, body)
		switch {
		case err == nil:
			w.memory.spend(queueingOf(in.Seal.Job, d.Next.QueuedAt), old.UID, w.clock.Now())
			w.tellReplaced(in, d, pod)
			return outcome{pod: in.Pod, created: pod}, nil
		case apierrors.IsAlreadyExists(err):
			existing, err := w.client.CoreV1().Pods(old.Namespace).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return outcome{}, fmt.Errorf("creating pod %s/%s: %w", old.Namespace, name, errLater)
			}
			if err != nil {
				return outcome{}, fmt.Errorf("reading pod %s/%s: %w", old.Namespace, name, err)
			}
			if requeue.RequeueOf(existing) == string(old.UID) {
				return outcome{pod: in.Pod, created: existing}, nil
			}
			// A stranger has the name.
		default:
			kind, terminating, answered := refusal(err)
			if !answered {
				return outcome{}, fmt.Errorf("creating pod %s/%s: %w", old.Namespace, name, err)
			}
			w.remember(old.UID, kind, terminating, err.Error())
			return outcome{pod: in.Pod}, nil
		}
	}
	w.remember(old.UID, requeue.RefusedForNow, false, "both names of the replacement are taken")
	return outcome{pod: in.Pod}, nil
}

// takeOver commits the replacement, while the old pod is live as it was decided on: a create that lands late finds it
// changed.
func (w *Watcher) takeOver(ctx context.Context, old *corev1.Pod, d requeue.Decision) (outcome, error) {
	fresh, err := w.get(ctx, old)
	if err != nil {
		return outcome{}, err
	}
	if fresh.ResourceVersion != old.ResourceVersion {
		return outcome{}, fmt.Errorf("committing pod %s/%s: %w", old.Namespace, d.Replacement.Name, errStale)
	}
	committed, err := w.commit(ctx, d.Replacement, d.Worker)
	if errors.Is(err, errStale) || apierrors.IsNotFound(err) {
		return outcome{}, fmt.Errorf("committing pod %s/%s: %w", old.Namespace, d.Replacement.Name, errLater)
	}
	if err != nil {
		return outcome{}, err
	}
	return outcome{pod: fresh, created: committed}, nil
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || errors.Is(err, errStale) {
		return nil
	}
	return err
}
