// Package executor does to pods what Airflow's KubernetesExecutor does, and no more: it makes worker pods, watches
// them, adopts, revokes and deletes them. Tests and the demo hold airflow-requeue against it, so every rule here follows
// the released code of the cncf.kubernetes provider; the functions are named in the comments.
package executor

import (
	"crypto/rand"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Airflow is a release of Airflow together with the release of the cncf.kubernetes provider that it was read and run
// with.
type Airflow string

// The two generations that are played.
const (
	Airflow3 Airflow = "3.3.2"  // provider 10.25.0
	Airflow2 Airflow = "2.10.5" // provider 10.1.0
)

// TokenLifetime is [scheduler] task_queued_timeout's default: what a workload's token is good for.
const TokenLifetime = 10 * time.Minute

// Task is one queueing of a task instance: all that a worker pod is made of. Pod is a function of it, so that two pods
// of one Task are the same pod; NewTask fills in what is random.
type Task struct {
	requeue.Key
	// Airflow is the release that makes the pod; empty means Airflow3.
	Airflow Airflow
	// ID is the row's UUID; Airflow 2 has none.
	ID string
	// ByID puts the ID in an annotation and a label too, as Airflow 3.4 does.
	ByID      bool
	TryNumber int
	// JobID is the scheduler job that queues the task.
	JobID int64
	// QueuedAt is queued_dttm. The token's iat is its second: in Airflow both are read from the scheduler's clock.
	QueuedAt time.Time
	// TokenLifetime is exp minus iat; zero means the constant TokenLifetime.
	TokenLifetime time.Duration
	// TokenID is the token's jti.
	TokenID string
	// DagVersionID is the UUID of the DAG's version; Airflow 2 has none.
	DagVersionID string

	// Name is the pod's whole name where it is to be another than Airflow's.
	Name string
	// Suffix is the random end of the name that Airflow makes.
	Suffix string
	// Namespace defaults to "airflow".
	Namespace string
	// Image defaults to the template's.
	Image string
	// Annotations and Labels are merged in last, as executor_config's pod_override is.
	Annotations map[string]string
	Labels      map[string]string
	// Mutate is Airflow's pod_mutation_hook: it sees the finished pod.
	Mutate func(*corev1.Pod)
}

// NewTask is the first try of an unmapped task, queued by scheduler job 1.
func NewTask(dagID, taskID, runID string, queuedAt time.Time) Task {
	task := Task{
		Key:          requeue.Key{DagID: dagID, TaskID: taskID, RunID: runID, MapIndex: -1},
		Airflow:      Airflow3,
		ID:           newUUID(),
		DagVersionID: newUUID(),
		TryNumber:    1,
		JobID:        1,
	}
	return task.Again(queuedAt)
}

// Again is another queueing of the same try: what a deferral's resume, a reschedule sensor's next poke and a
// stuck-in-queue requeue look like. Identity, try number and job stay; the token and the pod's name are new.
func (t Task) Again(queuedAt time.Time) Task {
	t.QueuedAt = queuedAt
	t.TokenID = uuid.NewString()
	t.Suffix = randomSuffix()
	return t
}

// NextTry is the task's next try: a new row in history, and in Airflow 3 a new ID.
func (t Task) NextTry(queuedAt time.Time) Task {
	t.TryNumber++
	t.ID = newUUID()
	return t.Again(queuedAt)
}

// Row is the task instance's row as the scheduler leaves it when it has queued the task.
func (t Task) Row() requeue.TaskInstance {
	row := requeue.TaskInstance{
		Key:           t.Key,
		State:         requeue.StateQueued,
		TryNumber:     t.TryNumber,
		QueuedAt:      t.QueuedAt.UTC(),
		QueuedByJobID: t.JobID,
	}
	if t.release() == Airflow3 {
		row.ID = t.ID
	}
	return row
}

func (t Task) release() Airflow {
	if t.Airflow == "" {
		return Airflow3
	}
	return t.Airflow
}

// newUUID is a version 7 UUID, as Airflow gives its rows.
func newUUID() string {
	return uuid.Must(uuid.NewV7()).String()
}

// randomSuffix is kubernetes_helper_functions.rand_str(8). A byte's slight bias to the first letters does no harm.
func randomSuffix() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	suffix := make([]byte, 8)
	_, _ = rand.Read(suffix) // never fails: crypto/rand ends the process instead
	for i := range suffix {
		suffix[i] = alphabet[int(suffix[i])%len(alphabet)]
	}
	return string(suffix)
}
