package watcher

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

func TestTheStormBreakerLetsNoMoreThanItsLimitBeginWithinAMinute(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	type try struct {
		at   time.Duration
		pod  string // with a '-' before it: gives its slot back
		want bool
	}
	for _, c := range []struct {
		name  string
		limit int
		tries []try
	}{
		{"without a limit all begin", 0, []try{{0, "a", true}, {0, "b", true}, {0, "c", true}}},
		{"as many as the limit begin, and no more", 2, []try{{0, "a", true}, {1, "b", true}, {2, "c", false}, {3, "d", false}}},
		{"a slot is free again after a minute, and not a moment before", 1, []try{
			{0, "a", true}, {time.Minute - 1, "b", false}, {time.Minute, "b", true}}},
		{"each slot has a minute of its own", 2, []try{{0, "a", true}, {40 * time.Second, "b", true}, {time.Minute, "c", true},
			{61 * time.Second, "d", false}, {100 * time.Second, "d", true}}},
		{"a pod that decides again has its slot", 1, []try{{0, "a", true}, {time.Second, "a", true}, {2 * time.Second, "b", false}}},
		{"a pod that begins again takes its slot along", 1, []try{{0, "a", true}, {50 * time.Second, "a", true}, {70 * time.Second, "b", false},
			{110 * time.Second, "b", true}}},
		{"a pod whose slot is over needs another", 1, []try{{0, "a", true}, {time.Minute, "b", true}, {time.Minute, "a", false}}},
		{"a slot that is given back is free", 1, []try{{0, "a", true}, {0, "-a", true}, {0, "b", true}, {0, "a", false}}},
		{"a pod without a slot gives none back", 1, []try{{0, "a", true}, {0, "-b", true}, {0, "b", false}}},
		{"a clock that is set back frees no slot", 1, []try{{time.Hour, "a", true}, {0, "b", false}, {time.Hour + time.Minute, "b", true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStorm(c.limit)
			for _, try := range c.tries {
				if try.pod[0] == '-' {
					s.giveBack(types.UID(try.pod[1:]))
					continue
				}
				free, _ := s.begin(types.UID(try.pod), noon.Add(try.at))
				require.Equal(t, try.want, free, "%s after %s", try.pod, try.at)
			}
		})
	}
}

func TestTheStormBreakerIsOpenUntilNoPodWasRefusedForAMinute(t *testing.T) {
	at := func(seconds int) time.Time { return time.Date(2026, 3, 1, 12, 0, seconds, 0, time.UTC) }
	s := newStorm(1)
	begin := func(pod types.UID, second int) (opened bool) {
		_, opened = s.begin(pod, at(second))
		return opened
	}
	closed := func(second int) bool {
		_, _, closed := s.calm(at(second))
		return closed
	}
	require.False(t, begin("a", 0))
	require.False(t, s.open(), "the limit is reached, nobody is refused")
	require.True(t, begin("b", 10))
	require.True(t, s.open())
	require.False(t, begin("b", 11), "once is enough")
	require.False(t, begin("c", 20))
	require.False(t, closed(62), "a slot is free, and it is open all the same")
	require.False(t, begin("d", 63))
	require.False(t, begin("e", 70))
	require.False(t, closed(129))
	require.True(t, s.open())

	refused, lasted, over := s.calm(at(130))
	require.True(t, over)
	require.Equal(t, 3, refused, "b, c and e, each once")
	require.Equal(t, 2*time.Minute, lasted)
	require.False(t, s.open())
	require.False(t, closed(131), "once is enough")

	require.False(t, begin("f", 140))
	require.True(t, begin("g", 141), "it opens anew")
	refused, _, _ = s.calm(at(201))
	require.Equal(t, 1, refused)
}

func TestTheStormBreakerHoldsWithManyWorkers(t *testing.T) {
	const limit = 37
	s := newStorm(limit)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for minute := range 3 {
		var began, opened atomic.Int64
		var group sync.WaitGroup
		for i := range 500 {
			group.Go(func() {
				uid := types.UID(strconv.Itoa(minute) + "-" + strconv.Itoa(i))
				free, open := s.begin(uid, now.Add(time.Duration(minute)*time.Minute))
				again, _ := s.begin(uid, now.Add(time.Duration(minute)*time.Minute))
				if free && again {
					began.Add(1)
				}
				if open {
					opened.Add(1)
				}
			})
		}
		group.Wait()
		require.EqualValues(t, limit, began.Load())
		require.Equal(t, minute == 0, opened.Load() == 1, "it opens once")
	}
}

// lines are what was logged, without the time.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, rest, _ := strings.Cut(strings.TrimSpace(string(p)), " ")
	l.all = append(l.all, rest)
	return len(p), nil
}

func (l *lines) said() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.all...)
}

func TestTheStormBreakerSaysOnceThatItOpensAndOnceThatItCloses(t *testing.T) {
	log := &lines{}
	clock := clocktesting.NewFakeClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	w := &Watcher{opts: Options{StormBreaker: 1}, storm: newStorm(1), clock: clock, log: slog.New(slog.NewTextHandler(log, nil))}
	for _, uid := range []types.UID{"a", "b", "c", "c"} {
		w.braked(requeue.Input{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}}}, requeue.Decision{Action: requeue.Detach})
	}
	opened := `level=WARN msg="storm breaker open: pods are reported instead of replaced" replaced=1 within=1m0s`
	require.Equal(t, []string{opened}, log.said())

	ctx, stop := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		w.watchStorm(ctx)
	}()
	require.Eventually(t, func() bool {
		if w.storm.open() && clock.HasWaiters() {
			clock.Step(stormWindow / 2)
		}
		return len(log.said()) > 1
	}, time.Minute, time.Millisecond)
	stop()
	<-over
	said := log.said()
	require.Len(t, said, 2)
	require.Regexp(t, `^level=INFO msg="storm breaker closed: pods are replaced again" reported=2 open_for=`, said[1])
}
