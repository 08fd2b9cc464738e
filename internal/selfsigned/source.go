// Package selfsigned is the webhook's certificate where nobody else sees to it: signed by an authority of the installation's own,
// which is kept in a Secret that all replicas share and is put into the webhook configuration. Authority and certificate are
// cert-manager's, as its own webhook has them. What is ours is that a new authority is trusted before anybody serves by it.
package selfsigned

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"time"

	certificates "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/cert-manager/cert-manager/pkg/server/tls/authority"
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/httpserve"
)

// settle is how long a new certificate waits while the one before it is good: every API server has then seen that its authority is
// trusted, and their clocks have come to its beginning.
const settle = 30 * time.Second

// Options are who is certified, and where the authority is kept and trusted.
type Options struct {
	// Namespace is of Secret and Service.
	Namespace string
	// Secret keeps the authority. It must be there: without data, the first replica fills it.
	Secret string
	// Service is the name that the API server calls the webhook by.
	Service string
	// Configuration is the MutatingWebhookConfiguration whose caBundle is kept right; empty where somebody else does that.
	Configuration string

	Config *rest.Config
	Log    *slog.Logger
	Clock  clock.PassiveClock
}

// Source is a serving certificate that renews itself.
type Source struct {
	Options
	client    kubernetes.Interface
	authority *authority.DynamicAuthority
	source    *certificates.DynamicSource
	trouble   *trouble
	trusted   trust

	mu      sync.Mutex
	serving *tls.Certificate
}

// New reads nothing yet.
func New(o Options) (*Source, error) {
	config := rest.CopyConfig(o.Config)
	config.Timeout = 0 // a watch lasts
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	a := &authority.DynamicAuthority{
		SecretNamespace: o.Namespace, SecretName: o.Secret, RESTConfig: config,
		CommonName: "airflow-requeue-ca", CADuration: authorityLife, LeafDuration: leafLife,
	}
	source := &certificates.DynamicSource{DNSNames: []string{o.Service + "." + o.Namespace + ".svc"}, Authority: a}
	return &Source{Options: o, client: client, authority: a, source: source, trouble: &trouble{log: o.Log, clock: o.Clock}}, nil
}

// Run keeps authority, certificate and caBundle right until ctx is done.
func (s *Source) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	s.authority.WatchRotation(changed)
	defer s.authority.StopWatchingRotation(changed)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.source.Start(logr.NewContext(ctx, logr.New(s.trouble))) })
	group.Go(func() error { s.inject(ctx, changed); return nil })
	return group.Wait()
}

// Config is for servers.
func (s *Source) Config() *tls.Config { return httpserve.TLS(s.certificate) }

// Ready fails while there is no certificate that is trusted.
func (s *Source) Ready() error {
	_, err := s.certificate(nil)
	return err
}

// certificate is the newest that is trusted and settled; until then the one before it.
func (s *Source) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	newest, err := s.source.GetCertificate(hello)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if newest != s.serving && s.may(newest.Leaf) {
		s.serving = newest
		s.Log.Info("serving certificate loaded", "until", newest.Leaf.NotAfter)
	}
	if s.serving == nil {
		return nil, fmt.Errorf("not trusted yet: %w", certificates.ErrNotAvailable)
	}
	return s.serving, nil
}

// may reports whether a certificate may take the place of the one that is served.
func (s *Source) may(newest *x509.Certificate) bool {
	now := s.Clock.Now()
	switch {
	case s.serving == nil:
		return s.trusted.in(newest, now)
	case now.After(s.serving.Leaf.NotAfter): // nothing can be worse
		return true
	}
	return s.trusted.in(newest, now) && !now.Before(newest.NotBefore.Add(settle))
}

// trust is which authority the API server trusts, as far as is known, and from when on. The zero value is none.
type trust struct {
	mu        sync.Mutex
	authority *x509.Certificate
	from      time.Time
}

// in reports whether every API server trusts whom a certificate is signed by.
func (t *trust) in(leaf *x509.Certificate, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.authority != nil && leaf.CheckSignatureFrom(t.authority) == nil && !now.Before(t.from)
}

// set is for each look that finds the authority trusted. There is nothing to wait for with the first, unless others are trusted
// instead.
func (t *trust) set(authority *x509.Certificate, instead bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.authority == nil && !instead:
		t.from = now
	case t.authority == nil || !t.authority.Equal(authority):
		t.from = now.Add(settle)
	}
	t.authority = authority
}
