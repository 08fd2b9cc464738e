package mutate

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
)

const (
	pollInterval = 2 * time.Second
	pollTimeout  = 5 * time.Second
	// stuckAfter is how long no look at the Lease may begin before the poller counts as dead.
	stuckAfter = 30 * time.Second
)

// LeaseGetter reads the watcher's Lease; client-go's LeaseInterface is one.
type LeaseGetter interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error)
}

// LeaderOptions say how a Leader looks for the watcher that leads.
type LeaderOptions struct {
	Shard        int // whose Lease it is
	Leases       LeaseGetter
	Name         string        // the Lease's
	MaxAge       time.Duration // a leader that was not seen to renew for longer leads no more
	ReleaseAfter time.Duration // how long no renewal is seen before all holds are lifted, and how often from then on
	// Sweep lifts all holds of the shard's namespaces; it is repeatable. Its context ends when a watcher leads again.
	Sweep   func(context.Context) error
	Metrics *Metrics
	Log     *slog.Logger
	Clock   clock.WithTicker
}

// Leader follows the watcher that leads for a shard. While none does, pods of its namespaces are not to be held, and after
// a while all their holds are lifted: a finished pod that stays held occupies an executor slot for ever.
type Leader struct {
	LeaderOptions

	shard string // as metrics have it

	mu       sync.Mutex
	seen     leadership
	looked   time.Time // when the last look began
	state    string    // as logged last
	failing  bool      // the last look failed
	swept    time.Time // when the last sweep ended; zero when a watcher has led since
	stop     context.CancelFunc
	sweeping sync.WaitGroup
}

// NewLeader returns a Leader that has seen nothing yet: pods are not held.
func NewLeader(opts LeaderOptions) *Leader {
	l := &Leader{LeaderOptions: opts, shard: strconv.Itoa(opts.Shard)}
	l.Log = opts.Log.With("lease", opts.Name)
	l.Metrics.follow(l.shard)
	return l
}

// Ready reports whether a watcher leads and can decide.
func (l *Leader) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen.ready(l.Clock.Now(), l.MaxAge)
}

// Alive fails when no look at the Lease has begun lately; whether a watcher leads is another matter.
func (l *Leader) Alive() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.looked.IsZero() || l.Clock.Since(l.looked) > stuckAfter {
		return fmt.Errorf("not looking at the watcher's lease %s", l.Name)
	}
	return nil
}

// Run looks at the Lease until ctx is done, and returns when no sweep is under way.
func (l *Leader) Run(ctx context.Context) {
	ticker := l.Clock.NewTicker(pollInterval)
	defer ticker.Stop()
	defer l.sweeping.Wait()
	for {
		l.poll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// poll looks once, and begins a sweep when one is due and a second look agrees.
func (l *Leader) poll(ctx context.Context) {
	if l.look(ctx) && l.sweepDue() && l.look(ctx) && l.sweepDue() {
		l.sweep(ctx)
	}
}

// look reports whether the Lease could be read, be it there or not.
func (l *Leader) look(ctx context.Context) bool {
	l.mu.Lock()
	l.looked = l.Clock.Now()
	l.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	lease, err := l.Leases.Get(ctx, l.Name, metav1.GetOptions{})
	var record leaseRecord
	switch {
	case err == nil:
		record = recordOf(lease)
	case apierrors.IsNotFound(err):
		err = nil
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Clock.Now()
	if err == nil {
		l.seen = l.seen.observe(record, now)
	}
	if l.seen.leads(now, l.MaxAge) {
		l.swept = time.Time{}
		if l.stop != nil {
			l.stop()
		}
	}
	l.tell(now, err)
	return err == nil
}

// tell logs what has changed since it was called last, once.
func (l *Leader) tell(now time.Time, err error) {
	if failing := err != nil; failing != l.failing {
		l.failing = failing
		if failing {
			l.Log.Warn("lease can't be read", "error", fmt.Errorf("reading lease %s: %w", l.Name, err))
		} else {
			l.Log.Info("lease can be read again")
		}
	}
	state := "no leader, pods are not held"
	switch {
	case l.seen.ready(now, l.MaxAge):
		state = "leader ready, pods are held"
	case l.seen.leads(now, l.MaxAge):
		state = "leader not ready, pods are not held"
	}
	if state != l.state {
		l.state = state
		l.Log.Info("leader changed", "state", state, "holder", l.seen.last.holder)
	}
	l.Metrics.leaderReady(l.shard, l.seen.ready(now, l.MaxAge))
}

func (l *Leader) sweepDue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stop == nil && l.seen.gone(l.ReleaseAfter) &&
		(l.swept.IsZero() || l.Clock.Since(l.swept) >= l.ReleaseAfter)
}

// sweep lifts all holds, beside the looks at the Lease: a watcher that comes back ends it.
func (l *Leader) sweep(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	l.stop = cancel
	if l.swept.IsZero() {
		l.Log.Warn("no watcher leads, lifting all holds", "unseen-for", l.ReleaseAfter)
	}
	l.mu.Unlock()
	l.sweeping.Go(func() {
		err := l.Sweep(ctx)
		result := sweepDone
		switch {
		case ctx.Err() != nil:
			result = sweepStopped
			l.Log.Info("lifting all holds stopped", "cause", ctx.Err())
		case err != nil:
			result = sweepFailed
			l.Log.Warn("lifting all holds failed", "error", err)
		}
		l.Metrics.swept(l.shard, result)
		l.mu.Lock()
		defer l.mu.Unlock()
		cancel()
		l.stop = nil
		l.swept = l.Clock.Now()
	})
}
