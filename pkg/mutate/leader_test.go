package mutate

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// follower is a Leader on a fake clock, with a Lease that does what the test says.
type follower struct {
	*Leader
	clock  *clocktesting.FakeClock
	log    *bytes.Buffer
	record *leaseRecord // nil: not there
	err    error
	swept  []time.Duration // when sweeps ended, since the start
	counts func() map[string]int
}

func newFollower(t *testing.T, sweep func(context.Context) error) *follower {
	t.Helper()
	f := &follower{clock: clocktesting.NewFakeClock(noon()), log: &bytes.Buffer{}}
	registry := prometheus.NewRegistry()
	f.counts = func() map[string]int { return (&served{registry: registry}).counted(t, "airflow_requeue_sweeps_total") }
	f.Leader = NewLeader(LeaderOptions{
		Leases: f, Name: "airflow-requeue", MaxAge: maxAge, ReleaseAfter: releaseAfter, Clock: f.clock,
		Metrics: NewMetrics(registry),
		Log: slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})),
		Sweep: func(ctx context.Context) error {
			defer func() { f.swept = append(f.swept, f.clock.Since(noon())) }()
			return sweep(ctx)
		},
	})
	return f
}

func (f *follower) Get(_ context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	switch {
	case f.err != nil:
		return nil, f.err
	case f.record == nil:
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "leases"}, name)
	}
	lease := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &f.record.holder, RenewTime: ptr.To(metav1.NewMicroTime(f.record.renewed))}}
	if f.record.ready {
		lease.Labels = map[string]string{requeue.LabelReady: "true"}
	}
	return lease, nil
}

// pass polls for d, as Run would; a sweep that began has ended when the next poll begins.
func (f *follower) pass(t *testing.T, d time.Duration) {
	t.Helper()
	for range d / pollInterval {
		f.clock.Step(pollInterval)
		f.poll(t.Context())
		f.sweeping.Wait()
	}
}

// renews lets the leader renew for d.
func (f *follower) renews(t *testing.T, d time.Duration, change ...func(leaseRecord) leaseRecord) {
	t.Helper()
	for n := range d / pollInterval {
		record := renewal(int(n))
		for _, c := range change {
			record = c(record)
		}
		f.record = &record
		f.pass(t, pollInterval)
	}
}

func nothing(context.Context) error { return nil }

func TestLeaderIsReadyWhileAWatcherRenews(t *testing.T) {
	f := newFollower(t, nothing)
	assert.False(t, f.Ready())
	f.renews(t, 4*time.Second)
	assert.True(t, f.Ready())
	f.clock.Step(maxAge + 1)
	assert.False(t, f.Ready(), "no look is needed to grow old")
}

func TestLeaderLogsEveryChangeOnce(t *testing.T) {
	f := newFollower(t, nothing)
	f.pass(t, 10*time.Second)
	f.renews(t, 10*time.Second)
	f.renews(t, 10*time.Second, notReady)
	f.err = errors.New("connection refused")
	f.pass(t, 40*time.Second)
	f.err = nil
	f.pass(t, 10*time.Second)

	assert.Equal(t, []string{
		`level=INFO msg="leader changed" lease=airflow-requeue state="no leader, pods are not held" holder=""`,
		`level=INFO msg="leader changed" lease=airflow-requeue state="leader ready, pods are held" holder=watcher-1`,
		`level=INFO msg="leader changed" lease=airflow-requeue state="leader not ready, pods are not held" holder=watcher-1`,
		`level=WARN msg="lease can't be read" lease=airflow-requeue error="reading lease airflow-requeue: connection refused"`,
		`level=INFO msg="leader changed" lease=airflow-requeue state="no leader, pods are not held" holder=watcher-1`,
		`level=INFO msg="lease can be read again" lease=airflow-requeue`,
	}, strings.Split(strings.TrimSpace(f.log.String()), "\n"))
}

func TestLeaderSweepsWhenNoneLeads(t *testing.T) {
	t.Run("after a minute without a renewal, and every minute from then on", func(t *testing.T) {
		f := newFollower(t, nothing)
		f.renews(t, 10*time.Second)
		f.pass(t, 200*time.Second)
		assert.Equal(t, []time.Duration{70 * time.Second, 130 * time.Second, 190 * time.Second}, f.swept)
		assert.Equal(t, map[string]int{"done": 3}, f.counts())
		said := func() int { return strings.Count(f.log.String(), "no watcher leads, lifting all holds") }
		assert.Equal(t, 1, said())

		f.renews(t, 10*time.Second)
		f.pass(t, 70*time.Second)
		assert.Len(t, f.swept, 4)
		assert.Equal(t, 2, said(), "once each time")
	})
	t.Run("also where there never was a lease", func(t *testing.T) {
		f := newFollower(t, nothing)
		f.pass(t, 70*time.Second)
		assert.Equal(t, []time.Duration{62 * time.Second}, f.swept)
	})
	t.Run("again a minute after a sweep that failed", func(t *testing.T) {
		f := newFollower(t, func(context.Context) error { return errors.New("forbidden") })
		f.pass(t, 130*time.Second)
		assert.Equal(t, []time.Duration{62 * time.Second, 122 * time.Second}, f.swept)
		assert.Equal(t, map[string]int{"failed": 2}, f.counts())
		assert.Contains(t, f.log.String(), `msg="lifting all holds failed" lease=airflow-requeue error=forbidden`)
	})
	t.Run("not while a watcher leads that is not ready", func(t *testing.T) {
		f := newFollower(t, nothing)
		f.renews(t, 10*time.Minute, notReady)
		assert.Empty(t, f.swept)
	})
	t.Run("not while the lease can't be read", func(t *testing.T) {
		f := newFollower(t, nothing)
		f.renews(t, 10*time.Second)
		f.err = errors.New("connection refused")
		f.pass(t, 10*time.Minute)
		assert.Empty(t, f.swept)
	})
	t.Run("a minute after it can be read again", func(t *testing.T) {
		f := newFollower(t, nothing)
		f.err = errors.New("connection refused")
		f.pass(t, 10*time.Minute)
		f.err = nil
		f.pass(t, 70*time.Second)
		assert.Equal(t, []time.Duration{662 * time.Second}, f.swept)
	})
	t.Run("not when a second look, right before, sees a watcher", func(t *testing.T) {
		f := newFollower(t, nothing)
		gets, record := 0, renewal(1)
		f.Leases = getterFunc(func(ctx context.Context) (*coordinationv1.Lease, error) {
			if gets++; gets == 32 { // the 31st look is the one after which it would sweep
				f.record = &record
			}
			return f.Get(ctx, "airflow-requeue", metav1.GetOptions{})
		})
		f.pass(t, 90*time.Second)
		assert.Empty(t, f.swept)
		assert.Greater(t, gets, 32)
	})
	t.Run("until a watcher leads again", func(t *testing.T) {
		f := newFollower(t, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		for range 40 {
			f.clock.Step(pollInterval)
			f.poll(t.Context())
		}
		require.NotNil(t, f.stop, "under way")
		record := renewal(1)
		f.record = &record
		f.pass(t, pollInterval)
		assert.Equal(t, []time.Duration{82 * time.Second}, f.swept)
		assert.Equal(t, map[string]int{"stopped": 1}, f.counts())
		f.renews(t, 10*time.Minute)
		assert.Len(t, f.swept, 1)
	})
}

type getterFunc func(context.Context) (*coordinationv1.Lease, error)

func (g getterFunc) Get(ctx context.Context, _ string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	return g(ctx)
}

func TestLeaderIsAliveWhileItLooks(t *testing.T) {
	f := newFollower(t, nothing)
	assert.EqualError(t, f.Alive(), "not looking at the watcher's lease airflow-requeue")
	f.err = errors.New("connection refused")
	f.pass(t, 4*time.Second)
	assert.NoError(t, f.Alive(), "to fail is to look")
	f.clock.Step(stuckAfter + 1)
	assert.EqualError(t, f.Alive(), "not looking at the watcher's lease airflow-requeue")
}

func TestLeaderRunLooksEveryTwoSecondsAndReturns(t *testing.T) {
	f := newFollower(t, nothing)
	looks := make(chan time.Duration)
	f.Leases = getterFunc(func(ctx context.Context) (*coordinationv1.Lease, error) {
		looks <- f.clock.Since(noon())
		return f.Get(ctx, "", metav1.GetOptions{})
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()

	assert.Equal(t, time.Duration(0), <-looks)
	f.clock.Step(pollInterval)
	assert.Equal(t, pollInterval, <-looks)
	cancel()
	<-done
}
