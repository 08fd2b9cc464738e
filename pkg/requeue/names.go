// Package requeue is the vocabulary and the pure core of airflow-requeue: the names of what is stamped on a worker
// pod, the policy that tunes it, the decision what becomes of a held pod, the replacement that is submitted again, and
// the seal that makes stamps trustworthy. Nothing in it talks to a server or reads a clock.
package requeue

// Names on objects that are this project's own.
const (
	prefix = "airflow-requeue.dev/"

	// LabelTracked holds the installation's name. The watcher's informer selects on it; it leaves a pod last, together
	// with the finalizer.
	LabelTracked = prefix + "tracked"
	// LabelReplaced holds the installation's name on a pod that was replaced and is kept for a while for its logs.
	LabelReplaced = prefix + "replaced"
	// LabelReady on the watcher's Lease says "true" while the leader can decide: its metadata database is readable.
	LabelReady = prefix + "ready"

	// Finalizer keeps a deleted pod until the watcher has decided what becomes of it.
	Finalizer = prefix + "hold"
	// SchedulingGate keeps a replacement from running until a decision on a fresh row takes it off.
	SchedulingGate = prefix + "hold"

	// AnnotationAttempt counts the replacements before this pod: "0" on the pod that Airflow made.
	AnnotationAttempt = prefix + "attempt"
	// AnnotationJobSpec is the pod as it reached the webhook: JSON, zstd, base64.
	AnnotationJobSpec = prefix + "job-spec"
	// AnnotationJobSpecChecksum is "sha256:<hex>" of the job spec's JSON before compression.
	AnnotationJobSpecChecksum = prefix + "job-spec-checksum"
	// AnnotationSignature is "v1:<key id>:<hmac>", see Keyring.
	AnnotationSignature = prefix + "signature"
	// AnnotationOrigin is the name of the first pod of a chain of replacements.
	AnnotationOrigin = prefix + "origin"
	// AnnotationRequeueOf is the UID of the pod that a replacement replaces.
	AnnotationRequeueOf = prefix + "requeue-of"
	// AnnotationQueuedAt is queued_dttm (RFC 3339, microseconds) of the queueing that a replacement belongs to.
	AnnotationQueuedAt = prefix + "queued-dttm"
	// AnnotationNotBefore is when a replacement's backoff is over (RFC 3339).
	AnnotationNotBefore = prefix + "not-before"
	// AnnotationCommitted on a replacement says that its predecessor was still detached when the replacement took its
	// place. What is not committed never runs.
	AnnotationCommitted = prefix + "committed"

	// AnnotationDetached on a pod that is being replaced remembers the airflow-worker that was taken off it.
	AnnotationDetached = prefix + "detached-airflow-worker"
	// AnnotationUndoing is "true" on a detached pod that is about to come back: whoever would replace it detaches it anew
	// first, and whoever brings it back looks for a replacement after it was written.
	AnnotationUndoing = prefix + "undoing"
	// AnnotationReason is the reason of the outcome that has begun (frozen: what is seen later does not change it).
	AnnotationReason = prefix + "reason"
	// AnnotationMessage says for people, in the kubelet's words, why.
	AnnotationMessage = prefix + "message"
	// AnnotationWaitingSince is when a container was first seen waiting for an image or a config (RFC 3339); the API
	// does not say.
	AnnotationWaitingSince = prefix + "waiting-since"
	// AnnotationReleasedAt is when the hold was lifted from a terminating pod (RFC 3339).
	AnnotationReleasedAt = prefix + "released-at"
	// AnnotationDiscarded is "true" on a pod whose end Airflow must never see.
	AnnotationDiscarded = prefix + "discarded"
	// AnnotationReplacedAt is when a pod was replaced for good (RFC 3339): its time to live counts from here.
	AnnotationReplacedAt = prefix + "replaced-at"
	// AnnotationMode is ModeObserve on a pod that is only looked at; see Observed.
	AnnotationMode = prefix + "mode"
	// ModeObserve is the only mode that a pod is stamped with: without one it is held.
	ModeObserve = "observe"

	// Tuning, set by a DAG's author in executor_config or by the operator in the pod template.

	// AnnotationMaxRetries is a whole number: 0 off, -1 unlimited.
	AnnotationMaxRetries = prefix + "max-retries"
	// AnnotationExcludedReasons is a comma-separated list of container reasons that are real failures.
	AnnotationExcludedReasons = prefix + "excluded-container-reasons"
	// AnnotationBackoff is a duration: the wait before the second replacement, doubled for each after it.
	AnnotationBackoff = prefix + "backoff"
	// AnnotationImagePullGrace is a duration: how long an image pull may fail before the pod is replaced.
	AnnotationImagePullGrace = prefix + "image-pull-grace"
	// AnnotationStartDeadline is a duration: how long a pod may be Pending before it is replaced; 0 for ever.
	AnnotationStartDeadline = prefix + "start-deadline"
	// AnnotationAvoidFailedNode is a boolean: prefer another node for the replacement.
	AnnotationAvoidFailedNode = prefix + "avoid-failed-node"
)

// Names that are Airflow's (cncf.kubernetes provider: pod_generator.py, kubernetes_executor_utils.py).
const (
	// LabelHold is Airflow's own mark of a revoked pod: its watch ignores a pod that has the label, whatever the value.
	LabelHold = "airflow_pod_revoked"
	// HoldValue tells our hold from Airflow's revocation ("True").
	HoldValue = "requeue-hold"
	// LabelWorker names the scheduler job whose executor watches the pod.
	LabelWorker = "airflow-worker"
	// LabelExecutorDone on a pod takes it out of the executor's watch and out of adoption.
	LabelExecutorDone = "airflow_executor_done"
	// LabelKubernetesExecutor is "True" on every pod of the KubernetesExecutor.
	LabelKubernetesExecutor = "kubernetes_executor"
	// LabelAirflowVersion is the version of the Airflow that made the pod.
	LabelAirflowVersion = "airflow_version"

	annotationDagID          = "dag_id"
	annotationTaskID         = "task_id"
	annotationRunID          = "run_id"
	annotationMapIndex       = "map_index"
	annotationTryNumber      = "try_number"
	annotationTaskInstanceID = "task_instance_id"
	// AnnotationCallbackID is on pods that run a callback; they are not task instances.
	AnnotationCallbackID = "callback_id"

	// BaseContainer is the container that runs the task.
	BaseContainer = "base"
	// LabelKueueQueue puts a pod under Kueue, which has gates and finalizers of its own.
	LabelKueueQueue = "kueue.x-k8s.io/queue-name"
)
