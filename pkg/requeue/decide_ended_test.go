package requeue

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// rejected is a pod that its kubelet would not admit: the plainest of ends that deserve a replacement.
func rejected(s *scene) { all(failed, statusReason("NodeAffinity", rejection), queued)(s) }

const (
	rejection  = "Pod was rejected"
	inWords    = "NodeAffinity: Pod was rejected"
	neverHere  = "deleted before it had a node"
	podSuccess = "the pod succeeded"
)

// endedCases are rows 20 and 21.
func endedCases() []decisionCase {
	unavailable := "the metadata database could not be read for 1m0s"
	evicting := disrupted(corev1.ConditionTrue, "EvictionByEvictionAPI", "Eviction API: evicting")
	return []decisionCase{
		// Row 20
		{"a pod that succeeded is released without a query", given(succeededOnNode), release("20", ReasonSucceeded, podSuccess)},
		{"a pod that succeeded is released, whatever its row says", given(succeededOnNode, row(state("failed"))), release("20", ReasonSucceeded, podSuccess)},
		{"a pod that succeeded before its row was seen to run is released", given(succeededOnNode, queued), release("20", ReasonSucceeded, podSuccess)},
		{"a pod that succeeded is released while the database is down", given(succeededOnNode, unreadableFor(time.Hour)),
			release("20", ReasonSucceeded, podSuccess)},
		{"a pod that succeeded is released, though the row runs elsewhere", given(succeededOnNode, row(state(StateRunning), runsOn("winner")),
			pods(sibling("winner", "uid-5", running))), release("20", ReasonSucceeded, podSuccess)},
		{"a pod that succeeded is released to the living scheduler when its row is known",
			given(succeededOnNode, row(state("success"), runsOn(podName), queuedBy(9))), to("9", release("20", ReasonSucceeded, podSuccess))},
		{"a pod that succeeded after a disruption that was called off is released",
			given(succeededOnNode, disrupted(corev1.ConditionFalse, "EvictionByEvictionAPI", "")), release("20", ReasonSucceeded, podSuccess)},
		{"a pod that succeeded on SIGTERM needs its row", given(succeededOnNode, deleted(ago(0))), readRow("21")},
		{"a pod that succeeded while it was evicted needs its row", given(succeededOnNode, evicting), readRow("21")},

		// Row 21
		{"a failed pod needs its row", given(failed), readRow("21")},
		{"a pod deleted without a node needs its row", given(deleted(ago(0))), readRow("21")},
		{"a failed pod of a task instance without retries needs its row as any other", given(failed, retries(0)), readRow("21")},
		{"a failed pod waits for the database", given(failed, unreadableFor(59*time.Second)), after("21", time.Second)},
		{"a failed pod is reported when the database is down for a minute", given(failed, statusReason("NodeAffinity", rejection), unreadableFor(time.Minute)),
			report("21", ReasonDatabaseUnavailable, unavailable, inWords)},
		{"a detached pod is marked before it is reported when the database is down for a minute",
			given(rejected, detached, unreadableFor(time.Minute), pods()), undo("21")},
		{"a detached pod is reported when the database is down for a minute, after a live look",
			given(rejected, detached, marked, unreadableFor(time.Minute)), readSiblings("21")},
		{"a detached pod is attached and reported when the database is down for a minute",
			given(rejected, detached, marked, unreadableFor(time.Minute), pods()), report("21", ReasonDatabaseUnavailable, unavailable, inWords)},
		{"a pod deleted without a node is marked Failed when the database is down for a minute", given(deleted(ago(0)), unreadableFor(time.Minute)),
			Decision{Action: MarkFailed, Row: "21", Reason: ReasonDatabaseUnavailable, Message: unavailable + "; " + neverHere}},
		{"a detached pod that was deleted without a node is marked Failed only after a live look",
			given(deleted(ago(0)), detached, marked, unreadableFor(time.Minute)), readSiblings("21")},
		{"a pod that was marked Failed is reported in the same words",
			given(deleted(ago(0)), phase(corev1.PodFailed), statusReason("DatabaseUnavailable", unavailable+"; "+neverHere), unreadableFor(time.Minute)),
			lingering(report("21", ReasonDatabaseUnavailable, unavailable, neverHere))},
		{"a terminating pod lingers after its report", given(rejected, deleted(ago(0)), unreadableFor(time.Minute)),
			lingering(report("21", ReasonDatabaseUnavailable, unavailable, inWords, "deleted on node node-1"))},
	}
}

// movedOnCases are rows 22 to 25: the row is not, or not for sure, that of this pod's queueing.
func movedOnCases() []decisionCase {
	elsewhere := row(state(StateRunning), runsOn("winner"))
	winner := func(changes ...change) change {
		return pods(sibling("winner", "uid-5", all(running, all(changes...))))
	}
	notQueued := func(words string) Decision { return report("25", ReasonNotQueued, words, inWords) }
	runs := "the task instance is running"
	again := row(queuedOn(ago(5 * time.Second)))
	scheduled := row(state(StateScheduled))
	laterPod := sibling("etl-load-later", "uid-6")
	noLaterPod := "queued again, but no later pod has come"
	return []decisionCase{
		// Row 22
		{"a pod whose task runs elsewhere needs a live list", given(rejected, elsewhere), readSiblings("22")},
		{"a pod whose task runs elsewhere needs a live list, not the informer's", given(rejected, elsewhere, cached(sibling("winner", "uid-5", running))),
			readSiblings("22")},
		{"a pod whose task runs in another pod is discarded, so that the good run does not fail", given(rejected, elsewhere, winner()),
			discard("22", "the task runs in winner")},
		{"a pod whose task runs in a held pod is discarded", given(rejected, elsewhere, winner(label(LabelHold, HoldValue))),
			discard("22", "the task runs in winner")},
		{"a pod whose task runs in a released pod is discarded", given(rejected, elsewhere, winner(noLabel(LabelHold))),
			discard("22", "the task runs in winner")},
		{"a pod whose task runs in another pod is discarded, though that one is being deleted",
			given(rejected, elsewhere, winner(deleted(ago(-time.Minute)))), discard("22", "the task runs in winner")},
		{"a pod that succeeded on SIGTERM while its task runs in another pod is discarded",
			given(succeededOnNode, deleted(ago(0)), elsewhere, winner()), discard("22", "the task runs in winner")},
		{"a pod whose task runs at another try in another pod is discarded",
			given(rejected, row(state(StateRunning), runsOn("winner"), secondTry), winner()), discard("22", "the task runs in winner")},
		{"a pod whose task ran in another pod that has ended is reported", given(rejected, elsewhere, winner(phase(corev1.PodFailed))), notQueued(runs)},
		{"a pod whose task runs in a pod that Airflow revoked is reported", given(rejected, elsewhere, winner(label(LabelHold, "True"))), notQueued(runs)},
		{"a pod whose task runs in a detached pod is reported", given(rejected, elsewhere, winner(detached)), notQueued(runs)},
		{"a pod whose task runs in a pod that the executor is done with is reported",
			given(rejected, elsewhere, winner(label(LabelExecutorDone, "True"))), notQueued(runs)},
		{"a pod whose task runs under a name that no pod has is reported", given(rejected, row(state(StateRunning), runsOn("node-1.example")), winner()),
			notQueued(runs)},
		{"a pod whose task runs under its own name is reported, other pods or not",
			given(rejected, row(state(StateRunning), runsOn(podName)), winner()), report("25", ReasonStarted, "the task ran", inWords)},

		// Row 23
		{"a row that was queued nobody knows when is no queueing of the pod's", given(failed, seenQueued(time.Time{}), row(queuedOn(time.Time{}))),
			Decision{Action: Read, Row: "23", Need: NeedSiblings}},
		{"a pod whose try is queued again needs a live list", given(rejected, again), readSiblings("23")},
		{"a pod whose try is scheduled again needs a live list", given(rejected, scheduled), readSiblings("23")},
		{"a pod whose try is queued again is discarded once the later pod exists", given(rejected, again, seenFor(time.Hour), pods(laterPod)),
			discard("23", "queued again, for etl-load-later")},
		{"a pod whose try is scheduled again is discarded once the later pod exists", given(rejected, scheduled, pods(laterPod)),
			discard("23", "queued again, for etl-load-later")},
		{"a later pod counts though it has ended by now", given(rejected, again, pods(sibling("etl-load-later", "uid-6", failed))),
			discard("23", "queued again, for etl-load-later")},
		{"a later pod counts though it was never held",
			given(rejected, again, pods(sibling("etl-load-later", "uid-6", unstamped, annotation(annotationTryNumber, "1")))),
			discard("23", "queued again, for etl-load-later")},
		{"a pod whose try is queued again waits for the later pod", given(rejected, again, seenFor(29*time.Second), pods()), after("23", time.Second)},
		{"a pod whose try is queued again is reported when no later pod comes", given(rejected, again, seenFor(30*time.Second), pods()),
			report("23", ReasonNotQueued, noLaterPod, inWords)},
		{"a pod that ended nobody knows when does not wait for a later pod", given(rejected, again, pods()),
			report("23", ReasonNotQueued, noLaterPod, inWords)},
		{"an earlier pod is no later pod", given(rejected, again, seenFor(time.Second),
			pods(sibling("etl-load-earlier", "uid-6", created(ago(61*time.Second))))), after("23", time.Second)},
		{"a pod of the same chain is no later pod", given(rejected, asReplacement, again, seenFor(time.Second),
			pods(sibling(podName, "uid-0", failed, detached, noLabel(LabelTracked)))), after("23", time.Second)},
		{"a later pod counts though this one, a replacement, is younger", given(rejected, asReplacement, created(ago(time.Second)), again,
			pods(sibling("etl-load-later", "uid-6", created(queuedAt().Truncate(time.Second))))), discard("23", "queued again, for etl-load-later")},
		{"a pod that is older than a replacement's queueing is no later pod", given(rejected, asReplacement, created(ago(time.Second)), again,
			seenFor(time.Second), pods(sibling("etl-load-earlier", "uid-6", created(queuedAt().Add(-time.Second))))), after("23", time.Second)},
		{"a pod of another try is no later pod", given(rejected, again, seenFor(time.Second),
			pods(sibling("etl-load-later", "uid-6", annotation(annotationTryNumber, "2")))), after("23", time.Second)},
		{"a succeeded pod whose try is queued again is discarded too", given(succeededOnNode, deleted(ago(0)), again, pods(laterPod)),
			discard("23", "queued again, for etl-load-later")},
		{"a queueing that a dead scheduler's id is on, of a later time, is a later queueing first",
			given(rejected, row(queuedOn(ago(5*time.Second)), queuedBy(3)), seenFor(time.Second), pods()), after("23", time.Second)},

		// Row 24
		{"a report waits for the row of an adoption", given(rejected, spent(1), row(queuedBy(6)), seenFor(time.Second)), after("24", time.Second)},
		{"a report waits for the row of an adoption by an older scheduler", given(rejected, spent(1), row(queuedBy(9)), seenFor(time.Second)),
			after("24", time.Second)},
		{"a report waits for the row of an adoption where the task ran", given(rejected, row(state("failed"), runsOn(podName), queuedBy(6)), seenFor(time.Second)),
			after("24", time.Second)},
		{"a report goes to the scheduler of the row when that has said so for two minutes",
			given(rejected, spent(1), row(queuedBy(6)), seenFor(2*time.Minute)),
			to("6", report("28", ReasonExhausted, "1 of 1 replacements made", inWords))},
		{"a report of a row without a scheduler waits for nothing", given(rejected, spent(1), row(queuedBy(0)), seenFor(time.Second)),
			report("28", ReasonExhausted, "1 of 1 replacements made", inWords)},
		{"a report of another queueing's row waits for nothing", given(rejected, row(secondTry, queuedBy(6)), seenFor(time.Second)),
			report("25", ReasonNotQueued, "the task instance is at try 2, the pod at try 1", inWords)},
		{"a detached pod's remembered scheduler counts too", given(rejected, detached, spent(1), row(queuedBy(6)), seenFor(time.Second)),
			after("24", time.Second)},
		{"a pod is marked Failed for a report only when its scheduler is known", given(deleted(ago(0)), spent(1), row(queuedBy(6)), seenFor(time.Second)),
			after("24", time.Second)},
		{"a release waits for the row of an adoption", given(running, row(state(StateRunning), runsOn(podName), queuedBy(6)), seenFor(time.Second)),
			after("24", time.Second)},
		{"a release goes to the scheduler of the row when that has said so for two minutes",
			given(running, row(state(StateRunning), runsOn(podName), queuedBy(6)), seenFor(2*time.Minute)),
			to("6", release("13", ReasonStarted, "the task runs"))},
		{"a gate stays on until the row of an adoption is there", given(asReplacement, gateOn, row(queuedBy(6)), seenFor(time.Second)),
			after("24", time.Second)},
		{"a requeue waits for no adoption: the replacement takes over what the pod carries", given(rejected, row(queuedBy(6)), seenFor(time.Second)),
			detach("31", ReasonKubeletRejected, inWords)},

		// Row 25
		{"a pod whose task ran in it is reported", given(rejected, row(state("failed"), runsOn(podName))), report("25", ReasonStarted, "the task ran", inWords)},
		{"a pod whose task ran in it and was deferred is reported", given(rejected, row(state("deferred"), runsOn(podName))),
			report("25", ReasonStarted, "the task ran", inWords)},
		{"a pod whose task runs in it is reported to the living scheduler", given(rejected, row(state(StateRunning), runsOn(podName), queuedBy(9))),
			to("9", report("25", ReasonStarted, "the task ran", inWords))},
		{"a pod without a row is reported", given(rejected, noRow), notQueued("there is no such task instance")},
		{"a pod of another try is reported", given(rejected, row(secondTry)), notQueued("the task instance is at try 2, the pod at try 1")},
		{"a pod of another id is reported", given(rejected, row(id(otherID))), notQueued("the task instance is another one, of the same name and try")},
		{"a pod whose row has no state is reported", given(rejected, row(state(""))), notQueued("the task instance has no state")},
		{"a pod whose task succeeded elsewhere is reported", given(rejected, row(state("success"))), notQueued("the task instance is success")},
		{"a pod whose task failed elsewhere is reported", given(rejected, row(state("failed"))), notQueued("the task instance is failed")},
		{"a pod whose task is up for retry is reported", given(rejected, row(state("up_for_retry"))), notQueued("the task instance is up_for_retry")},
		{"a pod whose task is deferred is reported", given(rejected, row(state("deferred"))), notQueued("the task instance is deferred")},
		{"a pod whose task was removed is reported", given(rejected, row(state("removed"))), notQueued("the task instance is removed")},
		{"a pod that succeeded on SIGTERM after its task is released", given(succeededOnNode, deleted(ago(0)), row(state("success"), runsOn(podName))),
			lingering(release("25", ReasonSucceeded, podSuccess))},
		{"a pod that succeeded while it was evicted is released when its task moved on",
			given(succeededOnNode, disrupted(corev1.ConditionTrue, "EvictionByEvictionAPI", ""), row(state("up_for_reschedule"))),
			release("25", ReasonSucceeded, podSuccess)},
		{"a pod deleted without a node whose task moved on is marked Failed first", given(deleted(ago(0)), row(state("failed"))),
			Decision{Action: MarkFailed, Row: "25", Reason: ReasonNotQueued, Message: "the task instance is failed; " + neverHere}},
		{"a pod that was marked Failed is then reported", given(deleted(ago(0)), phase(corev1.PodFailed), row(state("failed"))),
			lingering(report("25", ReasonNotQueued, "the task instance is failed", neverHere))},
		{"a row that is not this queueing comes before every reason to report what is",
			given(failed, noRow, exited("Error", 1), statusReason("DeadlineExceeded", ""), spent(9), refusedForGood),
			report("25", ReasonNotQueued, "there is no such task instance", "DeadlineExceeded", "container base: Error, exit code 1")},
	}
}
