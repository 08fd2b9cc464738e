package faults

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
)

// atATime is how many plays there are on a stage at once.
const atATime = 150

// requestFaults are what can become of one request while both sides live on.
func requestFaults() map[string]faultproxy.Fault {
	return map[string]faultproxy.Fault{
		"dropped-before": faultproxy.DropBefore,
		"dropped-after":  faultproxy.DropAfter,
		"delayed":        faultproxy.Delay(time.Second),
		"429":            faultproxy.TooManyRequests,
		"409":            faultproxy.Conflict,
		"500":            faultproxy.InternalError,
		"503":            faultproxy.Unavailable,
	}
}

// sweep is what the plays of one outcome on a stage have in common.
type sweep struct {
	*stage
	outcome  outcome
	want     string // the end without a fault
	requests int    // made without a fault
	writes   int
	room     chan struct{} // has an element for each play under way
}

// newSweep plays an outcome without a fault: that end is the one that every fault must leave.
func (s *stage) newSweep(t *testing.T, o outcome, room chan struct{}) *sweep {
	t.Helper()
	name := o.name + "-as-it-should"
	p := s.play(t, name, o, nil)
	s.caughtUp(t, "marker-"+o.name)
	w := &sweep{stage: s, outcome: o, want: p.end(), requests: len(s.proxy.Requests(name)), writes: s.proxy.Writes(name), room: room}
	saw := []string{}
	for line := range strings.Lines(w.want) {
		if seen, ok := strings.CutPrefix(strings.TrimSpace(line), "the executor saw "); ok {
			saw = append(saw, seen)
		}
	}
	require.Equal(t, o.saw, strings.Join(saw, ", "), "without a fault")
	t.Logf("%s: %s\n%s", o.name, strings.Join(s.proxy.Requests(name), ", "), w.want)
	return w
}

// over plays the outcome with the fault at the first request, at the second, and so on, as long as there are that many.
func (w *sweep) over(t *testing.T, name string, fault faultproxy.Fault) {
	t.Helper()
	var mu sync.Mutex
	beyond := false // a play had fewer requests than that
	for n := 1; !beyond; {
		var plays sync.WaitGroup
		for range w.requests + 1 {
			at := n
			plays.Go(func() {
				if !w.once(t, fmt.Sprintf("%s-%s-%d", w.outcome.name, name, at), at, fault) {
					mu.Lock()
					defer mu.Unlock()
					beyond = true
				}
			})
			n++
		}
		plays.Wait()
		if t.Failed() {
			return
		}
	}
}

// once plays the outcome with a fault at the n-th request, and reports whether there was one.
func (w *sweep) once(t *testing.T, name string, n int, fault faultproxy.Fault) (hit bool) {
	t.Helper()
	w.room <- struct{}{}
	defer func() { <-w.room }()
	t.Run(fmt.Sprintf("at request %d", n), func(t *testing.T) {
		p := w.play(t, name, w.outcome, faultproxy.At(n, fault))
		w.check(t, p)
	})
	return len(w.proxy.Requests(name)) >= n
}

// check holds the end of a play against the one that it must have.
func (w *sweep) check(t *testing.T, p *play) {
	t.Helper()
	end := ""
	p.wait("the end as it should be:\n"+w.want, func() bool {
		end = p.end()
		return end == w.want
	})
	assert.Empty(t, p.record.Broken(p.name), "promises that were broken on the way")
}

func TestAFaultAtAnyRequestLeavesTheSameEnd(t *testing.T) {
	s := newStage(t)
	s.keepWatcher(t, s.proxy.Config())
	room := make(chan struct{}, atATime)
	var sweeps sync.WaitGroup
	for _, o := range outcomes() {
		sweeps.Go(func() {
			t.Run(o.name, func(t *testing.T) {
				w := s.newSweep(t, o, room)
				var faults sync.WaitGroup
				for name, fault := range requestFaults() {
					faults.Go(func() { t.Run(name, func(t *testing.T) { w.over(t, name, fault) }) })
				}
				faults.Wait()
			})
		})
	}
	sweeps.Wait()
}
