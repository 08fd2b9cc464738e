package requeue

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// aliveCases are rows 9 to 15: pods that have not ended.
func aliveCases() []decisionCase {
	neverTook := "the pod it was to replace is gone, and it never took its place"
	ungate := Decision{Action: Ungate, Row: "11", Reason: ReasonBackoffOver, Message: "free to run", Worker: "7"}
	replacement := all(asReplacement, gateOn, pods())
	recorded := func(message string) change { return reasonRecorded(ReasonSuperseded, message) }
	pendingReplacement := all(asReplacement, onNode(), pods())
	nodeSilent := lingering(release("14", ReasonNodeSilent, "node node-1 does not answer"))
	tooLate := "it could not start before Airflow gives the task up"
	return []decisionCase{
		// Row 9
		{"a Pending pod has its row read at first sight", given(seenQueued(time.Time{})), readRow("9")},
		{"a Pending pod whose queueing was seen needs no row", given(), after("19", 0)},
		{"a Running pod has its row read", given(running), readRow("9")},
		{"a Running pod that is deleted has its row read", given(running, deleted(ago(-time.Minute))), readRow("9")},
		{"a Pending pod that is deleted on its node needs no row", given(onNode(), deleted(ago(-time.Minute)), seenQueued(time.Time{})),
			after("14", 6*time.Minute)},
		{"a replacement whose backoff is over has its row read before it may run", given(replacement), readRow("9")},
		{"a replacement whose backoff lasts needs no row yet", given(replacement, backoffUntil(ago(-time.Minute))), after("11", time.Minute)},
		{"a Pending replacement that was set free has its row read", given(pendingReplacement), readRow("9")},
		{"a replacement whose backoff is over has its row read, late as it may be",
			given(replacement, job(func(j *Job) { j.Expires = noon() })), readRow("9")},
		{"a row that can't be read is not asked for again at once", given(running, unreadableFor(time.Hour)), after("15", time.Second)},

		// Row 10
		{"a replacement that was never committed and is on its own gets its reason recorded",
			given(replacement, uncommitted), record("10", ReasonSuperseded, neverTook)},
		{"a replacement that was never committed and is on its own is deleted",
			given(replacement, uncommitted, recorded(neverTook)), remove("10", ReasonSuperseded, neverTook)},
		{"a replacement that was never committed is deleted when its predecessor is known but no longer tracked",
			given(replacement, uncommitted, recorded(neverTook), cached(sibling(podName, "uid-0", failed, noLabel(LabelTracked)))),
			remove("10", ReasonSuperseded, neverTook)},
		{"a replacement that was never committed is deleted though the database is down",
			given(replacement, uncommitted, unreadableFor(time.Hour), recorded(neverTook)), remove("10", ReasonSuperseded, neverTook)},
		{"a replacement that was never committed is deleted before its backoff is over",
			given(replacement, uncommitted, recorded(neverTook), backoffUntil(ago(-time.Minute))), remove("10", ReasonSuperseded, neverTook)},
		{"a gated replacement whose task instance runs is recorded as superseded",
			given(replacement, row(state(StateRunning), runsOn("elsewhere"))), record("10", ReasonSuperseded, overtaken)},
		{"a gated replacement whose task instance runs is deleted",
			given(replacement, row(state(StateRunning), runsOn("elsewhere")), recorded(overtaken)), remove("10", ReasonSuperseded, overtaken)},
		{"a gated replacement whose task instance was queued anew is deleted",
			given(replacement, row(queuedOn(ago(5*time.Second))), recorded(overtaken)), remove("10", ReasonSuperseded, overtaken)},
		{"a gated replacement whose task instance is at another try is deleted",
			given(replacement, row(secondTry), recorded(overtaken)), remove("10", ReasonSuperseded, overtaken)},
		{"a gated replacement whose task instance is gone is deleted", given(replacement, noRow, recorded(overtaken)),
			remove("10", ReasonSuperseded, overtaken)},
		{"a gated replacement whose token expires too soon is deleted, its row unread",
			given(replacement, recorded(tooLate), backoffUntil(ago(-time.Second)), job(func(j *Job) { j.Expires = ago(-30 * time.Second) })),
			remove("10", ReasonSuperseded, tooLate)},
		{"a gated replacement whose token expires just late enough waits for its backoff",
			given(replacement, backoffUntil(ago(-time.Second)), job(func(j *Job) { j.Expires = ago(-31 * time.Second) })), after("11", time.Second)},
		{"a gated replacement whose queueing times out too soon is recorded as superseded",
			given(replacement, queued, policy(func(p *Policy) { p.TaskQueuedTimeout = 91 * time.Second })), record("10", ReasonSuperseded, tooLate)},
		{"another reason on the pod gives way to Superseded before the delete",
			given(replacement, uncommitted, reasonRecorded(ReasonImagePull, "x")), record("10", ReasonSuperseded, neverTook)},

		// Row 11
		{"a replacement runs when its backoff is over and its row is this queueing", given(replacement, queued), ungate},
		{"a replacement runs from the very moment its backoff is over", given(replacement, queued, backoffUntil(noon())), ungate},
		{"a replacement without a backoff runs", given(replacement, queued, annotation(AnnotationNotBefore, "soon")), ungate},
		{"a replacement runs under the living scheduler's id", given(replacement, row(queuedBy(9))), to("9", ungate)},
		{"a replacement whose row names no scheduler keeps the id it has", given(replacement, row(queuedBy(0))), ungate},
		{"a replacement waits for the rest of its backoff", given(replacement, queued, backoffUntil(ago(-7*time.Second))), after("11", 7*time.Second)},
		{"a replacement does not run while the database is down", given(replacement, unreadableFor(time.Hour)), after("11", time.Second)},
		{"a replacement that waits for an image, they say, still has its gate",
			given(replacement, queued, waiting("InvalidImageName", "x"), policy(func(p *Policy) { p.StartDeadline = time.Second })), ungate},

		// Row 12
		{"a Pending replacement whose task instance runs elsewhere is recorded as superseded",
			given(asReplacement, row(state(StateRunning), runsOn("elsewhere"))), record("12", ReasonSuperseded, overtaken)},
		{"a Pending replacement whose task instance runs elsewhere is deleted",
			given(asReplacement, row(state(StateRunning), runsOn("elsewhere")), recorded(overtaken)), remove("12", ReasonSuperseded, overtaken)},
		{"a Pending replacement on a node may be the one that runs, under a hostname that can't be told yet",
			given(pendingReplacement, row(state(StateRunning), runsOn("10.9.8.7")), recorded(overtaken)), after("19", time.Minute)},
		{"a Pending replacement that was queued anew is deleted, unscheduled as it is",
			given(asReplacement, row(queuedOn(ago(5*time.Second))), recorded(overtaken)), remove("12", ReasonSuperseded, overtaken)},
		{"a Pending replacement without a row is deleted", given(pendingReplacement, noRow, recorded(overtaken)),
			remove("12", ReasonSuperseded, overtaken)},
		{"a Pending replacement is not deleted while the database is down", given(pendingReplacement, unreadableFor(time.Hour)), after("19", time.Minute)},
		{"a Pending replacement under whose name the row runs has started: its phase lags",
			given(pendingReplacement, row(state(StateRunning), runsOn(podName+"-r1"))), after("19", time.Minute)},
		{"a Pending replacement of this queueing goes on", given(pendingReplacement, queued), after("19", time.Minute)},
		{"a Pending replacement looks again at the full minute, as all others do", given(pendingReplacement, queued, at(noon().Add(10*time.Second))),
			after("19", 50*time.Second)},
		{"a gate comes off when its backoff was written by a clock that is far ahead",
			given(asReplacement, gateOn, queued, annotation(AnnotationNotBefore, FormatTime(noon().Add(2*time.Minute+11*time.Second)))), ungate},
		{"a gate stays on for the longest backoff of a clock that is ahead",
			given(asReplacement, gateOn, annotation(AnnotationNotBefore, FormatTime(noon().Add(2*time.Minute+10*time.Second)))),
			after("11", 2*time.Minute+10*time.Second)},
		{"a Pending first pod whose task instance moved on is left alone", given(onNode(), row(state(StateRunning), runsOn("elsewhere"))), after("19", 0)},
		{"a superseded replacement is deleted though its containers are all over",
			given(pendingReplacement, noRow, exited("Error", 1), recorded(overtaken)), remove("12", ReasonSuperseded, overtaken)},
		{"a superseded replacement is deleted whatever its image does",
			given(pendingReplacement, noRow, waiting("InvalidImageName", "x"), recorded(overtaken)), remove("12", ReasonSuperseded, overtaken)},

		// Row 13
		{"a Running pod is released when the row runs under its name", given(running, row(state(StateRunning), runsOn(podName))),
			release("13", ReasonStarted, "the task runs")},
		{"a Running pod is released when the row runs under its FQDN",
			given(running, row(state(StateRunning), runsOn(podName+".pods.airflow.svc.cluster.local"))), release("13", ReasonStarted, "the task runs")},
		{"a Running pod is released when the row runs under its address",
			given(running, onPod(func(p *corev1.Pod) { p.Status.PodIP = podIP }), row(state(StateRunning), runsOn(podIP))),
			release("13", ReasonStarted, "the task runs")},
		{"a Running pod is released to the living scheduler", given(running, row(state(StateRunning), runsOn(podName), queuedBy(9))),
			to("9", release("13", ReasonStarted, "the task runs"))},
		{"a Running pod that is being deleted is released when its task runs, and lingers",
			given(running, deleted(ago(-time.Minute)), row(state(StateRunning), runsOn(podName))), lingering(release("13", ReasonStarted, "the task runs"))},
		{"a Running replacement is released when the row runs under its name",
			given(asReplacement, running, row(state(StateRunning), runsOn(podName+"-r1"))), release("13", ReasonStarted, "the task runs")},

		// Row 14
		{"a Running pod that is being deleted looks for its row each second", given(running, deleted(ago(-time.Minute)), queued), after("14", time.Second)},
		{"a Running pod that is being deleted looks again with all the others, at the full second",
			given(at(ago(-300*time.Millisecond)), running, deleted(ago(-time.Minute)), queued), after("14", 700*time.Millisecond)},
		{"a Pending pod that is deleted on its node is waited for until five minutes past its grace",
			given(onNode(), deleted(ago(time.Minute)), queued), after("14", 4*time.Minute)},
		{"a pod that is five minutes past its grace is given back: no kubelet answers",
			given(onNode(), deleted(ago(5*time.Minute)), queued), nodeSilent},
		{"a Running pod that is five minutes past its grace is given back, never requeued",
			given(running, deleted(ago(5*time.Minute)), unreadableFor(time.Hour)), nodeSilent},
		{"a replacement that is deleted on its node is waited for, though its task instance moved on",
			given(pendingReplacement, deleted(ago(-time.Minute)), noRow), after("14", 6*time.Minute)},
		{"a pod that is deleted on its node is waited for, though its containers are all over",
			given(onNode(), exited("Error", 1), deleted(ago(-time.Minute)), queued), after("14", 6*time.Minute)},
		{"a pod that is deleted on its node is waited for, whatever its image does",
			given(onNode(), waiting("InvalidImageName", "x"), deleted(ago(-time.Minute)), queued), after("14", 6*time.Minute)},

		// Row 15
		{"a Running pod whose row is still queued looks again at the full second", given(at(ago(-300*time.Millisecond)), running, queued),
			after("15", 700*time.Millisecond)},
		{"a Running pod whose task runs under another name is left to its end", given(running, row(state(StateRunning), runsOn("elsewhere"))),
			after("15", time.Second)},
		{"a Running pod whose task runs under no name is left to its end", given(running, row(state(StateRunning))), after("15", time.Second)},
		{"a Running pod whose task has finished is left to its end", given(running, row(state("success"), runsOn(podName))), after("15", time.Second)},
		{"a Running replacement whose task instance moved on is left to its end", given(asReplacement, running, noRow), after("15", time.Second)},
		{"a Running pod whose containers are all over waits for its phase", given(running, queued, exited("Error", 1)), after("15", time.Second)},
		{"a Pending pod whose containers are all over waits for its phase", given(onNode(), exited("StartError", 128)), after("15", 0)},
		{"a Running pod with an image that can't be pulled is no business of ours", given(running, queued, waiting("ErrImagePull", "503")), after("15", time.Second)},
		{"a Running pod has no start deadline", given(running, queued, policy(func(p *Policy) { p.StartDeadline = time.Second })), after("15", time.Second)},
		{"a Pending pod whose containers are all over waits for its phase, whatever the image of an init container is called",
			given(onNode(), initWaiting("InvalidImageName", ""), exited("Error", 1)), after("15", 0)},
		{"a Pending pod whose containers are all over waits for its phase, whatever its init container waits for",
			given(onNode(), initWaiting("ErrImagePull", "503"), exited("Error", 1), policy(func(p *Policy) { p.StartDeadline = time.Second })),
			after("15", 0)},
	}
}
