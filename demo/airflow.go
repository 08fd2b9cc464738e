package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/airflow-requeue/airflow-requeue/internal/airflowdb"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	dagID      = "etl"
	runID      = "manual__2026-01-01T00:00:00+00:00"
	firstJobID = 1

	stateSuccess    requeue.State = "success"
	stateUpForRetry requeue.State = "up_for_retry"
)

// airflow plays the scheduler with its executor, and the processes of the tasks. What it is told by the executor's watch
// it writes to the rows: they are the truth about the demo's end.
type airflow struct {
	db        *airflowdb.DB
	client    kubernetes.Interface
	scheduler executor.Scheduler
	observer  *observer
	show      *timeline
	failed    func(error)
}

func keyOf(task string) requeue.Key {
	return requeue.Key{DagID: dagID, TaskID: task, RunID: runID, MapIndex: -1}
}

// watch runs the executor's watch until the context ends: as it is, and, with ignoreHold, as it would be without
// airflow-requeue. Up is called when it has begun.
func (a *airflow) watch(ctx context.Context, ignoreHold bool, up func()) error {
	watch := &executor.Watch{Client: a.client, Namespace: namespace, JobID: firstJobID, Started: up,
		Rules: executor.Rules{IgnoreHold: ignoreHold},
		Report: func(seen executor.Seen) {
			first := a.observer.sight(seen, ignoreHold)
			if ignoreHold || !first {
				return
			}
			if err := a.take(ctx, seen); err != nil && ctx.Err() == nil {
				a.failed(err)
			}
		}}
	if err := watch.Run(ctx); err != nil {
		return fmt.Errorf("running the executor's watch: %w", err)
	}
	return nil
}

// queue is the scheduler that queues a task's first try, and the executor that submits its pod.
func (a *airflow) queue(ctx context.Context, task string, annotations map[string]string) error {
	queued := executor.NewTask(dagID, task, runID, time.Now().UTC().Truncate(time.Microsecond))
	queued.Annotations = annotations
	if err := a.db.Insert(ctx, queued.Row()); err != nil {
		return err
	}
	now := time.Now()
	pod, err := a.scheduler.Create(ctx, queued)
	if err != nil {
		return err
	}
	a.show.add(line{at: now, actor: "airflow", text: func() string { return "queues try 1 and creates " + pod.Name }})
	return nil
}

// begin is the task's process as it claims its row.
func (a *airflow) begin(ctx context.Context, task, hostname string) error {
	row, err := a.db.Get(ctx, keyOf(task))
	if err != nil {
		return err
	}
	if row.State != requeue.StateQueued {
		return fmt.Errorf("beginning task %s in %s: its row is %s, not queued", task, hostname, row.State)
	}
	row.State, row.Hostname = requeue.StateRunning, hostname
	return a.db.Update(ctx, row)
}

// succeed is the task's process as it ends well.
func (a *airflow) succeed(ctx context.Context, task string) error {
	row, err := a.db.Get(ctx, keyOf(task))
	if err != nil {
		return err
	}
	row.State = stateSuccess
	return a.db.Update(ctx, row)
}

// take is what scheduler and executor do about a pod's end: a failure of a task that is not done costs a retry, a pod that succeeded is deleted.
func (a *airflow) take(ctx context.Context, seen executor.Seen) error {
	row, err := a.db.Get(ctx, seen.Key)
	if err != nil {
		return err
	}
	switch open := row.State == requeue.StateQueued || row.State == requeue.StateRunning; {
	case seen.State == executor.Failed && open && row.TryNumber == seen.TryNumber:
		row.State = stateUpForRetry
		if err := a.db.Update(ctx, row); err != nil {
			return err
		}
		a.show.say("airflow", "the task is %s: try %d is burnt", row.State, row.TryNumber)
	case seen.State == executor.Succeeded:
		a.show.say("airflow", "the task is a %s at try %d", row.State, row.TryNumber)
	}
	a.observer.change(seen.Key.TaskID, func(r *record) { r.over = r.over || seen.State != executor.Adopted })
	return a.scheduler.Finish(ctx, seen)
}

// burnt is how many tries failures have cost, as the row tells.
func burnt(row requeue.TaskInstance) int {
	if row.State == stateUpForRetry {
		return row.TryNumber
	}
	return row.TryNumber - 1
}
