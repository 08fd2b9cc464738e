// Package watcher settles held pods: it gathers what is known of one, lets requeue.Decide say what comes next, and does
// that one write, until nothing is left to do.
package watcher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// resync is how often every tracked pod is looked at again though nothing happened: a net under the events.
const resync = 10 * time.Minute

// Options say what a Watcher serves, and how.
type Options struct {
	Installation   string   // the value of the tracked label
	Namespaces     []string // of the worker pods
	Policy         requeue.Policy
	ReplacedPodTTL time.Duration // how long replaced pods are kept; 0 deletes at once
	Workers        int           // pods settled at the same time
	StormBreaker   int           // pods that may begin to be replaced within a minute; 0 for any number
}

// Watcher settles the held pods of one installation. Start it, then Lead as long as the Lease is held.
type Watcher struct {
	writer
	opts       Options
	rows       Rows
	sealer     *requeue.Sealer
	events     events.EventRecorder
	clock      clock.WithTicker
	log        *slog.Logger
	metrics    *metrics
	memory     *memory
	database   *database
	storm      *storm
	vanished   vanished
	pods       map[string]cache.SharedIndexInformer // by namespace
	namespaces map[string]cache.SharedIndexInformer
	leading    atomic.Bool
	queue      atomic.Pointer[queue] // while leading
}

type queue = workqueue.TypedRateLimitingInterface[cache.ObjectName]

// Dependencies are what a Watcher works with.
type Dependencies struct {
	Client   kubernetes.Interface
	Rows     Rows
	Sealer   *requeue.Sealer
	Events   events.EventRecorder
	Clock    clock.WithTicker
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// New returns a Watcher that does nothing yet.
func New(opts Options, d Dependencies) (*Watcher, error) {
	w := &Watcher{writer: writer{d.Client}, opts: opts, rows: d.Rows, sealer: d.Sealer, events: d.Events, clock: d.Clock, log: d.Log,
		memory: newMemory(), database: &database{log: d.Log}, storm: newStorm(opts.StormBreaker),
		pods: map[string]cache.SharedIndexInformer{}, namespaces: map[string]cache.SharedIndexInformer{}}
	for _, ns := range opts.Namespaces {
		informer, err := newPodInformer(d.Client, ns, opts.Installation, d.Sealer)
		if err != nil {
			return nil, err
		}
		if _, err := informer.AddEventHandler(w.handler(informer)); err != nil {
			return nil, fmt.Errorf("adding the pod informer's handler: %w", err)
		}
		w.pods[ns] = informer
		w.namespaces[ns] = newNamespaceInformer(d.Client, ns)
		if _, err := w.namespaces[ns].AddEventHandler(w.namespaceHandler()); err != nil {
			return nil, fmt.Errorf("adding the namespace informer's handler: %w", err)
		}
	}
	gauge := func(on func() bool) func() float64 {
		return func() float64 {
			if on() {
				return 1
			}
			return 0
		}
	}
	var err error
	w.metrics, err = newMetrics(d.Registry, func() float64 { return float64(len(w.tracked())) }, gauge(w.database.readable), gauge(w.leading.Load),
		gauge(w.storm.open))
	if err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return w, nil
}

// Query takes note of a query to the metadata database: how long it took, how many task instances it asked for, and
// how it ended.
func (w *Watcher) Query(took time.Duration, rows int, err error) {
	w.metrics.queries.Observe(took.Seconds())
	w.metrics.rows.Add(float64(rows))
	if err != nil {
		w.metrics.failures.Inc()
	}
}

// Start runs the informers until the context ends, and returns when they have all pods. A replica that does not lead
// keeps them as well, so that it can take over at once.
func (w *Watcher) Start(ctx context.Context) error {
	var synced []cache.InformerSynced
	for _, ns := range w.opts.Namespaces {
		for _, informer := range []cache.SharedIndexInformer{w.pods[ns], w.namespaces[ns]} {
			go informer.RunWithContext(ctx)
			synced = append(synced, informer.HasSynced)
		}
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("waiting for the informers: %w", context.Cause(ctx))
	}
	return nil
}

// Synced reports whether all held pods are known.
func (w *Watcher) Synced() bool {
	for _, ns := range w.opts.Namespaces {
		if !w.pods[ns].HasSynced() || !w.namespaces[ns].HasSynced() {
			return false
		}
	}
	return true
}

// DatabaseError is how the last read of the metadata database failed; nil when it did not.
func (w *Watcher) DatabaseError() error { return w.database.lastError() }

// Lead settles pods until the context ends, and returns when the last write under way is done.
func (w *Watcher) Lead(ctx context.Context) {
	q := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](10*time.Millisecond, 30*time.Second),
		workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{Name: "pods", Clock: w.clock})
	w.queue.Store(&q)
	w.leading.Store(true)
	defer w.leading.Store(false)
	for _, name := range w.tracked() {
		q.Add(name)
	}
	var group sync.WaitGroup
	for range w.opts.Workers {
		group.Go(func() {
			for w.next(ctx, q) {
			}
		})
	}
	group.Go(func() { w.watchDatabase(ctx) })
	group.Go(func() { w.cleanUp(ctx) })
	if w.opts.StormBreaker > 0 {
		group.Go(func() { w.watchStorm(ctx) })
	}
	<-ctx.Done()
	w.queue.Store(nil)
	q.ShutDown()
	group.Wait()
}

// next settles one pod of the queue.
func (w *Watcher) next(ctx context.Context, q queue) bool {
	name, shutdown := q.Get()
	if shutdown {
		return false
	}
	defer q.Done(name)
	after, err := w.sync(ctx, name)
	switch {
	case ctx.Err() != nil:
		return true
	case errors.Is(err, errLater):
		w.metrics.conflicts.Inc()
		q.AddRateLimited(name)
		return true
	case err != nil:
		w.metrics.errors.Inc()
		if worthALine(err, q.NumRequeues(name)) {
			w.log.Warn("settling a pod failed, trying again", "namespace", name.Namespace, "pod", name.Name, "error", err)
		}
		q.AddRateLimited(name)
		return true
	}
	q.Forget(name)
	if after > 0 {
		q.AddAfter(name, after)
	}
	return true
}

// handler only enqueues. A pod that is let go may be what its siblings wait for.
func (w *Watcher) handler(informer cache.SharedIndexInformer) cache.ResourceEventHandler {
	enqueue := func(obj any) {
		q := w.queue.Load()
		if t, ok := obj.(*trackedPod); ok && q != nil {
			(*q).Add(t.objectName())
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue,
		// That of our own last write too: whoever looked for the pod before it came was told to wait for it (see lookUp).
		UpdateFunc: func(_, obj any) { enqueue(obj) },
		DeleteFunc: func(obj any) {
			if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = t.Obj
			}
			t, ok := obj.(*trackedPod)
			if !ok {
				return
			}
			if w.keep(t.held()) {
				enqueue(t)
				return
			}
			w.memory.forget(t.uid)
			for _, s := range chainOf(informer.GetIndexer(), t.chainKey()) {
				enqueue(s)
			}
		},
	}
}

// chainOf returns the tracked pods of a chain: its replacements, and its first pod.
func chainOf(pods cache.Indexer, key string) []*trackedPod {
	replacements, err := pods.ByIndex(byChain, key)
	if err != nil {
		return nil // the index is there since the informer is
	}
	var all []*trackedPod
	for _, obj := range replacements {
		if t, ok := obj.(*trackedPod); ok {
			all = append(all, t)
		}
	}
	if first, ok, err := pods.GetByKey(key); ok && err == nil {
		if t, ok := first.(*trackedPod); ok && t.chain == t.name {
			all = append(all, t)
		}
	}
	return all
}

// namespaceHandler wakes the pods of a namespace that is being deleted: it waits for their finalizers.
func (w *Watcher) namespaceHandler() cache.ResourceEventHandler {
	wake := func(obj any) {
		q := w.queue.Load()
		ns, ok := obj.(*corev1.Namespace)
		if !ok || q == nil || ns.Status.Phase != corev1.NamespaceTerminating {
			return
		}
		for _, name := range w.pods[ns.Name].GetStore().ListKeys() {
			if key, err := cache.ParseObjectName(name); err == nil {
				(*q).Add(key)
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(_, obj any) { wake(obj) }}
}

// cached returns a pod as the informer keeps it, or nil.
func (w *Watcher) cached(name cache.ObjectName) *trackedPod {
	informer, ok := w.pods[name.Namespace]
	if !ok {
		return nil
	}
	obj, exists, err := informer.GetStore().GetByKey(name.String())
	if err != nil || !exists {
		return nil
	}
	t, ok := obj.(*trackedPod)
	if !ok {
		return nil
	}
	return t
}

// all are the tracked pods, as the informers keep them.
func (w *Watcher) all() iter.Seq[*trackedPod] {
	return func(yield func(*trackedPod) bool) {
		for _, informer := range w.pods {
			for _, obj := range informer.GetStore().List() {
				if t, ok := obj.(*trackedPod); ok && !yield(t) {
					return
				}
			}
		}
	}
}

// tracked returns the names of all tracked pods, and of those that vanished.
func (w *Watcher) tracked() map[types.UID]cache.ObjectName {
	pods := map[types.UID]cache.ObjectName{}
	for t := range w.all() {
		pods[t.uid] = t.objectName()
	}
	w.vanished.addTo(pods)
	return pods
}

// terminating reports whether the namespace is being deleted.
func (w *Watcher) terminating(namespace string) bool {
	informer, ok := w.namespaces[namespace]
	if !ok {
		return false
	}
	obj, exists, err := informer.GetStore().GetByKey(namespace)
	if err != nil || !exists {
		return false
	}
	ns, ok := obj.(*corev1.Namespace)
	return ok && ns.Status.Phase == corev1.NamespaceTerminating
}
