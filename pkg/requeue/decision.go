package requeue

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Action is the one write that comes next for a pod, or none. Every action is a single guarded request, so that a
// crash between any two of them leaves a pod that Decide understands.
type Action int

// The actions. Wait, the harmless one, is the zero value.
const (
	// Wait for the next event, or for Decision.After.
	Wait Action = iota
	// Ignore a pod that is not ours and carries nothing of ours.
	Ignore
	// Read what Decision.Need names, and decide again.
	Read
	// Record Decision.Annotations on the pod.
	Record
	// Delete the pod, guarded by UID and resourceVersion; Record came before it.
	Delete
	// Ungate takes our scheduling gate off: the fifth and last step of a requeue.
	Ungate
	// Release lifts the hold: nothing is wrong, Airflow takes over.
	Release
	// Report lifts the hold from a pod that has failed: the same write as Release, with another reason.
	Report
	// MarkFailed writes phase Failed through pods/status on a pod that ended without a node; the report follows.
	MarkFailed
	// Detach takes the pod out of Airflow's sight: the first step of a requeue.
	Detach
	// Attach undoes Detach; the hold stays.
	Attach
	// Create makes the replacement, gated and uncommitted.
	Create
	// Commit lets Decision.Replacement take the pod's place.
	Commit
	// Discard takes the pod out of Airflow's sight for good.
	Discard
	// Strip takes finalizer and tracked label off: we are done with the pod.
	Strip
)

// String returns the name that logs and metrics use.
func (a Action) String() string {
	names := [...]string{"wait", "ignore", "read", "record", "delete", "ungate", "release", "report", "mark-failed",
		"detach", "attach", "create", "commit", "discard", "strip"}
	if int(a) < len(names) {
		return names[a]
	}
	return "unknown"
}

// Need is what a Read is to gather.
type Need int

const (
	// NeedRow is the task instance's row in the metadata database.
	NeedRow Need = iota + 1
	// NeedSiblings is a live list of the task instance's pods.
	NeedSiblings
)

// Decision says what comes next for a pod, and why.
type Decision struct {
	Action  Action
	Row     string        // the row of the table of scenarios that decided
	Reason  Reason        // documented constant; Event reason and metric label alike
	Message string        // for people: what was seen, in the kubelet's words
	After   time.Duration // look again after this long; 0: on the next event
	Need    Need          // with Read

	// Annotations to write along with the action; an empty value removes one.
	Annotations map[string]string
	// Worker is the airflow-worker that the pod (with Commit: the replacement) is to carry; empty: leave it alone.
	Worker string
	// Linger with Release and Report: the pod is terminating, so finalizer and tracked label stay for a moment more.
	Linger bool
	// Replacement is the pod to Commit.
	Replacement *corev1.Pod
	// Next says what to Create.
	Next Next
}

// Next is what a replacement carries beyond the job spec.
type Next struct {
	Attempt   int
	QueuedAt  time.Time // queued_dttm of the queueing it belongs to
	NotBefore time.Time // when its backoff is over
	AvoidNode string    // name of the node to avoid, softly; empty: none
}

// Lookup is what is known of a task instance's row. "No row" and "not read" differ.
type Lookup struct {
	State LookupState
	Task  TaskInstance // with Found
	// Since is, with Unreadable, when the metadata database was first unreadable; with Found, since when the row and the
	// pod's airflow-worker have both been seen as they are.
	Since time.Time
}

// LookupState says how the last look for a row ended.
type LookupState int

// Unread is the zero value: nobody has looked yet.
const (
	Unread LookupState = iota
	Unreadable
	Absent
	Found
)

// Siblings are the pods of one task instance, the pod itself left out.
type Siblings struct {
	Pods []*corev1.Pod
	// Live says that they come from the API server just now, and with the pods that are no longer tracked; else from
	// the informer: then one that is there is there, but one that is missing proves nothing.
	Live bool
}

// Refusal is how the API server answered the last create of the pod's replacement.
type Refusal struct {
	Kind    RefusalKind
	Message string
	RetryAt time.Time // with RefusedForNow
}

// RefusalKind tells a refusal that may pass from one that won't.
type RefusalKind int

// NotRefused is the zero value.
const (
	NotRefused    RefusalKind = iota
	RefusedForNow             // quota, a conflict over it, 401, 408, 429, 5xx
	RefusedForGood
)

// Input is all that a decision needs. Nothing is fetched inside.
type Input struct {
	Pod      *corev1.Pod
	Row      Lookup
	Seal     Seal
	Siblings Siblings
	// SeenQueued is the queued_dttm that the watcher saw while this pod had not run yet; zero after a restart.
	SeenQueued time.Time
	// Spent counts the other pods that were replaced in this queueing, of whichever chain.
	Spent                int
	NamespaceTerminating bool
	Refused              Refusal
	// Storm says that the storm breaker is open.
	Storm bool
}
