package watcher

import (
	"log/slog"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// tell says what happened to a pod: one log line, one Event and one count for each outcome, all with the same reason.
// The steps on the way to an outcome say nothing, and neither does a task that goes well (but for the count).
func (w *Watcher) tell(in requeue.Input, d requeue.Decision) {
	pod := in.Pod
	w.metrics.writes.WithLabelValues(d.Action.String()).Inc()
	switch d.Action {
	case requeue.Release:
		w.metrics.outcome(d)
		w.log.Debug("pod released", w.attrs(in, d)...)
	case requeue.Report:
		w.metrics.outcome(d)
		w.log.Info("pod reported as failed", w.attrs(in, d)...)
		w.event(pod, nil, corev1.EventTypeWarning, d.Reason, "Report", "Reported to Airflow: "+d.Message)
	case requeue.Delete:
		w.metrics.outcome(d)
		w.log.Info("pod deleted", w.attrs(in, d)...)
		w.event(pod, nil, corev1.EventTypeWarning, d.Reason, "Delete", "Deleted: "+d.Message)
	case requeue.Discard:
		w.metrics.outcome(d)
		w.log.Info("pod discarded", w.attrs(in, d)...)
		w.event(pod, nil, corev1.EventTypeWarning, d.Reason, "Discard", "Kept from Airflow: "+d.Message)
	case requeue.Attach:
		w.log.Warn("replacement refused for now", w.attrs(in, d)...)
		w.event(pod, nil, corev1.EventTypeWarning, d.Reason, "Requeue", "The replacement is refused for now: "+d.Message)
	case requeue.Strip:
		if d.Reason == requeue.ReasonSettled || d.Reason == requeue.ReasonReplaced {
			return // the end of an outcome that was told
		}
		w.metrics.outcome(d)
		w.log.Info("pod let go", w.attrs(in, d)...)
	}
}

// tellReplaced says that a pod was replaced. What it returns says so on both pods; it is called when the replacement may run:
// these are two writes of their own, and nobody waits for them.
func (w *Watcher) tellReplaced(in requeue.Input, d requeue.Decision, replacement *corev1.Pod) (events func()) {
	w.memory.of(in.Pod.UID, func(m *podMemory) { w.metrics.requeued(d.Reason, w.clock.Since(m.endedSince)) })
	w.log.Info("pod replaced", append(w.attrs(in, d), slog.String("replacement", replacement.Name), slog.Int("attempt", d.Next.Attempt))...)
	return func() {
		w.event(in.Pod, replacement, corev1.EventTypeNormal, d.Reason, "Requeue", "Replaced by "+replacement.Name+": "+d.Message)
		w.event(replacement, in.Pod, corev1.EventTypeNormal, d.Reason, "Requeue", "Replaces "+in.Pod.Name+": "+d.Message)
	}
}

func (w *Watcher) attrs(in requeue.Input, d requeue.Decision) []any {
	job := in.Seal.Job
	return []any{
		slog.String("reason", string(d.Reason)), slog.String("row", d.Row),
		slog.String("namespace", in.Pod.Namespace), slog.String("pod", in.Pod.Name), slog.String("uid", string(in.Pod.UID)),
		slog.String("dag_id", job.Ref.DagID), slog.String("task_id", job.Ref.TaskID), slog.String("run_id", job.Ref.RunID),
		slog.Int("map_index", job.Ref.MapIndex), slog.Int("try_number", job.TryNumber), slog.String("message", d.Message),
	}
}

// event writes an Event. The recorder drops them when the API server can't keep up: they tell, they decide nothing.
func (w *Watcher) event(regarding, related *corev1.Pod, kind string, reason requeue.Reason, action, note string) {
	if related == nil {
		w.events.Eventf(regarding, nil, kind, string(reason), action, "%s", note)
		return
	}
	w.events.Eventf(regarding, related, kind, string(reason), action, "%s", note)
}
