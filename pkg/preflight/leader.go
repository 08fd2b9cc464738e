package preflight

import (
	"context"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// leaderOf names the check.
func (c *checker) leaderOf(shard int) string {
	if c.shards() == 1 {
		return "leader"
	}
	return fmt.Sprintf("leader of shard %d", shard)
}

// leader says whether a watcher of a shard leads and can decide.
func (c *checker) leader(ctx context.Context, shard int) Finding {
	namespaces, whose := requeue.InShard(c.Namespaces, shard, c.shards()), ""
	if len(namespaces) == 0 {
		return warn("give webhook and watchers fewer --shards, or leave this one's watcher out: a namespace goes to a shard by its name",
			"not needed: of %s none is in this shard", count(len(c.Namespaces), "namespace"))
	}
	if c.shards() > 1 {
		whose = ", for " + strings.Join(namespaces, ", ")
	}
	toDo := "normal before the first watcher has started; else see its pods: kubectl -n " + c.Lease.Namespace +
		" get pods -l app.kubernetes.io/component=watcher; pods start unheld meanwhile, as without airflow-requeue"
	name := requeue.LeaseOf(c.Lease.Name, shard, c.shards())
	lease, err := c.client.CoordinationV1().Leases(c.Lease.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return warn(toDo, "none%s: there is no Lease %s in namespace %s", whose, name, c.Lease.Namespace)
	case err != nil:
		return c.untold(err)
	}
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	renewed := ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}).Time
	age := c.Clock.Since(renewed)
	switch {
	case holder == "" && renewed.IsZero(): // as the manifests have it
		return warn(toDo, "none%s: nobody has taken Lease %s in namespace %s yet", whose, name, c.Lease.Namespace)
	case holder == "":
		return warn(toDo, "none%s: the last one has given the Lease up", whose)
	case age.Abs() > c.Lease.Duration && !c.renews(ctx, lease):
		return warn(toDo, "none%s: %s last renewed the Lease %s ago, by its own clock", whose, holder, age.Round(time.Second))
	case lease.Labels[requeue.LabelReady] != "true":
		return warn("see its log for why: kubectl -n "+c.Lease.Namespace+" logs POD; pods start unheld meanwhile, as without airflow-requeue",
			"%s, which can't read the metadata database%s", holder, whose)
	}
	c.leases[shard] = lease
	return ok("%s, which can decide%s", holder, whose)
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
