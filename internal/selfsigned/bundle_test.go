package selfsigned

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// signer is an authority with its key.
type signer struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// newAuthority makes an authority of a name that begins at a time.
func newAuthority(t *testing.T, name string, begins time.Time) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: begins, NotAfter: begins.Add(authorityLife), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return signer{certificate, key}
}

// names are of a bundle's certificates, in order.
func names(bundle []byte) []string {
	var all []string
	for _, c := range authorities(bundle) {
		all = append(all, c.Subject.CommonName)
	}
	return all
}

func TestBundle(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	made := func(name string, age time.Duration) *x509.Certificate {
		return newAuthority(t, name, now.Add(-age)).Certificate
	}
	fresh, older, oldest := made("fresh", time.Minute), made("older", 100*day), made("oldest", 200*day)
	weekOld, ended := made("week old", 8*day), made("ended", 366*day)
	for _, test := range []struct {
		name    string
		own     *x509.Certificate
		trusted []byte
		want    []string
	}{
		{"nobody is trusted yet", fresh, nil, []string{"fresh"}},
		{"what is trusted already stays as it is", fresh, encode([]*x509.Certificate{fresh, older}), []string{"fresh", "older"}},
		{"a new one comes before those that replicas still serve by", fresh, encode([]*x509.Certificate{oldest, older}), []string{"fresh", "older", "oldest"}},
		{"none serves by another a week later", weekOld, encode([]*x509.Certificate{weekOld, older, oldest}), []string{"week old"}},
		{"what has ended goes", fresh, encode([]*x509.Certificate{ended, older}), []string{"fresh", "older"}},
		{"a replica that has not seen the new one yet drops neither", oldest, encode([]*x509.Certificate{weekOld, oldest}), []string{"week old", "oldest"}},
		{"its own, even where the newest is older than a week", oldest, encode([]*x509.Certificate{weekOld, older}), []string{"week old", "oldest"}},
		{"another's, as cert-manager's, until a week has passed", fresh, encode([]*x509.Certificate{made("cert-manager", 30*day)}), []string{"fresh", "cert-manager"}},
		{"twice is once", fresh, encode([]*x509.Certificate{older, older, fresh}), []string{"fresh", "older"}},
		{"what is no certificate goes", fresh, append([]byte("x\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), encode([]*x509.Certificate{older})...), []string{"fresh", "older"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := bundle(test.own, test.trusted, now)
			assert.Equal(t, test.want, names(got))
			assert.Equal(t, got, bundle(test.own, got, now), "a second look changes nothing")
		})
	}
	t.Run("it does not grow for ever", func(t *testing.T) {
		var b []byte
		var want []string
		for i := range 3 * maxAuthorities {
			own := newAuthority(t, string(rune('A'+i)), now.Add(time.Duration(i)*time.Second))
			b = bundle(own.Certificate, b, now.Add(time.Hour))
			want = append(want, own.Subject.CommonName)
		}
		slices.Reverse(want)
		assert.Equal(t, want[:maxAuthorities], names(b))
	})
}

func TestChangeIsGuardedAndTouchesTheCABundlesAlone(t *testing.T) {
	now := time.Now()
	own, other := newAuthority(t, "own", now).Certificate, newAuthority(t, "other", now.Add(-time.Hour)).Certificate
	hooks := func(bundles ...[]byte) *admissionregistrationv1.MutatingWebhookConfiguration {
		c := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}}
		for _, b := range bundles {
			c.Webhooks = append(c.Webhooks, admissionregistrationv1.MutatingWebhook{ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: b}})
		}
		return c
	}
	just, both := encode([]*x509.Certificate{own}), encode([]*x509.Certificate{own, other})
	guard := operation{"test", "/metadata/resourceVersion", "7"}
	for _, test := range []struct {
		name    string
		bundles [][]byte
		want    []operation
		instead bool
	}{
		{"all is right", [][]byte{just, both}, nil, false},
		{"nobody is trusted", [][]byte{nil}, []operation{guard, {"add", "/webhooks/0/clientConfig/caBundle", just}}, false},
		{"another is trusted", [][]byte{just, encode([]*x509.Certificate{other})}, []operation{guard, {"add", "/webhooks/1/clientConfig/caBundle", both}}, true},
		{"the order is another", [][]byte{encode([]*x509.Certificate{other, own})}, []operation{guard, {"add", "/webhooks/0/clientConfig/caBundle", both}}, false},
		{"there are no webhooks", nil, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, instead := change(hooks(test.bundles...), own, now)
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.instead, instead)
		})
	}
}
