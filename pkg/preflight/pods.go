package preflight

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// pageSize bounds what one list holds in memory.
const pageSize = 500

// eachPod visits pods of the installation's namespaces: all of them, or no more than the first page of each namespace.
func (c *checker) eachPod(ctx context.Context, selector string, all bool, visit func(*corev1.Pod)) error {
	for _, namespace := range c.Namespaces {
		list := metav1.ListOptions{LabelSelector: selector, Limit: pageSize}
		for more := true; more; more = all && list.Continue != "" {
			page, err := c.client.CoreV1().Pods(namespace).List(ctx, list)
			if err != nil {
				return fmt.Errorf("listing pods of namespace %s: %w", namespace, err)
			}
			for i := range page.Items {
				visit(&page.Items[i])
			}
			list.Continue = page.Continue
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
	err := c.eachPod(ctx, requeue.LabelTracked+"="+c.Installation, true, func(pod *corev1.Pod) {
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

// workers says which Airflow makes pods, and whether the webhook stamps them.
func (c *checker) workers(ctx context.Context) Finding {
	var pods, fresh, stamped int
	airflows := map[string]bool{}
	old := false
	err := c.eachPod(ctx, requeue.LabelKubernetesExecutor+"=True", false, func(pod *corev1.Pod) {
		pods++
		airflow, known := requeue.ParseAirflow(pod.Labels[requeue.LabelAirflowVersion])
		airflows[cmp.Or(pod.Labels[requeue.LabelAirflowVersion], "an unknown version")] = true
		if known && airflow.Before(requeue.OldestAirflow()) {
			old = true
			return
		}
		if c.lease == nil || c.lease.Spec.AcquireTime == nil || pod.CreationTimestamp.Sub(c.lease.Spec.AcquireTime.Time) < settled {
			return
		}
		if fresh++; pod.Annotations[requeue.AnnotationSignature] != "" {
			stamped++
		}
	})
	seen := fmt.Sprintf("%s, of Airflow %s", count(pods, "pod"), strings.Join(slices.Sorted(maps.Keys(airflows)), ", "))
	switch {
	case err != nil:
		return c.untold(err)
	case pods == 0:
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
