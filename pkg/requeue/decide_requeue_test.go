package requeue

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// realCases are rows 26 and 27: failures that a replacement would only repeat.
func realCases() []decisionCase {
	evicted := disrupted(corev1.ConditionTrue, "EvictionByEvictionAPI", "evicting")
	excluded := func(words ...string) Decision { return report("27", ReasonExcludedReason, words...) }
	onDeletedNode := "deleted on node node-1"
	excludes := func(reasons ...string) change { return policy(func(p *Policy) { p.ExcludedReasons = reasons }) }
	return []decisionCase{
		// Row 26
		{"a pod that was deleted as a mistake is reported in the kubelet's words",
			given(failed, deleted(ago(0)), queued, reasonRecorded(ReasonMisconfigured, "container base: InvalidImageName: x"), exited("ContainerStatusUnknown", 137)),
			lingering(report("26", ReasonMisconfigured, "container base: InvalidImageName: x"))},
		{"an unscheduled pod that was deleted as a mistake is marked Failed first",
			given(deleted(ago(0)), queued, reasonRecorded(ReasonMisconfigured, "container base: InvalidImageName: x")),
			Decision{Action: MarkFailed, Row: "26", Reason: ReasonMisconfigured, Message: "container base: InvalidImageName: x"}},
		{"a mistake that was recorded but not followed by a delete does not count", given(rejected, reasonRecorded(ReasonMisconfigured, "x")),
			detach("31", ReasonKubeletRejected, inWords)},
		{"a pod out of its activeDeadlineSeconds is reported", given(failed, queued, statusReason("DeadlineExceeded", "Pod was active too long")),
			report("26", ReasonDeadlineExceeded, "DeadlineExceeded: Pod was active too long")},
		{"a mistake goes before an excluded reason", given(failed, deleted(ago(0)), queued, exited("Error", 1), reasonRecorded(ReasonMisconfigured, "x")),
			lingering(report("26", ReasonMisconfigured, "x"))},
		{"a deadline goes before an excluded reason", given(failed, queued, statusReason("DeadlineExceeded", ""), exited("Error", 143)),
			report("26", ReasonDeadlineExceeded, "DeadlineExceeded", "container base: Error, exit code 143")},
		{"a deadline goes before the budget", given(failed, queued, statusReason("DeadlineExceeded", ""), spent(9)),
			report("26", ReasonDeadlineExceeded, "DeadlineExceeded")},
		{"what was decided before the detach stands, deadline or not",
			given(rejected, detached, statusReason("DeadlineExceeded", ""), reasonRecorded(ReasonEvicted, "evicting"), pods()),
			Decision{Action: Create, Row: "31", Reason: ReasonEvicted, Message: "evicting",
				Next: Next{Attempt: 1, QueuedAt: queuedAt(), NotBefore: noon(), AvoidNode: node}}},

		// Row 27
		{"a main container that ended with an error is reported", given(failed, queued, exited("Error", 1)), excluded("container base: Error, exit code 1")},
		{"an init container that ended with an error is reported", given(failed, queued, initExited("fetch", "Error", 1), waiting("PodInitializing", "")),
			excluded("container fetch: Error, exit code 1")},
		{"an init container with the pod's restart policy is no sidecar", given(failed, queued, initContainer("fetch", nil), initExited("fetch", "Error", 1)),
			excluded("container fetch: Error, exit code 1")},
		{"an init container with a restart policy of its own is no sidecar",
			given(failed, queued, initContainer("fetch", new(corev1.ContainerRestartPolicy("Never"))), initExited("fetch", "Error", 1)),
			excluded("container fetch: Error, exit code 1")},
		{"an extra container that ended with an error is reported, though the main one succeeded", given(failed, queued, exited("Completed", 0),
			containerIn("extra", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 2}})),
			excluded("container extra: Error, exit code 2")},
		{"an init container that is done is not what ended the pod", given(failed, queued, initExited("fetch", "Completed", 0), exited("Error", 1)),
			excluded("container base: Error, exit code 1")},
		{"a native sidecar that the kubelet killed is no failure", given(failed, queued, sidecar("proxy"), initExited("proxy", "Error", 143), exited("OOMKilled", 137)),
			detach("31", ReasonContainerFailed, "container base: OOMKilled, exit code 137")},
		{"a native sidecar is told from a main container that ended with an error",
			given(failed, queued, sidecar("proxy"), initExited("proxy", "Error", 143), exited("Error", 1)), excluded("container base: Error, exit code 1")},
		{"an error on SIGTERM without a deletion is the container's own", given(failed, queued, exited("Error", 143)),
			excluded("container base: Error, exit code 143")},
		{"an error on SIGTERM of a deleted pod is the node's doing", given(failed, deleted(ago(0)), queued, exited("Error", 143)),
			detach("31", ReasonDeleted, "container base: Error, exit code 143; "+onDeletedNode)},
		{"an error on SIGKILL of a deleted pod is the node's doing", given(failed, deleted(ago(0)), queued, exited("Error", 137)),
			detach("31", ReasonDeleted, "container base: Error, exit code 137; "+onDeletedNode)},
		{"an error on SIGKILL of a disrupted pod is the node's doing", given(failed, evicted, queued, exited("Error", 137)),
			detach("31", ReasonEvicted, "EvictionByEvictionAPI: evicting; container base: Error, exit code 137")},
		{"an error on SIGTERM of a disrupted pod is the node's doing", given(failed, evicted, queued, exited("Error", 143)),
			detach("31", ReasonEvicted, "EvictionByEvictionAPI: evicting; container base: Error, exit code 143")},
		{"an error on SIGTERM after a disruption that was called off is the container's own",
			given(failed, disrupted(corev1.ConditionFalse, "EvictionByEvictionAPI", "x"), queued, exited("Error", 143)),
			excluded("container base: Error, exit code 143")},
		{"an error of its own on a deleted pod is reported", given(failed, deleted(ago(0)), queued, exited("Error", 1)),
			lingering(excluded("container base: Error, exit code 1", onDeletedNode))},
		{"an error of its own on a disrupted pod is reported", given(failed, evicted, queued, exited("Error", 1)),
			excluded("EvictionByEvictionAPI: evicting", "container base: Error, exit code 1")},
		{"an init container's error of its own on a deleted pod is reported, though the main container was killed",
			given(failed, deleted(ago(0)), queued, initExited("fetch", "Error", 1), exited("Error", 137)),
			lingering(excluded("container fetch: Error, exit code 1", onDeletedNode))},
		{"one container's own error on a deleted pod is reported, though another was killed", given(failed, deleted(ago(0)), queued, exited("Error", 143),
			containerIn("extra", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 2}})),
			lingering(excluded("container base: Error, exit code 143", onDeletedNode))},
		{"a reason that is not excluded is no reason to report", given(failed, queued, exited("StartError", 128)),
			detach("31", ReasonContainerFailed, "container base: StartError, exit code 128")},
		{"a reason that the operator excludes is reported", given(failed, queued, exited("OOMKilled", 137), excludes("OOMKilled")),
			excluded("container base: OOMKilled, exit code 137")},
		{"a reason that the pod excludes is reported, the default no more", given(failed, queued, exited("OOMKilled", 137),
			job(func(j *Job) { j.Tuning = map[string]string{AnnotationExcludedReasons: "OOMKilled"} })), excluded("container base: OOMKilled, exit code 137")},
		{"a pod that excludes nothing is replaced after an error", given(failed, queued, exited("Error", 1), excludes()),
			detach("31", ReasonContainerFailed, "container base: Error, exit code 1")},
		{"a pod's tuning that can't be read leaves the default", given(failed, queued, exited("Error", 1),
			job(func(j *Job) { j.Tuning = map[string]string{AnnotationExcludedReasons: "not a reason"} })), excluded("container base: Error, exit code 1")},
		{"an excluded reason goes before the budget", given(failed, queued, exited("Error", 1), spent(9)), excluded("container base: Error, exit code 1")},
		{"what was decided before the detach stands, whatever a container's late status says",
			given(rejected, detached, reasonRecorded(ReasonEvicted, "evicting"), exited("Error", 1), pods()),
			Decision{Action: Create, Row: "31", Reason: ReasonEvicted, Message: "evicting",
				Next: Next{Attempt: 1, QueuedAt: queuedAt(), NotBefore: noon(), AvoidNode: node}}},
	}
}

// boundCases are rows 28 to 30: budget, time, refusals.
func boundCases() []decisionCase {
	exhausted := func(words string) Decision { return report("28", ReasonExhausted, words, inWords) }
	tooLate := func(by time.Time) Decision {
		return report("29", ReasonTooLate, "a replacement could not start before "+FormatTime(by), inWords)
	}
	expires := func(t time.Time) change { return job(func(j *Job) { j.Expires = t }) }
	timeout := func(d time.Duration) change { return policy(func(p *Policy) { p.TaskQueuedTimeout = d }) }
	requeued := detach("31", ReasonKubeletRejected, inWords)
	unlimited := retries(Unlimited)
	return []decisionCase{
		// Row 28
		{"a replacement that used up the budget is reported", given(rejected, attempt(1)), exhausted("1 of 1 replacements made")},
		{"a replacement with budget left is replaced", given(rejected, attempt(1), retries(2)), requeued},
		{"a replacement that went beyond a budget that shrank is reported", given(rejected, attempt(3), retries(2)), exhausted("3 of 2 replacements made")},
		{"a budget of none is used up at once", given(rejected, retries(0)), exhausted("0 of 0 replacements made")},
		{"an unlimited budget is never used up", given(rejected, attempt(99), spent(99), unlimited, timeout(time.Hour), expires(time.Time{})), requeued},
		{"a fresh pod of a queueing that used up the budget is reported", given(rejected, spent(1)), exhausted("1 of 1 replacements made")},
		{"a fresh pod of a queueing that has budget left is replaced", given(rejected, spent(1), retries(2)), requeued},
		{"a chain's own replacements are not counted twice", given(rejected, attempt(1), spent(1), retries(2)), requeued},
		{"the pod's own budget goes over the operator's", given(rejected, attempt(1),
			job(func(j *Job) { j.Tuning = map[string]string{AnnotationMaxRetries: "2"} })), requeued},
		{"a pod deleted without a node and out of budget is marked Failed first", given(deleted(ago(0)), queued, attempt(1)),
			Decision{Action: MarkFailed, Row: "28", Reason: ReasonExhausted, Message: "1 of 1 replacements made; " + neverHere}},
		{"the budget goes before the time", given(rejected, attempt(1), expires(noon())), exhausted("1 of 1 replacements made")},
		{"the budget goes before a refusal", given(rejected, attempt(1), refusedForGood), exhausted("1 of 1 replacements made")},

		// Row 29
		{"a pod whose token has expired is reported", given(rejected, expires(ago(time.Second))), tooLate(ago(time.Second))},
		{"a pod whose token leaves under half a minute is reported", given(rejected, expires(ago(-30*time.Second+1))), tooLate(ago(-30*time.Second + 1))},
		{"a pod whose token leaves half a minute is replaced", given(rejected, expires(ago(-30*time.Second))), requeued},
		{"a pod whose queueing times out in under half a minute is reported", given(rejected, timeout(91*time.Second)), tooLate(ago(-29 * time.Second))},
		{"a pod whose queueing times out in half a minute is replaced", given(rejected, timeout(92*time.Second)), requeued},
		{"the queueing's timeout counts from the row when nobody saw it", given(rejected, seenQueued(time.Time{}), timeout(91*time.Second)),
			tooLate(ago(-29 * time.Second))},
		{"the queueing's timeout counts in Airflow 2 too", given(rejected, airflow2, timeout(91*time.Second)), tooLate(ago(-29 * time.Second))},
		{"a token that lasts does not stretch the queueing's timeout", given(rejected, timeout(91*time.Second), expires(ago(-time.Hour))),
			tooLate(ago(-29 * time.Second))},
		{"the backoff counts: with it the token would expire", given(rejected, attempt(1), unlimited, expires(ago(-33*time.Second)), timeout(time.Hour)),
			tooLate(ago(-33 * time.Second))},
		{"the backoff counts: without one there is time", given(rejected, attempt(1), unlimited, expires(ago(-33*time.Second)), timeout(time.Hour),
			policy(func(p *Policy) { p.Backoff = 0 })), requeued},
		{"a detached pod that became too late is reported", given(rejected, detached, marked, expires(noon()), pods()), tooLate(noon())},
		{"the time goes before a refusal", given(rejected, expires(noon()), refusedForGood), tooLate(noon())},
		{"the time goes before the wait after a refusal", given(rejected, expires(noon()), refusedUntil(ago(-time.Second))), tooLate(noon())},

		// Row 30
		{"a pod whose replacement is refused for good is reported", given(rejected, refusedForGood),
			report("30", ReasonRefused, "admission webhook said no", inWords)},
		{"a detached pod whose replacement is refused for good is reported after a live look", given(rejected, detached, marked, refusedForGood), readSiblings("30")},
		{"a detached pod whose replacement is refused for good is attached and reported", given(rejected, detached, marked, refusedForGood, pods()),
			report("30", ReasonRefused, "admission webhook said no", inWords)},
		{"a pod that fails in a storm is reported", given(rejected, storm), report("30", ReasonStorm, "too many replacements lately", inWords)},
		{"a pod that was detached before the storm is replaced", given(rejected, detached, reasonRecorded(ReasonNodeLost, "x"), storm, pods()),
			Decision{Action: Create, Row: "31", Reason: ReasonNodeLost, Message: "x",
				Next: Next{Attempt: 1, QueuedAt: queuedAt(), NotBefore: noon(), AvoidNode: node}}},
		{"a storm goes before the wait after a refusal", given(rejected, storm, refusedUntil(ago(-time.Second))),
			report("30", ReasonStorm, "too many replacements lately", inWords)},
	}
}

func storm(s *scene) { s.Storm = true }

// requeueCases are row 31: the steps of a requeue up to the create. Row 7b has the rest.
func requeueCases() []decisionCase {
	ready := all(rejected, detached, reasonRecorded(ReasonKubeletRejected, inWords), pods())
	next := Next{Attempt: 1, QueuedAt: queuedAt(), NotBefore: noon(), AvoidNode: node}
	create := func(change func(*Next)) Decision {
		n := next
		change(&n)
		return Decision{Action: Create, Row: "31", Reason: ReasonKubeletRejected, Message: inWords, Next: n}
	}
	same := func(*Next) {}
	jittered := DefaultPolicy().BackoffBefore(2, "uid-1")
	return []decisionCase{
		{"a pod that deserves a replacement is detached first", given(rejected), detach("31", ReasonKubeletRejected, inWords)},
		{"a pod without airflow-worker is detached all the same", given(rejected, noLabel(LabelWorker)),
			Decision{Action: Detach, Row: "31", Reason: ReasonKubeletRejected, Message: inWords, Annotations: map[string]string{
				AnnotationDetached: "none", AnnotationReason: "KubeletRejected", AnnotationMessage: inWords}}},
		{"a detached pod gets its replacement", given(ready), create(same)},
		{"a replacement carries the row's own queued_dttm", given(ready, seenQueued(time.Time{}), row(queuedOn(ago(70*time.Second)))),
			create(func(n *Next) { n.QueuedAt = ago(70 * time.Second) })},
		{"a pod that had no node has none to avoid", given(ready, onPod(func(p *corev1.Pod) { p.Spec.NodeName = "" })),
			create(func(n *Next) { n.AvoidNode = "" })},
		{"a pod may like its node", given(ready, job(func(j *Job) { j.Tuning = map[string]string{AnnotationAvoidFailedNode: "false"} })),
			create(func(n *Next) { n.AvoidNode = "" })},
		{"a second replacement waits for its backoff", given(asReplacement, ready, retries(2)),
			create(func(n *Next) { n.Attempt, n.NotBefore = 2, noon().Add(jittered) })},
		{"a detached pod that an adoption attached is detached again, under the adopter's id", given(ready, label(LabelWorker, "9"), row(queuedBy(9))),
			Decision{Action: Detach, Row: "31", Reason: ReasonKubeletRejected, Message: inWords, Annotations: map[string]string{
				AnnotationDetached: "9", AnnotationReason: "KubeletRejected", AnnotationMessage: inWords}}},
		{"a refusal that may pass undoes the detach at once, after a live look", given(ready, marked, refusedUntil(ago(-time.Second)), cached()), readSiblings("31")},
		{"a refusal that may pass marks the pod before that", given(ready, refusedUntil(ago(-time.Second))), undo("31")},
		{"a detached pod that is about to come back is detached anew before its replacement is made", given(ready, marked),
			detachedAnew(detach("31", ReasonKubeletRejected, inWords))},
		{"a refusal that may pass undoes the detach at once", given(ready, marked, refusedUntil(ago(-time.Second))),
			Decision{Action: Attach, Row: "31", Reason: ReasonRefused, Message: "exceeded quota: pods", Worker: "7"}},
		{"a terminating pod's detach is undone without lingering: its hold stays", given(ready, marked, deleted(ago(0)), refusedUntil(ago(-time.Second))),
			Decision{Action: Attach, Row: "31", Reason: ReasonRefused, Message: "exceeded quota: pods", Worker: "7"}},
		{"an undone detach goes to the living scheduler", given(ready, marked, row(queuedBy(9)), refusedUntil(ago(-time.Second))),
			Decision{Action: Attach, Row: "31", Reason: ReasonRefused, Message: "exceeded quota: pods", Worker: "9"}},
		{"a pod whose replacement was refused waits attached", given(rejected, refusedUntil(ago(-7*time.Second))), after("31", 7*time.Second)},
		{"a pod whose replacement was refused looks again when it is too late for one",
			given(rejected, refusedUntil(ago(-time.Minute)), job(func(j *Job) { j.Expires = ago(-45 * time.Second) })), after("31", 16*time.Second)},
		{"a pod whose wait after a refusal is over is detached again", given(rejected, refusedUntil(noon())), detach("31", ReasonKubeletRejected, inWords)},
		{"a detached pod whose wait after a refusal is over gets its replacement", given(ready, refusedUntil(noon())), create(same)},
	}
}
