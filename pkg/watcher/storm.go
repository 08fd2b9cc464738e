package watcher

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	// stormWindow is what the storm breaker's limit is a number of pods in.
	stormWindow = time.Minute
	// calmEvery is how often an open storm breaker is looked at.
	calmEvery = time.Second
)

// storm is the storm breaker: of no minute, wherever it starts, do more than limit pods begin to be replaced. What it
// counts is this process's own, and lost when it ends.
type storm struct {
	limit int // 0: off

	mu       sync.Mutex
	begun    map[types.UID]time.Time // pods that have a slot
	refused  map[types.UID]bool      // pods that got none since the breaker opened
	opened   time.Time               // zero while it is closed
	lastTime time.Time               // that a pod got none
}

func newStorm(limit int) *storm {
	return &storm{limit: limit, begun: map[types.UID]time.Time{}, refused: map[types.UID]bool{}}
}

// begin takes a slot for a pod that is about to begin to be replaced; one that begins again moves its slot along. opened
// says that the breaker was closed until now.
func (s *storm) begin(uid types.UID, now time.Time) (free, opened bool) {
	if s.limit <= 0 {
		return true, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, at := range s.begun {
		if now.Sub(at) >= stormWindow {
			delete(s.begun, other)
		}
	}
	if _, again := s.begun[uid]; again || len(s.begun) < s.limit {
		s.begun[uid] = now
		delete(s.refused, uid)
		return true, false
	}
	if opened = s.opened.IsZero(); opened {
		s.opened = now
	}
	s.refused[uid], s.lastTime = true, now
	return false, opened
}

// giveBack frees the slot of a pod that did not begin after all.
func (s *storm) giveBack(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.begun, uid)
}

// calm closes the breaker when no pod was refused a slot for a minute. A slot that becomes free does not: in a lasting
// storm the breaker would open and close with every one of them.
func (s *storm) calm(now time.Time) (refused int, lasted time.Duration, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened.IsZero() || now.Sub(s.lastTime) < stormWindow {
		return 0, 0, false
	}
	refused, lasted = len(s.refused), now.Sub(s.opened)
	clear(s.refused)
	s.opened = time.Time{}
	return refused, lasted, true
}

func (s *storm) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.opened.IsZero()
}

// braked returns the decision, or what becomes of the pod where it would begin to be replaced and has no slot. Only then
// is one taken: what is reported or released for another reason stands in nobody's way.
func (w *Watcher) braked(in requeue.Input, d requeue.Decision) requeue.Decision {
	if d.Action != requeue.Detach || requeue.Detached(in.Pod) {
		return d
	}
	now := w.clock.Now()
	free, opened := w.storm.begin(in.Pod.UID, now)
	if opened {
		w.log.Warn("storm breaker open: pods are reported instead of replaced", "replaced", w.opts.StormBreaker, "within", stormWindow)
	}
	if free {
		return d
	}
	in.Storm = true
	return requeue.Decide(in, w.opts.Policy, now)
}

// unbraked gives a slot back when another write than the detach was done: its guard says that the pod is not detached.
func (w *Watcher) unbraked(in requeue.Input, d requeue.Decision) {
	if d.Action != requeue.Detach && !requeue.Detached(in.Pod) {
		w.storm.giveBack(in.Pod.UID)
	}
}

// watchStorm says when the storm is over.
func (w *Watcher) watchStorm(ctx context.Context) {
	ticker := w.clock.NewTicker(calmEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		if refused, lasted, closed := w.storm.calm(w.clock.Now()); closed {
			w.log.Info("storm breaker closed: pods are replaced again", "reported", refused, "open_for", lasted)
		}
	}
}
