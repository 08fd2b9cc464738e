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

// byChain indexes replacements by the key of the first pod of their chain, so that a pod and its replacement find one another,
// also while the seal of one can't be verified. A chain's first pod is found by that key.
const byChain = "chain"

// newPodInformer watches the tracked pods of one namespace.
func newPodInformer(client kubernetes.Interface, namespace, installation string, sealer *requeue.Sealer) (cache.SharedIndexInformer, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, resync, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = requeue.LabelTracked + "=" + installation }))
	informer := factory.Core().V1().Pods().Informer()
	if err := informer.SetTransform(slim(sealer, informer.GetStore())); err != nil {
		return nil, fmt.Errorf("setting the pod informer's transform: %w", err)
	}
	err := informer.AddIndexers(cache.Indexers{byChain: func(obj any) ([]string, error) {
		t, ok := obj.(*trackedPod)
		if !ok || t.chain == t.name {
			return nil, nil
		}
		return []string{t.chainKey()}, nil
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
// fields are 2 to 4 KB. The informer may hand an object through twice. store is the informer's.
func slim(sealer *requeue.Sealer, store cache.Store) cache.TransformFunc {
	return func(obj any) (any, error) {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return obj, nil // slimmed before, or a tombstone of one that was
		}
		last, _, err := store.GetByKey(cache.MetaObjectToName(pod).String())
		if err != nil {
			return nil, fmt.Errorf("looking for pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
		known, _ := last.(*trackedPod)
		return track(pod, sealer, known)
	}
}

// slimmed is what decisions read of a pod. That there is a signature is enough, once it was verified.
func slimmed(pod *corev1.Pod) *corev1.Pod {
	annotations := make(map[string]string, len(pod.Annotations))
	for k, v := range pod.Annotations {
		switch k {
		case requeue.AnnotationJobSpec, requeue.AnnotationJobSpecChecksum:
		case requeue.AnnotationSignature:
			annotations[k] = v[:min(len(v), len("v1"))]
		default:
			annotations[k] = v
		}
	}
	return &corev1.Pod{
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
	}
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
