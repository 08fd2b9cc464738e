package requeue

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// facts is an Input with what several rules ask of it.
type facts struct {
	Input
	pod    *corev1.Pod
	job    Job
	policy Policy
	now    time.Time
}

func (f facts) terminating() bool { return f.pod.DeletionTimestamp != nil }

func (f facts) pending() bool { return f.pod.Status.Phase == corev1.PodPending && !Ended(f.pod) }

func (f facts) running() bool { return f.pod.Status.Phase == corev1.PodRunning && !Ended(f.pod) }

func (f facts) succeeded() bool { return f.pod.Status.Phase == corev1.PodSucceeded }

// phaseOpen reports whether the phase is short of an end; that of a pod deleted without a node is.
func (f facts) phaseOpen() bool {
	return f.pod.Status.Phase != corev1.PodSucceeded && f.pod.Status.Phase != corev1.PodFailed
}

func (f facts) rowKnown() bool { return f.Row.State == Found || f.Row.State == Absent }

// tokenPrecision is how far queued_dttm, in microseconds, may lie after the token's iat, cut to whole seconds, of the
// same clock (airflow.api_fastapi.auth.tokens: "iat": int(now)).
const tokenPrecision = time.Second

// queuedAt is the queued_dttm of this pod's queueing, where it is known: sealed into a replacement, or seen by the
// watcher before the pod ran.
func (f facts) queuedAt() time.Time {
	if t := QueuedAt(f.pod); !t.IsZero() {
		return t
	}
	return f.SeenQueued
}

// sameTry reports whether the row is the pod's try of the task instance.
func (f facts) sameTry() bool {
	t := f.Row.Task
	return f.Row.State == Found && t.TryNumber == f.job.TryNumber && (f.job.Ref.ID == "" || t.ID == "" || f.job.Ref.ID == t.ID)
}

// thisQueueing reports whether the row is queued, and by the very queueing that this pod was made for. A deferral's
// resume, a reschedule sensor's next poke and a stuck-in-queue requeue keep key, try number and id: only queued_dttm
// tells them apart.
func (f facts) thisQueueing() bool {
	t := f.Row.Task
	if !f.sameTry() || t.State != StateQueued || t.QueuedAt.IsZero() {
		return false
	}
	if known := f.queuedAt(); !known.IsZero() {
		return t.QueuedAt.Equal(known)
	}
	if !f.job.IssuedAt.IsZero() {
		return !t.QueuedAt.After(f.job.IssuedAt.Add(tokenPrecision))
	}
	return !t.QueuedAt.After(f.pod.CreationTimestamp.Add(f.policy.ClockSkew))
}

// guessed reports whether nothing but the pod's creation, by another clock, says that the row is this queueing.
func (f facts) guessed() bool {
	return f.thisQueueing() && f.queuedAt().IsZero() && f.job.IssuedAt.IsZero()
}

// laterQueueing reports whether the same try is on its way again, without this pod.
func (f facts) laterQueueing() bool {
	s := f.Row.Task.State
	return f.sameTry() && (s == StateScheduled || s == StateQueued) && !f.thisQueueing()
}

// runsHere reports whether the row runs, or ran, under this pod's hostname.
func (f facts) runsHere() bool {
	return f.Row.State == Found && hostnameOf(f.pod, f.Row.Task.Hostname) &&
		f.Row.Task.State != StateQueued && f.Row.Task.State != StateScheduled
}

// mayRunHere reports whether the task may run in a pod whose phase lags behind its containers: under its hostname, or,
// once it has a node, under one that can't be told yet, such as an address.
func (f facts) mayRunHere() bool {
	return f.runsHere() || f.sameTry() && f.Row.Task.State == StateRunning && f.pod.Spec.NodeName != ""
}

// attempt counts the replacements made in this queueing, this pod's own chain and any other.
func (f facts) attempt() int { return max(Attempt(f.pod), f.Spent) }

func (f facts) budgetLeft() bool {
	return f.policy.MaxRetries == Unlimited || f.attempt() < f.policy.MaxRetries
}

// lead is the least time that a replacement needs to be scheduled, to start and to claim its task.
const lead = 30 * time.Second

// startBy is when Airflow gives the task up: the token's exp, and queued_dttm plus task_queued_timeout.
func (f facts) startBy() time.Time {
	by := f.job.Expires
	queued := f.queuedAt()
	if queued.IsZero() && f.thisQueueing() {
		queued = f.Row.Task.QueuedAt
	}
	if !queued.IsZero() {
		if t := queued.Add(f.policy.TaskQueuedTimeout); by.IsZero() || t.Before(by) {
			by = t
		}
	}
	return by
}

// tooLate reports whether a pod that may run after the wait could no longer claim its task.
func (f facts) tooLate(wait time.Duration) bool {
	by := f.startBy()
	return !by.IsZero() && by.Sub(f.now.Add(wait)) < lead
}

// predecessor is the pod that this one replaces, if the siblings have it.
func (f facts) predecessor() *corev1.Pod {
	uid := RequeueOf(f.pod)
	if uid == "" {
		return nil
	}
	return f.sibling(func(p *corev1.Pod) bool { return string(p.UID) == uid })
}

// replacement is the pod that replaces this one: the committed one, should a late create have left two.
func (f facts) replacement() *corev1.Pod {
	ours := func(p *corev1.Pod) bool { return RequeueOf(p) == string(f.pod.UID) }
	if p := f.sibling(func(p *corev1.Pod) bool { return ours(p) && Committed(p) }); p != nil {
		return p
	}
	return f.sibling(ours)
}

func (f facts) sibling(match func(*corev1.Pod) bool) *corev1.Pod {
	i := slices.IndexFunc(f.Siblings.Pods, match)
	if i < 0 {
		return nil
	}
	return f.Siblings.Pods[i]
}

// rowWorker is the scheduler job that the row names; empty where it does not tell.
func (f facts) rowWorker() string {
	if t := f.Row.Task; f.Row.State == Found && t.QueuedByJobID > 0 && (f.thisQueueing() || f.runsHere()) {
		return strconv.FormatInt(t.QueuedByJobID, 10)
	}
	return ""
}

// worker is the airflow-worker that the pod is to carry when Airflow sees it again: the row's where the row tells, else
// the pod's own.
func (f facts) worker() string { return cmp.Or(f.rowWorker(), Worker(f.pod)) }

// adoptionGrace is how long the rows may lag behind the pods that a scheduler adopts.
const adoptionGrace = 2 * time.Minute

// Row 24: adoption relabels pods first and commits rows later. Which of two ids is the living scheduler's can't be told
// from the ids: several schedulers may live, and the older may adopt.
func (f facts) adoptionUnderWay() bool {
	row, own := f.rowWorker(), Worker(f.pod)
	return row != "" && own != "" && row != own && f.now.Sub(f.Row.Since) < adoptionGrace
}

// SeenQueued returns the queued_dttm to remember for a pod once its row was read: that of this queueing, if the pod has
// not run yet. It tells this queueing from a later one when the pod ends.
func SeenQueued(in Input, policy Policy) time.Time {
	f := facts{Input: in, pod: in.Pod, job: in.Seal.Job, policy: policy}
	if in.SeenQueued.IsZero() && f.pending() && !f.terminating() && f.thisQueueing() {
		return in.Row.Task.QueuedAt
	}
	return in.SeenQueued
}
