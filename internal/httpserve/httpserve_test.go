package httpserve

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	certutil "k8s.io/client-go/util/cert"
)

const (
	waitFor = 20 * time.Second
	tick    = 20 * time.Millisecond
)

func TestAdminNamesTheChecksThatFail(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "airflow_requeue_test"}))
	failing := map[string]error{}
	check := func(name string) Check { return Check{name, func() error { return failing[name] }} }
	admin := Admin(registry, check("keys"), check("lease"), check("shutdown"))
	get := func(path string) (int, string) {
		recorder := httptest.NewRecorder()
		admin.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		return recorder.Code, recorder.Body.String()
	}
	assertAnswer := func(path string, code int, body string) {
		t.Helper()
		gotCode, got := get(path)
		assert.Equal(t, code, gotCode)
		assert.Equal(t, body, got)
	}

	assertAnswer("/livez", 200, "ok\n")
	assertAnswer("/readyz", 200, "ok\n")
	_, metrics := get("/metrics")
	assert.Contains(t, metrics, "airflow_requeue_test 0\n")

	failing["keys"], failing["shutdown"] = errors.New("none"), errors.New("under way")
	assertAnswer("/readyz", 503, "keys: none\nshutdown: under way\n")
	assertAnswer("/livez", 200, "ok\n")
	assertAnswer("/", 404, "404 page not found\n")
}

func TestServeLetsRequestsUnderWayEnd(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	server := New(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-goOn
		_, _ = io.WriteString(w, "done")
	}), nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, server, listener) }()
	answered := make(chan string, 1)
	go func() {
		response, err := http.Get("http://" + listener.Addr().String())
		if err != nil {
			answered <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answered <- string(body)
	}()
	<-arrived
	cancel()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, waitFor, tick, "no new request is taken")
	assert.Empty(t, ended)

	close(goOn)

	assert.Equal(t, "done", <-answered)
	assert.NoError(t, <-ended)
}

func TestServeFailsWithItsListener(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	err = Serve(t.Context(), New(http.NotFoundHandler(), nil, slog.New(slog.DiscardHandler)), listener)
	assert.ErrorContains(t, err, "serving "+listener.Addr().String()+": ")
	assert.ErrorIs(t, err, net.ErrClosed)
}

func TestLingerEndsLaterThanItsParent(t *testing.T) {
	t.Run("by the delay", func(t *testing.T) {
		parent, end := context.WithCancel(t.Context())
		later, cancel := Linger(parent, 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		end()
		<-later.Done()
		assert.GreaterOrEqual(t, time.Since(start), 50*time.Millisecond)
	})
	t.Run("unless it is ended itself", func(t *testing.T) {
		later, cancel := Linger(t.Context(), time.Hour)
		cancel()
		<-later.Done()
	})
}

func TestCertificateFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	log := &buffer{}
	certificate := NewCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(log, nil)))
	assert.EqualError(t, certificate.Ready(), "no tls.Certificate available")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, certificate.Run(ctx)) })
	running.Go(func() {
		server := New(http.NotFoundHandler(), certificate.Config(), slog.New(slog.DiscardHandler))
		assert.NoError(t, Serve(ctx, server, listener))
	})
	defer running.Wait()
	defer cancel()

	for _, host := range []string{"first.example", "second.example"} {
		cert, key, err := certutil.GenerateSelfSignedCertKey(host, nil, nil)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(certFile, cert, 0o600))
		require.NoError(t, os.WriteFile(keyFile, key, 0o600))
		require.Eventually(t, func() bool {
			conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return false
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].VerifyHostname(host) == nil
		}, waitFor, tick)
		assert.NoError(t, certificate.Ready())
	}

	require.NoError(t, os.Remove(certFile))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "not loaded") }, waitFor, tick)
	assert.NoError(t, certificate.Ready(), "the last good one stays")
}

func TestCertificateLogSaysEveryChangeOnce(t *testing.T) {
	var b bytes.Buffer
	l := &certificateLog{log: slog.New(slog.NewTextHandler(&b, nil))}
	changed := func() {
		l.Info(2, "detected private key or certificate data on disk has changed. reloading certificate")
	}
	fine := func() { l.Info(4, "refreshed certificate from data on disk") }
	broken := func() { l.Error(errors.New("broken"), "failed to update certificate from disk") }
	for _, step := range []func(){broken, broken, changed, broken, changed, fine, fine, fine, changed, broken, fine, fine} {
		step()
	}
	var said []string
	for line := range strings.Lines(b.String()) {
		_, rest, _ := strings.Cut(line, "level=")
		said = append(said, strings.TrimSpace(rest))
	}
	assert.Equal(t, []string{
		`WARN msg="serving certificate not loaded" error=broken`,
		`INFO msg="serving certificate loaded"`,
		`WARN msg="serving certificate not loaded" error=broken`,
		`INFO msg="serving certificate loaded"`,
	}, said)
}

// buffer is for one writer and one reader at a time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
