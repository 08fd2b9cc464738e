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

// MariaDB stands in for MySQL. What differs is seen to: MySQL has no type uuid, so that IDs are char(32) there. The server's
// default of no autocommit makes every connection begin a transaction with its first read.
func TestMySQL(t *testing.T) {
	t.Parallel()
	server := testdb.MariaDB(t)
	all := releases(t, MySQL)
	for _, r := range all {
		if r.idType == "uuid" {
			r.version += " char32"
			r.idType = "char(32)"
			r.tables = strings.ReplaceAll(r.tables, "`id` uuid", "`id` char(32)")
			all = append(all, r)
		}
	}
	for _, r := range all {
		t.Run(r.version, func(t *testing.T) {
			name := r.database("")
			admin := server.Create(t, name, r.tables)
			db := openDB(t, readerURL("mysql+mysqldb", server, name, "?charset=utf8mb4"))
			r.assertIsNamed(t, db.Schema())
			f := fixture{db: db, admin: admin, storedID: r.storedID}
			assert.Equal(t, "REPEATABLE-READ", f.queryWord(t, "SELECT @@tx_isolation"))
			testLookup(t, f)
			t.Run("indexes are used", func(t *testing.T) {
				f.fill(t)
				assert.Regexp(t, `task_instance range \S+ (PRIMARY|task_instance_\w+) 22\d\d `, f.explainKeys(t, "EXPLAIN "))
				if r.idType != "" {
					assert.Regexp(t, `task_instance (range|eq_ref) PRIMARY`, f.explainIDs(t, "EXPLAIN "))
				}
			})
		})
	}
	server.Create(t, "airflow", ddl(t, "3.3.2", "mysql"))
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
