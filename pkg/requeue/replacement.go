package requeue

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json" // keeps whole numbers whole
)

// ReplacementName is the same for every attempt to create the same replacement, so that the API server itself refuses a
// second one. It is cut at the front, since Airflow's names end in the random part. A name that a stranger has taken
// is avoided with a hash of the old pod's UID.
func ReplacementName(old *corev1.Pod, next Next, taken bool) string {
	suffix := "-r" + strconv.Itoa(next.Attempt)
	if taken {
		sum := sha256.Sum256([]byte(old.UID))
		suffix += "-" + hex.EncodeToString(sum[:4])
	}
	origin := old.Annotations[AnnotationOrigin]
	// A pod's hostname is its name, cut to 63 characters at the end: a longer name would lose the suffix there.
	if over := len(origin) + len(suffix) - maxHostname; over > 0 {
		origin = strings.TrimLeft(origin[over:], "-.")
	}
	return origin + suffix
}

// Replacement returns the JSON of the pod that takes the old one's place: the job spec, stamped anew, gated,
// uncommitted and without airflow-worker. The old pod is as the API server has it, and its seal is valid.
func (s *Sealer) Replacement(old *corev1.Pod, next Next, name string) ([]byte, error) {
	spec, err := s.Unpack(old)
	if err != nil {
		return nil, err
	}
	pod := &unstructured.Unstructured{}
	if err := json.Unmarshal(spec, &pod.Object); err != nil {
		return nil, fmt.Errorf("decoding the job spec: %w", err)
	}
	pod.SetName(name)
	pod.SetNamespace(old.Namespace)
	for _, label := range []string{LabelWorker, LabelExecutorDone} {
		unstructured.RemoveNestedField(pod.Object, "metadata", "labels", label)
	}
	if err := appendNested(pod, map[string]any{"name": SchedulingGate}, "spec", "schedulingGates"); err != nil {
		return nil, err
	}
	if next.AvoidNode != "" {
		if err := avoid(pod, next.AvoidNode); err != nil {
			return nil, err
		}
	}
	st := stamps{
		installation: old.Labels[LabelTracked],
		namespace:    old.Namespace,
		attempt:      next.Attempt,
		origin:       old.Annotations[AnnotationOrigin],
		packed:       old.Annotations[AnnotationJobSpec],
		checksum:     old.Annotations[AnnotationJobSpecChecksum],
		more: map[string]string{
			AnnotationRequeueOf: string(old.UID),
			AnnotationQueuedAt:  FormatTime(next.QueuedAt),
			AnnotationNotBefore: FormatTime(next.NotBefore),
		},
	}
	if err := s.stamp(pod, st); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(pod.Object)
	if err != nil {
		return nil, fmt.Errorf("encoding the replacement: %w", err)
	}
	return raw, nil
}

// avoid adds a preferred node anti-affinity to what affinity the pod has: never a required one, since the failed node
// may be the only one there is.
func avoid(pod *unstructured.Unstructured, node string) error {
	return appendNested(pod, map[string]any{
		"weight": int64(100),
		"preference": map[string]any{"matchFields": []any{map[string]any{
			"key": "metadata.name", "operator": "NotIn", "values": []any{node},
		}}},
	}, "spec", "affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution")
}

func appendNested(pod *unstructured.Unstructured, item any, path ...string) error {
	list, _, err := unstructured.NestedSlice(pod.Object, path...)
	if err == nil {
		err = unstructured.SetNestedSlice(pod.Object, append(list, item), path...)
	}
	if err != nil {
		return fmt.Errorf("building the replacement: %w", err)
	}
	return nil
}
