package requeue

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Rows 20 to 31: pods that have ended.

const (
	// databaseGrace is how long an ended pod waits for the metadata database.
	databaseGrace = time.Minute
	// laterPodGrace is how long an ended pod waits for the pod of a later queueing.
	laterPodGrace = 30 * time.Second
)

// Row 20: the pod succeeded and nobody disturbed it; a detached one was, whatever its DisruptionTarget says now.
func succeeded(f facts) (Decision, bool) {
	disrupted, _ := disruptionTarget(f.pod)
	return Decision{Action: Release, Reason: ReasonSucceeded, Message: "the pod succeeded"},
		f.succeeded() && !f.terminating() && !disrupted && !Detached(f.pod)
}

// Row 21: the row must be read first. The rows above have taken every pod that is alive.
func endedUnread(f facts) (Decision, bool) {
	switch f.Row.State {
	case Unread:
		return Decision{Action: Read, Need: NeedRow}, true
	case Unreadable:
		if f.now.Sub(f.Row.Since) < databaseGrace {
			return Decision{After: time.Second}, true
		}
		return Decision{Action: Report, Reason: ReasonDatabaseUnavailable,
			Message: "the metadata database could not be read for " + databaseGrace.String() + "; " + describe(f.pod)}, true
	default:
		return Decision{}, false
	}
}

// Row 22: the task runs in another pod that is alive (a second start); reporting this one would fail the good run.
func runsElsewhere(f facts) (Decision, bool) {
	t := f.Row.Task
	if f.Row.State != Found || t.State != StateRunning || f.runsHere() {
		return Decision{}, false
	}
	if !f.Siblings.Live {
		return Decision{Action: Read, Need: NeedSiblings}, true
	}
	runner := f.sibling(func(p *corev1.Pod) bool {
		return hostnameOf(p, t.Hostname) && !Ended(p) && Attached(p) && !Revoked(p)
	})
	if runner == nil {
		return Decision{}, false
	}
	return Decision{Action: Discard, Reason: ReasonSuperseded, Message: "the task runs in " + runner.Name}, true
}

// Row 23: the same try is queued again. Its next pod's end is the one that Airflow must see. Where it is a guess that the
// row is this queueing, that pod alone tells.
func queuedLater(f facts) (Decision, bool) {
	if !f.laterQueueing() && !f.guessed() {
		return Decision{}, false
	}
	if !f.Siblings.Live {
		return Decision{Action: Read, Need: NeedSiblings}, true
	}
	since := f.pod.CreationTimestamp.Time
	if RequeueOf(f.pod) != "" {
		// A replacement may be younger than the later queueing's pod; its queueing is not. Whole seconds, as
		// creationTimestamp has.
		since = f.queuedAt().Truncate(time.Second)
	}
	later := f.sibling(func(p *corev1.Pod) bool {
		sameChain := p.Annotations[AnnotationOrigin] != "" && p.Annotations[AnnotationOrigin] == f.pod.Annotations[AnnotationOrigin]
		return !sameChain && !p.CreationTimestamp.Time.Before(since) &&
			p.Annotations[annotationTryNumber] == strconv.Itoa(f.job.TryNumber)
	})
	switch {
	case later != nil:
		return Decision{Action: Discard, Reason: ReasonSuperseded, Message: "queued again, for " + later.Name}, true
	case f.guessed():
		return Decision{}, false
	case f.now.Sub(f.Row.Since) < laterPodGrace:
		return Decision{After: time.Second}, true
	default:
		return Decision{Action: Report, Reason: ReasonNotQueued, Message: "queued again, but no later pod has come; " + describe(f.pod)}, true
	}
}

// Row 25: the row is not queued as it was for this pod.
func notQueued(f facts) (Decision, bool) {
	switch {
	case f.thisQueueing():
		return Decision{}, false
	case f.succeeded():
		return Decision{Action: Release, Reason: ReasonSucceeded, Message: "the pod succeeded"}, true
	case f.runsHere():
		return Decision{Action: Report, Reason: ReasonStarted, Message: "the task ran; " + describe(f.pod)}, true
	}
	return Decision{Action: Report, Reason: ReasonNotQueued, Message: f.rowInWords() + "; " + describe(f.pod)}, true
}

func (f facts) rowInWords() string {
	t := f.Row.Task
	switch {
	case f.Row.State != Found:
		return "there is no such task instance"
	case t.TryNumber != f.job.TryNumber:
		return fmt.Sprintf("the task instance is at try %d, the pod at try %d", t.TryNumber, f.job.TryNumber)
	case !f.sameTry():
		return "the task instance is another one, of the same name and try"
	case t.State == "":
		return "the task instance has no state"
	}
	return "the task instance is " + string(t.State)
}

// Row 26: deleted by us because it could never start, or out of its own time.
func mistake(f facts) (Decision, bool) {
	switch {
	case Detached(f.pod): // decided before
		return Decision{}, false
	case f.terminating() && f.pod.Annotations[AnnotationReason] == string(ReasonMisconfigured):
		return Decision{Action: Report, Reason: ReasonMisconfigured, Message: describe(f.pod)}, true
	case f.pod.Status.Reason == "DeadlineExceeded":
		return Decision{Action: Report, Reason: ReasonDeadlineExceeded, Message: describe(f.pod)}, true
	}
	return Decision{}, false
}

// Row 27: a container ended by itself with an excluded reason. On a pod that was deleted or disrupted, exit codes 143
// and 137 are the node's doing.
func excludedReason(f facts) (Decision, bool) {
	disrupted, _ := disruptionTarget(f.pod)
	taken := f.terminating() || disrupted
	_, t := firstTerminated(f.pod, func(t corev1.ContainerStateTerminated) bool {
		return slices.Contains(f.policy.ExcludedReasons, t.Reason) && !(taken && (t.ExitCode == 143 || t.ExitCode == 137))
	})
	if t == nil || Detached(f.pod) { // what was decided before the detach stands
		return Decision{}, false
	}
	return Decision{Action: Report, Reason: ReasonExcludedReason, Message: describe(f.pod)}, true
}

// Row 28: the budget of this queueing is used up.
func exhausted(f facts) (Decision, bool) {
	return Decision{Action: Report, Reason: ReasonExhausted,
		Message: fmt.Sprintf("%d of %d replacements made; %s", f.attempt(), f.policy.MaxRetries, describe(f.pod))}, !f.budgetLeft()
}

// Row 29: a replacement would come too late.
func tooLate(f facts) (Decision, bool) {
	ok := f.tooLate(f.policy.BackoffBefore(Attempt(f.pod)+1, string(f.pod.UID)))
	return Decision{Action: Report, Reason: ReasonTooLate,
		Message: "a replacement could not start before " + FormatTime(f.startBy()) + "; " + describe(f.pod)}, ok
}

// Row 30: the API server will not have the replacement, or too many were made lately.
func refused(f facts) (Decision, bool) {
	switch {
	case f.Refused.Kind == RefusedForGood:
		return Decision{Action: Report, Reason: ReasonRefused, Message: cut(f.Refused.Message + "; " + describe(f.pod))}, true
	case f.Storm && !Detached(f.pod):
		return Decision{Action: Report, Reason: ReasonStorm, Message: "too many replacements lately; " + describe(f.pod)}, true
	}
	return Decision{}, false
}

// Row 31: replace the pod. Detach it, and once that is done and the row was read again, create the replacement. After a
// refusal that may pass, the pod waits attached.
func requeue(f facts) (Decision, bool) {
	wait := f.Refused.RetryAt.Sub(f.now)
	switch {
	case f.Refused.Kind == RefusedForNow && wait > 0 && Detached(f.pod):
		return Decision{Action: Attach, Reason: ReasonRefused, Message: cut(f.Refused.Message)}, true
	case f.Refused.Kind == RefusedForNow && wait > 0:
		if by := f.startBy(); !by.IsZero() { // row 29 comes in between
			wait = min(wait, by.Add(-lead).Sub(f.now)+time.Second)
		}
		return Decision{After: wait}, true
	case !outOfSight(f.pod):
		return f.detach(), true
	}
	attempt := Attempt(f.pod) + 1
	next := Next{Attempt: attempt, QueuedAt: f.Row.Task.QueuedAt,
		NotBefore: f.now.Add(f.policy.BackoffBefore(attempt, string(f.pod.UID)))}
	if f.policy.AvoidFailedNode {
		next.AvoidNode = f.pod.Spec.NodeName
	}
	return Decision{Action: Create, Reason: requeueReason(f.pod), Message: describe(f.pod), Next: next}, true
}
