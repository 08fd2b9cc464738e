package watcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// LeaseOptions name the Lease that watchers compete for and the webhook reads.
type LeaseOptions struct {
	Namespace, Name string
	Identity        string        // of this process, unlike any other's
	Duration        time.Duration // how long a silent leader keeps the Lease
	RenewDeadline   time.Duration // when a leader that can't renew gives up
	RetryPeriod     time.Duration // between renewals, and between tries of the others
}

// ErrLeaseLost says that another process may lead now: the process is to end.
var ErrLeaseLost = errors.New("the lease is lost")

// readyLock says with each renewal whether the leader can decide, in the same write. It gives the Lease up only when the
// leader is over.
type readyLock struct {
	*resourcelock.LeaseLock
	ready func() bool
	over  func() // ends the lead, and returns when it has ended
}

// Create makes the Lease.
func (l *readyLock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	l.say(r)
	return l.LeaseLock.Create(ctx, r)
}

// Update renews the Lease, or gives it up.
func (l *readyLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if r.HolderIdentity == "" {
		l.over()
	}
	l.say(r)
	return l.LeaseLock.Update(ctx, r)
}

// say is called by the elector's one goroutine, as Create and Update are.
func (l *readyLock) say(r resourcelock.LeaderElectionRecord) {
	ready := r.HolderIdentity == l.Identity() && l.ready()
	l.Labels = map[string]string{requeue.LabelReady: strconv.FormatBool(ready)}
}

// RunElected calls lead while this process holds the Lease, until the context ends (nil) or the Lease is lost
// (ErrLeaseLost). lead's context ends with either. The Lease is given up only after lead has returned, so that the next
// leader finds no write of ours under way.
func RunElected(ctx context.Context, client kubernetes.Interface, opts LeaseOptions, ready func() bool, lead func(context.Context), log *slog.Logger) error {
	// The elector outlives ctx by the time that lead takes to return.
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	working, finish := context.WithCancel(ctx)
	defer finish()
	var leading sync.Once
	over := func() {
		finish()
		leading.Do(func() {}) // the last write is done; or lead never begins
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &readyLock{ready: ready, over: over, LeaseLock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: opts.Namespace, Name: opts.Name}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: opts.Identity}}},
		LeaseDuration: opts.Duration, RenewDeadline: opts.RenewDeadline, RetryPeriod: opts.RetryPeriod,
		ReleaseOnCancel: true, Name: opts.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(electing context.Context) {
				leading.Do(func() {
					defer context.AfterFunc(electing, finish)()
					log.Info("leading", "lease", opts.Namespace+"/"+opts.Name)
					lead(working)
				})
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(id string) {
				if id != opts.Identity {
					log.Info("following", "leader", id)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("setting up leader election: %w", err)
	}
	elected := make(chan struct{})
	go func() {
		defer close(elected)
		elector.Run(electing)
	}()
	select {
	case <-ctx.Done():
	case <-elected:
	}
	over()
	lost := ctx.Err() == nil
	stop()
	<-elected
	if lost {
		return ErrLeaseLost
	}
	return nil
}
