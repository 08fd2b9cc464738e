package requeue

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Rows 9 to 19: pods that have not ended.

// nodeGrace is how long after its grace period a pod on a node may take to end.
const nodeGrace = 5 * time.Minute

// untilNextSecond makes Running pods look again all at the same time, so that one query serves all of them.
func untilNextSecond(now time.Time) time.Duration {
	return now.Truncate(time.Second).Add(time.Second).Sub(now)
}

// Row 9: the row is read at first sight, about once a second while Running, and when a row below needs it.
func aliveUnread(f facts) (Decision, bool) {
	if Ended(f.pod) || f.Row.State != Unread {
		return Decision{}, false
	}
	wanted := f.running() ||
		Gated(f.pod) && Committed(f.pod) && !f.terminating() && f.backoffLeft() == 0 ||
		f.pending() && !Gated(f.pod) && !f.terminating() && (f.queuedAt().IsZero() || RequeueOf(f.pod) != "")
	return Decision{Action: Read, Need: NeedRow}, wanted
}

// Row 10: a gated replacement that must not run: never committed and on its own, or overtaken, or too late.
func gatedSuperseded(f facts) (Decision, bool) {
	if !Gated(f.pod) || Ended(f.pod) || f.terminating() {
		return Decision{}, false
	}
	d := Decision{Action: Delete, Reason: ReasonSuperseded}
	switch {
	case !Committed(f.pod):
		d.Message = "the pod it was to replace is gone, and it never took its place"
	case f.rowKnown() && !f.thisQueueing():
		d.Message = "the task instance is no longer queued as it was for this pod"
	case f.tooLate(f.backoffLeft()):
		d.Message = "it could not start before Airflow gives the task up"
	default:
		return Decision{}, false
	}
	return d, true
}

// backoffLeft is none where the clock that wrote its end is too far ahead to be believed.
func (f facts) backoffLeft() time.Duration {
	wait := annotationTime(f.pod, AnnotationNotBefore).Sub(f.now)
	if wait < 0 || wait > MaxBackoff+f.policy.ClockSkew {
		return 0
	}
	return wait
}

// Row 11: the gate comes off when the backoff is over and the row was read.
func gated(f facts) (Decision, bool) {
	if !Gated(f.pod) || Ended(f.pod) || f.terminating() {
		return Decision{}, false
	}
	if wait := f.backoffLeft(); wait > 0 {
		return Decision{After: wait}, true
	}
	if !f.rowKnown() {
		return Decision{After: time.Second}, true
	}
	return Decision{Action: Ungate, Reason: ReasonBackoffOver, Message: "free to run", Worker: f.worker()}, true
}

// Row 12: a replacement whose task instance moved on before it ran.
func pendingSuperseded(f facts) (Decision, bool) {
	if !f.pending() || f.terminating() || RequeueOf(f.pod) == "" || !f.rowKnown() || f.thisQueueing() || f.mayRunHere() {
		return Decision{}, false
	}
	return Decision{Action: Delete, Reason: ReasonSuperseded, Message: "the task instance is no longer queued as it was for this pod"}, true
}

// Row 13: the task runs in this pod.
func started(f facts) (Decision, bool) {
	ok := f.running() && f.runsHere() && f.Row.Task.State == StateRunning
	return Decision{Action: Release, Reason: ReasonStarted, Message: "the task runs"}, ok
}

// Row 14: a deleted pod on a node ends when its kubelet says so.
func leavingNode(f facts) (Decision, bool) {
	if Ended(f.pod) || !f.terminating() || f.pod.Spec.NodeName == "" {
		return Decision{}, false
	}
	// deletionTimestamp is when the grace period is over, not when it began.
	wait := f.pod.DeletionTimestamp.Add(nodeGrace).Sub(f.now)
	if wait > 0 {
		if f.running() {
			wait = min(wait, untilNextSecond(f.now))
		}
		return Decision{After: wait}, true
	}
	return Decision{Action: Release, Reason: ReasonNodeSilent, Message: "node " + f.pod.Spec.NodeName + " does not answer"}, true
}

// Row 15: Running otherwise: the row is not the pod's yet, or can't be told; or the phase lags behind the containers.
func runningOtherwise(f facts) (Decision, bool) {
	if f.running() {
		return Decision{After: untilNextSecond(f.now)}, true
	}
	statuses := f.pod.Status.ContainerStatuses
	over := len(statuses) > 0 && !slices.ContainsFunc(statuses, func(s corev1.ContainerStatus) bool { return s.State.Terminated == nil })
	return Decision{}, f.pending() && over
}

// The kubelet's waiting reasons (kubernetes pkg/kubelet/images/types.go, pkg/kubelet/kuberuntime).
func hopeless() []string { return []string{"InvalidImageName", "ErrImageNeverPull"} }

func mistaken() []string {
	return []string{"CreateContainerConfigError", "CreateContainerError", "ImageInspectError"}
}

func pulling() []string {
	return []string{"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed"}
}

// notFound is how a container runtime says that a registry has no such image; back-off messages wrap it.
const notFound = "code = NotFound"

// Row 16: a waiting reason that names a mistake.
func misconfigured(f facts) (Decision, bool) {
	if !f.pending() || f.terminating() {
		return Decision{}, false
	}
	if name, w := firstWaiting(f.pod, hopeless()...); w != nil {
		return deleteWaiting(ReasonMisconfigured, name, w), true
	}
	name, w := firstWaiting(f.pod, mistaken()...)
	if w == nil {
		if name, w = firstWaiting(f.pod, pulling()...); w == nil || !strings.Contains(w.Message, notFound) {
			return Decision{}, false
		}
	}
	if d, ok := f.waitOut(name); ok {
		return d, true
	}
	return deleteWaiting(ReasonMisconfigured, name, w), true
}

// Row 17: an image that can't be pulled, for now.
func imagePull(f facts) (Decision, bool) {
	if !f.pending() || f.terminating() {
		return Decision{}, false
	}
	name, w := firstWaiting(f.pod, pulling()...)
	if w == nil {
		return Decision{}, false
	}
	if d, ok := f.waitOut(name); ok {
		return d, true
	}
	return f.replaceAlive(deleteWaiting(ReasonImagePull, name, w))
}

// Row 18: Pending for longer than the start deadline.
func startDeadline(f facts) (Decision, bool) {
	if !f.pending() || f.terminating() || f.policy.StartDeadline <= 0 {
		return Decision{}, false
	}
	since := f.pod.CreationTimestamp.Time
	if t := annotationTime(f.pod, AnnotationNotBefore); t.After(since) && !t.After(f.now) {
		since = t // its backoff does not count
	}
	if wait := since.Add(f.policy.StartDeadline).Sub(f.now); wait > 0 {
		return Decision{After: wait}, true
	}
	return f.replaceAlive(Decision{Action: Delete, Reason: ReasonStartDeadline,
		Message: "Pending for longer than the start deadline of " + f.policy.StartDeadline.String()})
}

// Row 19: Pending otherwise: unschedulable, the autoscaler at work, init containers. A pod whose phase nobody knows
// is alive too: only an end leads on. No event says that a replacement is overtaken: it looks again all with the others.
func pendingOtherwise(f facts) (Decision, bool) {
	var after time.Duration
	if RequeueOf(f.pod) != "" {
		after = f.now.Truncate(time.Minute).Add(time.Minute).Sub(f.now)
	}
	return Decision{After: after}, !Ended(f.pod)
}

// waitOut records when a container was first seen waiting, and waits for the grace to pass, or for the start deadline
// (row 18) if that comes before.
func (f facts) waitOut(container string) (Decision, bool) {
	// The container's name goes along: a second image gets a grace of its own.
	at, who, _ := strings.Cut(f.pod.Annotations[AnnotationWaitingSince], " ")
	since, err := time.Parse(time.RFC3339Nano, at)
	if err != nil || who != container || since.Sub(f.now) > f.policy.ClockSkew { // or by a clock that was far ahead
		return Decision{Action: Record, Annotations: map[string]string{AnnotationWaitingSince: FormatTime(f.now) + " " + container}}, true
	}
	wait := since.Add(f.policy.ImagePullGrace).Sub(f.now)
	if wait <= 0 {
		return Decision{}, false
	}
	d, ok := startDeadline(f)
	if !ok || d.Action == Wait && d.After > wait {
		return Decision{After: wait}, true
	}
	d.Row = "18"
	return d, true
}

// replaceAlive deletes a pod that is to be replaced, when the budget and a fresh row allow a replacement.
func (f facts) replaceAlive(d Decision) (Decision, bool) {
	switch {
	case !f.budgetLeft():
		return Decision{}, false
	case f.Row.State == Unread:
		return Decision{Action: Read, Need: NeedRow}, true
	case f.Row.State == Unreadable:
		return Decision{After: time.Second}, true
	}
	return d, f.thisQueueing()
}

func deleteWaiting(reason Reason, container string, w *corev1.ContainerStateWaiting) Decision {
	return Decision{Action: Delete, Reason: reason,
		Message: cut(joinNonEmpty("container "+container, w.Reason, w.Message))}
}
