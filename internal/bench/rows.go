package bench

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
)

// rows are the task instances of a metadata database, as Airflow's scheduler writes them.
type rows struct {
	t  testing.TB
	db *sql.DB
}

// queue adds the rows of task instances that were just queued.
func (r rows) queue(tasks ...executor.Task) {
	r.t.Helper()
	for some := range slices.Chunk(tasks, 1000) {
		var values []string
		for _, task := range some {
			row := task.Row()
			values = append(values, fmt.Sprintf("('%s', '%s', '%s', '%s', %d, '%s', %d, '%s', %d, '', 'default_pool', 1)",
				row.ID, row.DagID, row.TaskID, row.RunID, row.MapIndex, row.State, row.TryNumber, row.QueuedAt.Format(time.RFC3339Nano), row.QueuedByJobID))
		}
		testdb.Execute(r.t, r.db, "INSERT INTO task_instance (id, dag_id, task_id, run_id, map_index, state, try_number, queued_dttm, "+
			"queued_by_job_id, hostname, pool, pool_slots) VALUES "+strings.Join(values, ", "))
	}
	testdb.Execute(r.t, r.db, "ANALYZE task_instance") // as PostgreSQL's own daemon does, sooner
}

// run is a task process that begins: its row runs, on its pod's host.
func (r rows) run(task executor.Task, hostname string) {
	r.t.Helper()
	testdb.Execute(r.t, r.db, fmt.Sprintf("UPDATE task_instance SET state = 'running', hostname = '%s' WHERE id = '%s'", hostname, task.ID))
}
