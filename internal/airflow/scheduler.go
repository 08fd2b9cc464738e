package airflow

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// Scheduler is a process of Airflow's own code: after Start a scheduler's executor that beats, and at all times what
// writes to the metadata database. Its methods wait for the answer, and may be called from many goroutines.
type Scheduler struct {
	// JobID is the scheduler's job, once it is started.
	JobID int64

	pid        int
	mu         sync.Mutex
	connection net.Conn
	answers    *bufio.Reader
}

// Row is what the metadata database has of a task instance.
type Row struct {
	State     string `json:"state"`
	TryNumber int    `json:"try_number"`
	Hostname  string `json:"hostname"`
	JobID     int64  `json:"job_id"`
}

// Reported is what an executor has told its scheduler of a task instance, in turn, and whether it still counts the task
// instance among those that run, so that it occupies a slot.
type Reported struct {
	Events  []string `json:"events"`
	Running bool     `json:"running"`
}

type arguments map[string]any

// Start starts an executor, which begins to beat.
func (s *Scheduler) Start(ctx context.Context) error {
	return s.do(ctx, "start", nil, &s.JobID)
}

// Kill is kill -9, of the scheduler and of its executor's processes. They are gone when it returns.
func (s *Scheduler) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return
	}
	_ = syscall.Kill(-s.pid, syscall.SIGKILL) // the only error is that nobody is there any more
	s.pid = 0
	_, _ = io.Copy(io.Discard, s.answers) // ends with the process
	_ = s.connection.Close()
}

// Add adds a task instance to the database, with its DAG and a running DagRun.
func (s *Scheduler) Add(ctx context.Context, key requeue.Key) error {
	return s.do(ctx, "add", of(key), nil)
}

// Queue queues a task instance and hands it to the executor, with annotations for the pod in its executor_config, and a
// namespace where it is to be another than the executor's.
func (s *Scheduler) Queue(ctx context.Context, key requeue.Key, annotations map[string]string, namespace string) error {
	args := of(key)
	args["annotations"], args["namespace"] = annotations, nil
	if namespace != "" {
		args["namespace"] = namespace
	}
	return s.do(ctx, "queue", args, nil)
}

// Row reads a task instance.
func (s *Scheduler) Row(ctx context.Context, key requeue.Key) (Row, error) {
	var row Row
	return row, s.do(ctx, "row", of(key), &row)
}

// Claim is the task process as it begins. It reports whether the task instance was queued, and is its now.
func (s *Scheduler) Claim(ctx context.Context, key requeue.Key, hostname string) (bool, error) {
	args := of(key)
	args["hostname"] = hostname
	var claimed bool
	return claimed, s.do(ctx, "claim", args, &claimed)
}

// Leave is the task process as it ends, and leaves a state behind.
func (s *Scheduler) Leave(ctx context.Context, key requeue.Key, state string) error {
	args := of(key)
	args["state"] = state
	return s.do(ctx, "leave", args, nil)
}

// Reported says what the executor has told of a task instance so far.
func (s *Scheduler) Reported(ctx context.Context, key requeue.Key) (Reported, error) {
	var reported Reported
	return reported, s.do(ctx, "reported", of(key), &reported)
}

// Bury has a scheduler's job be dead: what Adopt goes by.
func (s *Scheduler) Bury(ctx context.Context, job int64) error {
	return s.do(ctx, "bury", arguments{"job_id": job}, nil)
}

// Adopt is SchedulerJobRunner.adopt_or_reset_orphaned_tasks. It returns how many task instances were reset.
func (s *Scheduler) Adopt(ctx context.Context) (int, error) {
	var reset int
	return reset, s.do(ctx, "adopt", nil, &reset)
}

// Unstick is SchedulerJobRunner._handle_tasks_stuck_in_queued, with this task_queued_timeout.
func (s *Scheduler) Unstick(ctx context.Context, after time.Duration) error {
	return s.do(ctx, "unstick", arguments{"after": after.Seconds()}, nil)
}

// Revoke is the executor's revoke_task.
func (s *Scheduler) Revoke(ctx context.Context, key requeue.Key) error {
	return s.do(ctx, "revoke", of(key), nil)
}

// ReadLog is the executor's get_task_log: messages, and the log.
func (s *Scheduler) ReadLog(ctx context.Context, key requeue.Key) (messages, log []string, err error) {
	var both [2][]string
	err = s.do(ctx, "read_log", of(key), &both)
	return both[0], both[1], err
}

func of(key requeue.Key) arguments {
	return arguments{"ti": map[string]any{
		"dag_id": key.DagID, "task_id": key.TaskID, "run_id": key.RunID, "map_index": key.MapIndex,
	}}
}

// do makes a request and reads the answer into result.
func (s *Scheduler) do(ctx context.Context, what string, args arguments, result any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// An answer that is not read would be taken for the next one's: a context that ends, ends the connection.
	defer context.AfterFunc(ctx, func() { _ = s.connection.SetDeadline(time.Now()) })()
	request := arguments{"do": what}
	maps.Copy(request, args)
	encoded, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("asking Airflow to %s: %w", what, err)
	}
	if _, err := s.connection.Write(append(encoded, '\n')); err != nil {
		return fmt.Errorf("asking Airflow to %s: %w", what, err)
	}
	line, err := s.answers.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("asking Airflow to %s: %w", what, err)
	}
	var answer struct {
		Result json.RawMessage
		Error  string
	}
	err = json.Unmarshal(line, &answer)
	switch {
	case err == nil && answer.Error != "":
		err = errors.New(answer.Error)
	case err == nil && result != nil:
		err = json.Unmarshal(answer.Result, result)
	}
	if err != nil {
		return fmt.Errorf("asking Airflow to %s: %w", what, err)
	}
	return nil
}
