package requeue

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Reason is why an outcome was chosen: one constant for the decision, the Event, the log line and the metric label.
type Reason string

// Reasons of releases, reports, discards, deletes and strips.
const (
	// ReasonNotOurs: the pod carries our finalizer or hold but is not a task instance's pod.
	ReasonNotOurs Reason = "NotOurs"
	// ReasonTampered: the stamps are not what was sealed, or were sealed with a key that nobody knows.
	ReasonTampered Reason = "Tampered"
	// ReasonSettled: the outcome was written before; finalizer and tracked label are what is left.
	ReasonSettled Reason = "Settled"
	// ReasonRevoked: Airflow revoked the pod.
	ReasonRevoked Reason = "Revoked"
	// ReasonNamespaceTerminating: the namespace is being deleted and waits for our finalizers.
	ReasonNamespaceTerminating Reason = "NamespaceTerminating"
	// ReasonSuperseded: another pod or a later queueing has taken this pod's place.
	ReasonSuperseded Reason = "Superseded"
	// ReasonReplaced: the replacement is committed; the pod is kept for its logs.
	ReasonReplaced Reason = "Replaced"
	// ReasonBackoffOver: the replacement may run now.
	ReasonBackoffOver Reason = "BackoffOver"
	// ReasonStarted: the task runs, or has run, in this pod.
	ReasonStarted Reason = "Started"
	// ReasonNodeSilent: the pod's end is overdue; no kubelet answers for it.
	ReasonNodeSilent Reason = "NodeSilent"
	// ReasonMisconfigured: the pod can never start as it was submitted.
	ReasonMisconfigured Reason = "Misconfigured"
	// ReasonSucceeded: the pod succeeded.
	ReasonSucceeded Reason = "Succeeded"
	// ReasonDatabaseUnavailable: the metadata database could not be read for too long.
	ReasonDatabaseUnavailable Reason = "DatabaseUnavailable"
	// ReasonNotQueued: the row is no longer queued as it was for this pod.
	ReasonNotQueued Reason = "NotQueued"
	// ReasonDeadlineExceeded: the pod's activeDeadlineSeconds ran out.
	ReasonDeadlineExceeded Reason = "DeadlineExceeded"
	// ReasonExcludedReason: a container ended by itself with an excluded reason.
	ReasonExcludedReason Reason = "ExcludedReason"
	// ReasonExhausted: max-retries replacements were made.
	ReasonExhausted Reason = "Exhausted"
	// ReasonTooLate: a replacement could not start before Airflow gives the task up.
	ReasonTooLate Reason = "TooLate"
	// ReasonRefused: the API server refused the replacement.
	ReasonRefused Reason = "Refused"
	// ReasonReleased: every hold was lifted, by hand or because no watcher led.
	ReasonReleased Reason = "Released"
	// ReasonStorm: the storm breaker is open.
	ReasonStorm Reason = "Storm"
)

// Reasons of requeues; the first that matches is frozen on the pod when the requeue is decided, since deletion,
// DisruptionTarget and ContainerStatusUnknown may still arrive after Failed.
const (
	// ReasonImagePull: an image could not be pulled for image-pull-grace.
	ReasonImagePull Reason = "ImagePull"
	// ReasonStartDeadline: the pod was Pending for start-deadline.
	ReasonStartDeadline Reason = "StartDeadline"
	// ReasonNodeLost: the pod's node is gone (DisruptionTarget DeletionByPodGC).
	ReasonNodeLost Reason = "NodeLost"
	// ReasonKubeletRejected: the kubelet did not admit the pod.
	ReasonKubeletRejected Reason = "KubeletRejected"
	// ReasonNodeShutdown: the node shut down.
	ReasonNodeShutdown Reason = "NodeShutdown"
	// ReasonNodePressure: the kubelet evicted the pod because its node ran low on a resource.
	ReasonNodePressure Reason = "NodePressure"
	// ReasonEvicted: eviction, taint or preemption (DisruptionTarget).
	ReasonEvicted Reason = "Evicted"
	// ReasonDeletedUnscheduled: deleted before it had a node.
	ReasonDeletedUnscheduled Reason = "DeletedUnscheduled"
	// ReasonDeleted: deleted on its node.
	ReasonDeleted Reason = "Deleted"
	// ReasonProviderFailed: a virtual node gave up on the pod.
	ReasonProviderFailed Reason = "ProviderFailed"
	// ReasonContainerFailed: a container ended for a reason that is not excluded.
	ReasonContainerFailed Reason = "ContainerFailed"
	// ReasonUnknown: Failed, and nothing says why.
	ReasonUnknown Reason = "Unknown"
)

// requeueReason says, first match, why an ended pod deserves a replacement.
func requeueReason(pod *corev1.Pod) Reason {
	recorded := Reason(pod.Annotations[AnnotationReason])
	disrupted, disruption := disruptionTarget(pod)
	status := pod.Status
	switch {
	case recorded != "" && frozen(pod):
		return recorded
	case disrupted && disruption.Reason == "DeletionByPodGC":
		return ReasonNodeLost
	case len(status.ContainerStatuses) == 0 && len(status.InitContainerStatuses) == 0 && rejectedByKubelet(status.Reason):
		return ReasonKubeletRejected
	case slices.Contains([]string{"NodeShutdown", "Shutdown", "Terminated"}, status.Reason):
		return ReasonNodeShutdown
	case status.Reason == "Evicted":
		return ReasonNodePressure
	case disrupted:
		return ReasonEvicted
	case pod.DeletionTimestamp != nil && pod.Spec.NodeName == "":
		return ReasonDeletedUnscheduled
	case pod.DeletionTimestamp != nil:
		return ReasonDeleted
	case status.Reason == "ProviderFailed":
		return ReasonProviderFailed
	}
	if _, t := firstTerminated(pod, func(t corev1.ContainerStateTerminated) bool {
		return t.Reason != "ContainerStatusUnknown" && t.Reason != "Completed"
	}); t != nil {
		return ReasonContainerFailed
	}
	return ReasonUnknown
}

// frozen reports whether the reason that was recorded on the pod stands; until then the delete it was meant for never came.
func frozen(pod *corev1.Pod) bool { return Detached(pod) || pod.DeletionTimestamp != nil }

// rejectedByKubelet knows the status.reason of a pod that the kubelet would not admit (kubernetes pkg/kubelet/lifecycle).
func rejectedByKubelet(reason string) bool {
	return slices.Contains([]string{"NodeAffinity", "TaintToleration", "UnexpectedAdmissionError"}, reason) ||
		strings.HasPrefix(reason, "OutOf") || strings.HasPrefix(reason, "PodOS")
}

// describe says what was seen of a pod, in the kubelet's words where there are any.
func describe(pod *corev1.Pod) string {
	if m := pod.Annotations[AnnotationMessage]; m != "" && frozen(pod) {
		return m
	}
	var parts []string
	if pod.Status.Reason != "" || pod.Status.Message != "" {
		parts = append(parts, joinNonEmpty(pod.Status.Reason, pod.Status.Message))
	}
	if ok, c := disruptionTarget(pod); ok {
		parts = append(parts, joinNonEmpty(c.Reason, c.Message))
	}
	if name, t := firstTerminated(pod, func(t corev1.ContainerStateTerminated) bool { return t.Reason != "Completed" }); t != nil {
		parts = append(parts, joinNonEmpty(fmt.Sprintf("container %s: %s, exit code %d", name, t.Reason, t.ExitCode), t.Message))
	}
	if pod.DeletionTimestamp != nil {
		if pod.Spec.NodeName == "" {
			parts = append(parts, "deleted before it had a node")
		} else {
			parts = append(parts, "deleted on node "+pod.Spec.NodeName)
		}
	}
	if len(parts) == 0 {
		return "pod is " + string(pod.Status.Phase)
	}
	return cut(strings.Join(parts, "; "))
}

func joinNonEmpty(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// maxMessage bounds what is copied into annotations, Events and pods/status (an Event's note may have 1,024 bytes).
const maxMessage = 700

func cut(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + "…"
}
