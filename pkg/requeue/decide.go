package requeue

import (
	"cmp"
	"time"
)

// rule is one line of the table of scenarios: it decides, or leaves the pod to the next.
type rule struct {
	row    string // as the table numbers it
	decide func(facts) (Decision, bool)
}

// rules is the table, top to bottom: the first that matches wins. A row of the table that asks for a row of the
// metadata database (9, 21) stands where the table has it.
func rules() []rule {
	return []rule{
		{"1", notOurs},
		{"2", predecessorTracked},
		{"3", sealBroken},
		{"4", settled},
		{"5", revoked},
		{"6", namespaceTerminating},
		{"7a", neverCommitted},
		{"7b", replaced},
		// Row 8, detached without a replacement, is "as if just ended": it has no rule, but see undetach.
		{"9", aliveUnread},
		{"10", gatedSuperseded},
		{"11", gated},
		{"12", pendingSuperseded},
		{"13", started},
		{"14", leavingNode},
		{"15", runningOtherwise},
		{"16", misconfigured},
		{"17", imagePull},
		{"18", startDeadline},
		{"19", pendingOtherwise},
		{"20", succeeded},
		{"21", endedUnread},
		{"22", runsElsewhere},
		{"23", queuedLater},
		// Row 24, an adoption that is under way, holds up what rows above and below decide: see prepare.
		{"25", notQueued},
		{"26", mistake},
		{"27", excludedReason},
		{"28", exhausted},
		{"29", tooLate},
		{"30", refused},
		{"31", requeue},
	}
}

// Decide says what comes next for a pod: one write, or none. It is a pure function of its arguments; policy is the
// operator's, and the pod's own tuning, taken from the sealed job spec, goes over it.
func Decide(in Input, policy Policy, now time.Time) Decision {
	return decide(rules(), in, policy, now)
}

func decide(rules []rule, in Input, policy Policy, now time.Time) Decision {
	f := facts{Input: in, pod: in.Pod, job: in.Seal.Job, now: now}
	f.policy, _ = policy.With(f.job.Tuning)
	for _, r := range rules {
		if d, ok := r.decide(f); ok {
			d.Row = cmp.Or(d.Row, r.row)
			return f.prepare(d)
		}
	}
	return Decision{}
}

// prepare puts before a decision what it needs first: what gives a pod to a scheduler needs to know which one lives, the
// undoing of a detach needs its mark on the pod and, after that, a live look for a replacement, a report needs a pod that
// Airflow sees as Failed, a delete needs its reason on the pod.
func (f facts) prepare(d Decision) Decision {
	switch d.Action {
	case Release, Report, Attach, Ungate:
		undoes := d.Action != Ungate && Detached(f.pod)
		switch {
		case f.adoptionUnderWay():
			return Decision{Row: "24", After: time.Second}
		case undoes && !Undoing(f.pod):
			return Decision{Action: Record, Annotations: map[string]string{AnnotationUndoing: "true"}, Row: d.Row}
		case undoes && !f.Siblings.Live:
			return Decision{Action: Read, Need: NeedSiblings, Row: d.Row}
		case d.Action == Report && f.phaseOpen() && (Ended(f.pod) || Gated(f.pod)):
			d.Action = MarkFailed
			return d
		case d.Action == Report && f.pod.Spec.NodeName == "" && f.pod.Status.Reason == string(d.Reason) && f.pod.Status.Message != "":
			d.Message = f.pod.Status.Message // ours: it is not to be said twice
		}
		d.Worker = f.worker()
		d.Linger = f.terminating() && (d.Action == Release || d.Action == Report)
	case Delete:
		if f.pod.Annotations[AnnotationReason] != string(d.Reason) {
			d.Action = Record
			d.Annotations = map[string]string{AnnotationReason: string(d.Reason), AnnotationMessage: d.Message}
		}
	}
	return d
}
