package outages

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// expiry ends all watches of a program, each time that it is asked to, and answers the next try to go on with each of
// them as the API server does when it has forgotten the version: 410, in an event.
type expiry struct {
	*front
	mu      sync.Mutex
	watches map[string]*watched
}

// watched is a watch, by what it selects.
type watched struct {
	since time.Time // zero while it is not on
	stop  func()
	ended bool // and the program is still to be told that its version is too old
}

func (x *expiry) answer(w http.ResponseWriter, r *http.Request) bool {
	q := r.URL.Query()
	if q.Get("watch") == "" {
		return false
	}
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	key := r.URL.Path + "?" + q.Get("labelSelector") + q.Get("fieldSelector")
	x.mu.Lock()
	if x.watches[key] == nil {
		x.watches[key] = &watched{}
	}
	on := x.watches[key]
	expired := on.ended && q.Get("resourceVersion") != "" && q.Get("sendInitialEvents") != "true"
	if expired {
		on.ended = false
	} else {
		on.since, on.stop = time.Now(), stop
	}
	x.mu.Unlock()
	if expired {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"type":"ERROR","object":%s}`+"\n", status(http.StatusGone, "Expired", "too old resource version: 1 (2)"))
		return true
	}
	x.proxy.ServeHTTP(w, r.WithContext(ctx))
	return true
}

// settled reports whether all watches are on, and have been for longer than the client takes for a failure.
func (x *expiry) settled() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, on := range x.watches {
		if on.ended || on.since.IsZero() || time.Since(on.since) < 2*time.Second {
			return false
		}
	}
	return len(x.watches) == 2 // pods, and their namespace
}

// expire ends all watches.
func (x *expiry) expire() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, on := range x.watches {
		on.ended, on.since = true, time.Time{}
		on.stop()
	}
}

func TestAnInformerThatListsAnewUnderLoadHasEachPodReplacedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, shared.Servers)
	x := &expiry{watches: map[string]*watched{}}
	x.front = newFront(t, s.watcherConfig(), x.answer)
	watcher := s.startWatcher(x.config(), programs.Steady()...)
	s.startWebhook()
	s.untilHolding()
	stop := s.work(time.Second/6, evicted, rejected, shutdown, unplaced, runs, broken)
	for range 4 {
		before := s.count(took)
		until(t, "all watches are on, and pods die", func() bool { return x.settled() && s.count(took) >= before+5 })
		x.expire()
	}
	until(t, "both informers were told to list anew, and have", x.settled)
	stop()
	s.settles()
	s.unseen(took)
	assert.InDelta(t, s.count(took), watcher.metric("airflow_requeue_requeues_total"), 0, "each is replaced once")
	assert.Zero(t, watcher.metric("airflow_requeue_errors_total"))
	watcher.sparing()
	t.Log(watcher.messages())
}
