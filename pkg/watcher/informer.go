package watcher

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// heldPod is what the informer keeps of a tracked pod: what decisions read of it, and the verdict on its seal, which
// takes the whole pod.
type heldPod struct {
	*corev1.Pod
	seal requeue.Seal
}

// byChain indexes heldPods by the first pod of their chain, so that a pod and its replacement find one another, also
// while the seal of one can't be verified.
const byChain = "chain"

func chainOf(p *heldPod) string { return p.Namespace + "/" + p.Annotations[requeue.AnnotationOrigin] }

// newPodInformer watches the tracked pods of one namespace.
func newPodInformer(client kubernetes.Interface, namespace, installation string, sealer *requeue.Sealer) (cache.SharedIndexInformer, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, resync, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = requeue.LabelTracked + "=" + installation }))
	informer := factory.Core().V1().Pods().Informer()
	if err := informer.SetTransform(slim(sealer)); err != nil {
		return nil, fmt.Errorf("setting the pod informer's transform: %w", err)
	}
	err := informer.AddIndexers(cache.Indexers{byChain: func(obj any) ([]string, error) {
		p, ok := obj.(*heldPod)
		if !ok {
			return nil, nil
		}
		return []string{chainOf(p)}, nil
	}})
	if err != nil {
		return nil, fmt.Errorf("adding the pod informer's index: %w", err)
	}
	return informer, nil
}

// newNamespaceInformer watches one namespace for its phase.
func newNamespaceInformer(client kubernetes.Interface, namespace string) cache.SharedIndexInformer {
	factory := informers.NewSharedInformerFactoryWithOptions(client, resync,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=" + namespace }))
	return factory.Core().V1().Namespaces().Informer()
}

// slim verifies a pod as it arrives and keeps of it only what decisions read: a job spec is up to 256 KiB, managed
// fields are 2 to 4 KB. The informer may hand an object through twice.
func slim(sealer *requeue.Sealer) cache.TransformFunc {
	return func(obj any) (any, error) {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return obj, nil // slimmed before, or a tombstone of one that was
		}
		return slimmed(pod, sealer.Verify(pod)), nil
	}
}

func slimmed(pod *corev1.Pod, seal requeue.Seal) *heldPod {
	annotations := make(map[string]string, len(pod.Annotations))
	for k, v := range pod.Annotations {
		if k != requeue.AnnotationJobSpec {
			annotations[k] = v
		}
	}
	return &heldPod{seal: seal, Pod: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			CreationTimestamp: pod.CreationTimestamp, DeletionTimestamp: pod.DeletionTimestamp,
			Labels: pod.Labels, Annotations: annotations, Finalizers: pod.Finalizers,
		},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, Hostname: pod.Spec.Hostname, SchedulingGates: pod.Spec.SchedulingGates,
			InitContainers: slimContainers(pod.Spec.InitContainers),
		},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: pod.Status.Message,
			PodIP: pod.Status.PodIP, PodIPs: pod.Status.PodIPs,
			Conditions:            slimConditions(pod.Status.Conditions),
			InitContainerStatuses: slimStatuses(pod.Status.InitContainerStatuses),
			ContainerStatuses:     slimStatuses(pod.Status.ContainerStatuses),
		},
	}}
}

// slimContainers keeps what tells a native sidecar from an init container.
func slimContainers(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for _, c := range containers {
		kept = append(kept, corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy})
	}
	return kept
}

func slimConditions(conditions []corev1.PodCondition) []corev1.PodCondition {
	var kept []corev1.PodCondition
	for _, c := range conditions {
		if c.Type == corev1.DisruptionTarget {
			kept = append(kept, c)
		}
	}
	return kept
}

func slimStatuses(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	var kept []corev1.ContainerStatus
	for _, s := range statuses {
		kept = append(kept, corev1.ContainerStatus{Name: s.Name, State: s.State})
	}
	return kept
}
