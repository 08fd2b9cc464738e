package faults

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// processesAtATime is how many plays there are at once where each has a watcher of its own.
const processesAtATime = 16

// A watcher is killed (SIGKILL) at its n-th write to the pods of a chain, before or after the API server has done it, and
// started again: for every n, the end is the same as without.
func TestAWatcherKilledAtAnyOfItsWritesLosesAndDoublesNothing(t *testing.T) {
	undisturbed := newStage(t)
	undisturbed.keepWatcher(undisturbed.proxy.Config(), programs.Steady()...)
	room := make(chan struct{}, processesAtATime)
	var sweeps sync.WaitGroup
	for _, o := range outcomes() {
		sweeps.Go(func() {
			t.Run(o.name, func(t *testing.T) {
				w := undisturbed.newSweep(t, o, room)
				var both sync.WaitGroup
				for when, fault := range map[string]func(func()) faultproxy.Fault{
					"before the write": faultproxy.DropBeforeAnd, "after the write": faultproxy.DropAfterAnd,
				} {
					both.Go(func() {
						t.Run(when, func(t *testing.T) {
							over(t, w.writes, func(n int) bool { return w.killed(t, n, fault) })
						})
					})
				}
				both.Wait()
			})
		})
	}
	sweeps.Wait()
}

// killed plays the outcome on a stage of its own with a watcher that is killed at its n-th write, and reports whether it
// came to that.
func (w *sweep) killed(t *testing.T, n int, fault func(func()) faultproxy.Fault) (hit bool) {
	t.Helper()
	w.room <- struct{}{}
	defer func() { <-w.room }()
	t.Run(fmt.Sprintf("killed at write %d", n), func(t *testing.T) {
		s := newStage(t)
		first := s.keepWatcher(s.proxy.Config())
		p := s.play(t, w.outcome.name+"-again", w.outcome, faultproxy.AtWrite(n, fault(func() { first.Signal(syscall.SIGKILL) })))
		w.check(t, p)
		hit = s.proxy.Writes(p.name) >= n
		if hit {
			<-first.Ended // of the signal
		}
	})
	return hit
}
