package requeue

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Rows 1 to 8: pods that are no longer ours, or whose end is decided.

const (
	// keyGrace is how long a mounted Secret may lag behind the key that a pod was signed with.
	keyGrace = 2 * time.Minute
	// LingerFor is how long a terminating pod stays after its hold is lifted: the executor's watch may be between two
	// connections, and replays what it missed only from objects that are still there.
	LingerFor = 3 * time.Second
)

// Row 1: no stamps, callback_id, or not kubernetes_executor=True. What carries our hold all the same was a task instance's
// pod when it was held: nobody else would lift that.
func notOurs(f facts) (Decision, bool) {
	_, callback := f.pod.Annotations[AnnotationCallbackID]
	if stamped(f.pod) && !callback && f.pod.Labels[LabelKubernetesExecutor] == "True" {
		return Decision{}, false
	}
	d := Decision{Reason: ReasonNotOurs, Message: "not a task instance's pod"}
	_, waits := predecessorTracked(f)
	switch {
	case Held(f.pod) && waits:
		return Decision{}, false
	case Held(f.pod) && !f.outcomeBegun(): // it was one when it was held
		d.Action = Report
	case hasFinalizer(f.pod):
		d.Action = Strip
	default:
		return Decision{Action: Ignore, Reason: ReasonNotOurs}, true
	}
	return d, true
}

// Row 2: the pod it replaces is still tracked; that one's requeue is finished first.
func predecessorTracked(f facts) (Decision, bool) {
	p := f.predecessor()
	return Decision{}, p != nil && Tracked(p)
}

// Row 3: the seal is broken, or its key is unknown for too long.
func sealBroken(f facts) (Decision, bool) {
	switch {
	case f.Seal.State == SealValid || f.outcomeBegun():
		return Decision{}, false
	case f.Seal.State == SealUnknownKey:
		if wait := f.Seal.Since.Add(keyGrace).Sub(f.now); wait > 0 {
			return Decision{After: min(wait, 5*time.Second)}, true
		}
		return Decision{Action: Report, Reason: ReasonTampered, Message: "the stamps are signed with a key that is not mounted"}, true
	default:
		return Decision{Action: Report, Reason: ReasonTampered, Message: "the stamps are not what was sealed: " + f.Seal.Error}, true
	}
}

// outcomeBegun reports whether rows 4, 5 or 7b are to finish the pod, seal or no seal: a report of what carries no hold of
// ours would never end, and one of a pod that is replaced would show Airflow two.
func (f facts) outcomeBegun() bool {
	_, over := settled(f)
	r := f.replacement()
	return over || Revoked(f.pod) || Ended(f.pod) && r != nil && (Detached(f.pod) || Committed(r))
}

// Row 4: released but still tracked (a release of a terminating pod takes two patches), or discarded.
func settled(f facts) (Decision, bool) {
	if Discarded(f.pod) {
		return Decision{Action: Strip, Reason: ReasonSettled}, true
	}
	if _, ok := f.pod.Labels[LabelHold]; ok || !Tracked(f.pod) {
		return Decision{}, false
	}
	// Lifted by a clock that is too far ahead, it may have been any time.
	if wait := ReleasedAt(f.pod).Add(LingerFor).Sub(f.now); f.terminating() && wait > 0 && wait <= LingerFor+f.policy.ClockSkew {
		return Decision{After: min(wait, LingerFor)}, true
	}
	return Decision{Action: Strip, Reason: ReasonSettled}, true
}

// Row 5: Airflow revoked the pod; Airflow wins.
func revoked(f facts) (Decision, bool) {
	return Decision{Action: Strip, Reason: ReasonRevoked, Message: "Airflow revoked the pod"}, Revoked(f.pod)
}

// Row 6: a namespace that is being deleted waits for our finalizers.
func namespaceTerminating(f facts) (Decision, bool) {
	return Decision{Action: Strip, Reason: ReasonNamespaceTerminating, Message: "the namespace is being deleted"}, f.NamespaceTerminating
}

// Row 7a: a late or abandoned create that came to its end; it never ran and is nobody's replacement.
func neverCommitted(f facts) (Decision, bool) {
	superseded := f.pod.Annotations[AnnotationReason] == string(ReasonSuperseded)
	if !Ended(f.pod) || Committed(f.pod) || RequeueOf(f.pod) == "" || !Gated(f.pod) && !superseded {
		return Decision{}, false
	}
	return Decision{Action: Discard, Reason: ReasonSuperseded, Message: "the pod never took the place of the one it was to replace"}, true
}

// Row 7b: the replacement is there. Commit it, with no two pods of the task instance attached at any time, then let go.
func replaced(f facts) (Decision, bool) {
	r := f.replacement()
	if !Ended(f.pod) || r == nil {
		return Decision{}, false
	}
	d := Decision{Reason: ReasonReplaced, Message: "replaced by " + r.Name, Replacement: r}
	switch {
	case Committed(r) && Tracked(r) && Reattached(f.pod) && Worker(r) != Worker(f.pod):
		// An adoption came after the detach. Its scheduler is passed on before the detach is repeated, which forgets that.
		d.Action, d.Worker = Commit, Worker(f.pod)
	case !outOfSight(f.pod):
		return f.detach(), true
	case !Committed(r):
		d.Action, d.Worker = Commit, cmp.Or(Worker(r), Worker(f.pod))
	default:
		d.Action = Strip
		d.Annotations = map[string]string{AnnotationReplacedAt: FormatTime(f.now)}
	}
	return d, true
}

// outOfSight reports whether the pod is detached and stays so: a replacement may be made, and may take its place.
func outOfSight(pod *corev1.Pod) bool { return Detached(pod) && !Reattached(pod) && !Undoing(pod) }

// detach is the first step of a requeue. It is repeated when an adoption in flight put airflow-worker back, and when
// somebody began to undo it: their write then finds the pod changed.
func (f facts) detach() Decision {
	reason := requeueReason(f.pod)
	message := describe(f.pod)
	annotations := map[string]string{
		AnnotationDetached: cmp.Or(Worker(f.pod), noWorker),
		AnnotationReason:   string(reason),
		AnnotationMessage:  message,
	}
	if Undoing(f.pod) {
		annotations[AnnotationUndoing] = ""
	}
	return Decision{Action: Detach, Reason: reason, Message: message, Annotations: annotations}
}
