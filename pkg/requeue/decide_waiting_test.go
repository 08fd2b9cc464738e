package requeue

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// waitingCases are rows 16 to 19: Pending pods, and what their containers wait for.
func waitingCases() []decisionCase {
	const (
		notFoundMessage = `rpc error: code = NotFound desc = failed to pull and unpack image "registry/x:1": not found`
		backOff         = `Back-off pulling image "registry/x:1": ErrImagePull: ` + notFoundMessage
		unavailable     = "failed with status code [manifests 1]: 503 Service Unavailable"
	)
	base := func(reason, message string) string { return "container base: " + reason + ": " + message }
	firstSeen := func(row string) Decision {
		return Decision{Action: Record, Row: row, Annotations: map[string]string{AnnotationWaitingSince: "2026-03-01T12:00:00Z base"}}
	}
	pulling := all(onNode(), waiting("ErrImagePull", unavailable))
	grace := waitingSince(ago(2*time.Minute), BaseContainer)
	deadline := func(d time.Duration) change { return policy(func(p *Policy) { p.StartDeadline = d }) }
	overdue := "Pending for longer than the start deadline of 1m0s"
	pullFailed := base("ErrImagePull", unavailable)
	return []decisionCase{
		// Row 16
		{"an image name that is no name is recorded at once", given(onNode(), waiting("InvalidImageName", "couldn't parse")),
			record("16", ReasonMisconfigured, base("InvalidImageName", "couldn't parse"))},
		{"an image name that is no name is a mistake at once", given(onNode(), waiting("InvalidImageName", "couldn't parse"),
			reasonRecorded(ReasonMisconfigured, "x")), remove("16", ReasonMisconfigured, base("InvalidImageName", "couldn't parse"))},
		{"an image that may never be pulled is a mistake at once", given(onNode(), waiting("ErrImageNeverPull", "not present"),
			reasonRecorded(ReasonMisconfigured, "x")), remove("16", ReasonMisconfigured, base("ErrImageNeverPull", "not present"))},
		{"a mistake in an init container counts", given(onNode(), initWaiting("InvalidImageName", ""), waiting("PodInitializing", ""),
			reasonRecorded(ReasonMisconfigured, "x")), remove("16", ReasonMisconfigured, "container fetch: InvalidImageName")},
		{"an image that the registry does not have is recorded when first seen", given(onNode(), waiting("ErrImagePull", notFoundMessage)),
			firstSeen("16")},
		{"an image that the registry does not have is waited for, as it may be pushed yet",
			given(onNode(), waiting("ErrImagePull", notFoundMessage), waitingSince(ago(90*time.Second), BaseContainer)), after("16", 30*time.Second)},
		{"an image that the registry does not have is a mistake after the grace", given(onNode(), waiting("ErrImagePull", notFoundMessage), grace),
			record("16", ReasonMisconfigured, base("ErrImagePull", notFoundMessage))},
		{"an image that the registry does not have is a mistake while the kubelet backs off too",
			given(onNode(), waiting("ImagePullBackOff", backOff), grace, reasonRecorded(ReasonMisconfigured, "x")),
			remove("16", ReasonMisconfigured, base("ImagePullBackOff", backOff))},
		{"a missing Secret is recorded when first seen", given(onNode(), waiting("CreateContainerConfigError", `secret "x" not found`)),
			firstSeen("16")},
		{"a missing Secret is a mistake after the grace", given(onNode(), waiting("CreateContainerConfigError", `secret "x" not found`), grace),
			record("16", ReasonMisconfigured, base("CreateContainerConfigError", `secret "x" not found`))},
		{"a container that can't be created is a mistake after the grace", given(onNode(), waiting("CreateContainerError", "x"), grace),
			record("16", ReasonMisconfigured, base("CreateContainerError", "x"))},
		{"an image that can't be inspected is a mistake after the grace", given(onNode(), waiting("ImageInspectError", "x"), grace),
			record("16", ReasonMisconfigured, base("ImageInspectError", "x"))},
		{"a mistake needs neither budget nor row", given(onNode(), waiting("InvalidImageName", ""), retries(0), unreadableFor(time.Hour)),
			record("16", ReasonMisconfigured, "container base: InvalidImageName")},
		{"a mistake goes before a pull that fails", given(onNode(), initWaiting("ErrImagePull", unavailable), waiting("InvalidImageName", "")),
			record("16", ReasonMisconfigured, "container base: InvalidImageName")},
		{"a mistake goes before the start deadline", given(onNode(), waiting("CreateContainerConfigError", "x"), grace, deadline(time.Minute), queued),
			record("16", ReasonMisconfigured, base("CreateContainerConfigError", "x"))},

		// Row 17
		{"a pull that fails is recorded when first seen", given(pulling), firstSeen("17")},
		{"a pull that was first seen by a clock that is far ahead is recorded anew",
			given(pulling, waitingSince(ago(-11*time.Second), BaseContainer)), firstSeen("17")},
		{"a pull that was first seen by a clock that is ahead has its grace", given(pulling, waitingSince(ago(-10*time.Second), BaseContainer), queued),
			after("17", 2*time.Minute+10*time.Second)},
		{"a pull that failed before in another container is recorded anew", given(pulling, waitingSince(ago(time.Hour), "fetch")),
			firstSeen("17")},
		{"a record that can't be read is made anew", given(pulling, annotation(AnnotationWaitingSince, "yesterday base")), firstSeen("17")},
		{"a pull that fails may fail for the grace", given(pulling, waitingSince(ago(90*time.Second), BaseContainer)), after("17", 30*time.Second)},
		{"a pull that fails needs the row when the grace is over", given(pulling, grace), readRow("17")},
		{"a pull that fails waits for the database", given(pulling, grace, unreadableFor(time.Hour)), after("17", time.Second)},
		{"a pull that fails for the grace is recorded", given(pulling, grace, queued), record("17", ReasonImagePull, pullFailed)},
		{"a pull that fails for the grace ends in a delete", given(pulling, grace, queued, reasonRecorded(ReasonImagePull, pullFailed)),
			remove("17", ReasonImagePull, pullFailed)},
		{"a pull that fails while the kubelet backs off is the same pull", given(onNode(), waiting("ImagePullBackOff", "503"), grace, queued),
			record("17", ReasonImagePull, base("ImagePullBackOff", "503"))},
		{"a registry that is unavailable is a pull that fails", given(onNode(), waiting("RegistryUnavailable", "503"), grace, queued),
			record("17", ReasonImagePull, base("RegistryUnavailable", "503"))},
		{"an image whose signature can't be checked is a pull that fails", given(onNode(), waiting("SignatureValidationFailed", "x"), grace, queued),
			record("17", ReasonImagePull, base("SignatureValidationFailed", "x"))},
		{"an init container's pull that fails for the grace is recorded", given(onNode(), initWaiting("ErrImagePull", "503"),
			waiting("PodInitializing", ""), waitingSince(ago(2*time.Minute), "fetch"), queued),
			record("17", ReasonImagePull, "container fetch: ErrImagePull: 503")},
		{"a pull that fails without budget left is the kubelet's to try again", given(pulling, grace, queued, retries(0)), after("19", 0)},
		{"a pull that fails for a task instance that moved on is left alone", given(pulling, grace, row(state("failed"))), after("19", 0)},
		{"a grace of zero is over when first seen", given(pulling, policy(func(p *Policy) { p.ImagePullGrace = 0 }),
			waitingSince(noon(), BaseContainer), queued), record("17", ReasonImagePull, pullFailed)},
		{"a pull goes before the start deadline when both are over", given(pulling, grace, deadline(time.Minute), queued),
			record("17", ReasonImagePull, pullFailed)},
		{"a pod's own grace goes over the operator's", given(pulling, waitingSince(ago(90*time.Second), BaseContainer), queued,
			job(func(j *Job) { j.Tuning = map[string]string{AnnotationImagePullGrace: "90s"} })), record("17", ReasonImagePull, pullFailed)},

		// Row 18
		{"a Pending pod has no start deadline unless it is given one", given(onNode(), queued), after("19", 0)},
		{"a Pending pod waits for its start deadline", given(onNode(), deadline(90*time.Second)), after("18", 30*time.Second)},
		{"a Pending pod past its start deadline needs the row", given(onNode(), deadline(time.Minute)), readRow("18")},
		{"a Pending pod past its start deadline waits for the database", given(onNode(), deadline(time.Minute), unreadableFor(time.Hour)),
			after("18", time.Second)},
		{"a Pending pod past its start deadline is recorded", given(onNode(), deadline(time.Minute), queued), record("18", ReasonStartDeadline, overdue)},
		{"a Pending pod past its start deadline is deleted", given(onNode(), deadline(time.Minute), queued, reasonRecorded(ReasonStartDeadline, overdue)),
			remove("18", ReasonStartDeadline, overdue)},
		{"an unscheduled pod past its start deadline is recorded", given(deadline(time.Minute), queued), record("18", ReasonStartDeadline, overdue)},
		{"a replacement's start deadline counts from the end of its backoff",
			given(asReplacement, backoffUntil(ago(10*time.Second)), deadline(time.Minute), queued), after("18", 50*time.Second)},
		{"a Pending pod past its start deadline without budget left is left alone",
			given(onNode(), deadline(time.Minute), queued, spent(1)), after("19", 0)},
		{"a Pending pod past its start deadline whose task instance moved on is left alone",
			given(onNode(), deadline(time.Minute), row(state("failed"))), after("19", 0)},
		{"a pull that fails has its grace, whatever is left of the start deadline",
			given(pulling, waitingSince(ago(time.Second), BaseContainer), deadline(time.Hour), queued), after("17", 2*time.Minute-time.Second)},
		{"a pull that fails does not stretch the start deadline",
			given(pulling, waitingSince(ago(time.Second), BaseContainer), deadline(time.Minute), queued), record("18", ReasonStartDeadline, overdue)},
		{"a pull that fails is looked at again when the start deadline is over",
			given(pulling, waitingSince(ago(time.Second), BaseContainer), deadline(62*time.Second), queued), after("18", 2*time.Second)},
		{"a pull that fails has its grace, when the start deadline has no budget",
			given(pulling, waitingSince(ago(time.Second), BaseContainer), deadline(time.Minute), queued, spent(1)), after("17", 2*time.Minute-time.Second)},

		// Row 19
		{"an unscheduled pod waits for a node", given(queued), after("19", 0)},
		{"a pod whose containers are being created waits", given(onNode(), waiting("ContainerCreating", "")), after("19", 0)},
		{"a pod whose init container failed waits for its phase", given(onNode(), initExited("fetch", "Error", 1), waiting("PodInitializing", "")),
			after("19", 0)},
		{"a Pending pod with a stale reason on it waits", given(onNode(), reasonRecorded(ReasonImagePull, "x")), after("19", 0)},
		{"a Pending pod out of budget and time waits: nothing has happened to it",
			given(onNode(), queued, spent(9), job(func(j *Job) { j.Expires = ago(time.Hour) })), after("19", 0)},
		{"a pod whose phase is unknown is alive", given(phase(corev1.PodUnknown), onNode(), queued), after("19", 0)},
		{"a pod whose phase was taken away is alive", given(phase(""), onNode(), noRow), after("19", 0)},
	}
}
