package faults

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/faultproxy"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// postgresRows is Airflow's side of a PostgreSQL.
type postgresRows struct{ db *sql.DB }

// Insert adds a task instance's row.
func (r postgresRows) Insert(ctx context.Context, t requeue.TaskInstance) error {
	_, err := r.db.ExecContext(ctx, `INSERT INTO task_instance
		(id, dag_id, task_id, run_id, map_index, state, try_number, queued_dttm, queued_by_job_id, pool, pool_slots)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'default_pool', 1)`,
		t.ID, t.DagID, t.TaskID, t.RunID, t.MapIndex, string(t.State), t.TryNumber, t.QueuedAt, t.QueuedByJobID)
	return err
}

// Update writes what changes of a task instance's row.
func (r postgresRows) Update(ctx context.Context, t requeue.TaskInstance) error {
	_, err := r.db.ExecContext(ctx, `UPDATE task_instance
		SET state = $1, queued_dttm = $2, hostname = $3 WHERE dag_id = $4 AND task_id = $5 AND run_id = $6 AND map_index = $7`,
		string(t.State), t.QueuedAt, t.Hostname, t.DagID, t.TaskID, t.RunID, t.MapIndex)
	return err
}

// database is a stage whose rows are in a PostgreSQL behind a proxy.
type database struct {
	*stage
	proxy *faultproxy.Postgres
	first *programs.Process
}

func newDatabase(t *testing.T, server *testdb.Server, name string, rows postgresRows) *database {
	t.Helper()
	d := &database{stage: newStage(t), proxy: faultproxy.NewPostgres(t, testdb.Host, server.Port)}
	d.rows = rows
	d.DatabaseURL = fmt.Sprintf("postgresql+psycopg2://%s:%s@%s:%d/%s?sslmode=disable", testdb.ReaderUser,
		strings.ReplaceAll(url.QueryEscape(testdb.ReaderPassword), "+", "%20"), testdb.Host, d.proxy.Port, name)
	d.first = d.keepWatcher(d.stage.proxy.Config())
	d.leaderIs(t, d.first) // what it asks when it starts does not count
	return d
}

// The metadata database fails at the n-th query of a watcher, for every n on the way of a pod that is replaced, and of one
// that is reported. A query is about all pods that want one, so the plays come one after the other.
func TestAFaultAtAnyQueryLeavesTheSameEnd(t *testing.T) {
	server := testdb.PostgreSQL(t)
	ddl, err := os.ReadFile("../../pkg/tidb/testdata/3.3.2-postgresql.sql")
	require.NoError(t, err)
	const name = "airflow"
	rows := postgresRows{server.Create(t, name, string(ddl))}
	faults := map[string]func(*database) faultproxy.QueryFault{
		"dropped-before": func(*database) faultproxy.QueryFault { return faultproxy.LoseQuery },
		"dropped-after":  func(*database) faultproxy.QueryFault { return faultproxy.LoseAnswer },
		"delayed":        func(*database) faultproxy.QueryFault { return faultproxy.DelayQuery(2 * time.Second) },
		"shut-down":      func(*database) faultproxy.QueryFault { return faultproxy.AdminShutdown },
	}
	var sweeps sync.WaitGroup
	for _, o := range outcomes() {
		if o.name != "evicted" && o.name != "unscheduled-no-retries" {
			continue
		}
		for fault, of := range faults {
			sweeps.Go(func() {
				t.Run(o.name+" "+fault, func(t *testing.T) {
					d := newDatabase(t, server, name, rows)
					w := d.newSweep(t, o.called(o.name+"-"+fault), nil)
					for n, hit := 1, true; hit && !t.Failed(); n++ {
						hit = d.once(t, w, n, of(d))
					}
				})
			})
		}
		sweeps.Go(func() {
			t.Run(o.name+" killed", func(t *testing.T) {
				d := newDatabase(t, server, name, rows)
				w := d.newSweep(t, o.called(o.name+"-killed"), nil)
				for n, hit := 1, true; hit && !t.Failed(); n++ {
					again := newDatabase(t, server, name, rows)
					hit = again.once(t, w, n, faultproxy.LoseQueryAnd(func() { again.first.Signal(syscall.SIGKILL) }))
				}
			})
		})
	}
	sweeps.Wait()
}

// once plays an outcome with a fault at the n-th query, and reports whether there was one.
func (d *database) once(t *testing.T, w *sweep, n int, fault faultproxy.QueryFault) (hit bool) {
	t.Helper()
	t.Run(fmt.Sprintf("at query %d", n), func(t *testing.T) {
		d.proxy.At(n, fault)
		p := d.play(t, fmt.Sprintf("%s-%d", w.outcome.name, n), w.outcome, nil)
		w.check(t, p)
		hit = d.proxy.Queries() >= n
	})
	return hit
}
