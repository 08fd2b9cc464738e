package preflight

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	// ownSetting is how the environment sets [kubernetes_executor] pod_launch_failure_retries, which the cncf.kubernetes
	// provider has since 10.20.0, with default 1.
	ownSetting = "AIRFLOW__KUBERNETES_EXECUTOR__POD_LAUNCH_FAILURE_RETRIES"
	// schedulers is how Airflow's chart labels its scheduler's pods.
	schedulers = "component=scheduler"
)

// ownSince is the oldest Airflow that provider 10.20.0 can be installed with, as its metadata says.
func ownSince() requeue.Airflow { return requeue.Airflow{Major: 2, Minor: 11} }

// airflowsOwn says whether Airflow's own requeue seems on: it still applies to what is reported to Airflow, so that a pod may be
// replaced more often than anybody has asked for.
func (c *checker) airflowsOwn(ctx context.Context) Finding {
	scheduling, err := c.some(ctx, schedulers)
	if err != nil {
		return c.untold(err)
	}
	working, err := c.workers(ctx)
	if err != nil {
		return c.untold(err)
	}
	return judgeOwn(append(scheduling, working...))
}

// judgeOwn goes by what can be seen of Airflow's pods, the scheduler's first. What airflow.cfg says, which provider is
// installed, and what comes from a Secret or a ConfigMap can't be seen.
func judgeOwn(pods []corev1.Pod) Finding {
	toDo := "set " + ownSetting + "=0 for the scheduler; leave it where airflow.cfg does so, " +
		"or where the provider is older than 10.20: neither can be seen from here"
	workers, old := 0, 0
	for i := range pods {
		pod := &pods[i]
		for _, container := range pod.Spec.Containers {
			for _, e := range container.Env {
				switch {
				case e.Name != ownSetting || e.ValueFrom != nil:
				case e.Value == "0":
					return ok("off, says the environment of pod %s", pod.Name)
				default:
					return warn(toDo, "on, %s, says the environment of pod %s", e.Value, pod.Name)
				}
			}
		}
		if pod.Labels[requeue.LabelKubernetesExecutor] == "True" {
			workers++
			if airflow, known := requeue.ParseAirflow(pod.Labels[requeue.LabelAirflowVersion]); known && airflow.Before(ownSince()) {
				old++
			}
		}
	}
	switch {
	case workers > 0 && old == workers:
		return ok("none: it came with a provider that needs Airflow %s", ownSince())
	case len(pods) == 0:
		return warn(toDo, "can't be told: there is no pod of a scheduler (%s), and no worker pod", schedulers)
	}
	return warn(toDo, "seems on: it is by default since provider 10.20")
}
