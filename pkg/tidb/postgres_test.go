package tidb

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// readerURL is a URL as people write them, for the user who may only read.
func readerURL(scheme string, server *testdb.Server, database, options string) string {
	return fmt.Sprintf("%s://%s:%s@localhost:%d/%s%s",
		scheme, testdb.ReaderUser, quoted(testdb.ReaderPassword), server.Port, database, options)
}

// quoted is Python's quote: a plus sign stands for itself.
func quoted(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	server := testdb.PostgreSQL(t)
	bouncer := testdb.PgBouncer(t, server, 3)
	testdb.Execute(t, server.Database(t, ""),
		"ALTER ROLE "+testdb.ReaderUser+" SET default_transaction_isolation = 'repeatable read'")
	for _, r := range releases(t, PostgreSQL) {
		for by, way := range map[string]*testdb.Server{"directly": server, "by PgBouncer": bouncer} {
			t.Run(r.version+" "+by, func(t *testing.T) {
				name := r.database(" " + by)
				admin := server.Create(t, name, r.tables)
				db := openDB(t, readerURL("postgresql+psycopg2", way, name, "?sslmode=prefer"))
				r.assertIsNamed(t, db.Schema())
				assert.Equal(t, "repeatable read", fixture{db: db}.queryWord(t, "SHOW transaction_isolation"))
				f := fixture{db: db, admin: admin, storedID: r.storedID}
				testLookup(t, f)
				t.Run("indexes are used", func(t *testing.T) { testPostgreSQLIndexes(t, f) })
			})
		}
	}
	server.Create(t, "airflow", ddl(t, "3.3.2", "postgresql"))
	t.Run("sslmode", func(t *testing.T) { testPostgreSQLTLS(t, server) })
	t.Run("schema", func(t *testing.T) { testPostgreSQLSchema(t, server) })
	t.Run("errors", func(t *testing.T) { testPostgreSQLErrors(t, server) })
	t.Run("PgBouncer", func(t *testing.T) { testPgBouncer(t, server, bouncer) })
}

func testPostgreSQLIndexes(t *testing.T, f fixture) {
	t.Helper()
	id, value := "", ""
	if f.db.found.Load().layout.id {
		id, value = "id, ", "gen_random_uuid(), "
	}
	testdb.Execute(t, f.admin, fmt.Sprintf("INSERT INTO task_instance "+
		"(%sdag_id, task_id, run_id, try_number, pool, pool_slots, state) "+
		"SELECT %s'sales', 'задача_' || n %% 500, 'run_' || n / 500, 1, 'default_pool', 1, 'success' "+
		"FROM generate_series(1, 50000) n", id, value), "ANALYZE task_instance")
	assert.Regexp(t, `Index Scan using \w+ on task_instance .*\n *Index Cond: .*dag_id.*run_id`, f.explainKeys(t, "EXPLAIN "))
	if id != "" {
		assert.Regexp(t, `Scan (using|on) task_instance_pkey`, f.explainIDs(t, "EXPLAIN "))
	}
}

func testPostgreSQLTLS(t *testing.T, server *testdb.Server) {
	t.Helper()
	for options, encrypted := range map[string]bool{
		"":                       true, // prefer is libpq's default
		"?sslmode=disable":       false,
		"?sslmode=require":       true,
		"?ssl=require":           true,
		"?sslmode=verify-full":   true,
		"?sslmode=verify-ca":     true,
		"?connect_timeout=3":     true,
		"?application_name=mine": true,
	} {
		if strings.Contains(options, "verify") {
			options += "&sslrootcert=" + url.QueryEscape(server.CAFile)
		}
		db := openDB(t, readerURL("postgresql+asyncpg", server, "airflow", options))
		var ssl bool
		var name string
		require.NoError(t, db.pool.QueryRow("SELECT ssl, application_name FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "+
			"WHERE pid = pg_backend_pid()").Scan(&ssl, &name))
		assert.Equal(t, encrypted, ssl, options)
		assert.Equal(t, "airflow-requeue", name)
		assert.Empty(t, db.Schema().Warnings, options)
	}
}

func testPostgreSQLSchema(t *testing.T, server *testdb.Server) {
	t.Helper()
	inSchema := "CREATE SCHEMA elsewhere; SET search_path = elsewhere;" + ddl(t, "3.3.2", "postgresql") +
		"; GRANT USAGE ON SCHEMA elsewhere TO " + testdb.ReaderUser
	server.Create(t, "in_schema", inSchema)
	_, err := Open(t.Context(), readerURL("postgresql", server, "in_schema", ""))
	require.ErrorContains(t, err, "there is no such table that the user of the connection URL can see")
	db := openDB(t, readerURL("postgresql", server, "in_schema", "?options=-c%20search_path%3Delsewhere%2Cpublic"))
	f := fixture{db: db, admin: server.Database(t, "in_schema"), storedID: withDashes}
	testdb.Execute(t, f.admin, "ALTER ROLE "+testdb.AdminUser+" IN DATABASE in_schema SET search_path = elsewhere")
	f.admin = server.Database(t, "in_schema")
	tasks := f.insert(t, taskInstance("extract", -1))
	f.assertFinds(t, refsOf(tasks...), tasks...)

	t.Run("options that are not used are named", func(t *testing.T) {
		db := openDB(t, readerURL("postgresql", server, "airflow", "?options=-cstatement_timeout%3D5s&surprise=1"))
		assert.Equal(t, []string{
			"the option options of the connection URL is not used", "the option surprise of the connection URL is not used",
		}, db.Schema().Warnings)
	})
	t.Run("an upgrade is noticed", func(t *testing.T) {
		admin := server.Create(t, "upgraded", ddl(t, "2.10.5", "postgresql"))
		db := openDB(t, readerURL("postgresql", server, "upgraded", ""))
		testdb.Execute(t, admin, "DROP TABLE task_instance, alembic_version", ddl(t, "3.4.0b2", "postgresql"))
		testdb.Execute(t, admin, "GRANT SELECT ON task_instance TO "+testdb.ReaderUser)
		_, err := db.Lookup(t.Context(), refsOf(taskInstance("extract", -1)))
		require.EqualError(t, err, "reading the task instances: "+
			"the tables are no longer those that were there at the start; has Airflow been upgraded?")
		require.NoError(t, db.Ping(t.Context()))
		assert.Equal(t, Schema{PostgreSQL, Shape34, "", []string{"alembic_version cannot be read (the user of the connection " +
			"URL may not read: it needs SELECT on task_instance and alembic_version, USAGE on their schema and CONNECT on the " +
			"database)"}}, db.Schema())
		_, err = db.Lookup(t.Context(), refsOf(taskInstance("extract", -1)))
		require.NoError(t, err)
	})
}

func testPostgreSQLErrors(t *testing.T, server *testdb.Server) {
	t.Helper()
	admin := server.Create(t, "other", "CREATE TABLE task_instance (dag_id text, task_id text, execution_date date); "+
		"CREATE TABLE alembic_version (version_num text)")
	testdb.Execute(t, admin, "REVOKE SELECT ON alembic_version FROM "+testdb.ReaderUser)
	testdb.Execute(t, server.Create(t, "forbidden", ddl(t, "3.3.2", "postgresql")),
		"REVOKE SELECT ON task_instance FROM "+testdb.ReaderUser)
	wrongCA := testdb.PostgreSQLStandby(t)

	for name, c := range map[string]struct{ url, want string }{
		"wrong password": {
			strings.Replace(readerURL("postgresql", server, "airflow", ""), "r3ader", "wr0ng", 1),
			"the server refused the user or the password of the connection URL, or this host or its use of TLS (pg_hba.conf)",
		},
		"no such database": {
			readerURL("postgresql", server, "nowhere", ""),
			"the server has no database of the name that is in the connection URL",
		},
		"another authority": {
			readerURL("postgresql", server, "airflow", "?sslmode=verify-full&sslrootcert="+wrongCA.CAFile),
			"the server's certificate is not signed by an authority that is trusted here: sslrootcert or ssl_ca in the " +
				"connection URL names the file of the right one",
		},
		"not Airflow's table": {
			readerURL("postgresql", server, "other", ""),
			"understanding task_instance: it has no column run_id, state, try_number, hostname, queued_dttm, " +
				"queued_by_job_id, executor (since Airflow 2.10), map_index (or region_index); known are the tables of Airflow " +
				"2.10 to 3.3 and of 3.4's beta, and alembic's revision of this one is unknown; a newer Airflow may need a newer " +
				"airflow-requeue",
		},
		"replica": {
			fmt.Sprintf("postgresql://%s:%s@127.0.0.1:%d/postgres", testdb.AdminUser, quoted(testdb.AdminPassword), wrongCA.Port),
			"this is a replica, whose rows may be old: the connection URL is to name the primary, the one that Airflow's " +
				"scheduler uses",
		},
	} {
		_, err := Open(t.Context(), c.url)
		assert.EqualError(t, err, "opening the metadata database (PostgreSQL): "+c.want, name)
	}

	db := openDB(t, readerURL("postgresql", server, "forbidden", ""))
	_, err := db.Lookup(t.Context(), refsOf(taskInstance("extract", -1)))
	require.EqualError(t, err, "reading the task instances: the user of the connection URL may not read: it needs SELECT "+
		"on task_instance and alembic_version, USAGE on their schema and CONNECT on the database")
}

// testPgBouncer has many more clients than PgBouncer has connections, so that nearly every query of a client meets
// another server connection than its last one did.
func testPgBouncer(t *testing.T, server, bouncer *testdb.Server) {
	t.Helper()
	const clients, lookups = 12, 50
	admin := server.Create(t, "bounced", ddl(t, "3.3.2", "postgresql"))
	var dbs []*DB
	for range clients {
		dbs = append(dbs, openDB(t, readerURL("postgresql+psycopg2", bouncer, "bounced", "?connect_timeout=10")))
	}
	f := fixture{db: dbs[0], admin: admin, storedID: withDashes}
	var tasks []requeue.TaskInstance
	for i := range 40 {
		tasks = append(tasks, taskInstance("bounced", i))
	}
	tasks = f.insert(t, tasks...)

	began := time.Now()
	var group sync.WaitGroup
	for _, db := range dbs {
		for range maxConns {
			group.Go(func() {
				for i := range lookups {
					if i%10 == 0 {
						assert.NoError(t, db.Ping(t.Context()))
					}
					some := tasks[:1+i%len(tasks)]
					refs := refsOf(some...)
					for j := range refs {
						refs[j].ByID = i%2 == 0
					}
					found, err := db.Lookup(t.Context(), refs)
					if assert.NoError(t, err) {
						assert.Len(t, found, len(some))
					}
				}
			})
		}
	}
	group.Wait()
	t.Logf("%d lookups through PgBouncer in %s", clients*maxConns*lookups, time.Since(began).Round(time.Millisecond))

	t.Run("what it refuses is explained", func(t *testing.T) {
		_, err := Open(t.Context(), readerURL("postgresql", bouncer, "bounced", "?sslmode=require"))
		require.EqualError(t, err, "opening the metadata database (PostgreSQL): the server, or a PgBouncer before it, does "+
			"not offer TLS, and sslmode in the connection URL asks for it: switch TLS on there, or say sslmode=prefer or disable")
		_, err = Open(t.Context(), readerURL("postgresql", bouncer, "nowhere", ""))
		require.ErrorContains(t, err, "the server has no database of the name that is in the connection URL")
		db := openDB(t, readerURL("postgresql", bouncer, "bounced", "?options=-cstatement_timeout%3D5s&statement_timeout=5"))
		assert.Len(t, db.Schema().Warnings, 2)
	})
}
