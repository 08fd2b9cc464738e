package preflight

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// enough is how many pods of a namespace are looked at where not all have to be, and how many are in memory where they do.
const enough = 500

// some lists pods of the installation's namespaces: enough of each, never nil.
func (c *checker) some(ctx context.Context, selector string) ([]corev1.Pod, error) {
	pods := []corev1.Pod{}
	for _, namespace := range c.Namespaces {
		list, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: enough})
		if err != nil {
			return nil, fmt.Errorf("listing pods of namespace %s: %w", namespace, err)
		}
		pods = append(pods, list.Items...)
	}
	return pods, nil
}

// each visits all pods of the installation's namespaces.
func (c *checker) each(ctx context.Context, selector string, visit func(*corev1.Pod)) error {
	for _, namespace := range c.Namespaces {
		pages := pager.ListPager{PageSize: enough, PageFn: func(ctx context.Context, list metav1.ListOptions) (runtime.Object, error) {
			return c.client.CoreV1().Pods(namespace).List(ctx, list)
		}}
		err := pages.EachListItem(ctx, metav1.ListOptions{LabelSelector: selector}, func(pod runtime.Object) error {
			visit(pod.(*corev1.Pod))
			return nil
		})
		if err != nil {
			return fmt.Errorf("listing pods of namespace %s: %w", namespace, err)
		}
	}
	return nil
}

// slack is how much longer than Airflow waits for a queued task a pod may be held: by then Airflow has given the pod up, and a
// watcher has let go of it.
const slack = 5 * time.Minute

// held says how many pods are held, and the longest for how long.
func (c *checker) held(ctx context.Context) Finding {
	var pods, observed int
	var first *corev1.Pod
	err := c.each(ctx, requeue.LabelTracked+"="+c.Installation, func(pod *corev1.Pod) {
		if requeue.Observed(pod) {
			observed++
			return
		}
		if pods++; first == nil || pod.CreationTimestamp.Before(&first.CreationTimestamp) {
			first = pod
		}
	})
	if err != nil {
		return c.untold(err)
	}
	seen := "none"
	if first != nil {
		seen = fmt.Sprintf("%d, the longest for %s", pods, c.age(first.CreationTimestamp))
	}
	if observed > 0 {
		seen += fmt.Sprintf("; %d more are observed", observed)
	}
	if limit := c.Policy.TaskQueuedTimeout + slack; first != nil && c.Clock.Since(first.CreationTimestamp.Time) > limit {
		return warn(fmt.Sprintf("its Events and the watcher's log tell why: kubectl -n %s describe pod %s; where no watcher leads, the webhook lifts every hold after "+
			"a minute, and manifests/release does so at once", first.Namespace, first.Name), "%s: %s/%s", seen, first.Namespace, first.Name)
	}
	return ok("%s", seen)
}

func (c *checker) age(since metav1.Time) time.Duration {
	return c.Clock.Since(since.Time).Round(time.Second)
}

// settled is how long a leader has led before every pod that is made should be held: until the webhook has seen it renew.
const settled = time.Minute

// workers are worker pods, which are read once.
func (c *checker) workers(ctx context.Context) (pods []corev1.Pod, err error) {
	if c.read == nil {
		c.read, err = c.some(ctx, requeue.LabelKubernetesExecutor+"=True")
	}
	return c.read, err
}

// airflow says which Airflow makes pods, and whether the webhook stamps them.
func (c *checker) airflow(ctx context.Context) Finding {
	pods, err := c.workers(ctx)
	if err != nil {
		return c.untold(err)
	}
	return judgeWorkers(pods, func(namespace string) *coordinationv1.Lease { return c.leases[requeue.Shard(namespace, c.shards())] })
}

// judgeWorkers goes by the worker pods, and by the Lease of a watcher that leads for a namespace; nil where none does.
func judgeWorkers(pods []corev1.Pod, leading func(namespace string) *coordinationv1.Lease) Finding {
	var fresh, stamped int
	airflows := map[string]bool{}
	old := false
	for i := range pods {
		pod := &pods[i]
		airflow, known := requeue.ParseAirflow(pod.Labels[requeue.LabelAirflowVersion])
		airflows[cmp.Or(pod.Labels[requeue.LabelAirflowVersion], "an unknown version")] = true
		if known && airflow.Before(requeue.OldestAirflow()) {
			old = true
			continue
		}
		lease := leading(pod.Namespace)
		if lease == nil || lease.Spec.AcquireTime == nil || pod.CreationTimestamp.Sub(lease.Spec.AcquireTime.Time) < settled {
			continue
		}
		if fresh++; pod.Annotations[requeue.AnnotationSignature] != "" {
			stamped++
		}
	}
	seen := fmt.Sprintf("%s, of Airflow %s", count(len(pods), "pod"), strings.Join(slices.Sorted(maps.Keys(airflows)), ", "))
	switch {
	case len(pods) == 0:
		return ok("none at the moment")
	case old:
		return warn("upgrade Airflow to "+requeue.OldestAirflow().String()+" or later; or, where its cncf.kubernetes provider is 10.0.1 or later, "+
			"give the webhook --hold-unsupported-airflow", "%s: pods of one before %s are not held", seen, requeue.OldestAirflow())
	case fresh > 0 && stamped == 0:
		return warn("the webhook's airflow_requeue_admissions_total says why: outcome=\"OtherUser\" where its --airflow-user is not the account that Airflow's "+
			"scheduler creates pods with", "%s; none of the %d that were made since a watcher leads was held", seen, fresh)
	}
	return ok("%s", seen)
}
