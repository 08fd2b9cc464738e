package mutate

import (
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	// maxAnnotations is what the annotations of one object may have in bytes, keys and values (apimachinery,
	// validation.TotalAnnotationSizeLimitB), less the room for what the watcher writes later.
	maxAnnotations = (256 - 8) << 10
	// maxJobSpec keeps a pod that etcd takes (1.5 MiB) small enough for it when the stamps have come on top.
	maxJobSpec = 1 << 20
)

// hold stamps the pod, to be held or, in observe mode, to be looked at; or leaves it as it is.
func (m Marker) hold(pod *unstructured.Unstructured, namespace string) (Outcome, error) {
	jobSpec, err := requeue.JobSpec(pod)
	if err != nil {
		return Internal, err
	}
	if len(jobSpec) > maxJobSpec {
		return TooLarge, nil
	}
	if _, err := requeue.ParseJob(jobSpec); err != nil {
		return NotTaskInstance, err
	}
	stamp, outcome := m.Sealer.Stamp, Held
	if m.Observe {
		stamp, outcome = m.Sealer.Observe, Observed
	}
	stamped := copyOf(pod)
	if err := stamp(stamped, m.Installation, namespace, jobSpec); err != nil {
		return Internal, err
	}
	size := 0
	for name, value := range stamped.GetAnnotations() {
		size += len(name) + len(value)
	}
	if size > maxAnnotations {
		return TooLarge, nil
	}
	pod.Object = stamped.Object
	return outcome, nil
}

// copyOf copies a pod so far that labels, annotations and finalizers can be set: Stamp replaces them, and changes nothing
// else.
func copyOf(pod *unstructured.Unstructured) *unstructured.Unstructured {
	object := maps.Clone(pod.Object)
	if metadata, ok := object["metadata"].(map[string]any); ok {
		object["metadata"] = maps.Clone(metadata)
	}
	return &unstructured.Unstructured{Object: object}
}
