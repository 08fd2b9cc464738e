package requeue

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Pods are stamped as unstructured objects: a typed one would lose the fields that this build's API does not know.

// StampAnnotations are the annotations that are never believed on the way in: all of ours but tuning.
func StampAnnotations() []string {
	return []string{AnnotationAttempt, AnnotationJobSpec, AnnotationJobSpecChecksum, AnnotationSignature, AnnotationOrigin,
		AnnotationRequeueOf, AnnotationQueuedAt, AnnotationNotBefore, AnnotationCommitted, AnnotationDetached,
		AnnotationReason, AnnotationMessage, AnnotationWaitingSince, AnnotationReleasedAt, AnnotationDiscarded,
		AnnotationReplacedAt, AnnotationUndoing, AnnotationMode}
}

// Unstamp takes everything of ours but tuning and gate off a pod that is about to be created, and reports whether there
// was anything. Airflow's own airflow_pod_revoked stays. So does the gate: should a watcher's replacement ever lose its
// stamps, for example to a webhook that knows the watcher by another name, it must not run.
func Unstamp(pod *unstructured.Unstructured) bool {
	found := false
	prune := func(path []string, names ...string) {
		m, ok, err := unstructured.NestedMap(pod.Object, path...)
		if !ok || err != nil {
			return
		}
		before := len(m)
		for _, n := range names {
			delete(m, n)
		}
		if len(m) == before {
			return
		}
		found = true
		if len(m) == 0 {
			unstructured.RemoveNestedField(pod.Object, path...)
			return
		}
		_ = unstructured.SetNestedMap(pod.Object, m, path...) // the path was just read
	}
	labels := []string{LabelTracked, LabelReplaced}
	if hold, _, _ := unstructured.NestedFieldNoCopy(pod.Object, "metadata", "labels", LabelHold); hold == HoldValue {
		labels = append(labels, LabelHold)
	}
	prune([]string{"metadata", "labels"}, labels...)
	prune([]string{"metadata", "annotations"}, StampAnnotations()...)
	return weed(pod, func(f any) bool { return f == Finalizer }, "metadata", "finalizers") || found
}

// RemoveGate takes our scheduling gate off a pod that is about to be created, as Unstamp does with all else, and reports
// whether it was there.
func RemoveGate(pod *unstructured.Unstructured) bool {
	return weed(pod, func(g any) bool {
		gate, ok := g.(map[string]any)
		return ok && gate["name"] == SchedulingGate
	}, "spec", "schedulingGates")
}

// weed takes what is ours out of a list, and the list away when nothing is left.
func weed(pod *unstructured.Unstructured, ours func(any) bool, path ...string) bool {
	list, ok, err := unstructured.NestedSlice(pod.Object, path...)
	if !ok || err != nil {
		return false
	}
	rest := slices.DeleteFunc(slices.Clone(list), ours)
	switch len(rest) {
	case len(list):
		return false
	case 0:
		unstructured.RemoveNestedField(pod.Object, path...)
	default:
		_ = unstructured.SetNestedSlice(pod.Object, rest, path...) // the path was just read
	}
	return true
}

// JobSpec returns the JSON of an unstamped pod without what only the API server writes: what is to be submitted again.
func JobSpec(pod *unstructured.Unstructured) ([]byte, error) {
	spec := shallow(pod)
	unstructured.RemoveNestedField(spec.Object, "status")
	for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"} {
		unstructured.RemoveNestedField(spec.Object, "metadata", field)
	}
	// Unstamp leaves none behind where the stamps were all there was: the same pod has the same job spec, stamped before
	// or not.
	for _, field := range []string{"labels", "annotations", "finalizers"} {
		if v, _, _ := unstructured.NestedFieldNoCopy(spec.Object, "metadata", field); empty(v) {
			unstructured.RemoveNestedField(spec.Object, "metadata", field)
		}
	}
	raw, err := json.Marshal(spec.Object, json.Deterministic(true), AsAPIServer())
	if err != nil {
		return nil, fmt.Errorf("encoding the job spec: %w", err)
	}
	return raw, nil
}

// shallow copies a pod so far that fields of its metadata can be set and removed: a copy of all of it would take as long
// as its encoding.
func shallow(pod *unstructured.Unstructured) *unstructured.Unstructured {
	object := maps.Clone(pod.Object)
	if metadata, ok := object["metadata"].(map[string]any); ok {
		object["metadata"] = maps.Clone(metadata)
	}
	return &unstructured.Unstructured{Object: object}
}

func empty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// stamps are what tells one held pod from another.
type stamps struct {
	installation string // the value of LabelTracked
	namespace    string // the request's; the object may not name one
	attempt      int
	origin       string
	packed       string // job spec and its checksum
	checksum     string
	observed     bool              // neither hold nor finalizer
	more         map[string]string // annotations of a replacement
}

// Stamp makes a held pod of one that Airflow submits: attempt 0 of a chain of its own.
func (s *Sealer) Stamp(pod *unstructured.Unstructured, installation, namespace string, jobSpec []byte) error {
	packed, checksum := s.Pack(jobSpec)
	return s.stamp(pod, stamps{installation: installation, namespace: namespace, origin: pod.GetName(), packed: packed, checksum: checksum})
}

// stamp writes only what it must: a map or list that the pod does not have is made, nothing else is touched.
func (s *Sealer) stamp(pod *unstructured.Unstructured, st stamps) error {
	set := func(m map[string]string, pairs ...string) map[string]string {
		if m == nil {
			m = map[string]string{}
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	labels := set(pod.GetLabels(), LabelTracked, st.installation)
	if !st.observed {
		labels[LabelHold] = HoldValue
	}
	pod.SetLabels(labels)
	annotations := set(pod.GetAnnotations(), AnnotationAttempt, strconv.Itoa(st.attempt), AnnotationOrigin, st.origin,
		AnnotationJobSpec, st.packed, AnnotationJobSpecChecksum, st.checksum)
	for k, v := range st.more {
		annotations[k] = v
	}
	pod.SetAnnotations(annotations)
	if !st.observed && !slices.Contains(pod.GetFinalizers(), Finalizer) {
		pod.SetFinalizers(append(pod.GetFinalizers(), Finalizer))
	}
	account, _, _ := unstructured.NestedString(pod.Object, "spec", "serviceAccountName") // empty means default
	signature, err := s.Sign(pod, st.namespace, account)
	if err != nil {
		return err
	}
	annotations[AnnotationSignature] = signature
	pod.SetAnnotations(annotations)
	return nil
}
