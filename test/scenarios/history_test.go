package scenarios

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// bell wakes everyone who waits for a change.
type bell struct {
	mu   sync.Mutex
	rung chan struct{}
}

func newBell() *bell { return &bell{rung: make(chan struct{})} }

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.rung)
	b.rung = make(chan struct{})
}

// next is closed when the bell rings the next time.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rung
}

// moment is one event of a pod, and when it was seen.
type moment struct {
	watch.EventType
	pod *corev1.Pod
	at  time.Time
}

// history is what a watch on all pods and Events of an installation has shown, in the API server's own order. Whatever
// a row is about, the promises must hold all the time: broken collects, by the first pod of a chain, where they did not.
type history struct {
	bell *bell

	mu      sync.Mutex
	moments map[types.UID][]moment
	there   map[string]*corev1.Pod
	byName  map[string][]types.UID
	events  map[types.UID][]string
	broken  map[string][]string
}

// newHistory watches a namespace that is still empty.
func newHistory(t testing.TB, client kubernetes.Interface, namespace string) *history {
	t.Helper()
	h := &history{bell: newBell(), moments: map[types.UID][]moment{}, there: map[string]*corev1.Pod{}, byName: map[string][]types.UID{},
		events: map[types.UID][]string{}, broken: map[string][]string{}}
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	follow := func(begin func(version string) (watch.Interface, error), add func(watch.Event) string) {
		events, err := begin("0")
		require.NoError(t, err)
		watching.Go(func() {
			version := "0"
			for ctx.Err() == nil {
				for e := range events.ResultChan() {
					if v := add(e); v != "" {
						version = v
					} else if e.Type == watch.Error {
						version = "0" // a server that was started anew has no history: what is there comes again
					}
					h.bell.ring()
				}
				events.Stop()
				for ctx.Err() == nil { // an outage of the API server, or its own timeout
					if events, err = begin(version); err == nil {
						break
					}
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	follow(func(version string) (watch.Interface, error) {
		return client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: version})
	}, h.addPod)
	follow(func(version string) (watch.Interface, error) {
		return client.EventsV1().Events(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: version})
	}, h.addEvent)
	t.Cleanup(func() {
		stop()
		watching.Wait()
	})
	return h
}

func (h *history) addEvent(e watch.Event) string {
	event, ok := e.Object.(*eventsv1.Event)
	if !ok || e.Type == watch.Deleted {
		return ""
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	uid := event.Regarding.UID
	h.events[uid] = append(h.events[uid], fmt.Sprintf("%s %s %s: %s", event.Type, event.Reason, event.Action, event.Note))
	return event.ResourceVersion
}

func (h *history) addPod(e watch.Event) string {
	pod, ok := e.Object.(*corev1.Pod)
	if !ok {
		return ""
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.byName[pod.Name], pod.UID) {
		h.byName[pod.Name] = append(h.byName[pod.Name], pod.UID)
	}
	h.moments[pod.UID] = append(h.moments[pod.UID], moment{EventType: e.Type, pod: pod, at: time.Now()})
	if e.Type == watch.Deleted {
		delete(h.there, pod.Name)
	} else {
		h.there[pod.Name] = pod
	}
	h.check(pod)
	return pod.ResourceVersion
}

// check holds the promises against the chain of a pod that has changed.
func (h *history) check(changed *corev1.Pod) {
	origin := changed.Annotations[requeue.AnnotationOrigin]
	if origin == "" {
		return
	}
	var attached, running []string
	replacements := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(h.there)) {
		p := h.there[name]
		if p.Annotations[requeue.AnnotationOrigin] != origin {
			continue
		}
		if requeue.Attached(p) {
			attached = append(attached, name)
		}
		if !requeue.Gated(p) && !requeue.Ended(p) {
			running = append(running, name)
		}
		if of := requeue.RequeueOf(p); of != "" {
			replacements[of] = append(replacements[of], name)
		}
	}
	breach := func(what string, pods []string) {
		if line := fmt.Sprintf("%s: %v", what, pods); len(pods) > 1 && !slices.Contains(h.broken[origin], line) {
			h.broken[origin] = append(h.broken[origin], line)
		}
	}
	breach("two pods of a chain are attached", attached)
	breach("two pods of a chain may run", running)
	for _, pods := range replacements {
		breach("one pod has two replacements", pods)
	}
}

// latest returns the pod as it was seen last; nil when it is gone or was never there.
func (h *history) latest(name string) *corev1.Pod {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.there[name]
}

// of returns all that was seen of the pods of a name.
func (h *history) of(name string) []moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	var moments []moment
	for _, uid := range h.byName[name] {
		moments = append(moments, h.moments[uid]...)
	}
	return moments
}

// eventsOn returns the Events on a pod: "type reason action: note".
func (h *history) eventsOn(pod *corev1.Pod) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events[pod.UID])
}

// all returns the pods of a task instance that were ever there, as they were seen last, by name.
func (h *history) all(key requeue.Key) []*corev1.Pod {
	h.mu.Lock()
	defer h.mu.Unlock()
	var pods []*corev1.Pod
	for _, moments := range h.moments {
		if last := moments[len(moments)-1].pod; requeue.SameTaskInstance(last, key) {
			pods = append(pods, last)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods
}

// breaches are the promises that were broken in the chain that begins with a pod.
func (h *history) breaches(origin string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.broken[origin])
}

// unfinished reports whether a pod is over and still carries what keeps it from Airflow, or from going.
func unfinished(p *corev1.Pod) bool {
	return requeue.Ended(p) && (slices.Contains(p.Finalizers, requeue.Finalizer) || requeue.Attached(p) && requeue.Held(p))
}

// left is what was broken in any chain, and which pods are unfinished.
func (h *history) left() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for _, broken := range h.broken {
		lines = append(lines, broken...)
	}
	for name, p := range h.there {
		if unfinished(p) {
			lines = append(lines, name+" is over and not let go")
		}
	}
	return lines
}

// dump tells of every pod of a task instance, for a test that failed.
func (h *history) dump(key requeue.Key) string {
	var moments []moment
	var b strings.Builder
	for _, pod := range h.all(key) {
		moments = append(moments, h.of(pod.Name)...)
		for _, e := range h.eventsOn(pod) {
			fmt.Fprintf(&b, "Event on %s: %s\n", pod.Name, e)
		}
	}
	slices.SortStableFunc(moments, func(a, b moment) int { return a.at.Compare(b.at) })
	for _, m := range moments {
		p := m.pod
		fmt.Fprintf(&b, "%s %s %s %s: worker=%q done=%q hold=%q tracked=%t", m.at.Format("04:05.000"), m.EventType, p.Name, p.Status.Phase,
			p.Labels[requeue.LabelWorker], p.Labels[requeue.LabelExecutorDone], p.Labels[requeue.LabelHold], requeue.Tracked(p))
		for _, is := range []struct {
			name string
			yes  bool
		}{{"deleting", p.DeletionTimestamp != nil}, {"gated", requeue.Gated(p)}, {"committed", requeue.Committed(p)},
			{"detached", requeue.Detached(p)}, {"discarded", requeue.Discarded(p)}, {"finalizer", slices.Contains(p.Finalizers, requeue.Finalizer)}} {
			if is.yes {
				b.WriteString(" " + is.name)
			}
		}
		b.WriteString(" " + p.Annotations[requeue.AnnotationReason] + "\n")
	}
	return b.String()
}
