package outages

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// postgresql is Airflow's side of a metadata database in PostgreSQL.
type postgresql struct{ pool *sql.DB }

// newPostgreSQL starts a PostgreSQL with Airflow's tables, and returns its port too.
func newPostgreSQL(t *testing.T) (postgresql, int) {
	t.Helper()
	server := testdb.PostgreSQL(t)
	tables, err := os.ReadFile("../../pkg/tidb/testdata/3.3.2-postgresql.sql")
	require.NoError(t, err)
	return postgresql{server.Create(t, "airflow", string(tables))}, server.Port
}

// readerURL is the watcher's SQLAlchemy URL of the database behind an address.
func readerURL(address string) string {
	password := strings.ReplaceAll(url.QueryEscape(testdb.ReaderPassword), "+", "%20")
	return fmt.Sprintf("postgresql+psycopg2://%s:%s@%s/airflow?sslmode=require", testdb.ReaderUser, password, address)
}

func (db postgresql) Insert(ctx context.Context, t requeue.TaskInstance) error {
	_, err := db.pool.ExecContext(ctx, `INSERT INTO task_instance
		(id, dag_id, task_id, run_id, map_index, state, try_number, queued_dttm, queued_by_job_id, hostname, pool, pool_slots)
		VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9, '', 'default_pool', 1)`,
		t.ID, t.DagID, t.TaskID, t.RunID, t.MapIndex, string(t.State), t.TryNumber, t.QueuedAt, t.QueuedByJobID)
	return err
}

func (db postgresql) Get(ctx context.Context, key requeue.Key) (requeue.TaskInstance, error) {
	t := requeue.TaskInstance{Key: key}
	err := db.pool.QueryRowContext(ctx, `SELECT id::text, state, try_number, hostname, queued_dttm, queued_by_job_id
		FROM task_instance WHERE dag_id = $1 AND task_id = $2 AND run_id = $3 AND map_index = $4`,
		key.DagID, key.TaskID, key.RunID, key.MapIndex).Scan(&t.ID, &t.State, &t.TryNumber, &t.Hostname, &t.QueuedAt, &t.QueuedByJobID)
	return t, err
}

func (db postgresql) Update(ctx context.Context, t requeue.TaskInstance) error {
	_, err := db.pool.ExecContext(ctx, `UPDATE task_instance SET state = $1, hostname = $2
		WHERE dag_id = $3 AND task_id = $4 AND run_id = $5 AND map_index = $6`,
		string(t.State), t.Hostname, t.DagID, t.TaskID, t.RunID, t.MapIndex)
	return err
}
