// Package airflowdb plays Airflow's side of the metadata database, for tests and the demo: a database file with the
// tables that a real migration makes, and the writes by which Airflow moves a task instance along.
package airflowdb

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// DB is an SQLite metadata database that the caller may write to.
type DB struct {
	path string
	pool *sql.DB
}

// Tables returns the statements that make the tables of an Airflow release, as its own migration made them (see
// hack/airflow-ddl.sh). They are read from the checkout, whose root the caller knows: they belong to pkg/tidb's tests and
// are in no program.
func Tables(root, release string) (string, error) {
	content, err := os.ReadFile(filepath.Join(root, "pkg", "tidb", "testdata", release+"-sqlite.sql"))
	if err != nil {
		return "", fmt.Errorf("reading the tables of Airflow %s: %w", release, err)
	}
	return string(content), nil
}

// Create makes a database file by the statements of a migration's dump: see Tables.
func Create(ctx context.Context, path, ddl string) (*DB, error) {
	pool, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	pool.SetMaxOpenConns(1)
	if _, err := pool.ExecContext(ctx, ddl); err != nil {
		return nil, fmt.Errorf("making the tables of %s: %w", path, err)
	}
	return &DB{path: path, pool: pool}, nil
}

// URL is the database's SQLAlchemy URL.
func (db *DB) URL() string { return "sqlite:///" + db.path }

// Close closes the database.
func (db *DB) Close() error { return db.pool.Close() }

// Insert adds a task instance's row.
func (db *DB) Insert(ctx context.Context, t requeue.TaskInstance) error {
	_, err := db.pool.ExecContext(ctx, `INSERT INTO task_instance
		(id, dag_id, task_id, run_id, map_index, state, try_number, queued_dttm, queued_by_job_id, hostname, pool, pool_slots)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'default_pool', 1)`,
		id(t), t.DagID, t.TaskID, t.RunID, t.MapIndex, null(string(t.State)), t.TryNumber, stamp(t.QueuedAt), t.QueuedByJobID, t.Hostname)
	if err != nil {
		return fmt.Errorf("adding task instance %s: %w", t.Key, err)
	}
	return nil
}

// Get reads a task instance's row.
func (db *DB) Get(ctx context.Context, key requeue.Key) (requeue.TaskInstance, error) {
	t := requeue.TaskInstance{Key: key}
	var state, hostname, queued sql.NullString
	var job sql.NullInt64
	err := db.pool.QueryRowContext(ctx, `SELECT id, state, try_number, hostname, CAST(queued_dttm AS TEXT), queued_by_job_id
		FROM task_instance WHERE dag_id = ? AND task_id = ? AND run_id = ? AND map_index = ?`,
		key.DagID, key.TaskID, key.RunID, key.MapIndex).Scan(&t.ID, &state, &t.TryNumber, &hostname, &queued, &job)
	if err != nil {
		return t, fmt.Errorf("reading task instance %s: %w", key, err)
	}
	if t.ID != "" {
		parsed, err := uuid.Parse(t.ID)
		if err != nil {
			return t, fmt.Errorf("reading the id of task instance %s: %w", key, err)
		}
		t.ID = parsed.String()
	}
	t.State, t.Hostname, t.QueuedByJobID = requeue.State(state.String), hostname.String, job.Int64
	if queued.Valid {
		if t.QueuedAt, err = time.ParseInLocation(stampLayout, queued.String, time.UTC); err != nil {
			return t, fmt.Errorf("reading task instance %s: %w", key, err)
		}
	}
	return t, nil
}

// Update writes what changes of a task instance's row; the key says which.
func (db *DB) Update(ctx context.Context, t requeue.TaskInstance) error {
	_, err := db.pool.ExecContext(ctx, `UPDATE task_instance
		SET id = ?, state = ?, try_number = ?, queued_dttm = ?, queued_by_job_id = ?, hostname = ?
		WHERE dag_id = ? AND task_id = ? AND run_id = ? AND map_index = ?`,
		id(t), null(string(t.State)), t.TryNumber, stamp(t.QueuedAt), t.QueuedByJobID, t.Hostname, t.DagID, t.TaskID, t.RunID, t.MapIndex)
	if err != nil {
		return fmt.Errorf("updating task instance %s: %w", t.Key, err)
	}
	return nil
}

// Delete removes a task instance's row.
func (db *DB) Delete(ctx context.Context, key requeue.Key) error {
	_, err := db.pool.ExecContext(ctx, `DELETE FROM task_instance WHERE dag_id = ? AND task_id = ? AND run_id = ? AND map_index = ?`,
		key.DagID, key.TaskID, key.RunID, key.MapIndex)
	if err != nil {
		return fmt.Errorf("deleting task instance %s: %w", key, err)
	}
	return nil
}

// id is how SQLAlchemy keeps a UUID where the database has no such type.
func id(t requeue.TaskInstance) string { return strings.ReplaceAll(t.ID, "-", "") }

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// stampLayout is how SQLAlchemy keeps a time in SQLite.
const stampLayout = "2006-01-02 15:04:05.000000"

func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(stampLayout)
}
