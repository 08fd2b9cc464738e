package requeue

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// goneCases are rows 1 to 6: pods that are no longer ours.
func goneCases() []decisionCase {
	tracked := sibling(podName, "uid-0", failed, detached)
	untracked := sibling(podName, "uid-0", failed, detached, noLabel(LabelTracked), noFinalizer)
	tampered := "the stamps are not what was sealed: the signature does not match the stamps"
	unknown := "the stamps are signed with a key that is not mounted"
	notATask := Decision{Action: Strip, Row: "1", Reason: ReasonNotOurs, Message: "not a task instance's pod"}
	givenBack := report("1", ReasonNotOurs, "not a task instance's pod")
	unheld := noLabel(LabelHold)
	ignore := Decision{Action: Ignore, Row: "1", Reason: ReasonNotOurs}
	settled := Decision{Action: Strip, Row: "4", Reason: ReasonSettled}
	revoked := Decision{Action: Strip, Row: "5", Reason: ReasonRevoked, Message: "Airflow revoked the pod"}
	terminating := Decision{Action: Strip, Row: "6", Reason: ReasonNamespaceTerminating, Message: "the namespace is being deleted"}
	return []decisionCase{
		// Row 1
		{"a pod without stamps that carries our finalizer is stripped", given(unstamped), notATask},
		{"a pod without stamps and without our finalizer is ignored", given(unstamped, noFinalizer), ignore},
		{"a callback's pod that carries our finalizer is stripped", given(annotation(AnnotationCallbackID, "c-1"), unheld), notATask},
		{"a callback's pod without our finalizer is ignored", given(annotation(AnnotationCallbackID, ""), noFinalizer, unheld), ignore},
		{"a pod of another executor that carries our finalizer is stripped", given(noLabel(LabelKubernetesExecutor), unheld), notATask},
		{"a pod of another executor without our finalizer is ignored", given(label(LabelKubernetesExecutor, "true"), noFinalizer, unheld), ignore},
		{"a held pod that became a callback's is given back", given(annotation(AnnotationCallbackID, "c-1")), givenBack},
		{"a held pod that became another executor's is given back, finalizer or not", given(label(LabelKubernetesExecutor, "true"), noFinalizer), givenBack},
		{"a held and ended pod that became a callback's is given back, not requeued",
			given(failed, queued, annotation(AnnotationCallbackID, "c-1"), badSeal), givenBack},
		{"a held pod that became a callback's waits while the pod it replaces is tracked",
			given(asReplacement, annotation(AnnotationCallbackID, "c-1"), cached(tracked)), Decision{Row: "2"}},
		{"a pod that is not a task instance's is stripped, though the pod it replaces is tracked",
			given(asReplacement, annotation(AnnotationCallbackID, "c-1"), unheld, cached(tracked)), notATask},
		{"a pod that is not a task instance's is stripped, though a row runs under its name",
			given(noLabel(LabelKubernetesExecutor), unheld, running, runsHere), notATask},
		{"a discarded pod that became a callback's keeps its hold", given(failed, annotation(AnnotationDiscarded, "true"), annotation(AnnotationCallbackID, "c-1")), notATask},
		{"a pod with a signature is ours, whatever else it lost", given(unstamped, annotation(AnnotationSignature, "v1:a:00")), settled},
		{"a pod with a checksum is ours, whatever else it lost", given(unstamped, annotation(AnnotationJobSpecChecksum, "x")), settled},
		{"a pod with an attempt is ours, whatever else it lost", given(unstamped, annotation(AnnotationAttempt, "0")), settled},

		// Row 2
		{"a replacement waits while the pod it replaces is tracked", given(asReplacement, gateOn, queued, pods(tracked)), Decision{Row: "2"}},
		{"a replacement waits while the informer still has the pod it replaces", given(asReplacement, gateOn, uncommitted, cached(tracked)), Decision{Row: "2"}},
		{"a replacement whose seal is broken waits while the pod it replaces is tracked",
			given(asReplacement, gateOn, badSeal, cached(tracked)), Decision{Row: "2"}},
		{"a revoked replacement waits while the pod it replaces is tracked",
			given(asReplacement, gateOn, label(LabelHold, "True"), cached(tracked)), Decision{Row: "2"}},
		{"a replacement in a terminating namespace waits while the pod it replaces is tracked",
			given(asReplacement, gateOn, nsTerminating, cached(tracked)), Decision{Row: "2"}},
		{"an uncommitted replacement that was deleted waits while the pod it replaces is tracked",
			given(asReplacement, gateOn, uncommitted, deleted(ago(0)), cached(tracked)), Decision{Row: "2"}},
		{"a released replacement waits while the pod it replaces is tracked",
			given(asReplacement, gateOn, noLabel(LabelHold), cached(tracked)), Decision{Row: "2"}},
		{"a replacement whose task runs, they say, waits while the pod it replaces is tracked",
			given(asReplacement, running, row(state(StateRunning), runsOn(podName+"-r1")), cached(tracked)), Decision{Row: "2"}},
		{"a replacement goes on when the pod it replaced is no longer tracked",
			given(asReplacement, gateOn, queued, pods(untracked)),
			Decision{Action: Ungate, Row: "11", Reason: ReasonBackoffOver, Message: "free to run", Worker: "7"}},
		{"a pod that is replaced does not wait for its own replacement",
			given(failed, queued, detached, pods(sibling(podName+"-r1", "uid-1", asReplacement, gateOn))),
			Decision{Action: Strip, Row: "7b", Reason: ReasonReplaced, Message: "replaced by " + podName + "-r1",
				Replacement: sibling(podName+"-r1", "uid-1", asReplacement, gateOn),
				Annotations: map[string]string{AnnotationReplacedAt: FormatTime(noon())}}},

		// Row 3
		{"a pod whose seal is broken is reported while Pending", given(badSeal), report("3", ReasonTampered, tampered)},
		{"a pod whose seal is broken is reported while Running", given(running, badSeal), report("3", ReasonTampered, tampered)},
		{"a pod whose seal is broken is reported as that, though its task runs", given(running, runsHere, badSeal), report("3", ReasonTampered, tampered)},
		{"a gated pod whose seal is broken is marked as failed first: it would be Pending for ever",
			given(asReplacement, gateOn, uncommitted, badSeal, pods()), Decision{Action: MarkFailed, Row: "3", Reason: ReasonTampered, Message: tampered}},
		{"a failed pod whose seal is broken is reported, its row unread", given(failed, badSeal), report("3", ReasonTampered, tampered)},
		{"a pod that nobody verified is taken as forged",
			given(seal(SealBad)), report("3", ReasonTampered, "the stamps are not what was sealed: ")},
		{"a pod with the hold label and nothing else of ours is reported", given(unstamped, label(LabelHold, HoldValue), badSeal),
			report("3", ReasonTampered, tampered)},
		{"a terminating pod whose seal is broken lingers after its report", given(failed, deleted(ago(0)), badSeal),
			lingering(report("3", ReasonTampered, tampered))},
		{"a pod deleted without a node whose seal is broken is first marked Failed", given(deleted(ago(0)), badSeal),
			Decision{Action: MarkFailed, Row: "3", Reason: ReasonTampered, Message: tampered}},
		{"a detached pod whose seal is broken is reported only after a live look for its replacement",
			given(failed, detached, marked, badSeal, cached()), readSiblings("3")},
		{"a detached pod whose seal is broken gets back the airflow-worker it had",
			given(failed, detached, marked, badSeal, pods()), report("3", ReasonTampered, tampered)},
		{"a broken seal in a terminating namespace is still reported", given(failed, badSeal, nsTerminating), report("3", ReasonTampered, tampered)},
		{"a key that is unknown for a second may still be mounted", given(failed, unknownKeyFor(time.Second)), after("3", 5*time.Second)},
		{"a key that is unknown for almost two minutes may still be mounted",
			given(failed, unknownKeyFor(2*time.Minute-2*time.Second)), after("3", 2*time.Second)},
		{"a key that is unknown for two minutes is forged", given(failed, unknownKeyFor(2*time.Minute)), report("3", ReasonTampered, unknown)},
		{"a key that is unknown, nobody knows since when, is forged", given(failed, seal(SealUnknownKey)), report("3", ReasonTampered, unknown)},

		// Row 4
		{"a released pod that is still tracked is stripped", given(noLabel(LabelHold)), settled},
		{"a terminating pod lingers for three seconds after its hold was lifted",
			given(failed, deleted(ago(0)), noLabel(LabelHold), annotation(AnnotationReleasedAt, FormatTime(ago(time.Second)))), after("4", 2*time.Second)},
		{"a terminating pod whose hold was lifted three seconds ago is stripped",
			given(failed, deleted(ago(0)), noLabel(LabelHold), annotation(AnnotationReleasedAt, FormatTime(ago(3*time.Second)))), settled},
		{"a terminating pod whose hold was lifted by a clock that is ahead looks again in three seconds",
			given(failed, deleted(ago(0)), noLabel(LabelHold), annotation(AnnotationReleasedAt, FormatTime(ago(-10*time.Second)))), after("4", 3*time.Second)},
		{"a terminating pod whose hold was lifted by a clock that is far ahead is stripped",
			given(failed, deleted(ago(0)), noLabel(LabelHold), annotation(AnnotationReleasedAt, FormatTime(ago(-11*time.Second)))), settled},
		{"a terminating pod without a hold, nobody knows since when, is stripped", given(failed, deleted(ago(0)), noLabel(LabelHold)), settled},
		{"a pod whose hold was lifted before it was deleted is stripped", given(failed, noLabel(LabelHold),
			annotation(AnnotationReleasedAt, FormatTime(ago(time.Second)))), settled},
		{"a discarded pod is stripped, its hold a tombstone",
			given(failed, deleted(ago(0)), detached, annotation(AnnotationDiscarded, "true"), queued, pods()), settled},
		{"a released pod is stripped though its seal is broken, else its finalizer would stay",
			given(failed, deleted(ago(0)), noLabel(LabelHold), badSeal), settled},
		{"a discarded pod is stripped though its seal is broken",
			given(failed, deleted(ago(0)), detached, annotation(AnnotationDiscarded, "true"), badSeal), settled},
		{"a discarded pod that Airflow revoked is stripped as settled",
			given(failed, annotation(AnnotationDiscarded, "true"), label(LabelHold, "True")), settled},
		{"a released pod in a terminating namespace is stripped as settled", given(noLabel(LabelHold), nsTerminating), settled},
		{"a released pod whose task runs is stripped, not released again", given(noLabel(LabelHold), running, runsHere), settled},
		{"a late create without a hold is stripped", given(asReplacement, gateOn, uncommitted, noLabel(LabelHold), pods()), settled},

		// Row 5
		{"a pod that Airflow revoked is stripped while Pending", given(label(LabelHold, "True")), revoked},
		{"a pod that Airflow revoked and deleted is stripped", given(failed, deleted(ago(0)), label(LabelHold, "True"), queued), revoked},
		{"a pod that Airflow revoked with an empty value is stripped", given(running, label(LabelHold, "")), revoked},
		{"a pod that Airflow revoked is stripped though its seal is broken: Airflow wins",
			given(failed, label(LabelHold, "True"), badSeal), revoked},
		{"a revoked pod in a terminating namespace is stripped as revoked", given(label(LabelHold, "True"), nsTerminating), revoked},
		{"a revoked pod whose task runs is stripped as revoked", given(label(LabelHold, "True"), running, runsHere), revoked},
		{"a late create that Airflow revoked is stripped", given(asReplacement, gateOn, uncommitted, label(LabelHold, "True"), pods()), revoked},

		// Row 6
		{"a Pending pod in a terminating namespace is stripped", given(nsTerminating), terminating},
		{"a failed pod in a terminating namespace is stripped, not requeued", given(failed, queued, nsTerminating), terminating},
		{"a detached pod in a terminating namespace is stripped without a look for its replacement",
			given(failed, queued, detached, nsTerminating), terminating},
		{"a late create that ended in a terminating namespace is stripped",
			given(asReplacement, gateOn, uncommitted, deleted(ago(0)), nsTerminating), terminating},
		{"a replaced pod in a terminating namespace is stripped",
			given(failed, detached, nsTerminating, pods(sibling("r", "uid-1", asReplacement, gateOn))), terminating},
		{"a Running pod in a terminating namespace is stripped, its row unread", given(running, nsTerminating), terminating},
		{"a pod whose task runs in a terminating namespace is stripped", given(running, runsHere, nsTerminating), terminating},
		{"a late create in a terminating namespace is stripped", given(asReplacement, gateOn, uncommitted, nsTerminating, pods()), terminating},
	}
}

// runsHere is the row of a task that runs in the base pod.
func runsHere(s *scene) { row(state(StateRunning), runsOn(podName))(s) }

func nsTerminating(s *scene) { s.NamespaceTerminating = true }

// replacedCases are rows 7a, 7b and 8: ends that are already decided.
func replacedCases() []decisionCase {
	neverCommitted := discard("7a", "the pod never took the place of the one it was to replace")
	name := podName + "-r1"
	fresh := sibling(name, "uid-1", asReplacement, gateOn, uncommitted)
	committed := sibling(name, "uid-1", asReplacement, gateOn)
	late := sibling(podName+"-r1-0a1b2c3d", "uid-2", asReplacement, gateOn, uncommitted, onPod(func(p *corev1.Pod) {
		p.Name, p.UID = podName+"-r1-0a1b2c3d", "uid-2"
	}))
	replaced := func(action Action, r *corev1.Pod) Decision {
		return Decision{Action: action, Row: "7b", Reason: ReasonReplaced, Message: "replaced by " + r.Name, Replacement: r}
	}
	stripped := func(r *corev1.Pod) Decision {
		d := replaced(Strip, r)
		d.Annotations = map[string]string{AnnotationReplacedAt: FormatTime(noon())}
		return d
	}
	rejected := all(failed, statusReason("NodeAffinity", "Pod was rejected"))
	recorded := all(rejected, detached, reasonRecorded(ReasonEvicted, "evicted for maintenance"))
	return []decisionCase{
		// Row 7a
		{"a late create that was deleted with its gate on is discarded", given(asReplacement, gateOn, uncommitted, deleted(ago(0)), pods()), neverCommitted},
		{"a late create that was marked Failed with its gate on is discarded",
			given(asReplacement, gateOn, uncommitted, phase(corev1.PodFailed), queued, pods()), neverCommitted},
		{"a late create with Superseded recorded is discarded though its gate is off",
			given(asReplacement, uncommitted, failed, reasonRecorded(ReasonSuperseded, "x"), queued), neverCommitted},
		{"a late create that somehow succeeded is discarded, not released",
			given(asReplacement, uncommitted, succeededOnNode, reasonRecorded(ReasonSuperseded, "x")), neverCommitted},
		{"a late create that was detached itself is discarded", given(asReplacement, gateOn, uncommitted, detached, deleted(ago(0))), neverCommitted},
		{"a late create that has a late create of its own is discarded",
			given(asReplacement, gateOn, uncommitted, deleted(ago(0)), pods(sibling("x-r2", "uid-2", annotation(AnnotationRequeueOf, "uid-1")))), neverCommitted},
		{"a committed replacement that was deleted with its gate on is not a late create",
			given(asReplacement, gateOn, deleted(ago(0)), queued, retries(2), pods()),
			detach("31", ReasonDeletedUnscheduled, "deleted before it had a node")},
		{"a first pod with Superseded recorded is nobody's late create", given(failed, reasonRecorded(ReasonSuperseded, "x")), readRow("21")},
		{"an uncommitted replacement that ran ends like any other pod", given(asReplacement, uncommitted, failed), readRow("21")},

		// Row 7b
		{"a replacement is committed while the old pod is tracked and detached", given(rejected, detached, pods(fresh)), to("7", replaced(Commit, fresh))},
		{"a replacement that only the informer has is committed too: what is there is there",
			given(rejected, detached, cached(fresh)), to("7", replaced(Commit, fresh))},
		{"the old pod goes once its replacement is committed", given(rejected, detached, pods(committed)), stripped(committed)},
		{"the old pod goes, whatever its row says", given(rejected, detached, row(state(StateRunning)), pods(committed)), stripped(committed)},
		{"an attached pod with a committed replacement is detached though its seal is broken",
			given(rejected, badSeal, pods(committed)), detach("7b", ReasonKubeletRejected, inWords)},
		{"an attached pod whose seal is broken is reported, late create or not", given(rejected, badSeal, pods(fresh)),
			report("3", ReasonTampered, "the stamps are not what was sealed: the signature does not match the stamps")},
		{"the old pod goes though its seal is broken: its replacement has a seal of its own",
			given(rejected, detached, badSeal, pods(committed)), stripped(committed)},
		{"a late create never takes the place of a committed replacement", given(rejected, detached, pods(late, committed)), stripped(committed)},
		{"a replacement that has moved on keeps the airflow-worker it has",
			given(rejected, annotation(AnnotationDetached, "9"), noLabel(LabelWorker), pods(sibling(name, "uid-1", asReplacement, noLabel(LabelTracked)))),
			stripped(sibling(name, "uid-1", asReplacement, noLabel(LabelTracked)))},
		{"a replacement that was committed with a dead scheduler's id waits for its own decision",
			given(rejected, annotation(AnnotationDetached, "9"), noLabel(LabelWorker), pods(committed)), stripped(committed)},
		{"an adoption that lands after the commit is passed on to the replacement",
			given(rejected, detached, label(LabelWorker, "9"), pods(committed)), to("9", replaced(Commit, committed))},
		{"an adopted pod is detached anew once its replacement has the adopter's id",
			given(rejected, detached, label(LabelWorker, "9"), pods(sibling(name, "uid-1", asReplacement, gateOn, label(LabelWorker, "9")))),
			Decision{Action: Detach, Row: "7b", Reason: ReasonKubeletRejected, Message: inWords, Annotations: map[string]string{
				AnnotationDetached: "9", AnnotationReason: "KubeletRejected", AnnotationMessage: inWords}}},
		{"an adoption is not passed on to a replacement that has moved on",
			given(rejected, detached, label(LabelWorker, "9"), pods(sibling(name, "uid-1", asReplacement, noLabel(LabelTracked)))),
			Decision{Action: Detach, Row: "7b", Reason: ReasonKubeletRejected, Message: inWords, Annotations: map[string]string{
				AnnotationDetached: "9", AnnotationReason: "KubeletRejected", AnnotationMessage: inWords}}},
		{"a pod that is about to come back is detached anew before its replacement is committed",
			given(rejected, detached, marked, pods(fresh)), detachedAnew(detach("7b", ReasonKubeletRejected, inWords))},
		{"a replacement that a later scheduler adopted keeps that one's id",
			given(rejected, detached, pods(sibling(name, "uid-1", asReplacement, gateOn, label(LabelWorker, "9")))),
			stripped(sibling(name, "uid-1", asReplacement, gateOn, label(LabelWorker, "9")))},
		{"an attached pod whose late create has landed is detached before the commit",
			given(rejected, queued, pods(fresh)), detach("7b", ReasonKubeletRejected, "NodeAffinity: Pod was rejected")},
		{"a detached pod that an adoption attached is detached again before the commit, under the adopter's id",
			given(recorded, label(LabelWorker, "9"), pods(fresh)),
			Decision{Action: Detach, Row: "7b", Reason: ReasonEvicted, Message: "evicted for maintenance", Annotations: map[string]string{
				AnnotationDetached: "9", AnnotationReason: "Evicted", AnnotationMessage: "evicted for maintenance"}}},
		{"a succeeded pod that is replaced goes, not released", given(succeededOnNode, detached, pods(committed)), stripped(committed)},
		{"an attached pod that succeeded, whose late create has landed, is detached before the commit",
			given(succeededOnNode, queued, pods(fresh)), detach("7b", ReasonUnknown, "pod is Succeeded")},
		{"a pod that lives is not replaced, whatever claims to", given(running, queued, pods(fresh)), after("15", time.Second)},

		// Row 8
		{"a detached pod without a replacement gets one", given(recorded, queued, pods()),
			Decision{Action: Create, Row: "31", Reason: ReasonEvicted, Message: "evicted for maintenance",
				Next: Next{Attempt: 1, QueuedAt: queuedAt(), NotBefore: noon(), AvoidNode: node}}},
		{"a detached pod without a replacement has its row read again", given(recorded, pods()), readRow("21")},
		{"a detached pod whose task instance moved on is reported after a live look", given(recorded, marked, row(state("failed")), cached()), readSiblings("25")},
		{"a detached pod whose task instance moved on is marked before that", given(recorded, row(state("failed")), pods()), undo("25")},
		{"a detached pod whose task instance moved on is reported under the airflow-worker it had",
			given(recorded, marked, row(state("failed")), pods()), report("25", ReasonNotQueued, "the task instance is failed", "evicted for maintenance")},
		{"a detached pod that an adoption attached is reported under the adopter's id",
			given(recorded, marked, label(LabelWorker, "9"), row(state("failed")), pods()),
			to("9", report("25", ReasonNotQueued, "the task instance is failed", "evicted for maintenance"))},
		{"a detached pod that succeeded is released after a live look", given(recorded, marked, phase(corev1.PodSucceeded), row(state("success")), cached()), readSiblings("25")},
		{"a detached pod is discarded without a live look for its replacement", given(recorded, row(state(StateRunning), runsOn("winner")),
			pods(sibling("winner", "uid-5", running))), discard("22", "the task runs in winner")},
	}
}
