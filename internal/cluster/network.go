// Package cluster plays what a bare control plane lacks for the pods of an installation: the controllers of Deployments
// and Jobs, a kubelet that runs containers as local processes, by the token and the rights of their service account and
// with their Secrets mounted, and the way from the API server to a Service. Airflow's worker pods are not its business.
package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
)

// Network is how an API server reaches Services: it asks for a tunnel to a cluster IP, by HTTP's CONNECT, as it does of
// konnectivity, and gets one to a pod that is ready. So no address of this machine is needed but loopback's, nor any right.
type Network struct {
	listener net.Listener
	config   string
	client   atomic.Pointer[kubernetes.Clientset]
}

const egress = `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
  - name: cluster
    connection:
      proxyProtocol: HTTPConnect
      transport:
        uds:
          udsName: %s
`

// NewNetwork listens in a folder until it is closed.
func NewNetwork(dir string) (*Network, error) {
	path := filepath.Join(dir, "network.sock")
	listener, err := net.Listen("unix", path) //nolint:noctx // it lasts
	if err != nil {
		return nil, fmt.Errorf("listening for the API server: %w", err)
	}
	n := &Network{listener: listener, config: filepath.Join(dir, "egress.yaml")}
	if err := os.WriteFile(n.config, fmt.Appendf(nil, egress, path), 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	go n.serve()
	return n, nil
}

// APIServerFlags are what the API server needs to use it.
func (n *Network) APIServerFlags() map[string][]string {
	return map[string][]string{"egress-selector-config-file": {n.config}}
}

// Connect tells it whose Services these are.
func (n *Network) Connect(client *kubernetes.Clientset) { n.client.Store(client) }

// Close ends what comes anew.
func (n *Network) Close() error { return n.listener.Close() }

func (n *Network) serve() {
	for {
		connection, err := n.listener.Accept()
		if err != nil {
			return
		}
		go n.tunnel(connection)
	}
}

func (n *Network) tunnel(from net.Conn) {
	defer from.Close()
	reader := bufio.NewReader(from)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	address, err := n.resolve(context.Background(), request.Host)
	var to net.Conn
	if err == nil {
		to, err = (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
	}
	if err != nil {
		_, _ = fmt.Fprintf(from, "HTTP/1.1 503 %v\r\n\r\n", err)
		return
	}
	defer to.Close()
	if _, err := io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(to, reader)
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(from, to)
}

// resolve finds a pod that is ready behind a Service's cluster IP and port.
func (n *Network) resolve(ctx context.Context, address string) (string, error) {
	client := n.client.Load()
	if client == nil {
		return "", errors.New("no cluster yet")
	}
	ip, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	services, err := client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	for _, service := range services.Items {
		for _, p := range service.Spec.Ports {
			if service.Spec.ClusterIP == ip && strconv.Itoa(int(p.Port)) == port {
				return n.endpoint(ctx, client, &service, p.TargetPort.StrVal)
			}
		}
	}
	return "", fmt.Errorf("no Service at %s", address)
}

func (n *Network) endpoint(ctx context.Context, client kubernetes.Interface, service *corev1.Service, port string) (string, error) {
	pods, err := client.CoreV1().Pods(service.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(service.Spec.Selector).String()})
	if err != nil {
		return "", err
	}
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil || !isReady(&pod) {
			continue
		}
		for _, container := range pod.Spec.Containers {
			for _, p := range container.Ports {
				if p.Name == port {
					return net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(p.ContainerPort))), nil
				}
			}
		}
	}
	return "", fmt.Errorf("no pod of Service %s/%s is ready", service.Namespace, service.Name)
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
