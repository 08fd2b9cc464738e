package watcher_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// States of a task instance that the watcher has no name for.
const (
	none         requeue.State = ""
	success      requeue.State = "success"
	upForRetry   requeue.State = "up_for_retry"
	deferred     requeue.State = "deferred"
	toReschedule requeue.State = "up_for_reschedule"
)

// slot is one task instance. Nobody but the walk writes its row, so row is what the metadata database has.
type slot struct {
	id        string
	task      executor.Task
	row       requeue.TaskInstance
	there     bool       // the row is
	lockedBy  *scheduler // select ... for update, while it adopts
	queueings []*queueing
	processes map[string]*taskProcess // by UID of its pod
}

// queueing is one stay of a try in state queued, and all pods that came of it.
type queueing struct {
	task     executor.Task
	pod      *corev1.Pod // the first; nil until the executor has made it
	launched time.Time
	claimed  []string // the pods that took the row to running: one at most
	effects  []string // failures that Airflow made of its pods: one at most
}

// taskProcess is what runs in a pod's container: Airflow's own code, which asks for the row before it runs the task's.
type taskProcess struct {
	runs    bool // the row is its own
	exiting bool // with the code, when the kubelet comes to it
	code    int32
}

func (s *slot) now() *queueing {
	if len(s.queueings) == 0 {
		return nil
	}
	return s.queueings[len(s.queueings)-1]
}

// of is the queueing that a pod came of.
func (s *slot) of(pod *corev1.Pod) *queueing {
	for _, q := range s.queueings {
		if q.pod != nil && (q.pod.UID == pod.UID || pod.Annotations[requeue.AnnotationOrigin] == q.pod.Name) {
			return q
		}
	}
	return nil
}

func (s *slot) key(try int) string { return fmt.Sprintf("%s/%d", s.id, try) }

// set writes the row.
func (w *walk) set(s *slot, change func(*requeue.TaskInstance)) {
	w.t.Helper()
	change(&s.row)
	write := w.db.Update
	if !s.there {
		write = w.db.Insert
	}
	require.NoError(w.t, write(w.ctx, s.row))
	s.there = true
}

// scheduler is one of Airflow's, with its executor and the executor's watch. Its loop does one thing at a time: while it
// is on an errand it handles no results.
type scheduler struct {
	executor.Scheduler
	alive bool
	kill  context.CancelFunc
	// has is executor.has_task: false while the task is in queued_tasks, true when it is in running.
	has    map[string]bool
	errand []func() string

	mu   sync.Mutex
	seen []executor.Seen // not handled yet
}

func (w *walk) newScheduler() *scheduler {
	w.t.Helper()
	ctx, kill := context.WithCancel(w.ctx)
	s := &scheduler{alive: true, kill: kill, has: map[string]bool{},
		Scheduler: executor.Scheduler{Client: w.client, Namespace: w.namespace, JobID: int64(len(w.schedulers) + 1)}}
	w.schedulers = append(w.schedulers, s)
	started := make(chan struct{})
	var once sync.Once
	// Its pause is as short as the walk's clock is fast.
	k := &executor.Watch{Client: w.client, Namespace: w.namespace, JobID: s.JobID, Restart: 10 * time.Millisecond,
		Started: func() { once.Do(func() { close(started) }) },
		Report: func(seen executor.Seen) {
			s.mu.Lock()
			s.seen = append(s.seen, seen)
			s.mu.Unlock()
			w.bell.Ring()
		}}
	go func() { _ = k.Run(ctx) }()
	<-started
	return s
}

func (w *walk) living() []*scheduler {
	return slices.DeleteFunc(slices.Clone(w.schedulers), func(s *scheduler) bool { return !s.alive })
}

// idle is a living scheduler that is on no errand.
func (w *walk) idle(pick int) *scheduler {
	living := w.living()
	if len(living) == 0 {
		return nil
	}
	if s := living[pick%len(living)]; len(s.errand) == 0 {
		return s
	}
	return nil
}

// owner is the living scheduler that the row names.
func (w *walk) owner(s *slot) *scheduler {
	if i := int(s.row.QueuedByJobID) - 1; s.there && i >= 0 && w.schedulers[i].alive {
		return w.schedulers[i]
	}
	return nil
}

// goOn has a scheduler do the next thing of its errand.
func (s *scheduler) goOn() string {
	if len(s.errand) == 0 {
		return ""
	}
	next := s.errand[0]
	s.errand = s.errand[1:]
	return fmt.Sprintf("scheduler %d %s", s.JobID, next())
}

func (w *walk) startScheduler(*slot, int) string {
	if len(w.living()) > 1 {
		return ""
	}
	return fmt.Sprintf("scheduler %d starts", w.newScheduler().JobID)
}

// killScheduler: what it had in mind is lost, and its transaction undone.
func (w *walk) killScheduler(_ *slot, pick int) string {
	living := w.living()
	if len(living) == 0 {
		return ""
	}
	s := living[pick%len(living)]
	s.alive, s.errand = false, nil
	s.kill()
	for _, slot := range w.slots {
		if slot.lockedBy == s {
			slot.lockedBy = nil
		}
	}
	return fmt.Sprintf("scheduler %d is killed", s.JobID)
}

func (w *walk) schedulerGoesOn(_ *slot, pick int) string {
	if living := w.living(); len(living) > 0 {
		return living[pick%len(living)].goOn()
	}
	return ""
}

// queue takes a task instance to queued: its first try, its next, or the same once more after a deferral, a reschedule
// or a requeue of what was stuck.
func (w *walk) queue(s *slot, pick int) string {
	by := w.idle(pick)
	if by == nil || s.lockedBy != nil {
		return ""
	}
	at := w.clock.Now().UTC().Truncate(time.Microsecond)
	task := s.task
	switch s.row.State {
	case requeue.StateQueued, requeue.StateRunning:
		return ""
	case deferred, toReschedule, requeue.StateScheduled:
		// Not handling a task that the executor reports as running (_executable_task_instances_to_queued).
		if _, has := by.has[s.key(task.TryNumber)]; has {
			return ""
		}
		task = task.Again(at)
	default:
		if len(s.queueings) == 0 {
			task = task.Again(at)
		} else {
			task = task.NextTry(at)
		}
	}
	task.JobID = by.JobID
	s.task = task
	w.set(s, func(row *requeue.TaskInstance) { *row = task.Row() })
	s.queueings = append(s.queueings, &queueing{task: task})
	by.has[s.key(task.TryNumber)] = false
	return fmt.Sprintf("scheduler %d queues try %d of %s at %s", by.JobID, task.TryNumber, s.id, at.Format("04:05.000"))
}

// launch is the executor that makes the pod, some time after the row was committed.
func (w *walk) launch(s *slot, _ int) string {
	by, q := w.owner(s), s.now()
	if by == nil || len(by.errand) > 0 || s.lockedBy != nil || s.row.State != requeue.StateQueued || q.pod != nil {
		return ""
	}
	key := s.key(s.row.TryNumber)
	if running, has := by.has[key]; !has || running {
		return ""
	}
	by.has[key] = true
	q.launched = time.Now()
	q.pod = w.submit(q.task)
	return "creates " + q.pod.Name
}

// revoke begins what the scheduler does to a task that is stuck in queued.
func (w *walk) revoke(s *slot, pick int) string {
	by := w.owner(s)
	if by == nil || len(by.errand) > 0 || s.lockedBy != nil || s.row.State != requeue.StateQueued || s.now().pod == nil {
		return ""
	}
	var pod *corev1.Pod
	queued := s.row.QueuedAt
	by.errand = []func() string{
		func() string {
			delete(by.has, s.key(s.row.TryNumber))
			var err error
			pod, err = by.Find(w.ctx, s.task.Key)
			require.NoError(w.t, err)
			if pod == nil {
				return "finds no pod of " + s.id + " to revoke"
			}
			return "revokes " + pod.Name
		},
		func() string {
			if pod == nil {
				return "marks none"
			}
			_ = by.MarkRevoked(w.ctx, pod.Name) // the executor deletes the pod even where marking it has failed
			return "has marked " + pod.Name
		},
		func() string {
			if pod == nil {
				return "deletes none"
			}
			require.NoError(w.t, by.Delete(w.ctx, pod.Name))
			return "has deleted " + pod.Name
		},
		func() string {
			if s.lockedBy != nil || s.row.State != requeue.StateQueued || !s.row.QueuedAt.Equal(queued) {
				return "finds " + s.id + " changed"
			}
			w.set(s, func(row *requeue.TaskInstance) {
				row.State, row.QueuedAt, row.QueuedByJobID = requeue.StateScheduled, time.Time{}, 0
			})
			return "has set " + s.id + " back to scheduled"
		},
	}
	said := by.goOn()
	for range pick % 4 {
		said += ", " + by.goOn()
	}
	return said
}

// clearNotLaunched is provider 10.1's: a queued task without a pod in the executor's sight goes back to scheduled.
func (w *walk) clearNotLaunched(s *slot, _ int) string {
	by := w.owner(s)
	if by == nil || len(by.errand) > 0 || s.lockedBy != nil || s.row.State != requeue.StateQueued || s.now().pod == nil ||
		w.clock.Since(s.row.QueuedAt) < time.Minute {
		return ""
	}
	pod, err := by.Find(w.ctx, s.task.Key)
	require.NoError(w.t, err)
	if pod != nil {
		return ""
	}
	w.set(s, func(row *requeue.TaskInstance) { row.State = requeue.StateScheduled })
	return fmt.Sprintf("scheduler %d finds no pod of %s and sets it back to scheduled", by.JobID, s.id)
}

// orphaned says that the row names a scheduler that is dead.
func (w *walk) orphaned(s *slot) bool {
	return s.row.QueuedByJobID > 0 && w.owner(s) == nil && (s.row.State == requeue.StateQueued || s.row.State == requeue.StateRunning)
}

// adopt begins adopt_or_reset_orphaned_tasks: the rows are locked, the pods listed, then relabelled one by one, and the
// rows commit at the end.
func (w *walk) adopt(_ *slot, pick int) string {
	by := w.idle(pick)
	if by == nil {
		return ""
	}
	var slots []*slot
	for _, s := range w.slots {
		if s.lockedBy == nil && w.orphaned(s) {
			s.lockedBy = by
			slots = append(slots, s)
		}
	}
	if len(slots) == 0 && pick%4 != 0 {
		return ""
	}
	pods, adopted := map[*slot]*corev1.Pod{}, map[*slot]bool{}
	by.errand = []func() string{func() string {
		for _, s := range slots {
			list, err := by.Adoptable(w.ctx, s.row.QueuedByJobID)
			require.NoError(w.t, err)
			for i := range list {
				key, try, err := executor.Identify(&list[i])
				require.NoError(w.t, err)
				if key == s.task.Key && try == s.row.TryNumber && pods[s] == nil {
					pods[s] = &list[i]
				}
			}
		}
		return fmt.Sprintf("lists %d pods to adopt for %d rows", len(pods), len(slots))
	}}
	for _, s := range slots {
		by.errand = append(by.errand, func() string {
			if pods[s] == nil || by.AdoptPod(w.ctx, pods[s]) != nil {
				return "can't adopt a pod of " + s.id
			}
			adopted[s] = true
			by.has[s.key(s.row.TryNumber)] = true
			return "adopts " + pods[s].Name
		})
	}
	by.errand = append(by.errand, func() string {
		var alive []int64
		for _, other := range w.living() {
			alive = append(alive, other.JobID)
		}
		names, err := by.AdoptSucceeded(w.ctx, alive...)
		require.NoError(w.t, err)
		return fmt.Sprintf("adopts what succeeded: %v", names)
	}, func() string {
		for _, s := range slots {
			s.lockedBy = nil
			w.set(s, func(row *requeue.TaskInstance) {
				if row.QueuedByJobID = by.JobID; !adopted[s] {
					row.State, row.QueuedByJobID = none, 0
				}
			})
		}
		return fmt.Sprintf("commits the adoption of %d pods, and resets %d rows", len(adopted), len(slots)-len(adopted))
	})
	return by.goOn()
}

// changeByHand is a person, or the API, that changes a task instance: cleared, marked, or its run deleted.
func (w *walk) changeByHand(s *slot, pick int) string {
	if !s.there || s.lockedBy != nil {
		return ""
	}
	if pick%8 == 0 {
		require.NoError(w.t, w.db.Delete(w.ctx, s.task.Key))
		s.row, s.there = requeue.TaskInstance{}, false
		return "someone deletes the row of " + s.id
	}
	to := []requeue.State{none, none, "failed", success}[pick%4]
	w.set(s, func(row *requeue.TaskInstance) { row.State = to })
	return fmt.Sprintf("someone sets %s to %q", s.id, to)
}
