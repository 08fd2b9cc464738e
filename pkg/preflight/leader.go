package preflight

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// leader says whether a watcher leads and can decide.
func (c *checker) leader(ctx context.Context) Finding {
	toDo := "normal before the first watcher has started; else see its pods: kubectl -n " + c.Lease.Namespace +
		" get pods -l app.kubernetes.io/component=watcher; pods start unheld meanwhile, as without airflow-requeue"
	lease, err := c.client.CoordinationV1().Leases(c.Lease.Namespace).Get(ctx, c.Lease.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return warn(toDo, "none: there is no Lease %s in namespace %s", c.Lease.Name, c.Lease.Namespace)
	case err != nil:
		return c.untold(err)
	}
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	renewed := ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}).Time
	age := c.Clock.Since(renewed)
	switch {
	case holder == "":
		return warn(toDo, "none: the last one has given the Lease up")
	case age.Abs() > c.Lease.Duration && !c.renews(ctx, lease):
		return warn(toDo, "none: %s last renewed the Lease %s ago, by its own clock", holder, age.Round(time.Second))
	case lease.Labels[requeue.LabelReady] != "true":
		return warn("see its log for why: kubectl -n "+c.Lease.Namespace+" logs POD; pods start unheld meanwhile, as without airflow-requeue",
			"%s, which can't read the metadata database", holder)
	}
	c.lease = lease
	return ok("%s, which can decide", holder)
}

// renews reports whether a Lease that looks stale is renewed all the same: the clocks of its holder and ours may differ. A
// watcher that is about to start does not wait for one that may be gone.
func (c *checker) renews(ctx context.Context, lease *coordinationv1.Lease) bool {
	renewed := func(ctx context.Context) (bool, error) {
		next, err := c.client.CoordinationV1().Leases(lease.Namespace).Get(ctx, lease.Name, metav1.GetOptions{})
		return err == nil && !next.Spec.RenewTime.Equal(lease.Spec.RenewTime), nil
	}
	return !c.Starting && wait.PollUntilContextTimeout(ctx, c.Lease.RetryPeriod/2, 3*c.Lease.RetryPeriod, false, renewed) == nil
}
