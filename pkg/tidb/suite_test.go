package tidb

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// fixture is a database with the tables of one version of Airflow, and two ways into it.
type fixture struct {
	db    *DB     // under test, as a user that may only read
	admin *sql.DB // writes as Airflow does
	// storedID is how the version stores a UUID.
	storedID func(id string) string
}

// ddl are the tables as hack/airflow-ddl.sh left them.
func ddl(tb testing.TB, version, dialect string) string {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", version+"-"+dialect+".sql"))
	require.NoError(tb, err)
	return string(content)
}

func withDashes(id string) string    { return id }
func withoutDashes(id string) string { return strings.ReplaceAll(id, "-", "") }

// queuedAt has what a time can lose on its way: microseconds and a zone.
var queuedAt = time.Date(2026, 3, 29, 1, 30, 0, 123456000, time.UTC)

// taskInstance is a queued one.
func taskInstance(task string, mapIndex int) requeue.TaskInstance {
	return requeue.TaskInstance{
		Key:       requeue.Key{DagID: "sales", TaskID: task, RunID: "scheduled__2026-03-29T00:00:00+00:00", MapIndex: mapIndex},
		State:     requeue.StateQueued,
		TryNumber: 2, QueuedAt: queuedAt, QueuedByJobID: 41,
	}
}

// uuid makes a UUID of a number.
func uuid(n int) string { return fmt.Sprintf("019c32fd-f36f-77a4-b5ba-%012x", n) }

// insert writes rows; zero values are written as null, where a column can be null. It returns them as Lookup is to
// return them: without ID where the version has none.
func (f fixture) insert(t *testing.T, tasks ...requeue.TaskInstance) []requeue.TaskInstance {
	t.Helper()
	tx, err := f.admin.Begin()
	require.NoError(t, err)
	for i := range tasks {
		tasks[i] = f.insertWith(t, tx, tasks[i], nil)
	}
	require.NoError(t, tx.Commit())
	return tasks
}

// writer is an sql.DB or an sql.Tx.
type writer interface {
	Exec(query string, args ...any) (sql.Result, error)
}

// insertWith writes a row with values for columns that TaskInstance does not have.
func (f fixture) insertWith(t *testing.T, to writer, task requeue.TaskInstance, more map[string]any) requeue.TaskInstance {
	t.Helper()
	layout := f.db.found.Load().layout
	null := func(value any, isNull bool) any {
		if isNull {
			return nil
		}
		return value
	}
	queued := task.QueuedAt.Format("2006-01-02 15:04:05.000000")
	if f.db.target.dialect == PostgreSQL {
		queued += "+00"
	}
	columns := []string{
		"dag_id", "task_id", "run_id", layout.index, "state", "try_number", "hostname", "queued_dttm", "queued_by_job_id",
		"pool", "pool_slots",
	}
	values := []any{
		task.DagID, task.TaskID, task.RunID, task.MapIndex, null(string(task.State), task.State == ""),
		null(task.TryNumber, task.TryNumber == 0 && !layout.id), null(task.Hostname, task.Hostname == ""),
		null(queued, task.QueuedAt.IsZero()), null(task.QueuedByJobID, task.QueuedByJobID == 0), "default_pool", 1,
	}
	if layout.id {
		if task.ID == "" {
			task.ID = uuid(1<<40 + rand.IntN(1<<47))
		}
		columns, values = append(columns, "id"), append(values, f.storedID(task.ID))
	} else {
		task.ID = ""
	}
	for column, value := range more {
		columns, values = append(columns, column), append(values, value)
	}
	marks := make([]string, len(values))
	for i := range marks {
		marks[i] = "?"
		if f.db.target.dialect == PostgreSQL {
			marks[i] = fmt.Sprintf("$%d", i+1)
		}
	}
	_, err := to.Exec(fmt.Sprintf("INSERT INTO task_instance (%s) VALUES (%s)",
		strings.Join(columns, ", "), strings.Join(marks, ", ")), values...)
	require.NoError(t, err)
	return task
}

func refsOf(tasks ...requeue.TaskInstance) []requeue.Ref {
	refs := make([]requeue.Ref, len(tasks))
	for i, task := range tasks {
		refs[i] = requeue.Ref{Key: task.Key, ID: task.ID}
	}
	return refs
}

// assertFinds looks refs up and compares all of what comes back with the task instances, each under its own ref.
func (f fixture) assertFinds(t *testing.T, refs []requeue.Ref, want ...requeue.TaskInstance) {
	t.Helper()
	found, err := f.db.Lookup(t.Context(), refs)
	require.NoError(t, err)
	wanted := map[requeue.Ref]requeue.TaskInstance{}
	for i, ref := range refsOf(want...) {
		wanted[ref] = want[i]
	}
	assert.Equal(t, wanted, found)
}

// testLookup is what Lookup promises on every dialect and every version.
func testLookup(t *testing.T, f fixture) {
	t.Helper()
	t.Run("a batch finds the rows that there are and leaves the others out", func(t *testing.T) {
		running := taskInstance("load", -1)
		running.State, running.Hostname, running.TryNumber = requeue.StateRunning, "sales-load-abc123", 1
		tasks := f.insert(t, taskInstance("extract", -1), running)
		absent := taskInstance("never", -1)
		f.assertFinds(t, refsOf(append(tasks, absent)...), tasks...)
		f.assertFinds(t, refsOf(absent))
		f.assertFinds(t, nil)
	})
	t.Run("mapped task instances are told apart", func(t *testing.T) {
		tasks := f.insert(t, taskInstance("mapped", 0), taskInstance("mapped", 1), taskInstance("mapped", 2))
		f.assertFinds(t, refsOf(tasks[0], tasks[2], taskInstance("mapped", -1), taskInstance("mapped", 3)), tasks[0], tasks[2])
	})
	t.Run("null columns are zero", func(t *testing.T) {
		bare := f.insert(t, requeue.TaskInstance{Key: taskInstance("bare", -1).Key})[0]
		f.assertFinds(t, refsOf(bare), bare)
	})
	t.Run("IDs are compared exactly, at any length and in any script", func(t *testing.T) {
		long := taskInstance(strings.Repeat("ж", maxIDLength), -1)
		long.DagID, long.RunID = strings.Repeat("日", maxIDLength), strings.Repeat("x", maxIDLength)
		quoted := taskInstance(`it's "quoted" \ %s $1 ? ;--`, -1)
		tasks := f.insert(t, long, quoted, taskInstance("Überweisung", -1), taskInstance("case", -1))
		others := []requeue.TaskInstance{
			taskInstance("überweisung", -1), taskInstance("Uberweisung", -1), taskInstance("CASE", -1),
			taskInstance("case ", -1), taskInstance("🙈", -1), taskInstance(strings.Repeat("ж", maxIDLength-1), -1),
		}
		f.assertFinds(t, refsOf(append(tasks, others...)...), tasks...)
	})
	t.Run("what no row can be does not keep others from being read", func(t *testing.T) {
		tasks := f.insert(t, taskInstance("sound", -1))
		refs := refsOf(taskInstance("nul\x00", -1), taskInstance("not UTF-8 \xff", -1), taskInstance("too far", 1<<40),
			taskInstance(strings.Repeat("long", 1_000_000), -1))
		refs = append(refs, requeue.Ref{ID: "not a UUID", ByID: true}, requeue.Ref{ByID: true})
		f.assertFinds(t, append(refs, refsOf(tasks...)...), tasks...)
	})
	t.Run("1200 task instances take three queries", func(t *testing.T) {
		var tasks []requeue.TaskInstance
		for i := range 1200 {
			tasks = append(tasks, taskInstance("many", i))
		}
		tasks = f.insert(t, tasks...)
		counting := &countingServer{server: f.db.server}
		f.db.server = counting
		defer func() { f.db.server = counting.server }()
		f.assertFinds(t, refsOf(append(tasks, tasks[:100]...)...), tasks...)
		assert.Equal(t, []int{500, 500, 200}, counting.queries)

		counting.queries = nil
		var refs []requeue.Ref
		for _, task := range tasks {
			refs = append(refs, requeue.Ref{Key: task.Key, ID: task.ID, ByID: true})
		}
		found, err := f.db.Lookup(t.Context(), append(refs, refs[:100]...))
		require.NoError(t, err)
		assert.Len(t, found, 1200)
		assert.Equal(t, tasks[1199], found[refs[1199]])
		assert.Equal(t, []int{500, 500, 200}, counting.queries)
	})
	if f.db.Schema().Shape != Shape210 {
		t.Run("a ref by key is found whatever its ID", func(t *testing.T) {
			tasks := f.insert(t, taskInstance("retried", 7), taskInstance("retried", 8))
			older := requeue.Ref{Key: tasks[0].Key, ID: uuid(0xdead)}
			another := requeue.Ref{Key: tasks[1].Key, ID: tasks[0].ID}
			found, err := f.db.Lookup(t.Context(), []requeue.Ref{older, another})
			require.NoError(t, err)
			assert.Equal(t, map[requeue.Ref]requeue.TaskInstance{older: tasks[0], another: tasks[1]}, found)
		})
		t.Run("a ref by ID is read by ID", func(t *testing.T) {
			tasks := f.insert(t, taskInstance("by_id", 1), taskInstance("by_id", 2))
			ref := requeue.Ref{ID: tasks[1].ID, ByID: true} // with a key of no row
			upper := requeue.Ref{ID: strings.ToUpper(tasks[1].ID), ByID: true}
			both := refsOf(tasks[0])[0]
			both.ByID = true
			unknown := requeue.Ref{Key: tasks[0].Key, ID: uuid(0xdead), ByID: true}
			found, err := f.db.Lookup(t.Context(), append(refsOf(tasks[0]), ref, upper, both, unknown))
			require.NoError(t, err)
			assert.Equal(t, map[requeue.Ref]requeue.TaskInstance{
				refsOf(tasks[0])[0]: tasks[0], ref: tasks[1], upper: tasks[1], both: tasks[0],
			}, found)
		})
	}
	if f.db.Schema().Shape == Shape34 {
		testAttempts(t, f)
	}
	t.Run("a read shows what was committed before it, not the first read's snapshot", func(t *testing.T) {
		f.db.pool.SetMaxOpenConns(1) // two reads of two connections would show nothing
		defer f.db.pool.SetMaxOpenConns(maxConns)
		task := f.insert(t, taskInstance("read_twice", -1))[0]
		f.assertFinds(t, refsOf(task), task)
		testdb.Execute(t, f.admin, "UPDATE task_instance SET state = 'running', hostname = 'pod' WHERE task_id = 'read_twice'")
		task.State, task.Hostname = requeue.StateRunning, "pod"
		f.assertFinds(t, refsOf(task), task)
	})
	t.Run("a query that takes too long ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := f.db.Lookup(ctx, refsOf(taskInstance("extract", -1)))
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("the database answers", func(t *testing.T) { require.NoError(t, f.db.Ping(t.Context())) })
}

// testAttempts is for tables with one row per try.
func testAttempts(t *testing.T, f fixture) {
	t.Helper()
	t.Run("an archived attempt is no row, by key or by ID", func(t *testing.T) {
		archived := taskInstance("retried", -1)
		archived.TryNumber = 1
		archived = f.insertWith(t, f.admin, archived, map[string]any{"working_set": nil, "archived_reason": "superseded"})
		current := f.insert(t, taskInstance("retried", -1))[0]
		byID := refsOf(archived)[0]
		byID.ByID = true
		f.assertFinds(t, append(refsOf(current), byID), current)
		// A pod of the archived attempt still learns what became of its task instance.
		found, err := f.db.Lookup(t.Context(), refsOf(archived))
		require.NoError(t, err)
		assert.Equal(t, map[requeue.Ref]requeue.TaskInstance{refsOf(archived)[0]: current}, found)
	})
	t.Run("a key in several regions is told apart by ID, and is no row without", func(t *testing.T) {
		region := func(n int) any {
			id := withoutDashes(uuid(n))
			if f.db.target.dialect == MySQL { // binary(16)
				return []byte(id[16:])
			}
			return id
		}
		first := f.insertWith(t, f.admin, taskInstance("looped", 0), map[string]any{"region_id": region(1)})
		second := f.insertWith(t, f.admin, taskInstance("looped", 0), map[string]any{"region_id": region(2)})
		without := requeue.Ref{Key: first.Key}
		neither := requeue.Ref{Key: first.Key, ID: uuid(0xdead)}
		f.assertFinds(t, append(refsOf(first, second), without, neither), first, second)
	})
}

// countingServer counts what is asked for in each query.
type countingServer struct {
	server
	queries []int
}

func (s *countingServer) byKey(columns [4]string, keys []requeue.Key) (string, []any) {
	s.queries = append(s.queries, len(keys))
	return s.server.byKey(columns, keys)
}

func (s *countingServer) byID(ids []string) (string, []any) {
	s.queries = append(s.queries, len(ids))
	return s.server.byID(ids)
}

// explainKeys is the plan of a Lookup of 500 task instances by key.
func (f fixture) explainKeys(t *testing.T, explain string) string {
	t.Helper()
	var keys []requeue.Key
	for i := range MaxRefs {
		keys = append(keys, taskInstance(fmt.Sprintf("задача_%d", i), -1).Key)
	}
	layout := f.db.found.Load().layout
	choice, args := f.db.server.byKey([4]string{"dag_id", "task_id", "run_id", layout.index}, keys)
	return f.queryText(t, explain+f.db.statement(layout, choice), args)
}

// explainIDs is the plan of a Lookup of 50 task instances by ID; of 500, it would be right to read a small table whole.
func (f fixture) explainIDs(t *testing.T, explain string) string {
	t.Helper()
	var ids []string
	for i := range 50 {
		ids = append(ids, uuid(i))
	}
	choice, args := f.db.server.byID(ids)
	return f.queryText(t, explain+f.db.statement(f.db.found.Load().layout, choice), args)
}

// queryWord is a query's result, in a connection of those under test.
func (f fixture) queryWord(t *testing.T, query string) (word string) {
	t.Helper()
	require.NoError(t, f.db.pool.QueryRow(query).Scan(&word))
	return word
}

// queryText is a query's result as text.
func (f fixture) queryText(t *testing.T, query string, args []any) string {
	t.Helper()
	rows, err := f.db.pool.Query(query, args...)
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	require.NoError(t, err)
	var text strings.Builder
	for rows.Next() {
		values, pointers := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			pointers[i] = &values[i]
		}
		require.NoError(t, rows.Scan(pointers...))
		for _, value := range values {
			text.WriteString(value.String + " ")
		}
		text.WriteString("\n")
	}
	require.NoError(t, rows.Err())
	return text.String()
}
