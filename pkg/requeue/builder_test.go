package requeue

import (
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// noon is when every case is judged.
func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func ago(d time.Duration) time.Time { return noon().Add(-d) }

// The queueing that the base pod was made for: queued, token signed, pod created.
func queuedAt() time.Time  { return ago(62 * time.Second) }
func issuedAt() time.Time  { return ago(61 * time.Second) }
func createdAt() time.Time { return ago(60 * time.Second) }

const (
	taskID    = "019522a5-0000-7000-8000-000000000001"
	otherID   = "019522a5-0000-7000-8000-000000000002"
	podName   = "etl-load-x7k2m9qa"
	podIP     = "10.1.2.3"
	node      = "node-1"
	overtaken = "the task instance is no longer queued as it was for this pod"
)

// scene is an input, with the policy and the time that it is judged by.
type scene struct {
	Input
	policy Policy
	now    time.Time
}

func (s scene) decide() Decision { return Decide(s.Input, s.policy, s.now) }

// change makes a case out of the base scene.
type change func(*scene)

// given is the one builder: a pod of Airflow 3, held, Pending, without a node; its seal valid, its row not read yet.
func given(changes ...change) scene {
	s := scene{policy: DefaultPolicy(), now: noon(), Input: Input{
		Pod:        heldPod(podName, "uid-0"),
		SeenQueued: queuedAt(),
		Seal: Seal{State: SealValid, Job: Job{
			Ref:       Ref{Key: Key{DagID: "etl", TaskID: "load", RunID: "manual__1", MapIndex: -1}, ID: taskID},
			TryNumber: 1, IssuedAt: issuedAt(), Expires: issuedAt().Add(10 * time.Minute),
		}},
	}}
	return s.with(changes...)
}

// with clones the scene and changes the clone.
func (s scene) with(changes ...change) scene {
	s.Pod = s.Pod.DeepCopy()
	for _, c := range changes {
		c(&s)
	}
	return s
}

func heldPod(name string, uid types.UID) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "airflow", Name: name, UID: uid, CreationTimestamp: metav1.NewTime(createdAt()),
			Finalizers: []string{Finalizer},
			Labels: map[string]string{LabelHold: HoldValue, LabelTracked: "prod", LabelWorker: "7",
				LabelKubernetesExecutor: "True"},
			Annotations: map[string]string{AnnotationAttempt: "0", AnnotationOrigin: name, AnnotationSignature: "v1:a:00",
				AnnotationJobSpecChecksum: "sha256:00", annotationTryNumber: "1"},
		},
		Spec:   corev1.PodSpec{Containers: []corev1.Container{{Name: BaseContainer}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
}

// sibling makes another pod of the task instance.
func sibling(name string, uid types.UID, changes ...change) *corev1.Pod {
	s := scene{now: noon(), Input: Input{Pod: heldPod(name, uid)}}
	all(changes...)(&s)
	return s.Pod
}

// onPod makes a change of something that only the pod knows.
func onPod(f func(*corev1.Pod)) change { return func(s *scene) { f(s.Pod) } }

func phase(p corev1.PodPhase) change { return onPod(func(pod *corev1.Pod) { pod.Status.Phase = p }) }

func onNode() change {
	return onPod(func(pod *corev1.Pod) { pod.Spec.NodeName = node })
}

func created(at time.Time) change {
	return onPod(func(pod *corev1.Pod) { pod.CreationTimestamp = metav1.NewTime(at) })
}

// deleted sets when the grace period of the pod's deletion is over.
func deleted(at time.Time) change {
	return onPod(func(pod *corev1.Pod) { pod.DeletionTimestamp = new(metav1.NewTime(at)) })
}

func running(s *scene) { all(onNode(), phase(corev1.PodRunning))(s) }

func failed(s *scene) { all(onNode(), phase(corev1.PodFailed))(s) }

func succeededOnNode(s *scene) { all(onNode(), phase(corev1.PodSucceeded))(s) }

// all is a change made of changes.
func all(changes ...change) change {
	return func(s *scene) {
		for _, c := range changes {
			c(s)
		}
	}
}

func label(name, value string) change {
	return onPod(func(pod *corev1.Pod) { pod.Labels[name] = value })
}

func noLabel(name string) change { return onPod(func(pod *corev1.Pod) { delete(pod.Labels, name) }) }

func annotation(name, value string) change {
	return onPod(func(pod *corev1.Pod) { pod.Annotations[name] = value })
}

func noFinalizer(s *scene) { s.Pod.Finalizers = nil }

func unstamped(s *scene) {
	s.Pod.Annotations = map[string]string{}
	delete(s.Pod.Labels, LabelHold)
}

// detached takes the pod out of Airflow's sight, as the first step of a requeue does.
func detached(s *scene) {
	all(annotation(AnnotationDetached, "7"), noLabel(LabelWorker), label(LabelExecutorDone, "True"))(s)
}

// asReplacement makes the pod attempt 1 of the base pod's chain, committed, ungated, its backoff over.
func asReplacement(s *scene) {
	s.Pod.Name, s.Pod.UID = podName+"-r1", "uid-1"
	all(annotation(AnnotationAttempt, "1"), annotation(AnnotationOrigin, podName), annotation(AnnotationRequeueOf, "uid-0"),
		annotation(AnnotationQueuedAt, FormatTime(queuedAt())), annotation(AnnotationNotBefore, FormatTime(ago(time.Second))),
		annotation(AnnotationCommitted, "true"))(s)
}

func uncommitted(s *scene) {
	delete(s.Pod.Annotations, AnnotationCommitted)
	delete(s.Pod.Labels, LabelWorker)
}

func gateOn(s *scene) {
	s.Pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: SchedulingGate}}
}

func backoffUntil(t time.Time) change { return annotation(AnnotationNotBefore, FormatTime(t)) }

func reasonRecorded(r Reason, message string) change {
	return func(s *scene) {
		all(annotation(AnnotationReason, string(r)), annotation(AnnotationMessage, message))(s)
	}
}

func waitingSince(t time.Time, container string) change {
	return annotation(AnnotationWaitingSince, FormatTime(t)+" "+container)
}

func statusReason(reason, message string) change {
	return onPod(func(pod *corev1.Pod) { pod.Status.Reason, pod.Status.Message = reason, message })
}

func disrupted(status corev1.ConditionStatus, reason, message string) change {
	return onPod(func(pod *corev1.Pod) {
		pod.Status.Conditions = append(pod.Status.Conditions,
			corev1.PodCondition{Type: corev1.DisruptionTarget, Status: status, Reason: reason, Message: message})
	})
}

func waiting(reason, message string) change {
	return containerIn(BaseContainer, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}})
}

func initWaiting(reason, message string) change {
	return initIn("fetch", corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}})
}

func exited(reason string, code int32) change {
	return containerIn(BaseContainer, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}})
}

func initExited(name, reason string, code int32) change {
	return initIn(name, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}})
}

// sidecar makes the init container of that name a native sidecar.
func sidecar(name string) change {
	return initContainer(name, new(corev1.ContainerRestartPolicyAlways))
}

func initContainer(name string, policy *corev1.ContainerRestartPolicy) change {
	return onPod(func(pod *corev1.Pod) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: name, RestartPolicy: policy})
	})
}

func containerIn(name string, state corev1.ContainerState) change {
	return onPod(func(pod *corev1.Pod) {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, State: state})
	})
}

func initIn(name string, state corev1.ContainerState) change {
	return onPod(func(pod *corev1.Pod) {
		pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, corev1.ContainerStatus{Name: name, State: state})
	})
}

// queued is the row of this pod's own queueing.
func queued(s *scene) {
	s.Row = Lookup{State: Found, Task: TaskInstance{Key: s.Seal.Job.Ref.Key, ID: taskID, State: StateQueued, TryNumber: 1,
		QueuedAt: queuedAt(), QueuedByJobID: 7}}
}

// row is a row of the same task instance that differs from that of this queueing.
func row(changes ...func(*TaskInstance)) change {
	return func(s *scene) {
		queued(s)
		for _, c := range changes {
			c(&s.Row.Task)
		}
	}
}

func state(st State) func(*TaskInstance)       { return func(t *TaskInstance) { t.State = st } }
func runsOn(host string) func(*TaskInstance)   { return func(t *TaskInstance) { t.Hostname = host } }
func secondTry(t *TaskInstance)                { t.TryNumber = 2 }
func id(v string) func(*TaskInstance)          { return func(t *TaskInstance) { t.ID = v } }
func queuedBy(job int64) func(*TaskInstance)   { return func(t *TaskInstance) { t.QueuedByJobID = job } }
func queuedOn(v time.Time) func(*TaskInstance) { return func(t *TaskInstance) { t.QueuedAt = v } }

func noRow(s *scene) { s.Row = Lookup{State: Absent} }

func unreadableFor(d time.Duration) change {
	return func(s *scene) { s.Row = Lookup{State: Unreadable, Since: s.now.Add(-d)} }
}

// pods is what a live list of the task instance's other pods shows.
func pods(others ...*corev1.Pod) change {
	return func(s *scene) { s.Siblings = Siblings{Pods: others, Live: true} }
}

// cached is what the informer has of the task instance's other pods.
func cached(others ...*corev1.Pod) change {
	return func(s *scene) { s.Siblings = Siblings{Pods: others} }
}

func seal(state SealState) change {
	return func(s *scene) { s.Seal = Seal{State: state} }
}

func badSeal(s *scene) {
	s.Seal = Seal{State: SealBad, Error: "the signature does not match the stamps"}
}

func unknownKeyFor(d time.Duration) change {
	return func(s *scene) { s.Seal = Seal{State: SealUnknownKey, Since: s.now.Add(-d)} }
}

func job(f func(*Job)) change { return func(s *scene) { f(&s.Seal.Job) } }

// airflow2 leaves the pod's arguments without id and token.
func airflow2(s *scene) {
	s.Seal.Job.Ref.ID, s.Seal.Job.IssuedAt, s.Seal.Job.Expires = "", time.Time{}, time.Time{}
}

func seenQueued(t time.Time) change { return func(s *scene) { s.SeenQueued = t } }

// seenFor says for how long the row and airflow-worker have been seen as they are.
func seenFor(d time.Duration) change { return func(s *scene) { s.Row.Since = s.now.Add(-d) } }

func spent(n int) change { return func(s *scene) { s.Spent = n } }

func attempt(n int) change { return annotation(AnnotationAttempt, strconv.Itoa(n)) }

func refusedForGood(s *scene) {
	s.Refused = Refusal{Kind: RefusedForGood, Message: "admission webhook said no"}
}

func refusedUntil(t time.Time) change {
	return func(s *scene) { s.Refused = Refusal{Kind: RefusedForNow, Message: "exceeded quota: pods", RetryAt: t} }
}

func policy(f func(*Policy)) change { return func(s *scene) { f(&s.policy) } }

func retries(n int) change { return policy(func(p *Policy) { p.MaxRetries = n }) }

func at(t time.Time) change { return func(s *scene) { s.now = t } }

// after is a Wait that a row asks for.
func after(row string, d time.Duration) Decision { return Decision{Row: row, After: d} }

func readRow(row string) Decision { return Decision{Action: Read, Need: NeedRow, Row: row} }

func readSiblings(row string) Decision { return Decision{Action: Read, Need: NeedSiblings, Row: row} }

// report is the report of a pod that is not terminating.
func report(row string, reason Reason, message ...string) Decision {
	return Decision{Action: Report, Row: row, Reason: reason, Message: strings.Join(message, "; "), Worker: "7"}
}

func release(row string, reason Reason, message string) Decision {
	return Decision{Action: Release, Row: row, Reason: reason, Message: message, Worker: "7"}
}

func lingering(d Decision) Decision {
	d.Linger = true
	return d
}

func to(worker string, d Decision) Decision {
	d.Worker = worker
	return d
}

// marked is a detached pod whose detach somebody has begun to undo.
func marked(s *scene) { annotation(AnnotationUndoing, "true")(s) }

// detachedAnew takes the mark off.
func detachedAnew(d Decision) Decision {
	d.Annotations[AnnotationUndoing] = ""
	return d
}

// undo is the mark that comes before the undoing of a detach.
func undo(row string) Decision {
	return Decision{Action: Record, Row: row, Annotations: map[string]string{AnnotationUndoing: "true"}}
}

func discard(row, message string) Decision {
	return Decision{Action: Discard, Row: row, Reason: ReasonSuperseded, Message: message}
}

// record is what comes before a delete.
func record(row string, reason Reason, message string) Decision {
	return Decision{Action: Record, Row: row, Reason: reason, Message: message,
		Annotations: map[string]string{AnnotationReason: string(reason), AnnotationMessage: message}}
}

func remove(row string, reason Reason, message string) Decision {
	return Decision{Action: Delete, Row: row, Reason: reason, Message: message}
}

// detach is the first write of a requeue; the pod carries airflow-worker 7.
func detach(row string, reason Reason, message string) Decision {
	return Decision{Action: Detach, Row: row, Reason: reason, Message: message, Annotations: map[string]string{
		AnnotationDetached: "7", AnnotationReason: string(reason), AnnotationMessage: message}}
}
