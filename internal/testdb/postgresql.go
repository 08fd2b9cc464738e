package testdb

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// PostgreSQL starts a PostgreSQL that asks for passwords and offers TLS.
func PostgreSQL(tb testing.TB) *Server {
	tb.Helper()
	server := startPostgreSQL(tb, false)
	Execute(tb, server.Database(tb, ""), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", ReaderUser, ReaderPassword))
	return server
}

// PostgreSQLStandby starts a PostgreSQL that is in recovery, as a replica is. It has no ReaderUser.
func PostgreSQLStandby(tb testing.TB) *Server {
	tb.Helper()
	return startPostgreSQL(tb, true)
}

func startPostgreSQL(tb testing.TB, standby bool) *Server {
	tb.Helper()
	initdb, postgres := binary(tb, "initdb"), binary(tb, "postgres")
	dir := directory(tb)
	data := filepath.Join(dir, "data")
	run(tb, dir, initdb, "-D", data, "-U", AdminUser, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync",
		"--pwfile", write(tb, filepath.Join(dir, "password"), AdminPassword))
	if standby {
		write(tb, filepath.Join(data, "standby.signal"), "")
	}
	certFile, keyFile, caFile := certificate(tb, dir)
	server := postgreSQLServer(freePort(tb))
	server.CAFile = caFile
	start(tb, dir, server.Database(tb, "").Ping, postgres, "-D", data, "-k", dir, "-h", Host, "-p", strconv.Itoa(server.Port),
		"-c", "ssl=on", "-c", "ssl_cert_file="+certFile, "-c", "ssl_key_file="+keyFile,
		"-c", "fsync=off", "-c", "shared_buffers=32MB")
	return server
}

func postgreSQLServer(port int) *Server {
	server := &Server{
		Port:   port,
		scheme: "postgresql+psycopg2",
		database: func(tb testing.TB, name string) *sql.DB {
			tb.Helper()
			if name == "" {
				name = "postgres"
			}
			config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s", Host, port, AdminUser, name))
			if err != nil {
				tb.Fatal(err)
			}
			config.Password = AdminPassword
			config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // of which one message has several statements
			return stdlib.OpenDB(*config)
		},
		grants: func(string) []string {
			return []string{"GRANT SELECT ON task_instance, alembic_version TO " + ReaderUser}
		},
	}
	server.copy = func(tb testing.TB, from, to string) {
		tb.Helper()
		Execute(tb, server.Database(tb, ""), fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", to, from))
	}
	return server
}

// PgBouncer starts a PgBouncer in transaction mode before a PostgreSQL, to which it has poolSize connections for each
// database and user. It offers no TLS.
func PgBouncer(tb testing.TB, server *Server, poolSize int) *Server {
	tb.Helper()
	pgbouncer := binary(tb, "pgbouncer")
	dir := directory(tb)
	bouncer := postgreSQLServer(freePort(tb))
	users := write(tb, filepath.Join(dir, "users"), fmt.Sprintf("%q %q\n%q %q\n",
		AdminUser, AdminPassword, ReaderUser, ReaderPassword))
	config := write(tb, filepath.Join(dir, "pgbouncer.ini"), fmt.Sprintf(`
[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = %s
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = 1000
`, Host, server.Port, Host, bouncer.Port, users, poolSize))
	start(tb, dir, bouncer.Database(tb, "").Ping, pgbouncer, config)
	return bouncer
}
