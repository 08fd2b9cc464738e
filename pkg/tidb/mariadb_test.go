package tidb

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
)

// MariaDB stands in for MySQL. What differs is seen to: MySQL has no type uuid, so that IDs are char(32) there.
func TestMySQL(t *testing.T) {
	t.Parallel()
	server := testdb.MariaDB(t)
	for name, want := range map[string]struct {
		version, idType string
		schema          Schema
		storedID        func(string) string
	}{
		"2.10.5":           {"2.10.5", "", Schema{MySQL, Shape210, "5f2621c13b39", nil}, nil},
		"3.0.6 varchar36":  {"3.0.6", "varchar(36)", Schema{MySQL, Shape30, "fe199e1abd77", nil}, withDashes},
		"3.3.2 uuid":       {"3.3.2", "uuid", Schema{MySQL, Shape30, "d2f4e1b3c5a7", nil}, withDashes},
		"3.3.2 char32":     {"3.3.2", "char(32)", Schema{MySQL, Shape30, "d2f4e1b3c5a7", nil}, withoutDashes},
		"3.4.0b2 char32":   {"3.4.0b2", "char(32)", Schema{MySQL, Shape34, "9cffe90fa0c0", nil}, withoutDashes},
		"3.4.0b2 as it is": {"3.4.0b2", "uuid", Schema{MySQL, Shape34, "9cffe90fa0c0", nil}, withDashes},
	} {
		t.Run(name, func(t *testing.T) {
			database := "airflow_" + strings.NewReplacer(".", "", " ", "_").Replace(name)
			tables := ddl(t, want.version, "mysql")
			if want.idType == "char(32)" {
				tables = strings.ReplaceAll(tables, "`id` uuid", "`id` char(32)")
			}
			if want.idType != "" {
				require.Contains(t, tables, "`id` "+want.idType)
			}
			admin := server.Create(t, database, tables)
			db := openDB(t, readerURL("mysql+mysqldb", server, database, "?charset=utf8mb4"))
			assert.Equal(t, want.schema, db.Schema())
			f := fixture{db: db, admin: admin, storedID: want.storedID}
			testLookup(t, f)
			t.Run("indexes are used", func(t *testing.T) {
				f.fill(t)
				assert.Regexp(t, `task_instance range \S+ (PRIMARY|task_instance_\w+) 22\d\d `, f.explainKeys(t, "EXPLAIN "))
				if want.schema.Shape != Shape210 {
					assert.Regexp(t, `task_instance (range|eq_ref) PRIMARY`, f.explainIDs(t, "EXPLAIN "))
				}
			})
		})
	}
	admin := server.Create(t, "airflow", ddl(t, "3.3.2", "mysql"))
	t.Run("a read is not of a snapshot", func(t *testing.T) {
		f := fixture{db: openDB(t, readerURL("mysql", server, "airflow", "")), admin: admin, storedID: withDashes}
		f.db.pool.SetMaxOpenConns(1) // one connection, whose first read would begin a transaction without autocommit
		task := f.insert(t, taskInstance("extract", -1))[0]
		f.assertFinds(t, refsOf(task), task)
		testdb.Execute(t, admin, "UPDATE task_instance SET state = 'running', hostname = 'pod'")
		task.State, task.Hostname = "running", "pod"
		f.assertFinds(t, refsOf(task), task)
	})
	t.Run("TLS", func(t *testing.T) { testMySQLTLS(t, server) })
	t.Run("errors", func(t *testing.T) { testMySQLErrors(t, server) })
}

// fill makes so many rows that a server would rather not read them all.
func (f fixture) fill(t *testing.T) {
	t.Helper()
	id, value := "", ""
	if f.db.found.Load().layout.id {
		id, value = "id, ", "REPLACE(UUID(), '-', ''), "
	}
	testdb.Execute(t, f.admin, fmt.Sprintf("INSERT INTO task_instance "+
		"(%sdag_id, task_id, run_id, try_number, pool, pool_slots, state) "+
		"SELECT %s'sales', CONCAT('задача_', seq %% 500), CONCAT('run_', seq DIV 500), 1, 'default_pool', 1, 'success' "+
		"FROM seq_1_to_20000", id, value), "ANALYZE TABLE task_instance")
}

func testMySQLTLS(t *testing.T, server *testdb.Server) {
	t.Helper()
	ca := "ssl_ca=" + url.QueryEscape(server.CAFile)
	for options, encrypted := range map[string]bool{
		"":                                   true, // preferred is MySQL's default
		"?ssl_mode=DISABLED":                 false,
		"?ssl_disabled=true":                 false,
		"?ssl_mode=REQUIRED":                 true,
		"?" + ca:                             true,
		"?ssl_mode=VERIFY_CA&" + ca:          true,
		"?ssl_mode=verify_identity&" + ca:    true,
		"?ssl_verify_identity=true&" + ca:    true,
		"?ssl_check_hostname=false&" + ca:    true,
		"?charset=utf8mb4&connect_timeout=3": true,
	} {
		db := openDB(t, readerURL("mysql+pymysql", server, "airflow", options))
		var name, cipher string
		require.NoError(t, db.pool.QueryRow("SHOW STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher))
		assert.Equal(t, encrypted, cipher != "", options)
		assert.Empty(t, db.Schema().Warnings, options)
	}
	for _, options := range []string{"?ssl_mode=VERIFY_CA", "?ssl_mode=VERIFY_IDENTITY"} { // with the system's authorities
		_, err := Open(t.Context(), readerURL("mysql", server, "airflow", options))
		require.ErrorContains(t, err, "the server's certificate is not signed by an authority that is trusted here", options)
	}
	for options, want := range map[string]string{
		"?ssl_mode=SOMETIMES": "ssl_mode is none of DISABLED PREFERRED REQUIRED VERIFY_CA VERIFY_IDENTITY",
		"?ssl_capath=/etc":    "ssl_capath is not supported, and leaving it out would change what is trusted; ssl_ca takes a file",
		"?ssl_ca=/dev/null":   "reading the file of ssl_ca: there is no certificate in it",
	} {
		_, err := Open(t.Context(), readerURL("mysql", server, "airflow", options))
		require.EqualError(t, err, "reading the connection URL's options: "+want)
	}
}

func testMySQLErrors(t *testing.T, server *testdb.Server) {
	t.Helper()
	server.Create(t, "other", "CREATE TABLE task_instance (dag_id int); CREATE TABLE alembic_version (version_num text)")
	testdb.Execute(t, server.Database(t, ""), "CREATE DATABASE empty")
	for name, c := range map[string]struct{ url, want string }{
		"wrong password": {
			strings.Replace(readerURL("mysql", server, "airflow", ""), "r3ader", "wr0ng", 1),
			"the server refused the user or the password of the connection URL, or this host",
		},
		"no such database": {
			readerURL("mysql", server, "nowhere", ""),
			"the server has no database of the name that is in the connection URL, or the user may not use it",
		},
		"not Airflow's table": {
			readerURL("mysql", server, "other", ""),
			"understanding task_instance: it has no column task_id, run_id, state, try_number, hostname, queued_dttm, " +
				"queued_by_job_id, executor (since Airflow 2.10), map_index (or region_index); known are the tables of Airflow " +
				"2.10 to 3.3 and of 3.4's beta, and alembic's revision of this one is unknown; a newer Airflow may need a newer " +
				"airflow-requeue",
		},
		"empty database": {
			fmt.Sprintf("mysql://%s:%s@127.0.0.1:%d/empty", testdb.AdminUser, quoted(testdb.AdminPassword), server.Port),
			"finding task_instance: there is no such table that the user of the connection URL can see; is it the database of " +
				"Airflow, has `airflow db migrate` been run, may the user read the table, and is its schema in the search_path of " +
				"the user?",
		},
	} {
		_, err := Open(t.Context(), c.url)
		assert.EqualError(t, err, "opening the metadata database (MySQL): "+c.want, name)
	}

	db := openDB(t, readerURL("mysql", server, "airflow", ""))
	testdb.Execute(t, server.Database(t, ""), "SET GLOBAL read_only = 1")
	require.EqualError(t, db.Ping(t.Context()), "asking the metadata database (MySQL): this is a replica, whose rows may be "+
		"old: the connection URL is to name the primary, the one that Airflow's scheduler uses")
}
