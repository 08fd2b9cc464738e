package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

const (
	// dialTimeout is short: a Service without endpoints may never answer.
	dialTimeout = 3 * time.Second
	// soon is before an expiry that nobody has seen to: cert-manager renews weeks ahead, and a self-signed webhook its
	// certificate of a week at two thirds, 56 hours ahead.
	soon = 48 * time.Hour
)

// authority says whether the API server may trust the webhook: by the CA in its configuration, and by the certificate that the
// webhook shows us, where it can be reached from here.
func (c *checker) authority(ctx context.Context) Finding {
	config := c.hook.ClientConfig
	certificates := "kubectl -n " + c.Lease.Namespace + " get certificates"
	if len(config.CABundle) == 0 && config.Service != nil {
		return fail("cert-manager's cainjector puts it there once the certificate is issued: "+certificates+
			"; a self-signed webhook puts it there itself, see its log; else set caBundle yourself", "MutatingWebhookConfiguration %s has no caBundle yet", c.Installation)
	}
	until, found := judgeAuthority(config.CABundle, c.Clock.Now(), "renew the authority, and put it into caBundle (cert-manager does both): "+certificates)
	if found.State == Fail {
		return found
	}
	address, name, err := target(config)
	if err != nil {
		return warn("mend clientConfig of MutatingWebhookConfiguration "+c.Installation, "%v", err)
	}
	shown, err := handshake(ctx, address, name, config.CABundle)
	var distrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &distrusted):
		return fail("the CA is to be that of the webhook's certificate, which is to be for "+name+" and in date: "+certificates+
			"; cert-manager issues a certificate anew when its Secret is deleted", "it does not vouch for the webhook's certificate: %v", distrusted.Err)
	case found.State != OK:
		return found
	case err != nil:
		return ok("%s; the webhook's certificate can't be seen from here", until)
	case shown.NotAfter.Sub(c.Clock.Now()) < soon:
		return warn("see why it was not renewed: "+certificates+"; a self-signed webhook says it in its log", "the webhook's certificate expires on %s", day(shown.NotAfter))
	}
	return ok("%s; the webhook's certificate, by it, until %s", until, day(shown.NotAfter))
}

// judgeAuthority says until when some certificate of the bundle is valid.
func judgeAuthority(bundle []byte, now time.Time, toDo string) (until string, found Finding) {
	if len(bundle) == 0 {
		return "the system's", ok("")
	}
	var last time.Time // the end of the one that is valid longest
	var ended time.Time
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil || now.Before(certificate.NotBefore) {
			continue
		}
		if ended = latest(ended, certificate.NotAfter); now.Before(certificate.NotAfter) {
			last = latest(last, certificate.NotAfter)
		}
	}
	switch {
	case last.IsZero() && ended.IsZero():
		return "", fail(toDo, "caBundle has no certificate that is valid by now")
	case last.IsZero():
		return "", fail(toDo, "expired on %s", day(ended))
	case last.Sub(now) < soon:
		return "", warn(toDo, "expires on %s", day(last))
	}
	return "until " + day(last), ok("")
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// handshake is as much as is needed to see a server's certificate and to verify it.
func handshake(ctx context.Context, address, name string, bundle []byte) (*x509.Certificate, error) {
	config := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
	if len(bundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(bundle)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// target is where the API server reaches the webhook, and the name that it expects in its certificate.
func target(config admissionregistrationv1.WebhookClientConfig) (address, name string, err error) {
	if s := config.Service; s != nil {
		name, port := s.Name+"."+s.Namespace+".svc", int32(443)
		if s.Port != nil {
			port = *s.Port
		}
		return fmt.Sprintf("%s:%d", name, port), name, nil
	}
	if config.URL == nil {
		return "", "", errors.New("clientConfig has neither a service nor a URL")
	}
	u, err := url.Parse(*config.URL)
	if err != nil {
		return "", "", fmt.Errorf("reading the webhook's URL: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), u.Hostname(), nil
}
