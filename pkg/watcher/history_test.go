package watcher_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
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

// runningClock is a clock that runs as the real one does and can be moved ahead.
type runningClock struct {
	*clocktesting.FakeClock
	mu    sync.Mutex
	ahead time.Duration
}

func newClock(ctx context.Context) *runningClock {
	c := &runningClock{FakeClock: clocktesting.NewFakeClock(time.Now())}
	ticker := time.NewTicker(5 * time.Millisecond)
	go func() {
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				c.forward(0)
			}
		}
	}()
	return c
}

func (c *runningClock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	c.SetTime(time.Now().Add(c.ahead))
}

// passing moves the watchers' clock ahead, step by step, until something has come about.
func (w *world) passing(step time.Duration, what string, cond func() bool) {
	w.t.Helper()
	w.within(math.MaxInt64, step, what, cond)
}

// within is passing for what must come before the clock has been moved ahead by more than the limit, however long the
// watcher takes to act then.
func (w *world) within(limit, step time.Duration, what string, cond func() bool) {
	w.t.Helper()
	var next time.Time
	moved := time.Duration(0)
	w.eventually(what, func() bool {
		if cond() {
			return true
		}
		if now := time.Now(); now.After(next) && moved+step <= limit { // else the watcher has not had its time to act
			next = now.Add(50 * time.Millisecond)
			w.clock.forward(step)
			moved += step
		}
		return false
	})
}

// eyes are a scheduler's own watch on its pods.
type eyes struct {
	mu   sync.Mutex
	seen []executor.Seen
}

// watchAsExecutor runs a scheduler's watch.
func (w *world) watchAsExecutor(jobID int64) *eyes {
	e := &eyes{}
	started := make(chan struct{})
	var once sync.Once
	k := &executor.Watch{Client: w.client, Namespace: w.namespace, JobID: jobID,
		Started: func() { once.Do(func() { close(started) }) },
		Report: func(s executor.Seen) {
			e.mu.Lock()
			e.seen = append(e.seen, s)
			e.mu.Unlock()
			w.bell.ring()
		}}
	ctx := w.ctx
	go func() { _ = k.Run(ctx) }()
	<-started
	return e
}

// saw returns what the executor would have put in its queue, as "state pod", each once.
func (e *eyes) saw() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var saw []string
	for _, s := range e.seen {
		if line := fmt.Sprintf("%s %s", s.State, s.Pod.Name); !slices.Contains(saw, line) {
			saw = append(saw, line)
		}
	}
	return saw
}

// sawOf is what the executor has seen of one pod.
func (e *eyes) sawOf(pod string) []string {
	return slices.DeleteFunc(e.saw(), func(s string) bool { return !strings.HasSuffix(s, " "+pod) })
}

// moment is one event of a pod, and when it was seen.
type moment struct {
	watch.EventType
	pod *corev1.Pod
	at  time.Time
}

// history is what a watch on all pods of a world has shown, in the API server's own order. Whatever a test is about,
// the promises must hold all the time: broken collects where they did not.
type history struct {
	mu      sync.Mutex
	moments []moment
	there   map[string]*corev1.Pod
	broken  []string
	// lateAdoption says that the test has Airflow put airflow-worker on a pod by a patch that it decided on long before:
	// the label may then be on two pods, of which still only one is attached.
	lateAdoption bool
}

func newHistory(w *world) *history {
	h := &history{there: map[string]*corev1.Pod{}}
	ctx, stop := context.WithCancel(context.Background())
	list, err := w.client.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{})
	require.NoError(w.t, err)
	events, err := w.client.CoreV1().Pods(w.namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	require.NoError(w.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); ok {
				h.add(moment{EventType: e.Type, pod: pod, at: time.Now()})
				w.bell.ring()
			}
		}
	}()
	w.t.Cleanup(func() {
		stop()
		events.Stop()
		<-done
		h.mu.Lock()
		defer h.mu.Unlock()
		assert.Empty(w.t, h.broken, "promises that were broken on the way")
	})
	return h
}

func (h *history) add(m moment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moments = append(h.moments, m)
	if m.EventType == watch.Deleted {
		delete(h.there, m.pod.Name)
	} else {
		h.there[m.pod.Name] = m.pod
	}
	h.check(m.pod)
}

// check holds the promises against the pods as they are now.
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
		if p.Labels[requeue.LabelWorker] != "" && (!h.lateAdoption || requeue.Attached(p)) {
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
		if line := fmt.Sprintf("%s: %v", what, pods); len(pods) > 1 && !slices.Contains(h.broken, line) {
			h.broken = append(h.broken, line)
		}
	}
	breach("two pods of a chain carry airflow-worker", attached)
	breach("two pods of a chain may run", running)
	for _, pods := range replacements {
		breach("one pod has two replacements", pods)
	}
}

// latest returns the pod as it was seen last; nil when it is gone.
func (h *history) latest(name string) *corev1.Pod {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.there[name]
}

// of returns all that was seen of a pod.
func (h *history) of(name string) []moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.moments), func(m moment) bool { return m.pod.Name != name })
}

// first is the place in the history of the first moment of a pod like that; -1 when there is none.
func (h *history) first(is func(*corev1.Pod) bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.IndexFunc(h.moments, func(m moment) bool { return is(m.pod) })
}

// replacementsOf returns the UIDs of all pods that ever claimed to replace the pod.
func (h *history) replacementsOf(pod *corev1.Pod) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var uids []string
	for _, m := range h.moments {
		if requeue.RequeueOf(m.pod) == string(pod.UID) && !slices.Contains(uids, string(m.pod.UID)) {
			uids = append(uids, string(m.pod.UID))
		}
	}
	return uids
}

// dump tells of every pod, for a test that failed.
func (h *history) dump() string {
	return strings.Join(h.story(func(*corev1.Pod) bool { return true }), "")
}

// story is what was seen of some pods, a line for each moment.
func (h *history) story(is func(*corev1.Pod) bool) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for _, m := range h.moments {
		p := m.pod
		if !is(p) {
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %s %s: worker=%q done=%q hold=%q tracked=%t", m.at.Format("04:05.000"), m.EventType, p.Name, p.Status.Phase,
			p.Labels[requeue.LabelWorker], p.Labels[requeue.LabelExecutorDone], p.Labels[requeue.LabelHold], requeue.Tracked(p))
		for name, value := range map[string]bool{"deleting": p.DeletionTimestamp != nil, "gated": requeue.Gated(p), "committed": requeue.Committed(p),
			"detached": requeue.Detached(p), "discarded": requeue.Discarded(p), "undoing": requeue.Undoing(p), "finalizer": slices.Contains(p.Finalizers, requeue.Finalizer)} {
			if value {
				b.WriteString(" " + name)
			}
		}
		if m.EventType == watch.Added {
			b.WriteString(" created " + p.CreationTimestamp.UTC().Format("04:05"))
		}
		b.WriteString(" " + p.Annotations[requeue.AnnotationReason] + "\n")
		lines = append(lines, b.String())
	}
	return lines
}

// eventsOn lists the Events on a pod, as "reason: note".
func (w *world) eventsOn(pod *corev1.Pod) []string {
	w.t.Helper()
	list, err := w.client.EventsV1().Events(w.namespace).List(w.ctx, metav1.ListOptions{FieldSelector: "regarding.uid=" + string(pod.UID)})
	require.NoError(w.t, err)
	var lines []string
	for _, e := range list.Items {
		lines = append(lines, e.Reason+": "+e.Note)
	}
	return lines
}
