package tidb

import (
	"context"
	"database/sql"
	"time"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// server is what differs between the databases.
type server interface {
	// connect prepares a pool and warns of what is not used of the URL; nothing is sent yet.
	connect() (db *sql.DB, warnings []string, err error)
	// checkFresh fails where reads may show the past: on a replica.
	checkFresh(ctx context.Context, db *sql.DB) error
	// columns are the names of task_instance's columns; none where there is no such table.
	columns(ctx context.Context, db *sql.DB) ([]string, error)
	// table is the name of a table of Airflow's in a query.
	table(name string) string
	// text is an expression for a column's value as text.
	text(column string) string
	// byKey and byID choose rows: what follows the table's name in a SELECT, with its arguments. More conditions may be
	// added with AND. Both are such that an index is used.
	byKey(columns [4]string, keys []requeue.Key) (choice string, args []any)
	byID(ids []string) (choice string, args []any)
}

const (
	// maxConns are enough: the Batcher has one query under way at a time, Ping another.
	maxConns = 4
	// maxConnLife bounds how long a connection outlives a failover of what it is connected to.
	maxConnLife = 5 * time.Minute
	// maxConnIdle is short, so that a quiet watcher holds no server connections.
	maxConnIdle = time.Minute
	// connectTimeout is for one attempt at one address; connect_timeout in the URL overrides it.
	connectTimeout = 5 * time.Second

	applicationName = "airflow-requeue"
)

func newServer(t target) server {
	switch t.dialect {
	case PostgreSQL:
		return &postgresServer{target: t, schema: searchPath(t.options.get("options"))}
	case MySQL:
		return &mysqlServer{target: t}
	default:
		return &sqliteServer{target: t}
	}
}

func bound(db *sql.DB) *sql.DB {
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	db.SetConnMaxLifetime(maxConnLife)
	db.SetConnMaxIdleTime(maxConnIdle)
	return db
}

// queryStrings are the values of a query's one column.
func queryStrings(ctx context.Context, db *sql.DB, query string, args ...any) (values []string, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, rows.Err()
}
