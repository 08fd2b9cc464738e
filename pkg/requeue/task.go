package requeue

import (
	"fmt"
	"time"
)

// Key names a task instance in Airflow's metadata database: the columns of task_instance that are unique together.
type Key struct {
	DagID    string
	TaskID   string
	RunID    string
	MapIndex int // -1 when the task is not mapped
}

func (k Key) String() string {
	if k.MapIndex < 0 {
		return fmt.Sprintf("%s.%s %s", k.DagID, k.TaskID, k.RunID)
	}
	return fmt.Sprintf("%s.%s[%d] %s", k.DagID, k.TaskID, k.MapIndex, k.RunID)
}

// Ref is what a pod says of its task instance: enough to find its row.
type Ref struct {
	Key
	// ID is the row's UUID in lower case with dashes; empty where the pod does not name it (Airflow 2).
	ID string
	// ByID says that the row is to be read by ID: the pod carries the annotation task_instance_id (Airflow 3.4), where
	// one Key may have several rows.
	ByID bool
}

// State is the state column of task_instance; empty where the column is null.
type State string

// The states that decisions tell apart.
const (
	StateScheduled State = "scheduled"
	StateQueued    State = "queued"
	StateRunning   State = "running"
)

// TaskInstance is a row of task_instance, as far as decisions need it.
type TaskInstance struct {
	Key
	ID            string // UUID in lower case with dashes; empty where the schema has none (Airflow 2)
	State         State
	TryNumber     int
	Hostname      string    // empty until the task runs
	QueuedAt      time.Time // queued_dttm in UTC; zero where null
	QueuedByJobID int64     // the scheduler job that queued the task instance or adopted its pod; 0 where null
}
