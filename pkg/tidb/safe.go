package tidb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

var errReplica = errors.New("this is a replica, whose rows may be old: the connection URL is to name the primary, " +
	"the one that Airflow's scheduler uses")

// safeError says what went wrong without anything of the connection URL: no user, password, host or database. The
// drivers' own errors show them, so none of them is kept; of causes only a context's end is.
type safeError struct {
	text  string
	cause error // context.Canceled, context.DeadlineExceeded or nil
}

func (e *safeError) Error() string { return e.text }
func (e *safeError) Unwrap() error { return e.cause }

// safe makes an error of a driver one that may be logged.
func (t target) safe(err error) error {
	var done *safeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &done):
		return done
	case errors.Is(err, context.Canceled):
		return &safeError{text: context.Canceled.Error(), cause: context.Canceled}
	}
	safe := &safeError{text: t.describe(err)}
	if errors.Is(err, context.DeadlineExceeded) {
		safe.cause = context.DeadlineExceeded
	}
	return safe
}

func (t target) describe(err error) string {
	if errors.Is(err, errReplica) {
		return errReplica.Error()
	}
	if advice := t.advise(err); advice != "" {
		return advice
	}
	if advice := adviseNetwork(err); advice != "" {
		return advice
	}
	if text := innermost(err).Error(); !t.shows(text) {
		return text
	}
	return "the error is not shown, since a part of the connection URL is in it"
}

// innermost is where an error comes from; what is wrapped around it names the host, the user and the database. Of several
// attempts it is the last.
func innermost(err error) error {
	for {
		switch wrapping := err.(type) { //nolint:errorlint // this is what unwraps
		case interface{ Unwrap() []error }:
			all := wrapping.Unwrap()
			if len(all) == 0 {
				return err
			}
			err = all[len(all)-1]
		case interface{ Unwrap() error }:
			inner := wrapping.Unwrap()
			if inner == nil {
				return err
			}
			err = inner
		default:
			return err
		}
	}
}

// advise says in words of its own what went wrong and what to do; nothing of an error that it does not know.
func (t target) advise(err error) string {
	switch t.dialect {
	case PostgreSQL:
		return advisePostgres(err, t.options.get("sslmode"))
	case MySQL:
		return adviseMySQL(err)
	default:
		return adviseSQLite(err)
	}
}

// shows says whether a text has a part of the connection URL in it. A password of one letter makes it say so of nearly
// everything, which is the safe side.
func (t target) shows(text string) bool {
	secrets := []string{t.url, t.user, t.password, t.host, t.database}
	for _, option := range t.options {
		switch option.name {
		case "host", "user", "dbname":
			secrets = append(secrets, option.value)
		default:
			if strings.Contains(option.name, "pass") || strings.Contains(option.name, "token") {
				secrets = append(secrets, option.value)
			}
		}
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

func adviseNetwork(err error) string {
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		notTLS    tls.RecordHeaderError
		timeout   net.Error
	)
	switch {
	case errors.As(err, &dns):
		return "the host of the connection URL is not found by DNS"
	case errors.As(err, &authority):
		return "the server's certificate is not signed by an authority that is trusted here: " +
			"sslrootcert or ssl_ca in the connection URL names the file of the right one"
	case errors.As(err, &name):
		return "the server's certificate is not for the host of the connection URL"
	case errors.As(err, &notTLS):
		return "the server does not speak TLS on the port of the connection URL"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at the address of the connection URL"
	case errors.Is(err, syscall.ENOENT):
		return "the Unix socket, or another file, that the connection URL names is not there"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route to the host of the connection URL"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "the database did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		return "the server closed the connection"
	}
	return ""
}
