// Package tidb reads task instances from Airflow's metadata database: PostgreSQL (also through PgBouncer in transaction
// mode), MySQL and SQLite, by the SQLAlchemy URL that Airflow and its Helm chart use.
//
// Reads are single SELECT statements in autocommit mode on a primary, so that each sees what was committed when it
// began. Nothing is ever written. No error and no message shows any part of the connection URL.
package tidb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
)

// DB is a pool of a few connections to a metadata database. It is safe for concurrent use.
type DB struct {
	target   target
	server   server
	pool     *sql.DB
	warnings []string
	found    atomic.Pointer[inspection]
}

// inspection is what the last look at the schema found.
type inspection struct {
	layout layout
	schema Schema
}

// Open connects to the database that an SQLAlchemy URL names and looks at its schema. It fails where it cannot connect,
// where the server is a replica, and where the schema is not understood; the error says what to do. Options of the URL
// that are not understood, and harmless to leave out, are named in Schema.Warnings.
func Open(ctx context.Context, url string) (*DB, error) {
	target, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	server := newServer(target)
	pool, warnings, err := server.connect()
	if err != nil {
		return nil, err
	}
	db := &DB{target: target, server: server, pool: pool, warnings: warnings}
	if err := db.inspect(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("opening the metadata database (%s): %w", target.dialect, err)
	}
	return db, nil
}

// Ping fails where Lookup would: it asks the server whether it is still a primary and looks at the schema again, since
// an Airflow may be upgraded under a running watcher.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.inspect(ctx); err != nil {
		return fmt.Errorf("asking the metadata database (%s): %w", db.target.dialect, err)
	}
	return nil
}

// Schema is what Open or the last Ping found.
func (db *DB) Schema() Schema {
	return db.found.Load().schema
}

// Close closes all connections.
func (db *DB) Close() {
	_ = db.pool.Close() // nothing is written, so nothing can be lost
}

func (db *DB) inspect(ctx context.Context) error {
	if err := db.server.checkFresh(ctx, db.pool); err != nil {
		return db.target.safe(err)
	}
	columns, err := db.server.columns(ctx, db.pool)
	if err != nil {
		return db.target.safe(err)
	}
	warnings := db.warnings
	revisions, err := queryStrings(ctx, db.pool, "SELECT version_num FROM "+db.server.table("alembic_version"))
	if ctx.Err() != nil {
		return db.target.safe(ctx.Err())
	} else if err != nil {
		// It is for messages only.
		warnings = append(warnings[:len(warnings):len(warnings)],
			fmt.Sprintf("alembic_version cannot be read (%s)", db.target.safe(err)))
	}
	revision := strings.Join(revisions, " ")
	layout, err := detect(columns, revision)
	if err != nil {
		return err
	}
	db.found.Store(&inspection{
		layout: layout,
		schema: Schema{Dialect: db.target.dialect, Shape: layout.shape(), Revision: revision, Warnings: warnings},
	})
	return nil
}
