// Package mutate decides at a pod's creation whether it is held, and stamps it if so. It never denies a pod: what it
// does not hold goes on as it came, and why is counted.
package mutate

// Outcome is what became of a pod at its admission: one constant for the metric label and the log line.
type Outcome string

// The pod carries stamps.
const (
	// Held: stamped, attempt 0.
	Held Outcome = "Held"
	// Observed: stamped to be looked at, in observe mode; neither held nor kept by a finalizer.
	Observed Outcome = "Observed"
	// FromWatcher: the watcher's own replacement, with a good seal; passed as it came.
	FromWatcher Outcome = "FromWatcher"
)

// The pod is none of ours. NotCreate and NotExecutorPod leave even a forged stamp alone: neither is ever sent by the
// webhook configuration. OtherNamespace and OtherUser, as all that follow, take it off.
const (
	// NotCreate: an update, a delete or a connect.
	NotCreate Outcome = "NotCreate"
	// NotExecutorPod: not a pod of the KubernetesExecutor.
	NotExecutorPod Outcome = "NotExecutorPod"
	// OtherNamespace: this installation does not serve the namespace.
	OtherNamespace Outcome = "OtherNamespace"
	// OtherUser: not created by one of Airflow's accounts.
	OtherUser Outcome = "OtherUser"
)

// The pod is Airflow's but is not held.
const (
	// Malformed: labels, annotations or finalizers are not what the API says they are.
	Malformed Outcome = "Malformed"
	// Callback: runs a callback, not a task instance.
	Callback Outcome = "Callback"
	// Revoked: came with airflow_pod_revoked, so Airflow ignores it already.
	Revoked Outcome = "Revoked"
	// NoName: named by the API server (generateName), later than we could sign it.
	NoName Outcome = "NoName"
	// NodeName: bound already; a scheduling gate could not keep its replacement from running.
	NodeName Outcome = "NodeName"
	// Kueue: queued by Kueue, which has gates and finalizers of its own.
	Kueue Outcome = "Kueue"
	// RetriesOff: max-retries is 0.
	RetriesOff Outcome = "RetriesOff"
	// UnsupportedAirflow: made by an Airflow that may act on held pods; Result.Airflow says which.
	UnsupportedAirflow Outcome = "UnsupportedAirflow"
	// NotTaskInstance: does not name a task instance; Result.Err says what is missing.
	NotTaskInstance Outcome = "NotTaskInstance"
	// NoLeader: no watcher leads for the namespace that can decide.
	NoLeader Outcome = "NoLeader"
	// TooLarge: the job spec does not fit in an annotation, or the pod would not fit in etcd with it.
	TooLarge Outcome = "TooLarge"
	// Internal: the stamps could not be made; Result.Err says why.
	Internal Outcome = "Internal"
)

// Outcomes are all there are.
func Outcomes() []Outcome {
	return []Outcome{Held, Observed, FromWatcher, NotCreate, NotExecutorPod, OtherNamespace, OtherUser, Malformed, Callback, Revoked,
		NoName, NodeName, Kueue, RetriesOff, UnsupportedAirflow, NotTaskInstance, NoLeader, TooLarge, Internal}
}
