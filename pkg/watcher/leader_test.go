package watcher_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/watcher"
)

// candidate is a process that competes for the world's Lease.
type candidate struct {
	stop  context.CancelFunc
	ready atomic.Bool
	led   chan struct{} // closed when it leads
	asked chan struct{} // closed when its lead is told to end
	end   chan struct{} // to be closed for its lead to return
	over  atomic.Bool   // its lead has returned
	done  chan error    // how it ended
}

func (w *world) compete(identity string, client kubernetes.Interface) *candidate {
	ctx, cancel := context.WithCancel(w.ctx)
	c := &candidate{stop: cancel, led: make(chan struct{}), asked: make(chan struct{}), end: make(chan struct{}), done: make(chan error, 1)}
	lead := func(ctx context.Context) {
		defer c.over.Store(true)
		close(c.led)
		<-ctx.Done()
		close(c.asked)
		select {
		case <-c.end:
		case <-w.ctx.Done():
		}
	}
	go func() {
		c.done <- watcher.RunElected(ctx, client, watcher.LeaseOptions{Namespace: w.namespace, Name: "watcher", Identity: identity,
			Duration: 3 * time.Second, RenewDeadline: time.Second, RetryPeriod: 100 * time.Millisecond},
			c.ready.Load, lead, slog.New(slog.DiscardHandler))
	}()
	return c
}

func (w *world) lease() *coordinationv1.Lease {
	w.t.Helper()
	lease, err := w.client.CoordinationV1().Leases(w.namespace).Get(w.ctx, "watcher", metav1.GetOptions{})
	require.NoError(w.t, err)
	return lease
}

func holder(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func TestTheLeaseSaysWhetherItsHolderCanDecide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.compete("a", w.client)
	w.untilReached(c.led)
	require.Equal(t, "a", holder(w.lease()))
	for _, ready := range []bool{false, true, false, true} {
		c.ready.Store(ready)
		want := map[bool]string{true: "true", false: "false"}[ready]
		w.eventually("the Lease says "+want, func() bool { return w.lease().Labels[requeue.LabelReady] == want })
	}
	close(c.end)
	c.stop()
	require.NoError(t, <-c.done)
	require.Equal(t, "false", w.lease().Labels[requeue.LabelReady], "nobody leads")
	require.Empty(t, holder(w.lease()))
}

func TestTheLeaseIsGivenUpOnlyWhenTheLastWriteIsDoneAndTheNextTakesOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.compete("a", w.client)
	w.untilReached(first.led)
	second := w.compete("b", w.client)
	first.stop()
	w.untilReached(first.asked)
	renewed := w.lease().Spec.RenewTime
	w.eventually("it renews on, though it was told to stop", func() bool {
		lease := w.lease()
		return holder(lease) == "a" && lease.Spec.RenewTime.After(renewed.Time)
	})
	select {
	case <-second.led:
		require.Fail(t, "two lead")
	default:
	}
	close(first.end)
	require.NoError(t, <-first.done)
	w.untilReached(second.led)
	require.Equal(t, "b", holder(w.lease()))
	close(second.end)
}

func TestALeaseThatAnotherTookIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.compete("a", w.client)
	w.untilReached(c.led)
	w.eventually("another takes it", func() bool {
		lease := w.lease()
		thief := "thief"
		lease.Spec.HolderIdentity = &thief
		_, err := w.client.CoordinationV1().Leases(w.namespace).Update(t.Context(), lease, metav1.UpdateOptions{})
		return err == nil
	})
	w.untilReached(c.asked)
	close(c.end)
	require.ErrorIs(t, <-c.done, watcher.ErrLeaseLost)
	require.Equal(t, "thief", holder(w.lease()))
}

func TestALeaseThatCannotBeRenewedIsLostAndGivenUpOnlyWhenTheLastWriteIsDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var c *candidate
	var outage, early atomic.Bool
	client := w.wired(&wire{bell: w.bell, any: func(r *http.Request) error {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/leases/") {
			return nil
		}
		switch renewal := strings.Contains(bodyOf(r), "one-and-only"); {
		case renewal && outage.Load():
			return errLost
		case !renewal && !c.over.Load():
			early.Store(true)
		}
		return nil
	}})
	c = w.compete("one-and-only", client)
	w.untilReached(c.led)
	outage.Store(true)
	w.untilReached(c.asked)
	require.Equal(t, "one-and-only", holder(w.lease()))
	close(c.end)
	require.ErrorIs(t, <-c.done, watcher.ErrLeaseLost)
	require.False(t, early.Load(), "given up while it still wrote")
}

func TestAProcessThatIsStoppedBeforeItLeadsNeverDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.compete("a", w.client)
	w.untilReached(first.led)
	second := w.compete("b", w.client)
	second.stop()
	require.NoError(t, <-second.done)
	select {
	case <-second.led:
		require.Fail(t, "two lead")
	default:
	}
	require.Equal(t, "a", holder(w.lease()))
	close(first.end)
}
