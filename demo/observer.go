package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// record is what is known of one task's pods.
type record struct {
	pods    []*corev1.Pod // as seen last, in the order of their creation
	ended   map[types.UID]time.Time
	free    map[types.UID]time.Time // their gate was seen off
	did     map[types.UID][]outcome // the observer's
	saw     []string                // by the executor, as "pod 1 failed", each once
	without []string                // by the executor, were there no hold
	over    bool                    // Airflow is done with the task's try
}

// outcome is one thing that airflow-requeue did to a pod, such as "replaced (Evicted)".
type outcome struct {
	at   time.Time
	text string
}

// outcomes are all outcomes of the task's pods, in their order.
func (r *record) outcomes() []string {
	var all []outcome
	for _, pod := range r.pods {
		all = append(all, r.did[pod.UID]...)
	}
	slices.SortStableFunc(all, func(a, b outcome) int { return a.at.Compare(b.at) })
	var texts []string
	for _, did := range all {
		texts = append(texts, did.text)
	}
	return texts
}

// number is a pod's place in the chain, from 1; 0 for a pod that was not seen.
func (r *record) number(uid types.UID) int {
	return 1 + slices.IndexFunc(r.pods, func(p *corev1.Pod) bool { return p.UID == uid })
}

// predecessor is the pod that the given one replaces.
func (r *record) predecessor(pod *corev1.Pod) *corev1.Pod {
	if i := r.number(types.UID(requeue.RequeueOf(pod))); i > 0 {
		return r.pods[i-1]
	}
	return nil
}

// recoveries are the times from a pod's end to its replacement's being free to run.
func (r *record) recoveries() []time.Duration {
	var took []time.Duration
	for _, pod := range r.pods {
		free, ok := r.free[pod.UID]
		if ended, was := r.ended[types.UID(requeue.RequeueOf(pod))]; ok && was {
			took = append(took, free.Sub(ended))
		}
	}
	return took
}

// observer follows pods and Events as anybody can, tells of them, and keeps records by task.
type observer struct {
	client kubernetes.Interface // an administrator's
	show   *timeline

	mu      sync.Mutex
	records map[string]*record
	did     map[types.UID][]outcome
	changed chan struct{} // closed, and replaced, at every change
}

func newObserver(client kubernetes.Interface, show *timeline) *observer {
	return &observer{client: client, show: show, records: map[string]*record{}, did: map[types.UID][]outcome{}, changed: make(chan struct{})}
}

// begin returns when pods and Events are followed; they are until the context ends.
func (o *observer) begin(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(o.client, 0, informers.WithNamespace(namespace))
	pods, events := factory.Core().V1().Pods().Informer(), factory.Events().V1().Events().Informer()
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { o.pod(nil, obj) },
		UpdateFunc: o.pod,
	})
	if err != nil {
		return fmt.Errorf("following pods: %w", err)
	}
	if _, err := events.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: o.event}); err != nil {
		return fmt.Errorf("following Events: %w", err)
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced, events.HasSynced) {
		return fmt.Errorf("following pods and Events: %w", context.Cause(ctx))
	}
	return nil
}

// change runs f on a task's record and wakes those who wait.
func (o *observer) change(task string, f func(*record)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, ok := o.records[task]
	if !ok {
		r = &record{ended: map[types.UID]time.Time{}, free: map[types.UID]time.Time{}, did: o.did}
		o.records[task] = r
	}
	f(r)
	o.wake()
}

// wake wakes those who wait; its caller holds the lock.
func (o *observer) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// await waits until a task's record is as wanted.
func (o *observer) await(ctx context.Context, task string, want func(*record) bool) error {
	for {
		o.mu.Lock()
		r, known := o.records[task]
		done := known && want(r)
		changed := o.changed
		o.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// pod takes a pod's change: what it was, nil at first, and what it is.
func (o *observer) pod(oldObj, obj any) {
	old, _ := oldObj.(*corev1.Pod)
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Annotations["task_id"] == "" {
		return
	}
	now := time.Now()
	o.change(pod.Annotations["task_id"], func(r *record) {
		if i := r.number(pod.UID); i > 0 {
			r.pods[i-1] = pod
		} else {
			r.pods = append(r.pods, pod)
		}
		if _, was := r.ended[pod.UID]; !was && requeue.Ended(pod) {
			r.ended[pod.UID] = now
		}
		if _, was := r.free[pod.UID]; !was && !requeue.Gated(pod) {
			r.free[pod.UID] = now
		}
		if released(old, pod) && pod.Status.Phase != corev1.PodFailed {
			o.did[pod.UID] = append(o.did[pod.UID], outcome{now, "released"})
		}
		for _, l := range narrate(old, pod, r) {
			l.at, l.mark = now, mark{pod.UID, pod.ResourceVersion}
			l.unseen = l.ending && r.number(pod.UID) == 1 && len(r.without) == 0
			if l.text == nil {
				l.text = func() string { return o.reported(pod) }
			}
			o.show.add(l)
		}
	})
}

// event takes an Event of airflow-requeue.
func (o *observer) event(obj any) {
	event, ok := obj.(*eventsv1.Event)
	if !ok {
		return
	}
	did := map[string]string{"Requeue": "replaced", "Report": "reported", "Delete": "deleted", "Discard": "discarded"}[event.Action]
	if did == "" || event.Related != nil && event.Regarding.Name > event.Related.Name { // told on the replacement, too
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	uid := event.Regarding.UID
	o.did[uid] = append(o.did[uid], outcome{event.EventTime.Time, fmt.Sprintf("%s (%s)", did, event.Reason)})
	o.wake()
}

// reported says why a pod was reported. The Event that says so may come after the pod's change.
func (o *observer) reported(pod *corev1.Pod) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, did := range o.did[pod.UID] {
		if did.text != "released" {
			return fmt.Sprintf("lifts the hold: %s is %s", short(pod), did.text)
		}
	}
	return "lifts the hold: " + short(pod) + " is reported"
}

// sight takes what a watch of the executor would put in its queue: the real watch, or the one that overlooks the hold.
// It says whether this is the first of its kind: watches see the same again.
func (o *observer) sight(seen executor.Seen, ignoresHold bool) (first bool) {
	o.change(seen.Key.TaskID, func(r *record) {
		number := r.number(seen.UID)
		if ignoresHold {
			// Without us there would be no second pod, and what comes after the first sight comes of us.
			if number <= 1 && len(r.without) == 0 {
				r.without = append(r.without, string(seen.State))
				o.show.see(mark{seen.UID, seen.ResourceVersion}, seen.Pod.Name, sights{without: string(seen.State)})
			}
			return
		}
		text := fmt.Sprintf("pod %d %s", number, seen.State)
		if first = !slices.Contains(r.saw, text); first {
			r.saw = append(r.saw, text)
			o.show.see(mark{seen.UID, seen.ResourceVersion}, seen.Pod.Name, sights{saw: string(seen.State)})
		}
	})
	return first
}
