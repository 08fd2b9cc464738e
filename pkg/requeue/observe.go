package requeue

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Observe mode: a pod that is stamped and tracked but carries neither hold nor finalizer. Nothing is ever done to it; what
// would be done is told.

// Observe stamps a pod that Airflow submits as Stamp does, but to be looked at only.
func (s *Sealer) Observe(pod *unstructured.Unstructured, installation, namespace string, jobSpec []byte) error {
	packed, checksum := s.Pack(jobSpec)
	return s.stamp(pod, stamps{installation: installation, namespace: namespace, origin: pod.GetName(), packed: packed, checksum: checksum,
		observed: true, more: map[string]string{AnnotationMode: ModeObserve}})
}

// Observed reports whether the pod is only looked at. What carries our hold or our finalizer never is, whatever its
// annotations say: it is to be settled.
func Observed(pod *corev1.Pod) bool {
	return Tracked(pod) && pod.Annotations[AnnotationMode] == ModeObserve && !Held(pod) && !hasFinalizer(pod)
}

// AsHeld returns an observed pod as it would be if it were held: to decide on. recorded are the annotations that earlier
// decisions would have left on it, as Decision.Annotations has them. Airflow's own revocation stays.
func AsHeld(pod *corev1.Pod, recorded map[string]string) *corev1.Pod {
	held := *pod
	held.Labels, held.Annotations = maps.Clone(pod.Labels), maps.Clone(pod.Annotations)
	if !Revoked(pod) {
		held.Labels[LabelHold] = HoldValue
	}
	for name, value := range recorded {
		if held.Annotations[name] = value; value == "" {
			delete(held.Annotations, name)
		}
	}
	held.Finalizers = append(slices.Clone(pod.Finalizers), Finalizer)
	return &held
}
