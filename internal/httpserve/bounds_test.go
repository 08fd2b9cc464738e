package httpserve

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	certutil "k8s.io/client-go/util/cert"
)

// served is a server as New makes it, on a real listener.
func served(t *testing.T, handler http.HandlerFunc) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serve(t, handler, listener)
	return listener.Addr().String()
}

func serve(t *testing.T, handler http.HandlerFunc, listener net.Listener) {
	t.Helper()
	cert, key, err := certutil.GenerateSelfSignedCertKey("webhook.example", nil, nil)
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	config := TLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil })
	config.SessionTicketsDisabled = true // a pipe has no room for one that nobody reads
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		assert.NoError(t, Serve(ctx, New(handler, config, slog.New(slog.DiscardHandler)), listener))
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
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

// TestAConnectionWaitsForARequestLongerThanClientsKeepIt is about clients in Go, as the API server is one: they open more
// connections than they come to need, and keep each for 90 s. A request on one that the server closes meanwhile is not tried again.
func TestAConnectionWaitsForARequestLongerThanClientsKeepIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := piped(t, func(http.ResponseWriter, *http.Request) {})
		require.NoError(t, conn.Handshake())
		for range 3 { // before its first request, and before others
			time.Sleep(90 * time.Second)
			_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			assert.NoError(t, response.Body.Close())
		}
	})
}

func TestAClientThatSendsTooSlowlyIsLeft(t *testing.T) {
	for name, test := range map[string]struct {
		sends string
		after time.Duration
		read  error // what the handler gets of the body
	}{
		"no handshake": {after: writeTimeout},
		"no header":    {sends: "GET / HTTP/1.1\r\nHost: a\r\nSlow: ", after: idleTimeout},
		"no body":      {sends: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nslow", after: bodyTimeout, read: os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var read error
				conn := piped(t, func(_ http.ResponseWriter, r *http.Request) { _, read = io.Copy(io.Discard, r.Body) })
				began := time.Now()
				to := io.ReadWriter(conn)
				if test.sends == "" {
					to = conn.NetConn()
				}
				_, err := io.WriteString(to, test.sends)
				require.NoError(t, err)

				_, err = io.ReadAll(to) // until the server closes the connection

				assert.NoError(t, err)
				assert.Equal(t, test.after, time.Since(began))
				assert.ErrorIs(t, read, test.read)
			})
		})
	}
}

// piped is a client's connection to a server as New makes it, in a bubble of synctest: by a pipe, since time stands still
// while anything waits for the network.
func piped(t *testing.T, handler http.HandlerFunc) *tls.Conn {
	t.Helper()
	client, server := net.Pipe()
	listener := &pipe{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	listener.conn <- server
	serve(t, handler, listener)
	t.Cleanup(func() { _ = client.Close() })
	return tls.Client(client, &tls.Config{InsecureSkipVerify: true})
}

// pipe listens for one connection.
type pipe struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conn:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (*pipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }
