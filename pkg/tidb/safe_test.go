package tidb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// secrets are what no error may show, whatever a URL is like.
func secrets() []string {
	return []string{"u5er", "s3cr3t", "p4ss", "h0st", "d4tabase"}
}

func assertShowsNothing(t *testing.T, err error) {
	t.Helper()
	for err := err; err != nil; err = errors.Unwrap(err) {
		for _, format := range []string{"%v", "%+v", "%#v"} {
			text := strings.ToLower(fmt.Sprintf(format, err))
			for _, secret := range secrets() {
				assert.NotContains(t, text, secret)
			}
		}
	}
}

func TestNoErrorShowsAnyPartOfTheURL(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	rude := listen(t, "HTTP/1.1 400 u5er s3cr3t h0st d4tabase\r\n\r\n")
	notDB := filepath.Join(t.TempDir(), "s3cr3t.db")
	require.NoError(t, os.WriteFile(notDB, []byte(strings.Repeat("s3cr3t", 1000)), 0o600))

	var urls []string
	for _, scheme := range []string{"postgresql", "postgresql+psycopg2", "mysql", "mysql+pymysql"} {
		for _, rest := range []string{
			"u5er:s3cr3t@127.0.0.1:1/d4tabase",
			"u5er:s3cr3t@h0st.invalid/d4tabase",
			"u5er:s3cr3t@h0st.invalid:99999/d4tabase",
			"u5er:s3cr3t@h0st.invalid:p4ss/d4tabase",
			"u5er:s3cr3t@p4ss@127.0.0.1:1/d4tabase",
			"u5er:s3cr3t/p4ss@127.0.0.1:1/d4tabase",
			"u5er:s3cr3t?p4ss#p4ss%zz%p4ss@127.0.0.1:1/d4tabase",
			"u5er/s3cr3t:p4ss@127.0.0.1:1/d4tabase",
			"u5er:s3cr3t",
			"u5er:s3cr3t/d4tabase",
			"u5er:s3cr3t@[h0st/d4tabase",
			"u5er:s3cr3t@[h0st]:1/d4tabase",
			"u5er:s3cr3t@127.0.0.1:1/d4tabase?sslmode=p4ss&ssl_mode=p4ss",
			"u5er:s3cr3t@127.0.0.1:1/d4tabase?sslmode=verify-full&sslrootcert=/p4ss&ssl_ca=/h0st/p4ss",
			"u5er:s3cr3t@127.0.0.1:1/d4tabase?connect_timeout=p4ss&password=p4ss&passwd=p4ss&unknown=p4ss",
			"u5er:s3cr3t@127.0.0.1:1/d4tabase?host=h0st.invalid&port=p4ss&unix_socket=/h0st/p4ss",
			"u5er:s3cr3t@127.0.0.1:1/d4tabase?host=/h0st/p4ss&sslcert=/p4ss&sslkey=/p4ss&ssl_cert=/p4ss&ssl_key=/p4ss",
			"u5er:s3cr3t@" + silent.Addr().String() + "/d4tabase?connect_timeout=1",
			"u5er:s3cr3t@" + rude + "/d4tabase",
			"u5er:s3cr3t@" + rude + "/d4tabase?sslmode=disable&ssl_mode=DISABLED",
		} {
			urls = append(urls, scheme+"://"+rest)
		}
	}
	urls = append(urls, "u5er:s3cr3t@h0st/d4tabase", "s3cr3t://u5er@h0st", "postgresql:/u5er:s3cr3t@h0st", " ", "s3cr3t",
		"postgresql+s3cr3t://127.0.0.1:1/d4tabase", "mssql+p4ss://u5er:s3cr3t@h0st/d4tabase", "oracle+p4ss://u5er:s3cr3t@h0st",
		"sqlite:////nowhere/s3cr3t/d4tabase", "sqlite:///"+notDB, "sqlite://u5er:s3cr3t@h0st/d4tabase")
	t.Run("of", func(t *testing.T) {
		for _, url := range urls {
			t.Run(url, func(t *testing.T) {
				t.Parallel() // some wait for DNS, or for a server that says nothing
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				_, err := Open(ctx, url)
				require.Error(t, err)
				assertShowsNothing(t, err)
			})
		}
	})
}

// listen answers every connection with a text that is no answer.
func listen(t *testing.T, text string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestErrorsSayWhatToDo(t *testing.T) {
	postgres, err := parseURL("postgresql://u5er:s3cr3t@h0st/d4tabase?sslmode=require")
	require.NoError(t, err)
	my, err := parseURL("mysql://u5er:s3cr3t@h0st/d4tabase")
	require.NoError(t, err)
	wrapped := func(err error) error {
		return errors.Join(errors.New("failed to connect to u5er at h0st"), fmt.Errorf("failed to connect to h0st: %w", err))
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.DNSError{Name: "h0st", IsNotFound: true}, "the host of the connection URL is not found by DNS"},
		{syscall.ECONNREFUSED, "nothing listens at the address of the connection URL"},
		{syscall.EHOSTUNREACH, "there is no route to the host of the connection URL"},
		{context.DeadlineExceeded, "the database did not answer in time"},
		{os.ErrDeadlineExceeded, "the database did not answer in time"},
		{io.ErrUnexpectedEOF, "the server closed the connection"},
		{syscall.ECONNRESET, "the server closed the connection"},
		{tls.RecordHeaderError{Msg: "h0st"}, "the server does not speak TLS on the port of the connection URL"},
		{errors.New("something else"), "something else"},
		{errors.New("something of d4tabase"), "the error is not shown, since a part of the connection URL is in it"},
		{&pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: client_encoding"},
			"PgBouncer refused a start-up parameter: let it ignore application_name and client_encoding " +
				"(ignore_startup_parameters), or connect to PostgreSQL itself"},
		{&pgconn.PgError{Severity: "FATAL", Code: "53300", Message: "sorry, too many clients already"},
			"the server has no connection left"},
		{&pgconn.PgError{Severity: "FATAL", Code: "28000", Message: `no pg_hba.conf entry for host "10.0.0.1", user "u5er"`},
			"the server refused the user or the password of the connection URL, or this host or its use of TLS (pg_hba.conf)"},
		{&pgconn.PgError{Severity: "ERROR", Code: "XX000", Message: "cache lookup failed"}, "ERROR: cache lookup failed (SQLSTATE XX000)"},
		{&pgconn.PgError{Severity: "ERROR", Code: "XX000", Message: "cache lookup failed for u5er"},
			"the error is not shown, since a part of the connection URL is in it"},
		{&mysql.MySQLError{Number: 1045, Message: "Access denied for user 'u5er'@'h0st' (using password: YES)"},
			"the server refused the user or the password of the connection URL, or this host"},
		{&mysql.MySQLError{Number: 1040, Message: "Too many connections"}, "the server has no connection left"},
		{mysql.ErrNoTLS, "the server does not offer TLS, and the connection URL asks for it: switch TLS on there, " +
			"or say ssl_mode=PREFERRED or DISABLED"},
		{&mysql.MySQLError{Number: 1205, Message: "Lock wait timeout exceeded"}, "Error 1205: Lock wait timeout exceeded"},
	} {
		target := postgres
		if errors.As(c.err, new(*mysql.MySQLError)) || errors.Is(c.err, mysql.ErrNoTLS) {
			target = my
		}
		safe := target.safe(wrapped(c.err))
		assert.EqualError(t, safe, c.want)
		assert.Equal(t, errors.Is(c.err, context.DeadlineExceeded), errors.Is(safe, context.DeadlineExceeded))
		assertShowsNothing(t, safe)
		assert.Equal(t, safe, target.safe(fmt.Errorf("again: %w", safe)))
	}
	assert.NoError(t, postgres.safe(nil))
	require.ErrorIs(t, postgres.safe(wrapped(context.Canceled)), context.Canceled)
}
