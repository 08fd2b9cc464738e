package tidb

import (
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
)

// newSQLite makes a database as Airflow does, in write-ahead mode.
func newSQLite(t *testing.T, path, ddl string) *sql.DB {
	t.Helper()
	admin, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close() })
	testdb.Execute(t, admin, "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF", ddl)
	return admin
}

func openDB(t *testing.T, url string) *DB {
	t.Helper()
	db, err := Open(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	for _, r := range releases(t, SQLite) {
		t.Run(r.version, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "airflow #1 100%?.db")
			admin := newSQLite(t, path, r.tables)
			db := openDB(t, "sqlite:///"+strings.NewReplacer("?", "%3F", "100%", "100%25").Replace(path))
			r.assertIsNamed(t, db.Schema())
			f := fixture{db: db, admin: admin, storedID: r.storedID}
			testLookup(t, f)
			t.Run("indexes are used", func(t *testing.T) {
				assert.Regexp(t, `SEARCH task_instance USING INDEX \w+ \(dag_id=\? AND task_id=\? AND run_id=\?`,
					f.explainKeys(t, "EXPLAIN QUERY PLAN "))
				if r.idType != "" {
					assert.Regexp(t, `SEARCH task_instance USING INDEX \w+ \(id=\?\)`, f.explainIDs(t, "EXPLAIN QUERY PLAN "))
				}
			})
		})
	}
}

func TestSQLiteIsOpenedReadOnlyAndNeverMade(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "airflow.db")

	_, err := Open(t.Context(), "sqlite:///"+path)
	require.EqualError(t, err, "opening the metadata database (SQLite): "+
		"the SQLite file that the connection URL names is not there or cannot be opened")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)

	newSQLite(t, path, ddl(t, "3.3.2", "sqlite"))
	db := openDB(t, "sqlite:///"+path)
	_, err = db.pool.Exec("DELETE FROM task_instance")
	require.ErrorContains(t, err, "readonly")
}

func TestSQLiteThatIsBeingWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "airflow.db")
	admin := newSQLite(t, path, ddl(t, "3.3.2", "sqlite"))
	f := fixture{db: openDB(t, "sqlite:///"+path), admin: admin, storedID: withoutDashes}
	tasks := f.insert(t, taskInstance("extract", -1))

	tx, err := admin.Begin()
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.Exec("UPDATE task_instance SET state = 'running'")
	require.NoError(t, err)
	f.assertFinds(t, refsOf(tasks...), tasks...)
}

func TestSQLiteOfOtherKinds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("This is no database. ", 100)), 0o600))
	_, err := Open(t.Context(), "sqlite:///"+path)
	require.EqualError(t, err, "opening the metadata database (SQLite): "+
		"the file that the connection URL names is not a SQLite database, or is damaged")
	for _, url := range []string{"sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/airflow.db"} {
		_, err = Open(t.Context(), url)
		require.ErrorContains(t, err, "it names no SQLite file", url)
	}
}
