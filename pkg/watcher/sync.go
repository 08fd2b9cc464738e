package watcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
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
	p := w.lookUp(name)
	if p == nil || !w.memory.take(p.UID) {
		return 0, nil
	}
	defer w.memory.leave(p.UID)
	if requeue.Observed(p.Pod) {
		return w.observe(ctx, p)
	}
	fresh := fresher{events: func() {}}
	defer func() { fresh.events() }()
	after, err := w.settle(ctx, p, &fresh)
	if fresh.created != nil {
		w.goOn(ctx, &fresh)
	}
	if fresh.gone != "" {
		return 0, err
	}
	return after, err
}

// goOn takes a replacement on from where its predecessor's sync has left it: on its own, and known as it is. Where that has not let go
// of its predecessor, or anything goes wrong here, the event that says so begins anew.
func (w *Watcher) goOn(ctx context.Context, fresh *fresher) {
	w.take(fresh)
	if fresh.inHand == "" {
		return
	}
	pod := fresh.created
	var after time.Duration
	var err error
	if fresh.gone != "" && fresh.inHand == pod.UID {
		after, err = w.settle(ctx, &heldPod{Pod: pod, seal: w.sealer.Verify(pod)}, fresh)
	}
	asked := w.memory.leave(fresh.inHand)
	q := w.queue.Load()
	switch name := cache.MetaObjectToName(pod); {
	case q == nil:
	case asked || err != nil:
		(*q).Add(name)
	case after > 0:
		(*q).AddAfter(name, after)
	}
}

// take takes a replacement in hand, unless another sync has it, so that nobody looks at it while it is made what it is to be: he would
// read its row for nothing, and decide on a pod that is not so any more.
func (w *Watcher) take(fresh *fresher) {
	if fresh.inHand == "" && w.memory.take(fresh.created.UID) {
		fresh.inHand = fresh.created.UID
	}
	if fresh.inHand == fresh.created.UID {
		w.memory.wrote(fresh.created)
	}
}

// fresher is what a sync knows and the informer may not yet.
type fresher struct {
	created *corev1.Pod // a replacement
	inHand  types.UID   // it, where no other sync has it
	gone    types.UID   // its predecessor, once that is let go
	events  func()      // are still to be told, when there is time
}

// settle takes a pod as far as it can go now.
func (w *Watcher) settle(ctx context.Context, p *heldPod, fresh *fresher) (time.Duration, error) {
	for range maxSteps {
		next, after, err := w.step(ctx, p, fresh)
		if errors.Is(err, errStale) {
			next, err = w.reread(ctx, p.Pod)
		}
		switch {
		case apierrors.IsNotFound(err):
			return 0, nil // gone meanwhile: its DELETED event says the rest
		case err != nil || next == nil:
			return after, err
		}
		p = next
	}
	return time.Second, nil
}

// step decides on a pod and does the one write of the decision. It returns the pod as it is then, or nil when nothing
// is to be done for now.
func (w *Watcher) step(ctx context.Context, p *heldPod, fresh *fresher) (next *heldPod, after time.Duration, err error) {
	d, in, err := w.decide(ctx, p, *fresh)
	if err != nil {
		return nil, 0, err
	}
	if d.Action == requeue.Wait || d.Action == requeue.Ignore {
		return nil, d.After, nil
	}
	out, err := w.apply(ctx, in, d)
	if out.created != nil {
		fresh.created = out.created
		w.take(fresh)
	}
	if out.events != nil {
		fresh.events = out.events
	}
	if err == nil && d.Action == requeue.Strip && d.Reason == requeue.ReasonReplaced && fresh.created != nil && requeue.Committed(fresh.created) {
		fresh.gone = p.UID
	}
	if err != nil || out.pod == nil {
		return nil, 0, err
	}
	return &heldPod{Pod: out.pod, seal: in.Seal}, 0, nil
}

// reread returns the pod as the API server has it; nil when it is not tracked any more.
func (w *Watcher) reread(ctx context.Context, pod *corev1.Pod) (*heldPod, error) {
	w.metrics.conflicts.Inc()
	fresh, err := w.get(ctx, pod)
	if err != nil || !requeue.Tracked(fresh) {
		return nil, err
	}
	return &heldPod{Pod: fresh, seal: w.sealer.Verify(fresh)}, nil
}

// outcome is what a write left behind.
type outcome struct {
	pod     *corev1.Pod // the pod as it is now, to decide on again; nil: nothing more to do for now
	created *corev1.Pod // its replacement, just created or committed
	events  func()      // says on both that it was created
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
		out.pod, err = w.delete(ctx, pod)
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
		out, err = w.takeOver(ctx, in, d)
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
	w.tell(in, d)
	w.unbraked(in, d)
	if out.pod == nil {
		return out, nil
	}
	w.memory.wrote(out.pod)
	if !requeue.Tracked(out.pod) {
		if d.Reason == requeue.ReasonReplaced && w.opts.ReplacedPodTTL == 0 {
			_, err = w.delete(ctx, out.pod)
			err = ignoreGone(err)
		}
		out.pod = nil
	}
	return out, err
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || errors.Is(err, errStale) {
		return nil
	}
	return err
}
