package faults

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// stagesAtATime is how many stages there are at once that play all outcomes each.
const stagesAtATime = 4

// The watches of the informers end with 410 Gone while pods fail and are replaced: just before the n-th request of each
// chain, for every n. The informers list anew, and see ended pods once more and miss the events between.
func TestWatchesThatExpireAtAnyRequestLeaveTheSameEnd(t *testing.T) {
	undisturbed := newStage(t)
	undisturbed.keepWatcher(undisturbed.proxy.Config(), programs.Steady()...)
	sweeps := make([]*sweep, len(outcomes()))
	var first sync.WaitGroup
	for i, o := range outcomes() {
		first.Go(func() {
			t.Run(o.name, func(t *testing.T) { sweeps[i] = undisturbed.newSweep(t, o, nil) })
		})
	}
	first.Wait()
	require.NotContains(t, sweeps, (*sweep)(nil))
	most := 0
	for _, w := range sweeps {
		most = max(most, w.requests)
	}
	room := make(chan struct{}, stagesAtATime)
	over(t, most, func(n int) (reached bool) {
		room <- struct{}{}
		defer func() { <-room }()
		t.Run(fmt.Sprintf("at request %d", n), func(t *testing.T) { reached = allExpiring(t, sweeps, n) })
		return reached
	})
}

// allExpiring plays all outcomes at the same time on a stage whose watches expire with the n-th request of each chain,
// and reports whether one came to that.
func allExpiring(t *testing.T, sweeps []*sweep, n int) bool {
	t.Helper()
	s := newStage(t)
	s.keepWatcher(s.proxy.Config(), programs.Steady()...)
	var reached, expired atomic.Int64
	expire := faultproxy.First(func() { expired.Add(int64(s.proxy.Expire())) })
	var plays sync.WaitGroup
	for _, w := range sweeps {
		plays.Go(func() {
			t.Run(w.outcome.name, func(t *testing.T) {
				p := s.play(t, w.outcome.name+"-again", w.outcome, faultproxy.At(n, expire))
				w.check(t, p)
				if len(s.proxy.Requests(p.name)) >= n {
					reached.Add(1)
				}
			})
		})
	}
	plays.Wait()
	if reached.Load() > 0 {
		require.Positive(t, expired.Load(), "a watch has expired")
	}
	return reached.Load() > 0
}
