package watcher

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// observation is what is remembered of a pod that is only looked at.
type observation struct {
	recorded map[string]string // the annotations that would be on it
	seen     bool
	told     bool
}

// asHeld is the pod that is decided on: an observed one as if it were held.
func (w *Watcher) asHeld(pod *corev1.Pod) *corev1.Pod {
	if !requeue.Observed(pod) {
		return pod
	}
	var recorded map[string]string
	w.memory.of(pod.UID, func(m *podMemory) { recorded = maps.Clone(m.observation.recorded) })
	return requeue.AsHeld(pod, recorded)
}

// observe decides on an observed pod and tells, once, what would become of it. It writes nothing.
func (w *Watcher) observe(ctx context.Context, p *heldPod) (after time.Duration, err error) {
	if w.toldOf(p) {
		w.vanished.forget(p)
		return 0, nil
	}
	for range maxSteps {
		d, in, err := w.decide(ctx, p, fresher{})
		switch {
		case apierrors.IsNotFound(err):
			w.vanished.forget(p)
			return 0, nil
		case err != nil:
			return 0, err
		}
		switch d.Action {
		case requeue.Wait, requeue.Ignore:
			return d.After, nil
		case requeue.Record:
			w.memory.of(p.UID, func(m *podMemory) {
				if m.observation.recorded == nil {
					m.observation.recorded = map[string]string{}
				}
				maps.Copy(m.observation.recorded, d.Annotations)
			})
		default:
			w.memory.of(p.UID, func(m *podMemory) { m.observation.told = true })
			w.vanished.forget(p)
			w.tellObserved(ctx, in, d)
			return 0, nil
		}
	}
	return time.Second, nil
}

// toldOf reports whether there is nothing more to tell of the pod. What had ended before anybody looked, too long ago to
// be replaced, was told by the process before this one: nothing takes the tracked label off it.
func (w *Watcher) toldOf(p *heldPod) (told bool) {
	old := w.clock.Since(p.CreationTimestamp.Time) > w.opts.Policy.TaskQueuedTimeout
	w.memory.of(p.UID, func(m *podMemory) {
		o := &m.observation
		o.told = o.told || !o.seen && old && requeue.Ended(p.Pod)
		o.seen = true
		told = o.told
	})
	return told
}

// tellObserved is tell for what would have been done.
func (w *Watcher) tellObserved(ctx context.Context, in requeue.Input, d requeue.Decision) {
	outcome, level, words := d.Action.String(), slog.LevelInfo, ""
	switch d.Action {
	case requeue.Release:
		level = slog.LevelDebug
	case requeue.Report, requeue.MarkFailed:
		outcome, words = requeue.Report.String(), "reported to Airflow"
	case requeue.Delete:
		words = "deleted"
	case requeue.Discard:
		words = "kept from Airflow"
	case requeue.Detach, requeue.Create, requeue.Commit:
		outcome, words = "requeue", "replaced"
		// Airflow's next pod of this queueing stands for the replacement.
		w.memory.spend(queueingOf(in.Seal.Job, in.Row.Task.QueuedAt), in.Pod.UID, w.clock.Now())
	}
	w.metrics.observed.WithLabelValues(outcome, string(d.Reason)).Inc()
	w.log.Log(ctx, level, "pod observed", append([]any{slog.String("would", outcome)}, w.attrs(in, d)...)...)
	if words != "" {
		w.event(in.Pod, nil, corev1.EventTypeNormal, d.Reason, "Observe", "Observed: would be "+words+": "+d.Message)
	}
}

// vanished are observed pods whose objects went before their end was told: no finalizer keeps them.
type vanished struct {
	mu   sync.Mutex
	pods map[cache.ObjectName]*heldPod
}

// keep keeps an observed pod that has gone, to tell of its end. One that only left the selection has not ended.
func (w *Watcher) keep(p *heldPod) bool {
	if w.queue.Load() == nil || !requeue.Observed(p.Pod) || !requeue.Ended(p.Pod) && p.DeletionTimestamp == nil || w.toldOf(p) {
		return false
	}
	last := *p.Pod
	if !requeue.Ended(&last) {
		last.Status.Phase = corev1.PodFailed // as its kubelet would have said, had the object stayed
	}
	w.vanished.mu.Lock()
	defer w.vanished.mu.Unlock()
	if w.vanished.pods == nil {
		w.vanished.pods = map[cache.ObjectName]*heldPod{}
	}
	w.vanished.pods[cache.MetaObjectToName(p)] = &heldPod{Pod: &last, seal: p.seal}
	return true
}

func (v *vanished) forget(p *heldPod) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if name := cache.MetaObjectToName(p); v.pods[name] != nil && v.pods[name].UID == p.UID {
		delete(v.pods, name)
	}
}

func (v *vanished) addTo(pods map[types.UID]cache.ObjectName) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, p := range v.pods {
		pods[p.UID] = name
	}
}

// lookUp returns a pod as the informer has it, or as it was when it vanished; nil where there is none, or where the event of our
// own last write to it is still to come.
func (w *Watcher) lookUp(name cache.ObjectName) *heldPod {
	if t := w.cached(name); t != nil {
		if w.memory.behind(t.uid, t.version) {
			return nil
		}
		return t.held()
	}
	w.vanished.mu.Lock()
	defer w.vanished.mu.Unlock()
	return w.vanished.pods[name]
}
