package watcher

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Rows reads task instances; each row comes from a query that began after the call.
type Rows interface {
	Get(ctx context.Context, ref requeue.Ref) (task requeue.TaskInstance, found bool, err error)
}

// decide gathers what is known of a pod and decides, reading what the decision turns out to need.
func (w *Watcher) decide(ctx context.Context, p *heldPod, fresh fresher) (requeue.Decision, requeue.Input, error) {
	in, err := w.gather(ctx, p, fresh)
	if err != nil {
		return requeue.Decision{}, in, err
	}
	for {
		d := requeue.Decide(in, w.opts.Policy, w.clock.Now())
		if d.Action != requeue.Read {
			return w.braked(in, d), in, nil
		}
		if d.Need == requeue.NeedRow {
			err = w.readRow(ctx, &in)
		} else {
			err = w.readSiblings(ctx, &in)
		}
		if err != nil {
			return requeue.Decision{}, in, err
		}
	}
}

// gather collects what costs nothing.
func (w *Watcher) gather(ctx context.Context, p *heldPod, fresh fresher) (requeue.Input, error) {
	now := w.clock.Now()
	in := requeue.Input{Pod: w.asHeld(p.Pod), Seal: p.seal, NamespaceTerminating: w.terminating(p.Namespace)}
	if in.Seal.State == requeue.SealUnknownKey {
		fresh, err := w.get(ctx, p.Pod) // the informer's has no job spec to verify again
		if err != nil {
			return in, err
		}
		in.Pod, in.Seal = w.asHeld(fresh), w.sealer.Verify(fresh)
	}
	in.Siblings.Pods = w.siblings(p)
	if created := fresh.created; created != nil { // newer than the informer's, if that has it
		in.Siblings.Pods = slices.DeleteFunc(in.Siblings.Pods, func(s *corev1.Pod) bool { return s.UID == created.UID || s.UID == fresh.gone })
		if created.UID != p.UID {
			in.Siblings.Pods = append(in.Siblings.Pods, created)
		}
	}
	w.memory.of(p.UID, func(m *podMemory) {
		if m.endedSince.IsZero() && requeue.Ended(p.Pod) {
			m.endedSince = now
		}
		if m.unknownSince.IsZero() && in.Seal.State == requeue.SealUnknownKey {
			m.unknownSince = now
		}
		in.SeenQueued, in.Seal.Since, in.Refused = m.seenQueued, m.unknownSince, m.refused
		in.NamespaceTerminating = in.NamespaceTerminating || m.terminating
	})
	return in, nil
}

// siblings are the other tracked pods of the chain, as the informer has them.
func (w *Watcher) siblings(p *heldPod) []*corev1.Pod {
	informer, ok := w.pods[p.Namespace]
	if !ok {
		return nil
	}
	var pods []*corev1.Pod
	for _, t := range chainOf(informer.GetIndexer(), p.Namespace+"/"+p.Annotations[requeue.AnnotationOrigin]) {
		if t.uid != p.UID {
			pods = append(pods, t.held().Pod)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods
}

// readRow reads the task instance's row. That it can't be read is a fact like any other.
func (w *Watcher) readRow(ctx context.Context, in *requeue.Input) error {
	began := w.clock.Now()
	task, found, err := w.rows.Get(ctx, in.Seal.Job.Ref)
	if ctx.Err() != nil {
		return fmt.Errorf("reading task instance %s: %w", in.Seal.Job.Ref.Key, ctx.Err())
	}
	now := w.clock.Now()
	since := w.database.observe(err, began, now)
	w.memory.of(in.Pod.UID, func(m *podMemory) {
		if own := m.unread(err, now); own.Before(since) {
			since = own
		}
	})
	switch {
	case err != nil:
		in.Row = requeue.Lookup{State: requeue.Unreadable, Since: since}
		return nil //nolint:nilerr // what can't be read is decided on too
	case !found:
		in.Row = requeue.Lookup{State: requeue.Absent}
		return nil
	}
	if task.Key == in.Seal.Job.Ref.Key {
		task.Key = in.Seal.Job.Ref.Key // once in memory
	}
	if task.ID == in.Seal.Job.Ref.ID {
		task.ID = in.Seal.Job.Ref.ID
	}
	task.State = requeue.State(shared(string(task.State)))
	in.Row = requeue.Lookup{State: requeue.Found, Task: task}
	w.memory.of(in.Pod.UID, func(m *podMemory) { in.Row.Since = m.saw(task, requeue.Worker(in.Pod), now) })
	in.Spent = w.memory.spent(queueingOf(in.Seal.Job, task.QueuedAt), in.Pod.UID)
	in.SeenQueued = requeue.SeenQueued(*in, w.opts.Policy)
	w.memory.of(in.Pod.UID, func(m *podMemory) { m.seenQueued = in.SeenQueued })
	return nil
}

// readSiblings lists the task instance's pods live, those that nobody tracks any more too.
func (w *Watcher) readSiblings(ctx context.Context, in *requeue.Input) error {
	family, err := w.family(ctx, in.Pod)
	if err != nil {
		return err
	}
	siblings := requeue.Siblings{Live: true}
	for i := range family {
		// Label values are cut and hashed: two task instances may share them, but not the raw annotations. A pod whose
		// seal is broken names no task instance that is believed, but its replacement names the pod.
		s := &family[i]
		if s.UID != in.Pod.UID && (requeue.SameTaskInstance(s, in.Seal.Job.Ref.Key) || requeue.RequeueOf(s) == string(in.Pod.UID)) {
			siblings.Pods = append(siblings.Pods, s)
		}
	}
	in.Siblings = siblings
	return nil
}

// remember keeps how a create was refused, and when to try again: after 5 s, doubled each time up to a minute.
func (w *Watcher) remember(uid types.UID, kind requeue.RefusalKind, namespaceTerminating bool, message string) {
	w.memory.of(uid, func(m *podMemory) {
		wait := min(5*time.Second<<min(m.refusals, 4), time.Minute)
		m.refusals++
		m.terminating = namespaceTerminating
		m.refused = requeue.Refusal{Kind: kind, Message: message, RetryAt: w.clock.Now().Add(wait)}
	})
}
