package watcher_test

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/airflow-requeue/airflow-requeue/internal/history"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// The invariants of a walk; docs/promises.md has them for users. What must hold at every moment is looked for in the
// history (also by history.Record), what must hold once all is calm in how things are then.

// last is the pod as it was seen last, gone or not.
func (w *walk) last(uid types.UID) *corev1.Pod {
	for _, m := range slices.Backward(w.history.Moments()) {
		if m.Pod.UID == uid {
			return m.Pod
		}
	}
	return nil
}

// heldAtItsEnd reports whether our hold kept the pod's end from Airflow at first: else what Airflow made of it is its own.
// A pod that is gone without an end, such as one that was deleted while Pending, ended when it was seen last.
func (w *walk) heldAtItsEnd(pod *corev1.Pod) bool {
	held := false
	for _, m := range w.history.Moments() {
		if m.Pod.UID != pod.UID {
			continue
		}
		if held = requeue.Held(m.Pod); requeue.Ended(m.Pod) {
			break
		}
	}
	return held
}

// breachesOf are the promises that a history has broken, whatever the moment.
func breachesOf(moments []history.Moment) []string {
	revoked := map[types.UID]bool{}
	committed := map[string][]string{}
	var breaches []string
	for _, m := range moments {
		p := m.Pod
		switch {
		case requeue.Revoked(p):
			revoked[p.UID] = true
		case revoked[p.UID]:
			breaches = append(breaches, p.Name+" was revoked by Airflow, and is no longer")
		}
		if of := requeue.RequeueOf(p); of != "" && requeue.Committed(p) && !slices.Contains(committed[of], string(p.UID)) {
			committed[of] = append(committed[of], string(p.UID))
			if len(committed[of]) > 1 {
				breaches = append(breaches, "two replacements of one pod were committed, "+p.Name+" the second")
			}
		}
		if of := requeue.RequeueOf(p); of != "" && !requeue.Gated(p) && !requeue.Ended(p) && !requeue.Committed(p) {
			breaches = append(breaches, p.Name+" may run and was never committed")
		}
		if limit, err := strconv.Atoi(p.Annotations[requeue.AnnotationMaxRetries]); err == nil && limit >= 0 && requeue.Attempt(p) > limit {
			breaches = append(breaches, fmt.Sprintf("%s is attempt %d of at most %d", p.Name, requeue.Attempt(p), limit))
		}
	}
	return breaches
}

// unsettled says what is wrong with a pod once all is calm.
func unsettled(p *corev1.Pod) string {
	switch finalizer := slices.Contains(p.Finalizers, requeue.Finalizer); {
	case requeue.Tracked(p) != finalizer:
		return "has one of label and finalizer"
	case requeue.Tracked(p) && (requeue.Ended(p) || leaving(p)):
		return "is over and still tracked"
	case requeue.Tracked(p) && requeue.Gated(p):
		return "is still gated"
	case requeue.Tracked(p) && !requeue.Attached(p):
		return "is alive and tracked, but not attached"
	case !requeue.Tracked(p) && requeue.Held(p) && requeue.Attached(p):
		return "is attached and held, and nobody tracks it"
	case !requeue.Tracked(p) && requeue.Held(p) && !requeue.Ended(p) && !leaving(p):
		return "is alive and held, and nobody tracks it"
	}
	return ""
}

// lost says what Airflow waits for in vain: a task instance that is queued without a pod that may run, or that runs in a
// pod that is over, while its scheduler lives.
func (w *walk) lost(s *slot) string {
	owner, q := w.owner(s), s.now()
	if owner == nil || s.lockedBy != nil || q == nil || q.pod == nil || s.row.State != requeue.StateQueued && s.row.State != requeue.StateRunning {
		return ""
	}
	var last *corev1.Pod // the youngest of the queueing's pods
	for _, p := range w.podsEver(q) {
		if requeue.Revoked(p) {
			return "" // Airflow has given the pod up, and what becomes of the task with it
		}
		last = p
		// A pod that is replaced while it is being adopted passes the dead scheduler's id on to its replacement. While that
		// one is held, the row's id is still to come on it, with the end of its hold.
		hears := requeue.Tracked(p) || p.Labels[requeue.LabelWorker] == strconv.FormatInt(owner.JobID, 10)
		if now := w.history.Latest(p.Name); alive(p) && now != nil && now.UID == p.UID && (hears || s.row.State == requeue.StateRunning) {
			return ""
		}
	}
	switch {
	case last != nil && !w.heldAtItsEnd(last):
		return "" // let go before its end: what became of it is between Airflow and its pod
	case s.row.State == requeue.StateQueued:
		return "is queued, but no pod of it may run and no scheduler was told"
	case s.row.State == requeue.StateRunning && slices.ContainsFunc(w.podsEver(q), func(p *corev1.Pod) bool { return isHost(p, s.row.Hostname) }):
		return "runs in a pod that is over, and no scheduler was told"
	}
	return ""
}

// podsEver are all pods that came of a queueing, as they were seen last, the youngest last.
func (w *walk) podsEver(q *queueing) []*corev1.Pod {
	var order []types.UID
	pods := map[types.UID]*corev1.Pod{}
	for _, m := range w.history.Moments() {
		if m.Pod.UID == q.pod.UID || m.Pod.Annotations[requeue.AnnotationOrigin] == q.pod.Name {
			if pods[m.Pod.UID] == nil {
				order = append(order, m.Pod.UID)
			}
			pods[m.Pod.UID] = m.Pod
		}
	}
	var list []*corev1.Pod
	for _, uid := range order {
		list = append(list, pods[uid])
	}
	return list
}

// restless says, for each task instance, what has not come to rest; nothing once all is as promised.
func (w *walk) restless() []string {
	var all []string
	say := func(s *slot, what string) {
		if what != "" {
			all = append(all, s.id+": "+what)
		}
	}
	for _, s := range w.slots {
		for _, p := range w.podsOf(s) {
			if what := unsettled(p); what != "" {
				say(s, p.Name+" "+what)
			}
			if requeue.Held(p) && requeue.Attached(p) && s.row.State == requeue.StateRunning && isHost(p, s.row.Hostname) {
				say(s, p.Name+" runs its task and is still held")
			}
		}
		say(s, w.lost(s))
	}
	return all
}
