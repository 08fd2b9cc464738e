package httpserve

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math"
	"time"

	certificates "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/go-logr/logr"
)

// certificateInterval is how often the certificate's files are read.
const certificateInterval = 2 * time.Second

// Certificate is a serving certificate that follows its files.
type Certificate struct {
	source *certificates.FileCertificateSource
	log    *slog.Logger
}

// NewCertificate reads nothing yet. A bad change of the files never ends anything: the last good pair stays.
func NewCertificate(certFile, keyFile string, log *slog.Logger) *Certificate {
	return &Certificate{log: log, source: &certificates.FileCertificateSource{
		CertPath: certFile, KeyPath: keyFile, UpdateInterval: certificateInterval, MaxFailures: math.MaxInt,
	}}
}

// Run follows the files until ctx is done.
func (c *Certificate) Run(ctx context.Context) error {
	return c.source.Start(logr.NewContext(ctx, logr.New(&certificateLog{log: c.log})))
}

// Config is for servers.
func (c *Certificate) Config() *tls.Config { return TLS(c.source.GetCertificate) }

// TLS is for servers with a certificate that changes. Every API server that the webhook works with, 1.27 and later, speaks TLS 1.3,
// and nobody else has anything to say to it.
func TLS(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: certificate}
}

// Ready fails while there is no certificate yet.
func (c *Certificate) Ready() error {
	_, err := c.source.GetCertificate(nil) // its Healthy is a data race
	return err
}

// certificateLog makes one line of every change of what the source says at each look.
type certificateLog struct {
	log     *slog.Logger
	changed bool
	failed  string
}

// Init is logr.LogSink's; nothing is to be prepared.
func (*certificateLog) Init(logr.RuntimeInfo) {}

// Enabled is for all levels: they tell a look that went well from a change.
func (*certificateLog) Enabled(int) bool { return true }

// WithValues adds nothing.
func (l *certificateLog) WithValues(...any) logr.LogSink { return l }

// WithName adds nothing.
func (l *certificateLog) WithName(string) logr.LogSink { return l }

// certificateLooked is the level at which the source says that a look went well (cert-manager, logs.DebugLevel).
const certificateLooked = 4

// Info is told at a lower level of a change that may yet turn out bad.
func (l *certificateLog) Info(level int, _ string, _ ...any) {
	if level < certificateLooked {
		l.changed = true
		return
	}
	if l.changed || l.failed != "" {
		l.log.Info("serving certificate loaded")
	}
	l.changed, l.failed = false, ""
}

// Error is told at every look that goes badly.
func (l *certificateLog) Error(err error, _ string, _ ...any) {
	l.changed = false
	if err.Error() != l.failed {
		l.failed = err.Error()
		l.log.Warn("serving certificate not loaded", "error", err)
	}
}
