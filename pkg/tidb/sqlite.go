package tidb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// sqliteServer is a SQLite file, which only Airflow's own development mode uses.
type sqliteServer struct{ target }

func (s *sqliteServer) connect() (*sql.DB, []string, error) {
	path := strings.TrimPrefix(s.database, "file:")
	if s.host != "" || path == "" || path == ":memory:" {
		return nil, nil, errors.New("reading the connection URL: it names no SQLite file; " +
			"an absolute path takes four slashes: sqlite:////path/to/airflow.db")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fmt.Errorf("finding the SQLite file: %w", err)
	}
	// Read-only, and patient with a writer. A file that is not there is not made.
	name := (&url.URL{Scheme: "file", Path: path}).String() + "?mode=ro&_pragma=busy_timeout(5000)"
	connector, err := sqlite.NewConnector(name)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the connection URL: %w", s.safe(err))
	}
	return bound(sql.OpenDB(connector)), nil, nil
}

func (s *sqliteServer) table(name string) string { return name }

// checkFresh has nothing to check: a file is no replica.
func (s *sqliteServer) checkFresh(context.Context, *sql.DB) error { return nil }

func (s *sqliteServer) columns(ctx context.Context, db *sql.DB) ([]string, error) {
	return queryStrings(ctx, db, "SELECT name FROM pragma_table_info('task_instance')")
}

// text keeps the driver from guessing at what a column declared as a time holds.
func (s *sqliteServer) text(column string) string { return "CAST(" + column + " AS TEXT)" }

func (s *sqliteServer) byKey(columns [4]string, keys []requeue.Key) (string, []any) {
	return fmt.Sprintf("WHERE (%s) IN (VALUES %s)", strings.Join(columns[:], ", "), repeat("(?, ?, ?, ?)", len(keys))), keyArgs(keys)
}

func (s *sqliteServer) byID(ids []string) (string, []any) {
	return fmt.Sprintf("WHERE id IN (%s)", repeat("?", 2*len(ids))), idArgs(ids)
}

func adviseSQLite(err error) string {
	var liteErr *sqlite.Error
	if !errors.As(err, &liteErr) {
		return ""
	}
	const primary = 0xff // the rest of the code says more than is needed here
	switch liteErr.Code() & primary {
	case 5, 6: // SQLITE_BUSY, SQLITE_LOCKED
		return "the SQLite file is locked by another process"
	case 14: // SQLITE_CANTOPEN
		return "the SQLite file that the connection URL names is not there or cannot be opened"
	case 11, 26: // SQLITE_CORRUPT, SQLITE_NOTADB
		return "the file that the connection URL names is not a SQLite database, or is damaged"
	case 1: // SQLITE_ERROR
		if strings.Contains(err.Error(), "no such") {
			return "the tables are no longer those that were there at the start; has Airflow been upgraded?"
		}
	}
	return ""
}
