package watcher_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// handleResults has a scheduler handle what its watch has seen, in order.
func (w *walk) handleResults(_ *slot, pick int) string {
	living := w.living()
	if len(living) == 0 {
		return ""
	}
	return w.handleAll(living[pick%len(living)])
}

func (w *walk) handleAll(by *scheduler) string {
	var said []string
	for len(by.errand) == 0 {
		by.mu.Lock()
		if len(by.seen) == 0 {
			by.mu.Unlock()
			break
		}
		seen := by.seen[0]
		slot := w.slot(seen.Key.TaskID)
		if slot == nil || slot.lockedBy == nil { // of a locked row, later
			by.seen = by.seen[1:]
		}
		by.mu.Unlock()
		if slot != nil && slot.lockedBy != nil {
			break
		}
		if slot != nil {
			said = append(said, w.handle(by, slot, seen))
		}
	}
	said = slices.DeleteFunc(said, func(s string) bool { return s == "" })
	return strings.Join(said, "; ")
}

// handle is _change_state of the executor, then process_executor_events of the scheduler.
func (w *walk) handle(by *scheduler, s *slot, seen executor.Seen) string {
	key := s.key(seen.TryNumber)
	running := by.has[key]
	what := fmt.Sprintf("scheduler %d handles %s %s", by.JobID, seen.State, seen.Pod.Name)
	if seen.State == executor.Adopted {
		if running {
			delete(by.has, key)
		}
		return what
	}
	require.NoError(w.t, by.Finish(w.ctx, seen))
	if !running {
		return "" // "TI key not in running, not adding to event_buffer"
	}
	delete(by.has, key)
	state := s.row.State
	if !s.there || s.row.TryNumber != seen.TryNumber || s.row.QueuedByJobID != by.JobID ||
		state != requeue.StateScheduled && state != requeue.StateQueued && state != requeue.StateRunning {
		return what + ", which changes nothing"
	}
	// "The executor reported that the task instance finished, but the task instance's state is ...": it fails.
	w.judge(s, seen)
	w.set(s, func(row *requeue.TaskInstance) { row.State = upForRetry })
	return what + ": the task has failed"
}

// judge holds a failure that takes effect against what the walk knows.
func (w *walk) judge(s *slot, seen executor.Seen) {
	pod := w.last(seen.UID)
	if pod == nil {
		return // so new that the history has not seen it
	}
	q := s.of(pod)
	if q == nil {
		return
	}
	q.effects = append(q.effects, pod.Name)
	if len(q.effects) > 1 {
		w.breach(s, "one queueing failed twice, by %v", q.effects)
	}
	runner := w.runnerOf(s)
	switch {
	case q == s.now() && (runner == nil || runner.UID == pod.UID):
		return // as it should be
	case !w.heldAtItsEnd(pod):
		return // Airflow saw this pod's end without us
	}
	lift, ok := w.lift(pod.Name)
	switch {
	case !ok || lift.byRelease:
		return // whoever lifts all holds reads no row
	case s.now().pod == nil || s.now().launched.After(lift.at):
		return // row 23: no pod of the later queueing came for 30 s, and the executor may be waiting for this one
	case pod.Status.Phase == corev1.PodFailed && !sameView(lift.row, s.row):
		return // the row changed between the watcher's last read and its write: no guard spans both
	}
	w.breach(s, "%s failed the task of a later queueing, or of a good run", pod.Name)
}

// sameView says that a watcher had read the row as it is now, but for who queued it.
func sameView(a, b requeue.TaskInstance) bool {
	return a.State == b.State && a.TryNumber == b.TryNumber && a.QueuedAt.Equal(b.QueuedAt) && a.Hostname == b.Hostname
}

// runnerOf is the pod in which the task runs, while it is alive and Airflow's own.
func (w *walk) runnerOf(s *slot) *corev1.Pod {
	if s.row.State != requeue.StateRunning {
		return nil
	}
	for _, p := range w.podsOf(s) {
		if isHost(p, s.row.Hostname) && !requeue.Ended(p) && p.DeletionTimestamp == nil && requeue.Attached(p) && !requeue.Revoked(p) {
			return p
		}
	}
	return nil
}

func isHost(p *corev1.Pod, hostname string) bool {
	return hostname != "" && (p.Name == hostname || p.Status.PodIP == hostname)
}
