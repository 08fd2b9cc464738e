package scenarios

const (
	goneRules  = "pkg/requeue/rules_gone.go"
	aliveRules = "pkg/requeue/rules_alive.go"
	endedRules = "pkg/requeue/rules_ended.go"
)

// faults are what is planted, by row: a piece of the programs that does the row wrong, and as little else as can be.
func faults() map[string][]edit {
	return map[string][]edit{
		"1":  {{goneRules, `case hasFinalizer(f.pod):`, `case false && hasFinalizer(f.pod):`}},
		"2":  {{goneRules, `return Decision{}, p != nil && Tracked(p)`, `return Decision{}, false && p != nil && Tracked(p)`}},
		"3":  {{goneRules, `case f.Seal.State == SealValid || f.outcomeBegun():`, `case f.Seal.State != SealUnknownKey || f.outcomeBegun():`}},
		"4":  {{goneRules, `ok || !Tracked(f.pod) {`, `ok || Tracked(f.pod) {`}},
		"5":  {{goneRules, `"Airflow revoked the pod"}, Revoked(f.pod)`, `"Airflow revoked the pod"}, false`}},
		"6":  {{goneRules, `"the namespace is being deleted"}, f.NamespaceTerminating`, `"the namespace is being deleted"}, false`}},
		"7a": {{goneRules, `if !Ended(f.pod) || Committed(f.pod) ||`, `if true || !Ended(f.pod) || Committed(f.pod) ||`}},
		"7b": {{goneRules, `case !Committed(r):`, `case false && !Committed(r):`}},
		// The reason that was frozen is forgotten.
		"8": {{"pkg/requeue/reasons.go", `case recorded != "" && frozen(pod):`, `case recorded != "" && pod.DeletionTimestamp != nil:`}},

		"9":  {{aliveRules, `wanted := f.running() ||`, `wanted := false ||`}},
		"10": {{aliveRules, `case !Committed(f.pod):`, `case false && !Committed(f.pod):`}},
		"11": {{aliveRules, `if wait < 0 || wait > MaxBackoff`, `if true || wait < 0 || wait > MaxBackoff`}},
		"12": {{aliveRules, `f.thisQueueing() || f.mayRunHere() {`, `f.thisQueueing() {`}},
		"13": {{aliveRules, `ok := f.running() && f.runsHere() &&`, `ok := f.running() && f.Row.Task.Hostname == f.pod.Name &&`}},
		"14": {{aliveRules, `wait := f.pod.DeletionTimestamp.Add(nodeGrace).Sub(f.now)`, `wait := f.pod.DeletionTimestamp.Sub(f.now)`}},
		"15": {{aliveRules, `return Decision{}, f.pending() && over`, `return Decision{}, false && over`}},
		"16": {{aliveRules, `firstWaiting(f.pod, hopeless()...); w != nil {`, `firstWaiting(f.pod, hopeless()...); false && w != nil {`}},
		"17": {{aliveRules, `return f.replaceAlive(deleteWaiting(ReasonImagePull, name, w))`, `return Decision{}, false`}},
		"18": {{aliveRules, `f.policy.StartDeadline <= 0 {`, `f.policy.StartDeadline >= 0 {`}},
		"19": {{aliveRules, `return Decision{After: after}, !Ended(f.pod)`, `return Decision{Action: Delete, Reason: ReasonStartDeadline, After: after}, !Ended(f.pod)`}},

		"20": {{endedRules, `!disrupted && !Detached(f.pod)`, `(true || !disrupted) && !Detached(f.pod)`}},
		"21": {{endedRules, `if f.now.Sub(f.Row.Since) < databaseGrace {`, `if f.now.Sub(f.Row.Since) < 0 {`}},
		"22": {{endedRules, `Decision{Action: Discard, Reason: ReasonSuperseded, Message: "the task runs in "`, `Decision{Action: Report, Reason: ReasonSuperseded, Message: "the task runs in "`}},
		"23": {{endedRules, `< laterPodGrace:`, `< 0*laterPodGrace:`}},
		"24": {{"pkg/requeue/queueing.go", `f.now.Sub(f.Row.Since) < adoptionGrace`, `f.now.Sub(f.Row.Since) < 0*adoptionGrace`}},
		"25": {{endedRules, `case f.runsHere():`, `case false && f.runsHere():`}},
		"26": {{endedRules, `case f.pod.Status.Reason == "DeadlineExceeded":`, `case f.pod.Status.Reason == "DeadlineIsOver":`}},
		"27": {{endedRules, `(t.ExitCode == 143 || t.ExitCode == 137)`, `t.ExitCode == 143`}},
		"28": {{endedRules, `f.policy.MaxRetries, describe(f.pod))}, !f.budgetLeft()`, `f.policy.MaxRetries, describe(f.pod))}, false`}},
		"29": {{endedRules, `FormatTime(f.startBy()) + "; " + describe(f.pod)}, ok`, `FormatTime(f.startBy()) + "; " + describe(f.pod)}, false && ok`}},
		"30": {{endedRules, `case f.Refused.Kind == RefusedForGood:`, `case false && f.Refused.Kind == RefusedForGood:`}},
		"31": {{endedRules, `attempt := Attempt(f.pod) + 1`, `attempt := Attempt(f.pod) + 2`}},

		// What was just created is forgotten, and its name is another each time.
		"a": {
			{"pkg/watcher/sync.go", `fresh.created = out.created
		w.take(fresh)`, `_ = out.created`},
			{"pkg/requeue/replacement.go", `strconv.Itoa(next.Attempt)
`, `strconv.Itoa(next.Attempt) + "-" + strconv.FormatInt(next.NotBefore.UnixNano()%100_000_000, 36)
`},
		},
		// A new leader does not look at what is there.
		"b": {{"pkg/watcher/watcher.go", `		q.Add(name)
	}
	var group`, `		_ = name
	}
	var group`}},
		"c": {{aliveRules, `case f.rowKnown() && !f.thisQueueing():`, `case false && f.rowKnown() && !f.thisQueueing():`}},
		"d": {{"pkg/requeue/facts.go", `return Detached(pod) && pod.Labels[LabelWorker] != ""`, `return false && Detached(pod) && pod.Labels[LabelWorker] != ""`}},
		"e": {{"pkg/watcher/patch.go", `	p.add("test", "/metadata/resourceVersion", pod.ResourceVersion)
`, ``}},
		"f": {{endedRules, `if f.now.Sub(f.Row.Since) < databaseGrace {`, `if f.now.Sub(f.Row.Since) < databaseGrace/10 {`}},
		"g": {{"pkg/mutate/lease.go", `l.observed.Sub(l.leaderless) >= d`, `l.observed.Sub(l.leaderless) >= d/10`}},
		"h": {{"pkg/watcher/release.go", `old != nil && worker != "" && requeue.Detached(old) {`, `false && old != nil && worker != "" && requeue.Detached(old) {`}},
		"i": {{"pkg/watcher/watcher.go", `return ok && ns.Status.Phase == corev1.NamespaceTerminating`, `return false && ok && ns.Status.Phase == corev1.NamespaceTerminating`}},
		"j": {{"pkg/watcher/writes.go", `"exceeded quota"`, `"exceeds its quota"`}},
		"k": {{"pkg/watcher/gather.go", `in.Spent = w.memory.spent(queueingOf(in.Seal.Job, task.QueuedAt), in.Pod.UID)`, `in.Spent = 0`}},
		"l": {{"pkg/requeue/queueing.go", `return t.QueuedAt.Equal(known)`, `return true`}},
		"m": {{endedRules, `if t == nil || Detached(f.pod) {`, `if t == nil {`}},
		"n": {{"pkg/requeue/decide.go", `f.phaseOpen() && (Ended(f.pod) || Gated(f.pod)):`, `f.phaseOpen() && Gated(f.pod):`}},
		"o": {{"pkg/requeue/policy.go", `} else if p.MaxRetries = n; !p.Allows(n) {`, `} else if p.MaxRetries = n; false && !p.Allows(n) {`}},
		"p": {{"pkg/watcher/storm.go", `len(s.begun) < s.limit {`, `len(s.begun) < 10*s.limit {`}},
		"q": {{"pkg/watcher/sync.go", `if requeue.Observed(p.Pod) {`, `if false && requeue.Observed(p.Pod) {`}},
	}
}
