package httpserve

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	certutil "k8s.io/client-go/util/cert"
)

// served is a server as New makes it, on a real listener.
func served(t *testing.T, handler http.HandlerFunc) (address string) {
	t.Helper()
	cert, key, err := certutil.GenerateSelfSignedCertKey("webhook.example", nil, nil)
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	config := TLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil })
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		assert.NoError(t, Serve(ctx, New(handler, config, slog.New(slog.DiscardHandler)), listener))
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return listener.Addr().String()
}

// dial is a client's connection that speaks what the client likes.
func dial(t *testing.T, address string) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn
}

func TestOnlyTLS13IsSpoken(t *testing.T) {
	address := served(t, http.NotFound)
	assert.Equal(t, uint16(tls.VersionTLS13), dial(t, address).ConnectionState().Version)

	_, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})

	assert.ErrorContains(t, err, "protocol version not supported")
}

func TestThereAreNoStreamsToExhaust(t *testing.T) {
	assert.Equal(t, "http/1.1", dial(t, served(t, http.NotFound)).ConnectionState().NegotiatedProtocol)
}

func TestAHeaderThatIsTooLargeIsRefused(t *testing.T) {
	address := served(t, func(http.ResponseWriter, *http.Request) {})
	for size, want := range map[int]int{32 << 10: http.StatusOK, 80 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		conn := dial(t, address)
		// The server may have said no, and stopped reading, before all is written.
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nLarge: "+strings.Repeat("x", size)+"\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		assert.Equal(t, want, response.StatusCode)
		assert.NoError(t, response.Body.Close())
	}
}

func TestAClientThatSendsTooSlowlyIsLeft(t *testing.T) {
	t.Run("with a header", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, served(t, http.NotFound))
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nSlow: ")
		require.NoError(t, err)
		_, err = io.ReadAll(conn) // until the server closes the connection
		assert.NoError(t, err)
	})
	t.Run("with a body", func(t *testing.T) {
		t.Parallel()
		read := make(chan error, 1)
		conn := dial(t, served(t, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			read <- err
		}))
		_, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nslow")
		require.NoError(t, err)
		var timeout net.Error
		require.True(t, errors.As(<-read, &timeout) && timeout.Timeout())
	})
}
