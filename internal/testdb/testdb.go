// Package testdb starts private database servers for tests: each in a temporary directory, on a free port of loopback,
// as an unprivileged user where the test runs as root, and gone when the test ends. hack/databases.sh installs them.
package testdb

import (
	"database/sql"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// Users of every server.
const (
	AdminUser     = "admin"
	AdminPassword = "4dm1n'spass"
	// ReaderUser may read task_instance and alembic_version of the databases that Server.Create makes, and nothing else.
	ReaderUser     = "reader"
	ReaderPassword = "r3ader/p@ss:w?rd#100%&+ ü" //nolint:gosec // of a server that lives as long as a test

	// Host is where servers listen.
	Host = "127.0.0.1"
)

// Server is a server that runs.
type Server struct {
	Port   int
	CAFile string // the authority of the server's certificate, which is for localhost and Host

	scheme   string // of an SQLAlchemy URL
	database func(tb testing.TB, name string) *sql.DB
	grants   func(database string) []string
	copy     func(tb testing.TB, from, to string)
}

// URL is a database's SQLAlchemy URL for a user.
func (s *Server) URL(database, user, password string) string {
	u := url.URL{Scheme: s.scheme, User: url.UserPassword(user, password), Host: net.JoinHostPort(Host, strconv.Itoa(s.Port)), Path: "/" + database}
	return u.String()
}

// Database opens a database as the administrator. It executes several statements at a time where asked to.
func (s *Server) Database(tb testing.TB, name string) *sql.DB {
	tb.Helper()
	db := s.database(tb, name)
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// Create makes a database, with what ReaderUser is to read in it, and opens it.
func (s *Server) Create(tb testing.TB, name, ddl string) *sql.DB {
	tb.Helper()
	Execute(tb, s.Database(tb, ""), "CREATE DATABASE "+name)
	db := s.Database(tb, name)
	Execute(tb, db, ddl)
	Execute(tb, db, s.grants(name)...)
	return db
}

// Copy makes a database as another one is, with what ReaderUser is to read in it, and opens it.
func (s *Server) Copy(tb testing.TB, from, to string) *sql.DB {
	tb.Helper()
	s.copy(tb, from, to)
	db := s.Database(tb, to)
	Execute(tb, db, s.grants(to)...)
	return db
}

// Execute executes statements.
func Execute(tb testing.TB, db *sql.DB, statements ...string) {
	tb.Helper()
	for _, statement := range statements {
		if _, err := db.ExecContext(tb.Context(), statement); err != nil {
			tb.Fatalf("executing %s: %v", statement, err)
		}
	}
}

// binary finds a program on the PATH, or where Debian has it. Without it the test is skipped; but not in CI, where a
// test that does not run would look like one that passes.
func binary(tb testing.TB, name string) string {
	tb.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, directory := range []string{"/usr/lib/postgresql/*/bin", "/usr/sbin", "/usr/local/sbin"} {
		paths, _ := filepath.Glob(filepath.Join(directory, name))
		if len(paths) > 0 {
			slices.Sort(paths)
			return paths[len(paths)-1]
		}
	}
	const message = "%s is not installed: run hack/databases.sh"
	if os.Getenv("CI") == "true" {
		tb.Fatalf(message, name)
	}
	tb.Skipf(message, name)
	return ""
}

func freePort(tb testing.TB) int {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", net.JoinHostPort(Host, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port
}
