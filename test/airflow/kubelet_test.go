package airflow_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// node is where internal/kubelet binds pods.
const node = "node"

// serveLogs is the part of a kubelet that the API server reads the logs of containers from.
func serveLogs(ctx context.Context) error {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.Split(strings.TrimPrefix(r.URL.Path, "/containerLogs/"), "/")
		if len(path) != 3 {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, said(path[1]))
	}))
	client, err := kubernetes.NewForConfig(shared.Servers.Config())
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	registered, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("registering a node: %w", err)
	}
	address := netip.MustParseAddrPort(server.Listener.Addr().String())
	registered.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address.Addr().String()}}
	registered.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(address.Port())
	if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, registered, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("writing the status of a node: %w", err)
	}
	return nil
}

// said is the log of a pod.
func said(pod string) string { return "hello from " + pod }
