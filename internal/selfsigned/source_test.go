package selfsigned

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
)

// leaf is a serving certificate by an authority.
func (s signer) leaf(t *testing.T, begins time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: begins, NotAfter: begins.Add(leafLife)}
	der, err := x509.CreateCertificate(rand.Reader, template, s.Certificate, key.Public(), s.key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return certificate
}

func TestACertificateIsServedWhenEveryAPIServerTrustsIt(t *testing.T) {
	begin := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	first, second := newAuthority(t, "first", begin), newAuthority(t, "second", begin.Add(time.Hour))
	type look struct {
		at      time.Duration
		own     *x509.Certificate
		instead bool
	}
	for _, test := range []struct {
		name    string
		serving *x509.Certificate
		looks   []look
		newest  *x509.Certificate
		from    time.Duration // it is served from then on, and not a second earlier
	}{
		{"the first, once its authority is trusted", nil, []look{{time.Minute, first.Certificate, false}}, first.leaf(t, begin), time.Minute},
		{"the first, a while later where others are trusted instead", nil, []look{{time.Minute, first.Certificate, true}}, first.leaf(t, begin), time.Minute + settle},
		{"a later look changes nothing", nil, []look{{time.Minute, first.Certificate, true}, {time.Minute + time.Second, first.Certificate, false}},
			first.leaf(t, begin), time.Minute + settle},
		{"a renewed one, when every clock has come to its beginning", first.leaf(t, begin), []look{{0, first.Certificate, false}},
			first.leaf(t, begin.Add(time.Hour)), time.Hour + settle},
		{"one by a new authority, a while after that is trusted, whoever saw to it", first.leaf(t, begin), []look{{0, first.Certificate, false}, {2 * time.Hour, second.Certificate, false}},
			second.leaf(t, begin.Add(time.Hour)), 2*time.Hour + settle},
		{"any, when the one before it has ended", first.leaf(t, begin), nil, second.leaf(t, begin.Add(time.Hour)), leafLife + time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(begin)
			s := &Source{Options: Options{Clock: clock}}
			if test.serving != nil {
				s.serving = &tls.Certificate{Leaf: test.serving}
			}
			for _, l := range test.looks {
				s.trusted.set(l.own, l.instead, begin.Add(l.at))
			}
			clock.SetTime(begin.Add(test.from - time.Second))
			assert.False(t, s.may(test.newest))
			clock.SetTime(begin.Add(test.from))
			assert.True(t, s.may(test.newest))
		})
	}
	t.Run("none by an authority that is not known to be trusted", func(t *testing.T) {
		s := &Source{Options: Options{Clock: clocktesting.NewFakePassiveClock(begin.Add(24 * time.Hour))}}
		assert.False(t, s.may(first.leaf(t, begin)))
		s.trusted.set(second.Certificate, false, begin)
		assert.False(t, s.may(first.leaf(t, begin)))
	})
}

func TestTroubleIsSaidOnceUntilItWasGone(t *testing.T) {
	var b bytes.Buffer
	clock := clocktesting.NewFakePassiveClock(time.Now())
	log := &trouble{clock: clock, log: slog.New(slog.NewTextHandler(&b, nil))}
	after := func(d time.Duration, err error) {
		clock.SetTime(clock.Now().Add(d))
		log.Error(err, "error ensuring CA")
	}
	down := errors.New("down")
	for range 20 {
		after(10*time.Second, down)
		after(time.Second, errors.New("other"))
		after(0, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, "ca", down))
	}
	log.say("caBundle not kept right", nil)
	log.Info(0, "Serving certificate generated successfully")
	after(2*quiet, down)

	var said []string
	for line := range strings.Lines(b.String()) {
		_, rest, _ := strings.Cut(line, "level=")
		said = append(said, strings.TrimSpace(rest))
	}
	assert.Equal(t, []string{
		`WARN msg="self-signed certificate in trouble" what="not signed" error=down`,
		`WARN msg="self-signed certificate in trouble" what="not signed" error=other`,
		`WARN msg="self-signed certificate in trouble" what="not signed" error=down`,
	}, said)
}
