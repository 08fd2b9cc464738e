package requeue

import (
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Ended reports whether the pod has come to its end: phase Succeeded or Failed, or deleted before it had a node.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed ||
		pod.DeletionTimestamp != nil && pod.Spec.NodeName == ""
}

// Tracked reports whether the watcher still has the pod on its list.
func Tracked(pod *corev1.Pod) bool {
	_, ok := pod.Labels[LabelTracked]
	return ok
}

// Held reports whether our hold keeps Airflow from seeing the pod's events.
func Held(pod *corev1.Pod) bool { return pod.Labels[LabelHold] == HoldValue }

// Revoked reports whether Airflow itself marked the pod as revoked.
func Revoked(pod *corev1.Pod) bool {
	v, ok := pod.Labels[LabelHold]
	return ok && v != HoldValue
}

// Attached reports whether a scheduler's executor counts the pod as its own.
func Attached(pod *corev1.Pod) bool {
	return pod.Labels[LabelWorker] != "" && pod.Labels[LabelExecutorDone] != "True"
}

// Detached reports whether the pod was taken out of Airflow's sight in order to be replaced. An adoption in flight may
// still have put airflow-worker back: see Reattached.
func Detached(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[AnnotationDetached]
	return ok
}

// Undoing reports whether somebody is about to undo the pod's detach.
func Undoing(pod *corev1.Pod) bool { return pod.Annotations[AnnotationUndoing] == "true" }

// Reattached reports whether an adoption put airflow-worker on a detached pod.
func Reattached(pod *corev1.Pod) bool { return Detached(pod) && pod.Labels[LabelWorker] != "" }

// noWorker is what is remembered of a pod that was detached without airflow-worker: an empty annotation would be none.
const noWorker = "none"

// Worker is the scheduler job that the pod belongs to: the one on it, else the one remembered when it was detached.
func Worker(pod *corev1.Pod) string {
	if w := pod.Labels[LabelWorker]; w != "" {
		return w
	}
	if w := pod.Annotations[AnnotationDetached]; w != noWorker {
		return w
	}
	return ""
}

// Gated reports whether our scheduling gate keeps the pod from running.
func Gated(pod *corev1.Pod) bool {
	return slices.Contains(pod.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: SchedulingGate})
}

// Committed reports whether a replacement has taken its predecessor's place.
func Committed(pod *corev1.Pod) bool { return pod.Annotations[AnnotationCommitted] == "true" }

// RequeueOf is the UID of the pod that this one replaces; empty for a pod that Airflow made.
func RequeueOf(pod *corev1.Pod) string { return pod.Annotations[AnnotationRequeueOf] }

// QueuedAt is queued_dttm of the queueing that a replacement belongs to; zero for a pod that Airflow made.
func QueuedAt(pod *corev1.Pod) time.Time { return annotationTime(pod, AnnotationQueuedAt) }

// Attempt counts the replacements before this pod.
func Attempt(pod *corev1.Pod) int {
	n, err := strconv.Atoi(pod.Annotations[AnnotationAttempt])
	if err != nil {
		return 0
	}
	return n
}

// IdentityLabels are the labels that all pods of a task instance share, whichever try or scheduler made them.
func IdentityLabels() []string {
	return []string{annotationDagID, annotationTaskID, annotationRunID, annotationMapIndex}
}

// SameTaskInstance reports whether a pod's annotations, which hold the raw values, name the task instance.
func SameTaskInstance(pod *corev1.Pod, key Key) bool {
	a := pod.Annotations
	index := -1
	if v, ok := a[annotationMapIndex]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			return false
		}
		index = n
	}
	return a[annotationDagID] == key.DagID && a[annotationTaskID] == key.TaskID && a[annotationRunID] == key.RunID && index == key.MapIndex
}

func hasFinalizer(pod *corev1.Pod) bool { return slices.Contains(pod.Finalizers, Finalizer) }

// stamped reports whether anything of ours says that the pod is held or sealed.
func stamped(pod *corev1.Pod) bool {
	return pod.Annotations[AnnotationSignature] != "" || pod.Annotations[AnnotationJobSpecChecksum] != "" ||
		pod.Annotations[AnnotationAttempt] != "" || Held(pod)
}

// annotationTime reads an RFC 3339 time; zero when absent or unreadable, which every caller takes as "not yet".
func annotationTime(pod *corev1.Pod, name string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, pod.Annotations[name])
	if err != nil {
		return time.Time{}
	}
	return t
}

// FormatTime writes times as annotations have them.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// disruptionTarget returns the condition by which eviction, taints, preemption and PodGC announce themselves.
func disruptionTarget(pod *corev1.Pod) (bool, corev1.PodCondition) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return true, c
		}
	}
	return false, corev1.PodCondition{}
}

// sidecars names the native sidecars: init containers that restart for ever and are killed when the pod is done.
func sidecars(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			names[c.Name] = true
		}
	}
	return names
}

// firstTerminated returns the first container, init before main, native sidecars left out, whose end matches.
func firstTerminated(pod *corev1.Pod, match func(corev1.ContainerStateTerminated) bool) (string, *corev1.ContainerStateTerminated) {
	sidecar := sidecars(pod)
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if t := s.State.Terminated; t != nil && !sidecar[s.Name] && match(*t) {
			return s.Name, t
		}
	}
	return "", nil
}

// firstWaiting returns the first container that waits for one of the reasons.
func firstWaiting(pod *corev1.Pod, reasons ...string) (string, *corev1.ContainerStateWaiting) {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && slices.Contains(reasons, w.Reason) {
			return s.Name, w
		}
	}
	return "", nil
}

// maxHostname is where the kubelet cuts a pod's hostname.
const maxHostname = 63

// hostnameOf reports whether the hostname in a row is the pod's: its name, its FQDN or one of its addresses, whichever
// Airflow's hostname_callable gives.
func hostnameOf(pod *corev1.Pod, hostname string) bool {
	if hostname == "" {
		return false
	}
	if hostname == pod.Status.PodIP || slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == hostname }) {
		return true
	}
	short, _, _ := strings.Cut(hostname, ".")
	own := pod.Name
	if pod.Spec.Hostname != "" {
		own = pod.Spec.Hostname
	}
	if len(own) > maxHostname {
		own = strings.TrimRight(own[:maxHostname], "-.")
	}
	return hostname == own || short == own
}

// ReplacedAt is when the pod was replaced for good; zero when it was not.
func ReplacedAt(pod *corev1.Pod) time.Time { return annotationTime(pod, AnnotationReplacedAt) }

// ReleasedAt is when the hold was lifted from a terminating pod; zero when it was not.
func ReleasedAt(pod *corev1.Pod) time.Time { return annotationTime(pod, AnnotationReleasedAt) }

// Discarded reports whether it was decided that Airflow must never see the pod's end.
func Discarded(pod *corev1.Pod) bool { return pod.Annotations[AnnotationDiscarded] == "true" }
