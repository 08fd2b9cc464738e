package manifests_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// service is what kube-proxy makes of a Service: each connection goes to the next of its pods.
type service struct {
	port  int
	count atomic.Int64 // of connections

	mu   sync.Mutex
	pods []string // their addresses
}

func newService(t *testing.T) *service {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "localhost:0")
	require.NoError(t, err)
	s := &service{port: listener.Addr().(*net.TCPAddr).Port}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.forward(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		// What is forwarded ends with the pods, which end with the test's context, or with the API server's connections.
	})
	return s
}

func (s *service) forward(client net.Conn) {
	defer client.Close()
	pod, err := net.Dial("tcp", s.next())
	if err != nil {
		return
	}
	defer pod.Close()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, pod}, {pod, client}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}

func (s *service) next() string {
	n := s.count.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pods) == 0 {
		return ""
	}
	return s.pods[int(n)%len(s.pods)]
}

func (s *service) set(pods ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods = pods
}

// leadHere makes an installation's Service lead to this one, and every review that goes wrong be seen: it would be let through
// otherwise. The name that the API server expects stays the Service's.
func (s *service) leadHere(t *testing.T, all objects) {
	t.Helper()
	for _, u := range all.of("Service") {
		u.Object["spec"] = map[string]any{"type": "ExternalName", "externalName": "localhost"}
	}
	for _, u := range all.of("MutatingWebhookConfiguration") {
		hooks, _, err := unstructured.NestedSlice(u.Object, "webhooks")
		require.NoError(t, err)
		hook := hooks[0].(map[string]any)
		hook["failurePolicy"], hook["timeoutSeconds"] = "Fail", int64(30) // a slow machine is no fault
		require.NoError(t, unstructured.SetNestedField(hook, int64(s.port), "clientConfig", "service", "port"))
		require.NoError(t, unstructured.SetNestedSlice(u.Object, hooks, "webhooks"))
	}
}

// shown is the certificate that a pod of the webhook serves by, if the bundle vouches for it under the Service's name.
func shown(ctx context.Context, address, namespace string, bundle []byte) (*x509.Certificate, error) {
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(bundle)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: trusted, ServerName: "airflow-requeue-webhook." + namespace + ".svc", MinVersion: tls.VersionTLS13}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}
