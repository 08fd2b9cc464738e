package watcher_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

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
			w.bell.Ring()
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

// first is the place in the history of the first moment of a pod like that; -1 when there is none.
func (w *world) first(is func(*corev1.Pod) bool) int {
	return slices.IndexFunc(w.history.Moments(), func(m history.Moment) bool { return is(m.Pod) })
}

// replacementsOf returns the UIDs of all pods that ever claimed to replace the pod.
func (w *world) replacementsOf(pod *corev1.Pod) []string {
	var uids []string
	for _, m := range w.history.Moments() {
		if requeue.RequeueOf(m.Pod) == string(pod.UID) && !slices.Contains(uids, string(m.Pod.UID)) {
			uids = append(uids, string(m.Pod.UID))
		}
	}
	return uids
}

// dump tells of every pod, for a test that failed.
func (w *world) dump() string {
	return history.Story(w.history.Moments(), func(*corev1.Pod) bool { return true })
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
