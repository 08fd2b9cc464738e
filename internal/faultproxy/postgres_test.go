package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/internal/testdb"
)

func TestAFaultOfADatabaseIsWhatAClientIsTold(t *testing.T) {
	server := testdb.PostgreSQL(t)
	admin := server.Database(t, "")
	testdb.Execute(t, admin, "CREATE SEQUENCE asked")
	killed := 0
	for _, tt := range []struct {
		name   string
		fault  QueryFault
		told   func(error) bool
		served bool
	}{
		{"delayed", DelayQuery(time.Millisecond), func(err error) bool { return err == nil }, true},
		{"lost", LoseQuery, ended, false},
		{"answer lost", LoseAnswer, ended, true},
		{"lost with its client", LoseQueryAnd(func() { killed++ }), ended, false},
		{"shut down", AdminShutdown, func(err error) bool {
			var said *pgconn.PgError
			return errors.As(err, &said) && said.Code == "57P01"
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := NewPostgres(t, testdb.Host, server.Port)
			config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", testdb.Host, p.Port, testdb.AdminUser))
			require.NoError(t, err)
			config.Password = testdb.AdminPassword
			config.DefaultQueryExecMode = pgx.QueryExecModeExec // the extended protocol, as the watcher's
			db, err := pgx.ConnectConfig(t.Context(), config)
			require.NoError(t, err)
			t.Cleanup(func() { _ = db.Close(context.Background()) })
			ask := func() (n int, err error) {
				err = db.QueryRow(t.Context(), "SELECT nextval($1::text::regclass)", "asked").Scan(&n)
				return n, err
			}
			p.At(2, tt.fault)
			first, err := ask()
			require.NoError(t, err)
			_, err = ask()
			assert.True(t, tt.told(err), "%v", err)
			assert.Equal(t, 2, p.Queries())
			var last int
			require.NoError(t, admin.QueryRowContext(t.Context(), "SELECT last_value FROM asked").Scan(&last))
			assert.Equal(t, tt.served, last > first)
		})
	}
	assert.Equal(t, 1, killed)
}

// ended says that a connection ended without a word.
func ended(err error) bool {
	var said *pgconn.PgError
	return err != nil && !errors.As(err, &said)
}
