package world

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Record is what a watch on all pods of a World has shown, in the API server's own order, chain by chain: a pod that
// Airflow made and its replacements, named as the first of them. Whatever a test is about, the promises must hold all the
// time: it remembers where they did not.
type Record struct {
	mu     sync.Mutex
	chains map[string]*chain
}

type chain struct {
	there    map[string]*corev1.Pod
	replaced map[string]map[types.UID]bool // by requeue-of: the pods that ever claimed to replace it
	told     []string
	broken   []string
	changed  chan struct{} // closed, and made anew, with each event
}

// Record begins a record, which goes on until the test ends.
func (w *World) Record() *Record {
	w.T.Helper()
	r := &Record{chains: map[string]*chain{}}
	pods := w.Client.CoreV1().Pods(w.Namespace)
	list, err := pods.List(w.T.Context(), metav1.ListOptions{})
	require.NoError(w.T, err)
	for i := range list.Items {
		r.Add(watch.Event{Type: watch.Added, Object: &list.Items[i]})
	}
	// An API server under load ends the watch of a client that is not quick enough: it goes on where it was.
	events, err := toolswatch.NewRetryWatcherWithContext(w.T.Context(), list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return pods.Watch(ctx, options)
		}})
	require.NoError(w.T, err)
	go func() {
		for event := range events.ResultChan() {
			r.Add(event)
		}
	}()
	return r
}

// of is called with the lock held.
func (r *Record) of(name string) *chain {
	c, ok := r.chains[name]
	if !ok {
		c = &chain{there: map[string]*corev1.Pod{}, replaced: map[string]map[types.UID]bool{}, changed: make(chan struct{})}
		r.chains[name] = c
	}
	return c
}

// Add takes an event of the watch in.
func (r *Record) Add(event watch.Event) {
	pod, ok := event.Object.(*corev1.Pod)
	if !ok {
		return
	}
	name := pod.Annotations[requeue.AnnotationOrigin]
	if name == "" {
		name = pod.Name
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.of(name)
	c.told = append(c.told, fmt.Sprintf("%s %-8s %s", time.Now().Format("05.000"), event.Type, Describe(pod)))
	if event.Type == watch.Deleted {
		delete(c.there, pod.Name)
	} else {
		c.there[pod.Name] = pod
	}
	if of := requeue.RequeueOf(pod); of != "" {
		if c.replaced[of] == nil {
			c.replaced[of] = map[types.UID]bool{}
		}
		c.replaced[of][pod.UID] = true
	}
	c.check()
	close(c.changed)
	c.changed = make(chan struct{})
}

// check holds the promises against the pods of the chain as they are now.
func (c *chain) check() {
	var attached, running []string
	replacements := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(c.there)) {
		pod := c.there[name]
		if pod.Labels[requeue.LabelWorker] != "" {
			attached = append(attached, name)
		}
		if !requeue.Gated(pod) && !requeue.Ended(pod) {
			running = append(running, name)
		}
		if of := requeue.RequeueOf(pod); of != "" {
			replacements[of] = append(replacements[of], name)
		}
	}
	c.breach("two pods of a chain carry airflow-worker", attached)
	c.breach("two pods of a chain may run", running)
	for _, pods := range replacements {
		c.breach("one pod has two replacements", pods)
	}
}

func (c *chain) breach(what string, pods []string) {
	if line := fmt.Sprintf("%s: %v", what, pods); len(pods) > 1 && !slices.Contains(c.broken, line) {
		c.broken = append(c.broken, line)
	}
}

// Pods are the pods of a chain that are there, by name.
func (r *Record) Pods(name string) []*corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := r.of(name).there
	pods := make([]*corev1.Pod, 0, len(there))
	for _, pod := range slices.Sorted(maps.Keys(there)) {
		pods = append(pods, there[pod])
	}
	return pods
}

// Changed is closed with the next event of a chain.
func (r *Record) Changed(name string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of(name).changed
}

// Broken says which promises were broken on a chain, at any time.
func (r *Record) Broken(name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.of(name).broken)
}

// Replaced says for each pod of a chain that was replaced how many pods there ever were that claimed to replace it.
func (r *Record) Replaced(name string) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	var counts []int
	for _, pods := range r.of(name).replaced {
		counts = append(counts, len(pods))
	}
	slices.Sort(counts)
	return counts
}

// History tells of a chain, for a test that failed.
func (r *Record) History(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.of(name).told, "\n")
}

// Describe says of a pod what this project and Airflow's executor care about.
func Describe(pod *corev1.Pod) string {
	said := []string{pod.Name, string(pod.Status.Phase)}
	for _, is := range []struct {
		what string
		true bool
	}{
		{"worker=" + pod.Labels[requeue.LabelWorker], pod.Labels[requeue.LabelWorker] != ""},
		{"done", pod.Labels[requeue.LabelExecutorDone] == "True"},
		{"held", requeue.Held(pod)},
		{"revoked", requeue.Revoked(pod)},
		{"tracked", requeue.Tracked(pod)},
		{"detached", requeue.Detached(pod)},
		{"gated", requeue.Gated(pod)},
		{"committed", requeue.Committed(pod)},
		{"discarded", requeue.Discarded(pod)},
		{"replaced", pod.Labels[requeue.LabelReplaced] != ""},
		{"deleting", pod.DeletionTimestamp != nil},
		{"finalizers=" + strings.Join(pod.Finalizers, ","), len(pod.Finalizers) > 0},
		{"node=" + pod.Spec.NodeName, pod.Spec.NodeName != ""},
		{"reason=" + pod.Annotations[requeue.AnnotationReason], pod.Annotations[requeue.AnnotationReason] != ""},
		{"status=" + pod.Status.Reason, pod.Status.Reason != ""},
	} {
		if is.true {
			said = append(said, is.what)
		}
	}
	return strings.Join(said, " ")
}
