package preflight

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// answers has the API server ask the webhook, by creating a pod as a dry run: the webhook takes forged stamps off any pod. It
// counts no dry run.
func (c *checker) answers(ctx context.Context) Finding {
	for _, namespace := range c.Namespaces {
		pod, err := c.client.CoreV1().Pods(namespace).Create(ctx, probe(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if c.lacks && apierrors.IsForbidden(err) {
			return c.untold(err)
		}
		if err != nil {
			return warn("let it be created, or see on the webhook's pods that airflow_requeue_admissions_total counts",
				"can't be told: the API server takes no pod as a dry run: %v", err)
		}
		if _, left := pod.Annotations[requeue.AnnotationMessage]; left {
			return fail("see that the webhook's pods are ready, and that the control plane may reach them (port 8443, behind the Service): "+
				"kubectl get pods -l app.kubernetes.io/component=webhook; until then pods start unheld, as without airflow-requeue",
				"the API server could not ask it about a pod in namespace %s", namespace)
		}
	}
	return ok("asked by the API server, about a pod that was created as a dry run")
}

// probe is a worker pod with a forged stamp, small and confined enough for any namespace.
func probe() *corev1.Pod {
	no, yes := false, true
	tiny := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("1Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "airflow-requeue-check-", Labels: map[string]string{requeue.LabelKubernetesExecutor: "True"},
			Annotations: map[string]string{requeue.AnnotationMessage: "the webhook takes this off"}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no,
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: requeue.BaseContainer, Image: "registry.k8s.io/pause:3.10",
				Resources: corev1.ResourceRequirements{Requests: tiny, Limits: tiny},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}}},
		},
	}
}
