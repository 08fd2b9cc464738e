package requeue

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// raceCases are the decisions in "Duplicates, races, restarts", by its letters.
func raceCases() []decisionCase {
	frozen := reasonRecorded(ReasonEvicted, "evicting")
	ready := all(failed, queued, detached, frozen, pods())
	create := Decision{Action: Create, Row: "31", Reason: ReasonEvicted, Message: "evicting",
		Next: Next{Attempt: 1, QueuedAt: queuedAt(), NotBefore: noon(), AvoidNode: node}}
	requeued := detach("31", ReasonKubeletRejected, inWords)
	replacement := all(asReplacement, gateOn, pods())
	revoked := Decision{Action: Strip, Row: "5", Reason: ReasonRevoked, Message: "Airflow revoked the pod"}
	laterPod := sibling("etl-load-later", "uid-6")
	discarded := discard("23", "queued again, for etl-load-later")
	stranger := sibling("etl-load-stranger", "uid-7", annotation(AnnotationRequeueOf, "uid-5"))
	restarted := seenQueued(time.Time{})
	return []decisionCase{
		{"a: a second Failed event of a detached pod asks for the same create", given(ready), create},
		{"a: a Failed event of a pod that is replaced creates nothing",
			given(ready, pods(sibling(podName+"-r1", "uid-1", asReplacement, gateOn, uncommitted))),
			Decision{Action: Commit, Row: "7b", Reason: ReasonReplaced, Message: "replaced by " + podName + "-r1", Worker: "7",
				Replacement: sibling(podName+"-r1", "uid-1", asReplacement, gateOn, uncommitted)}},
		{"a: another pod's replacement is nobody's business", given(ready, pods(stranger)), create},

		{"c: the task instance was cleared between detach and create", given(ready, marked, row(state(""))),
			report("25", ReasonNotQueued, "the task instance has no state", "evicting")},
		{"c: the task instance was queued anew between detach and create", given(ready, row(queuedOn(noon())), pods(laterPod)), discarded},
		{"c: the task instance was cleared between create and ungating", given(replacement, row(state(""))),
			record("10", ReasonSuperseded, overtaken)},
		{"c: a committed replacement that was superseded is reported at its end when its task instance is gone",
			given(asReplacement, gateOn, deleted(ago(0)), reasonRecorded(ReasonSuperseded, overtaken), noRow, pods()),
			Decision{Action: MarkFailed, Row: "25", Reason: ReasonNotQueued, Message: "there is no such task instance; " + overtaken}},

		{"d: a scheduler that adopts a held pod is no hindrance", given(rejected, label(LabelWorker, "9"), row(queuedBy(9))),
			Decision{Action: Detach, Row: "31", Reason: ReasonKubeletRejected, Message: inWords, Annotations: map[string]string{
				AnnotationDetached: "9", AnnotationReason: "KubeletRejected", AnnotationMessage: inWords}}},
		{"d: an adoption that lands after the detach is detached again before the create", given(ready, label(LabelWorker, "9"), row(queuedBy(9))),
			Decision{Action: Detach, Row: "31", Reason: ReasonEvicted, Message: "evicting", Annotations: map[string]string{
				AnnotationDetached: "9", AnnotationReason: "Evicted", AnnotationMessage: "evicting"}}},
		{"d: an adoption by a scheduler that is older than the dead one wins over what is remembered",
			given(ready, annotation(AnnotationDetached, "12"), label(LabelWorker, "9"), row(queuedBy(9))),
			Decision{Action: Detach, Row: "31", Reason: ReasonEvicted, Message: "evicting", Annotations: map[string]string{
				AnnotationDetached: "9", AnnotationReason: "Evicted", AnnotationMessage: "evicting"}}},
		{"d: an adoption that lands after the detach wins when the detach is undone",
			given(ready, marked, label(LabelWorker, "9"), row(queuedBy(9)), refusedUntil(ago(-time.Second))),
			Decision{Action: Attach, Row: "31", Reason: ReasonRefused, Message: "exceeded quota: pods", Worker: "9"}},
		{"d: a replacement that carries a dead scheduler's id runs under the living one's", given(replacement, row(queuedBy(9))),
			Decision{Action: Ungate, Row: "11", Reason: ReasonBackoffOver, Message: "free to run", Worker: "9"}},

		{"e: Airflow revokes a pod that is detached", given(ready, label(LabelHold, "True")), revoked},
		{"e: Airflow revokes a pod that is replaced",
			given(ready, label(LabelHold, "True"), pods(sibling(podName+"-r1", "uid-1", asReplacement, gateOn, uncommitted))), revoked},
		{"e: Airflow revokes a pod while its release lingers",
			given(failed, deleted(ago(0)), label(LabelHold, "True"), annotation(AnnotationReleasedAt, FormatTime(noon()))), revoked},
		{"e: Airflow revokes a replacement", given(replacement, queued, label(LabelHold, "True")), revoked},

		{"j: a quota that is full when the pod would be detached again keeps it attached", given(failed, queued, frozen, refusedUntil(ago(-3*time.Second))),
			after("31", 3*time.Second)},
		{"j: a quota that stays full until it is too late ends in a report",
			given(rejected, refusedUntil(ago(-3*time.Second)), job(func(j *Job) { j.Expires = ago(-29 * time.Second) })),
			report("29", ReasonTooLate, "a replacement could not start before "+FormatTime(ago(-29*time.Second)), inWords)},

		{"k: the pod of Airflow's own requeue has no budget of its own", given(rejected, attempt(0), spent(1)),
			report("28", ReasonExhausted, "1 of 1 replacements made", inWords)},
		{"k: the pod of Airflow's own requeue has a budget again after a restart", given(rejected, attempt(0), spent(0)), requeued},

		{"l: a deferral's resume is another queueing: queued_dttm was seen", given(rejected, row(queuedOn(queuedAt().Add(time.Microsecond))), pods(laterPod)), discarded},
		{"l: the same queued_dttm in another zone is the same queueing", given(rejected, row(queuedOn(queuedAt().In(time.FixedZone("", 3600))))),
			detach("31", ReasonKubeletRejected, inWords)},
		{"l: a deferral's resume is another queueing after a restart: its queued_dttm is later than the token",
			given(rejected, restarted, row(queuedOn(issuedAt().Add(time.Second+time.Microsecond))), pods(laterPod)), discarded},
		{"l: a token of the same second was made for this queueing", given(rejected, restarted, row(queuedOn(issuedAt().Add(time.Second)))),
			Decision{Action: Detach, Row: "31", Reason: ReasonKubeletRejected, Message: inWords, Annotations: requeued.Annotations}},
		{"l: a replacement knows its queued_dttm after a restart",
			given(rejected, asReplacement, restarted, retries(2), row(queuedOn(queuedAt().Add(time.Microsecond))), pods(laterPod)), discarded},
		{"l: a replacement's sealed queued_dttm goes before what the watcher saw",
			given(rejected, asReplacement, seenQueued(ago(time.Hour)), retries(2), pods()), requeued},
		{"l: Airflow 2 has no token: a queued_dttm within the clock skew of the pod's creation is this queueing",
			given(rejected, airflow2, restarted, row(queuedOn(createdAt().Add(10*time.Second))), pods()), requeued},
		{"l: Airflow 2 has no token: that the row is this queueing is a guess, which takes a live look for a later pod",
			given(rejected, airflow2, restarted, row(queuedOn(createdAt().Add(10*time.Second))), cached()), readSiblings("23")},
		{"l: Airflow 2 has no token: a pod of the same try that came later says that the row is its queueing",
			given(rejected, airflow2, restarted, row(queuedOn(createdAt().Add(10*time.Second))), pods(laterPod)), discarded},
		{"l: Airflow 2 has no token: a queued_dttm beyond the clock skew is a later queueing",
			given(rejected, airflow2, restarted, row(queuedOn(createdAt().Add(10*time.Second+time.Microsecond))), pods(laterPod)), discarded},
		{"l: Airflow 2's rows have no id", given(rejected, airflow2, row(id(""))), requeued},
		{"l: a pod that names an id matches a row without one", given(rejected, row(id(""))), requeued},
		{"l: a mapped task is its own task instance", given(rejected, job(func(j *Job) { j.Ref.MapIndex = 3 })), requeued},
		{"l: a reschedule sensor's next poke leaves the pod of the last one released",
			given(succeededOnNode, row(queuedOn(noon())), pods(laterPod)), release("20", ReasonSucceeded, podSuccess)},
		{"l: a stuck-in-queue requeue whose revocation did not find the pod is a later queueing",
			given(deleted(ago(0)), row(state(StateScheduled)), pods(laterPod)), discarded},
		{"l: a task that was cleared while queued has another try", given(rejected, row(secondTry, id(otherID))),
			report("25", ReasonNotQueued, "the task instance is at try 2, the pod at try 1", inWords)},

		{"m: a late eviction of a detached pod does not change the reason",
			given(ready, disrupted(corev1.ConditionTrue, "DeletionByPodGC", "node gone"), deleted(ago(0))), create},
		{"m: a late status of a detached pod does not make the failure real", given(ready, exited("Error", 1), statusReason("DeadlineExceeded", "")), create},
		{"m: a disruption that is called off after the detach does not change the reason",
			given(ready, disrupted(corev1.ConditionFalse, "EvictionByEvictionAPI", ""), exited("Error", 143)), create},
		{"m: a disruption that is called off after the detach does not release a pod that never ran its task",
			given(ready, phase(corev1.PodSucceeded), disrupted(corev1.ConditionFalse, "EvictionByEvictionAPI", "")), create},

		{"n: a failed pod that cleanup-pods deletes is replaced as it would have been", given(rejected, deleted(ago(0))),
			detach("31", ReasonKubeletRejected, inWords+"; deleted on node node-1")},
		{"n: a Pending pod that cleanup-pods deletes is replaced", given(deleted(ago(0)), queued), detach("31", ReasonDeletedUnscheduled, neverHere)},
		{"n: a Pending pod that cleanup-pods deletes again and again comes to its bound", given(deleted(ago(0)), queued, attempt(1)),
			Decision{Action: MarkFailed, Row: "28", Reason: ReasonExhausted, Message: "1 of 1 replacements made; " + neverHere}},
	}
}
