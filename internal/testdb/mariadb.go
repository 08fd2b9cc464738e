package testdb

import (
	"database/sql"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// MariaDB starts a MariaDB, which stands in for MySQL, that asks for passwords and offers TLS. Its defaults are awkward
// on purpose: a time zone that is not UTC, and no autocommit.
func MariaDB(tb testing.TB) *Server {
	tb.Helper()
	install, mariadbd := binary(tb, "mariadb-install-db"), binary(tb, "mariadbd")
	binary(tb, "my_print_defaults") // the installation wants it
	dir := directory(tb)
	data := filepath.Join(dir, "data")
	run(tb, dir, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	users := write(tb, filepath.Join(dir, "users.sql"), fmt.Sprintf(`
CREATE USER %s IDENTIFIED BY "%s";
GRANT ALL ON *.* TO %s WITH GRANT OPTION;
CREATE USER %s IDENTIFIED BY "%s";
`, AdminUser, AdminPassword, AdminUser, ReaderUser, ReaderPassword))
	certFile, keyFile, caFile := certificate(tb, dir)
	server := &Server{Port: freePort(tb), CAFile: caFile, scheme: "mysql+pymysql"}
	server.database = func(tb testing.TB, name string) *sql.DB {
		tb.Helper()
		config := mysql.NewConfig()
		config.User, config.Passwd, config.DBName = AdminUser, AdminPassword, name
		config.Net, config.Addr = "tcp", net.JoinHostPort(Host, strconv.Itoa(server.Port))
		config.MultiStatements = true
		config.Logger = &mysql.NopLogger{}
		config.Params = map[string]string{"autocommit": "1", "time_zone": "'+00:00'"}
		connector, err := mysql.NewConnector(config)
		if err != nil {
			tb.Fatal(err)
		}
		return sql.OpenDB(connector)
	}
	server.grants = func(database string) []string {
		return []string{
			fmt.Sprintf("GRANT SELECT ON %s.task_instance TO %s", database, ReaderUser),
			fmt.Sprintf("GRANT SELECT ON %s.alembic_version TO %s", database, ReaderUser),
		}
	}
	server.copy = func(tb testing.TB, from, to string) {
		tb.Helper()
		Execute(tb, server.Database(tb, ""), "CREATE DATABASE "+to)
		Execute(tb, server.Database(tb, to), tables(tb, server.Database(tb, from), from)...)
	}
	start(tb, dir, server.Database(tb, "").Ping, mariadbd, "--no-defaults", "--datadir="+data, "--init-file="+users,
		"--bind-address="+Host, "--port="+strconv.Itoa(server.Port), "--socket="+filepath.Join(dir, "socket"),
		"--ssl-cert="+certFile, "--ssl-key="+keyFile, "--character-set-server=utf8mb4",
		"--default-time-zone=+05:30", "--autocommit=0", "--innodb-flush-log-at-trx-commit=0")
	return server
}

// tables are the statements that make all tables of a database in another one, with their rows.
func tables(tb testing.TB, db *sql.DB, database string) []string {
	tb.Helper()
	rows, err := db.QueryContext(tb.Context(), "SELECT table_name FROM information_schema.tables WHERE table_schema = ?", database)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	statements := []string{}
	for rows.Next() {
		var table, name, ddl string
		if err := rows.Scan(&table); err != nil {
			tb.Fatal(err)
		}
		if err := db.QueryRowContext(tb.Context(), fmt.Sprintf("SHOW CREATE TABLE `%s`", table)).Scan(&name, &ddl); err != nil {
			tb.Fatal(err)
		}
		statements = append(statements, fmt.Sprintf("SET foreign_key_checks = 0; %s; INSERT INTO `%s` SELECT * FROM %s.`%s`", ddl, table, database, table))
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	return statements
}
