package tidb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// mysqlServer is MySQL, or MariaDB.
type mysqlServer struct{ target }

func (mysqlServer) used() []string {
	return []string{
		"unix_socket", "connect_timeout", "ssl", "ssl_mode", "ssl_ca", "ssl_cert", "ssl_key", "ssl_disabled",
		"ssl_verify_cert", "ssl_verify_identity", "ssl_check_hostname",
		// These mean nothing to a reader like this one.
		"charset", "collation", "use_unicode", "binary_prefix", "autocommit", "compress", "read_timeout", "write_timeout",
		"local_infile", "client_flag", "auth_plugin", "sql_mode",
	}
}

func (s *mysqlServer) connect() (*sql.DB, []string, error) {
	config := mysql.NewConfig()
	config.User, config.Passwd, config.DBName = s.user, s.password, s.database
	config.Net, config.Addr = "tcp", net.JoinHostPort(cmp.Or(s.host, "localhost"), cmp.Or(s.port, "3306"))
	if socket := s.options.get("unix_socket"); socket != "" {
		config.Net, config.Addr = "unix", socket
	}
	config.Timeout = connectTimeout
	if seconds, err := strconv.Atoi(s.options.get("connect_timeout")); err == nil && seconds > 0 {
		config.Timeout = time.Duration(seconds) * time.Second
	}
	config.ParseTime = true
	config.InterpolateParams = true // one round trip a query, and nothing prepared that a proxy would have to keep
	config.ConnectionAttributes = "program_name:" + applicationName
	config.Logger = &mysql.NopLogger{} // its errors come back as well, and are made safe there
	config.Params = map[string]string{
		"time_zone": "'+00:00'", // Airflow writes UTC into TIMESTAMP columns (orm_event_handlers.py)
		// Where the server's default is off, every read would be of the first one's snapshot.
		"autocommit": "1",
	}
	var err error
	if config.TLS, config.AllowFallbackToPlaintext, err = s.tls(); err != nil {
		return nil, nil, fmt.Errorf("reading the connection URL's options: %w", err)
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the connection URL: %w", s.safe(err))
	}
	return bound(sql.OpenDB(connector)), s.options.unused(s.used()), nil
}

func (s *mysqlServer) table(name string) string { return name }

func (s *mysqlServer) checkFresh(ctx context.Context, db *sql.DB) error {
	var readOnly string
	if err := db.QueryRowContext(ctx, "SELECT @@global.read_only").Scan(&readOnly); err != nil {
		return err
	}
	if readOnly != "0" && readOnly != "OFF" { // a word since MariaDB 12
		return errReplica
	}
	return nil
}

func (s *mysqlServer) columns(ctx context.Context, db *sql.DB) ([]string, error) {
	return queryStrings(ctx, db, "SELECT LOWER(column_name) FROM information_schema.columns "+
		"WHERE table_schema = DATABASE() AND table_name = 'task_instance'")
}

func (s *mysqlServer) text(column string) string { return column }

func (s *mysqlServer) byKey(columns [4]string, keys []requeue.Key) (string, []any) {
	return fmt.Sprintf("WHERE (%s) IN (%s)", strings.Join(columns[:], ", "), repeat("(?, ?, ?, ?)", len(keys))), keyArgs(keys)
}

func (s *mysqlServer) byID(ids []string) (string, []any) {
	return fmt.Sprintf("WHERE id IN (%s)", repeat("?", 2*len(ids))), idArgs(ids)
}

func repeat(s string, n int) string {
	return strings.TrimSuffix(strings.Repeat(s+", ", n), ", ")
}

func keyArgs(keys []requeue.Key) []any {
	args := make([]any, 0, 4*len(keys))
	for _, key := range keys {
		args = append(args, key.DagID, key.TaskID, key.RunID, key.MapIndex)
	}
	return args
}

// idArgs are the IDs in both of the forms that Airflow has stored them in: with dashes up to 3.1, without since 3.2
// (migration 0104).
func idArgs(ids []string) []any {
	args := make([]any, 0, 2*len(ids))
	for _, id := range ids {
		args = append(args, id, strings.ReplaceAll(id, "-", ""))
	}
	return args
}

func adviseMySQL(err error) string {
	var myErr *mysql.MySQLError
	if errors.Is(err, mysql.ErrNoTLS) {
		return "the server does not offer TLS, and the connection URL asks for it: switch TLS on there, " +
			"or say ssl_mode=PREFERRED or DISABLED"
	}
	if !errors.As(err, &myErr) {
		return ""
	}
	switch myErr.Number {
	case 1045, 1698, 1130, 1129:
		return "the server refused the user or the password of the connection URL, or this host"
	case 1044, 1049:
		return "the server has no database of the name that is in the connection URL, or the user may not use it"
	case 1142, 1143:
		return "the user of the connection URL may not read: it needs SELECT on task_instance and alembic_version"
	case 1146, 1054:
		return "the tables are no longer those that were there at the start; has Airflow been upgraded?"
	case 1040, 1203, 1226:
		return "the server has no connection left"
	case 3159:
		return "the server wants TLS: say ssl_mode=REQUIRED"
	}
	return ""
}
