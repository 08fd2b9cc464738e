package faults

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

const (
	// atATime is how many plays there are on a stage at once.
	atATime = 150
	// apartAtATime is the same where each has a quota.
	apartAtATime = 15
)

// requestFaults are what can become of one request while both sides live on.
func requestFaults(proxy *faultproxy.Proxy) map[string]faultproxy.Fault {
	return map[string]faultproxy.Fault{
		"dropped-before": faultproxy.DropBefore,
		"dropped-after":  faultproxy.DropAfter,
		"dropped-unseen": proxy.DropAfterUnseen(time.Second),
		"delayed":        faultproxy.Delay(time.Second),
		"answered-late":  faultproxy.Then(func() { time.Sleep(time.Second) }),
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

	mu      sync.Mutex
	checked []*play
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

// over plays with a fault at the first place there is, at the second, and so on, as long as there are that many: once
// reports whether the play came to its place. That many are about as many as without a fault.
func over(t *testing.T, places int, once func(n int) bool) {
	t.Helper()
	for n, beyond := 1, false; !beyond && !t.Failed(); {
		reached := make([]bool, places+1)
		var plays sync.WaitGroup
		for i := range reached {
			at := n
			plays.Go(func() { reached[i] = once(at) })
			n++
		}
		plays.Wait()
		beyond = slices.Contains(reached, false)
	}
}

// once plays the outcome with a fault at the n-th request, and reports whether there was one.
func (w *sweep) once(t *testing.T, fault string, n int, does faultproxy.Fault) (hit bool) {
	t.Helper()
	w.room <- struct{}{}
	defer func() { <-w.room }()
	name := fmt.Sprintf("%s-%s-%d", w.outcome.name, fault, n)
	t.Run(fmt.Sprintf("at request %d", n), func(t *testing.T) {
		p := w.play(t, name, w.outcome, faultproxy.At(n, does))
		w.check(t, p)
	})
	return len(w.proxy.Requests(name)) >= n
}

// check holds the end of a play against the one that it must have.
func (w *sweep) check(t *testing.T, p *play) {
	t.Helper()
	p.wait("the end as it should be:\n"+w.want, func() bool { return p.end() == w.want })
	assert.Empty(t, p.record.Broken(p.name), "promises that were broken on the way")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checked = append(w.checked, p)
}

// still checks all plays once more: nothing is to come after an end.
func (w *sweep) still(t *testing.T) {
	t.Helper()
	w.caughtUp(t, "marker-of-the-end-of-"+w.outcome.name)
	for _, p := range w.checked {
		assert.Equal(t, w.want, p.end(), "%s, when all is over", p.name)
		assert.Empty(t, p.record.Broken(p.name), "%s: promises that were broken", p.name)
	}
}

func TestAFaultAtAnyRequestLeavesTheSameEnd(t *testing.T) {
	common := newStage(t)
	common.keepWatcher(common.proxy.Config(), programs.Steady()...)
	room := make(chan struct{}, atATime)
	var sweeps sync.WaitGroup
	for _, o := range outcomes() {
		sweeps.Go(func() {
			t.Run(o.name, func(t *testing.T) {
				s, room := common, room
				if o.apart {
					s, room = newStage(t), make(chan struct{}, apartAtATime)
					s.keepWatcher(s.proxy.Config(), programs.Steady()...)
				}
				w := s.newSweep(t, o, room)
				var faults sync.WaitGroup
				for name, fault := range requestFaults(s.proxy) {
					faults.Go(func() {
						t.Run(name, func(t *testing.T) {
							over(t, w.requests, func(n int) bool { return w.once(t, name, n, fault) })
						})
					})
				}
				faults.Wait()
				w.still(t)
			})
		})
	}
	sweeps.Wait()
}
