package airflow

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
)

// migrated is the database of a server that all others are copies of.
const migrated = "migrated"

// Metadata makes metadata databases for tests, as a version's own migration makes them.
type Metadata struct {
	environment Environment
	server      *testdb.Server // nil for SQLite
}

// Database is a metadata database.
type Database struct {
	// AirflowURL and WatcherURL are SQLAlchemy's, for those who may do anything, and for one who may do no more than a watcher
	// needs.
	AirflowURL, WatcherURL string
	// Admin may do anything; nil for SQLite.
	Admin *sql.DB
}

// Metadata starts the server that the version is to have its metadata databases in. Where it is not installed, the test is
// skipped; but not in CI.
func (e Environment) Metadata(t testing.TB) *Metadata {
	t.Helper()
	m := &Metadata{environment: e}
	switch e.Database {
	case tidb.PostgreSQL:
		m.server = testdb.PostgreSQL(t)
	case tidb.MySQL:
		m.server = testdb.MariaDB(t)
	case tidb.SQLite:
		return m
	}
	testdb.Execute(t, m.server.Database(t, ""), "CREATE DATABASE "+migrated)
	var log bytes.Buffer
	err := e.Migrate(t.Context(), &log, t.TempDir(), m.server.URL(migrated, testdb.AdminUser, testdb.AdminPassword))
	require.NoError(t, err, "%s", &log)
	return m
}

// Create makes a database.
func (m *Metadata) Create(t testing.TB, name string) Database {
	t.Helper()
	if m.server == nil {
		content, err := os.ReadFile(m.environment.sqlite())
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "airflow.db")
		require.NoError(t, os.WriteFile(path, content, 0o600)) //nolint:gosec // a path of the test's own
		return Database{AirflowURL: "sqlite:///" + path, WatcherURL: "sqlite:///" + path}
	}
	return Database{
		Admin:      m.server.Copy(t, migrated, name),
		AirflowURL: m.server.URL(name, testdb.AdminUser, testdb.AdminPassword),
		WatcherURL: m.server.URL(name, testdb.ReaderUser, testdb.ReaderPassword),
	}
}
