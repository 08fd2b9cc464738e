package faults

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// leaderIs waits for a process to hold the Lease.
func (s *stage) leaderIs(t *testing.T, w *programs.Process) {
	t.Helper()
	require.Eventually(t, func() bool {
		lease, err := s.Client.CoordinationV1().Leases(s.Namespace).Get(t.Context(), world.Installation, metav1.GetOptions{})
		return err == nil && lease.Spec.HolderIdentity != nil && strings.HasSuffix(*lease.Spec.HolderIdentity, fmt.Sprintf("_%d", w.PID()))
	}, world.Patience, 50*time.Millisecond, "the process leads")
}

// pause stops a process (SIGSTOP) in the middle of a request, for as long as the test wants.
type pause struct {
	reached, goOn, done chan struct{}
}

// fault holds the request up before the server gets it, or the answer to it.
func (p *pause) fault(process *programs.Process, answer bool) faultproxy.Fault {
	stop := func(when bool) {
		if when == answer {
			process.Signal(syscall.SIGSTOP)
			close(p.reached)
			<-p.goOn
		}
	}
	return func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		defer close(p.done)
		stop(false)
		faultproxy.Then(func() { stop(true) })(w, r, server)
	}
}

// Of two watchers the one that leads is stopped in the middle of its n-th request about a chain, and goes on when the
// other has taken the Lease and is done with the chain: for every n, the end is the same as with one.
func TestAWatcherThatIsPausedPastItsLeaseChangesNothing(t *testing.T) {
	paused := map[string]bool{"evicted": true, "unscheduled": true, "image-pull": true, "refused": true,
		"quota":                  true,
		"unscheduled-no-retries": true, "real-failure-while-leaving": true, "queued-again": true}
	undisturbed := newStage(t)
	undisturbed.keepWatcher(undisturbed.proxy.Config(), programs.Steady()...)
	room := make(chan struct{}, processesAtATime/2)
	var sweeps sync.WaitGroup
	for _, o := range outcomes() {
		if !paused[o.name] {
			continue
		}
		sweeps.Go(func() {
			t.Run(o.name, func(t *testing.T) {
				w := undisturbed.newSweep(t, o, room)
				var both sync.WaitGroup
				for when, answer := range map[string]bool{"before the request": false, "before its answer": true} {
					both.Go(func() {
						t.Run(when, func(t *testing.T) {
							over(t, w.requests, func(n int) bool { return w.paused(t, n, answer) })
						})
					})
				}
				both.Wait()
			})
		})
	}
	sweeps.Wait()
}

// paused plays the outcome with two watchers, and reports whether the first came to its n-th request.
func (w *sweep) paused(t *testing.T, n int, answer bool) (hit bool) {
	t.Helper()
	w.room <- struct{}{}
	defer func() { <-w.room }()
	t.Run(fmt.Sprintf("paused at request %d", n), func(t *testing.T) {
		s := newStage(t)
		first := s.startWatcher(s.proxy.Config())
		s.leaderIs(t, first)
		second := s.startWatcher(shared.Servers.Config())
		held := &pause{reached: make(chan struct{}), goOn: make(chan struct{}), done: make(chan struct{})}
		goOn := sync.OnceFunc(func() { close(held.goOn) })
		t.Cleanup(goOn) // before the proxy ends
		p := s.play(t, w.outcome.name+"-again", w.outcome, faultproxy.At(n, held.fault(first, answer)))
		select {
		case <-held.reached:
			hit = true
		default:
			w.check(t, p) // there are not that many requests
			return
		}
		s.leaderIs(t, second)
		goOn()
		<-held.done
		first.Signal(syscall.SIGCONT)
		<-first.Ended // its Lease is lost
		s.caughtUp(t, "marker")
		w.check(t, p)
	})
	return hit
}
