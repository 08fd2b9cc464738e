package executor

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// State is what the executor's watch makes of a pod's event.
type State string

// The states that process_status puts in the queue.
const (
	Failed State = "failed"
	// Succeeded is None in Python: the executor then reads the task's state from the metadata database.
	Succeeded State = "succeeded"
	// Adopted means that the pod left the watch without being deleted. The executor takes it that another scheduler
	// has adopted the pod, and forgets the task.
	Adopted State = "adopted"
)

// providerFailed is a pod's status.reason on virtual nodes.
const providerFailed = "ProviderFailed"

// Seen is what the executor's watch puts in its queue for one event (kubernetes_executor_types.KubernetesWatch).
type Seen struct {
	Pod             types.NamespacedName
	UID             types.UID
	Key             requeue.Key
	TryNumber       int
	State           State
	Event           watch.EventType
	ResourceVersion string
	Failure         *Failure // nil unless the pod's phase is Failed, and always for Airflow2
}

func (s Seen) String() string {
	return fmt.Sprintf("%s %s: %s (try %d) %s at %s", s.Event, s.Pod, s.Key, s.TryNumber, s.State, s.ResourceVersion)
}

// Rules is the configuration that process_status knows. The zero value is provider 10.25.0 with its defaults.
type Rules struct {
	// Airflow chooses the provider's generation; empty means Airflow3.
	Airflow Airflow
	// FatalReasons is worker_pod_pending_fatal_container_state_reasons; nil means its default, empty means none.
	FatalReasons []string
	// IgnoreHold overlooks our hold: the executor as it would be without airflow-requeue. A revocation by Airflow
	// itself still counts. The first that is seen of a pod is what the executor would have acted on; what is seen of it
	// later, when it is detached, comes of airflow-requeue.
	IgnoreHold bool
}

// DefaultFatalReasons is what the default of worker_pod_pending_fatal_container_state_reasons comes to. Provider 10.1's
// names InvalidImageName too, but after a space that its reader does not take off, so that it never matches.
func DefaultFatalReasons(release Airflow) []string {
	reasons := []string{"CreateContainerConfigError", "ErrImagePull", "CreateContainerError", "ImageInspectError"}
	if release == Airflow2 {
		return reasons
	}
	return append(reasons, "InvalidImageName")
}

// ProcessStatus is KubernetesJobWatcher.process_status of provider 10.25.0 with its defaults: what the executor would
// put in its queue for the event, and whether it puts anything.
func ProcessStatus(event watch.Event, ignoreHold bool) (Seen, bool) {
	return Rules{IgnoreHold: ignoreHold}.ProcessStatus(event)
}

// ProcessStatus is KubernetesJobWatcher.process_status of the provider that the rules choose.
func (r Rules) ProcessStatus(event watch.Event) (Seen, bool) {
	pod, ok := event.Object.(*corev1.Pod)
	if !ok || event.Type == watch.Bookmark {
		return Seen{}, false
	}
	state := r.state(pod, event.Type == watch.Deleted)
	if state == "" {
		return Seen{}, false
	}
	key, try, _ := Identify(pod) // Watch has refused a pod that names no task before it comes to this
	seen := Seen{
		Pod:             types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name},
		UID:             pod.UID,
		Key:             key,
		TryNumber:       try,
		State:           state,
		Event:           event.Type,
		ResourceVersion: pod.ResourceVersion,
	}
	// Only the branch of the phase Failed collects details, not those before it.
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != providerFailed && state == Failed && r.Airflow != Airflow2 {
		seen.Failure = failure(pod)
	}
	return seen, true
}

// state is process_status branch by branch; empty where it puts nothing in the queue. Deleted says that the event is a
// DELETED one: the pod has left the selection, or is gone.
func (r Rules) state(pod *corev1.Pod, deleted bool) State {
	gone := deleted && pod.DeletionTimestamp != nil
	switch {
	case r.revoked(pod):
		return ""
	case deleted && !gone:
		return Adopted
	case pod.Status.Reason == providerFailed:
		return Failed
	}
	switch pod.Status.Phase {
	case corev1.PodPending:
		// Provider 10.1 fails a task whose pod is gone. 10.25 only logs it: the task stays queued until it is revoked.
		if gone && r.Airflow == Airflow2 || !gone && r.fatal(pod) {
			return Failed
		}
	case corev1.PodFailed:
		return Failed
	case corev1.PodSucceeded:
		return Succeeded
	case corev1.PodRunning:
		if gone {
			return Failed
		}
	}
	return ""
}

// revoked says whether the watch ignores the pod: the label's key alone decides.
func (r Rules) revoked(pod *corev1.Pod) bool {
	value, ok := pod.Labels[requeue.LabelHold]
	if r.IgnoreHold && value == requeue.HoldValue {
		return false
	}
	return ok
}

// fatal says whether an init container, or the first container, waits for a reason that the executor takes for final.
func (r Rules) fatal(pod *corev1.Pod) bool {
	reasons := r.FatalReasons
	if reasons == nil {
		reasons = DefaultFatalReasons(r.Airflow)
	}
	statuses := slices.Clone(pod.Status.InitContainerStatuses)
	if len(pod.Status.ContainerStatuses) > 0 {
		statuses = append(statuses, pod.Status.ContainerStatuses[0])
	}
	return slices.ContainsFunc(statuses, func(status corev1.ContainerStatus) bool {
		waiting := status.State.Waiting
		if waiting == nil || waiting.Reason == "ErrImagePull" && waiting.Message == "pull QPS exceeded" {
			return false
		}
		return slices.Contains(reasons, waiting.Reason)
	})
}

// Identify is kubernetes_helper_functions.annotations_to_key: the task instance and try that a worker pod names.
func Identify(pod *corev1.Pod) (requeue.Key, int, error) {
	key := requeue.Key{RunID: pod.Annotations["run_id"], MapIndex: -1}
	var ok bool
	if key.DagID, ok = pod.Annotations["dag_id"]; !ok {
		return key, 0, fmt.Errorf("reading the task of pod %s/%s: no annotation dag_id", pod.Namespace, pod.Name)
	}
	if key.TaskID, ok = pod.Annotations["task_id"]; !ok {
		return key, 0, fmt.Errorf("reading the task of pod %s/%s: no annotation task_id", pod.Namespace, pod.Name)
	}
	try, err := strconv.Atoi(pod.Annotations["try_number"])
	if err != nil {
		return key, 0, fmt.Errorf("reading the try number of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if index, ok := pod.Annotations["map_index"]; ok {
		if key.MapIndex, err = strconv.Atoi(index); err != nil {
			return key, 0, fmt.Errorf("reading the map index of pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	return key, try, nil
}
