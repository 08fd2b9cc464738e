package preflight

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
)

// Each kind of database, with Airflow's own tables, and with what is wrong in practice. No password may be shown.
func TestTheDatabaseIsReadAndNotOnlyReached(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name, scheme string
		start        func(testing.TB) *testdb.Server
		revoke       string // takes the right to read task_instance
		drop         string // makes a schema that is not understood
		well         string
		unreadable   string // in what is said without that right: PostgreSQL shows tables that may not be read
	}{
		{"postgresql", "postgresql+psycopg2", testdb.PostgreSQL, "REVOKE ALL ON task_instance FROM reader",
			"ALTER TABLE task_instance DROP COLUMN executor", "PostgreSQL, task_instance as since Airflow 3.0 (revision d2f4e1b3c5a7, of Airflow 3.3)",
			"reading the task instances: the user of the connection URL may not read: it needs SELECT on task_instance"},
		{"mysql", "mysql+mysqldb", testdb.MariaDB, "REVOKE ALL ON unreadable.task_instance FROM 'reader'@'%'",
			"ALTER TABLE task_instance DROP COLUMN executor", "MySQL, task_instance as since Airflow 3.0 (revision d2f4e1b3c5a7, of Airflow 3.3)", "may the user read the table"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			server := kind.start(t)
			ddl, err := os.ReadFile("../tidb/testdata/3.3.2-" + kind.name + ".sql")
			require.NoError(t, err)
			for _, database := range []string{"well", "unreadable", "unknown"} {
				server.Create(t, database, string(ddl))
			}
			testdb.Execute(t, server.Database(t, "unreadable"), kind.revoke)
			testdb.Execute(t, server.Database(t, "unknown"), kind.drop)
			look := func(password, database string) Finding {
				file := filepath.Join(t.TempDir(), "url")
				quoted := strings.ReplaceAll(url.QueryEscape(password), "+", "%20")
				require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "%s://%s:%s@%s:%d/%s", kind.scheme, testdb.ReaderUser, quoted, testdb.Host, server.Port, database), 0o600))
				found := (&checker{Options: Options{Database: tidb.Source{File: file}}}).database(t.Context())
				assert.NotContains(t, found.Seen+found.ToDo, password)
				return found
			}

			assert.Equal(t, ok("%s", kind.well), look(testdb.ReaderPassword, "well"))
			unreadable := look(testdb.ReaderPassword, "unreadable")
			assert.Equal(t, Fail, unreadable.State)
			assert.Contains(t, unreadable.Seen, kind.unreadable)
			unknown := look(testdb.ReaderPassword, "unknown")
			assert.Equal(t, Fail, unknown.State)
			assert.Contains(t, unknown.Seen, "understanding task_instance: it has no column executor (since Airflow 2.10)")
			refused := look("wr0ng-p4ssword", "well")
			assert.Equal(t, Fail, refused.State)
			assert.Contains(t, refused.Seen, "refused the user or the password")
			assert.Contains(t, refused.ToDo, "is to name the metadata database")
		})
	}
}
