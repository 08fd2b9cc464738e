package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const (
	// serverTimeout is for a busy machine: an idle one starts each server in seconds, under the race
	// detector's load envtest's own 20 s are not always enough.
	serverTimeout = time.Minute
	// attempts covers a port that somebody else takes between its choice and its use.
	attempts = 3
)

// Options say how a control plane differs from envtest's. The zero value is good for most tests.
type Options struct {
	// APIServerFlags are appended to kube-apiserver's flags: name, without dashes, to values.
	APIServerFlags map[string][]string
	// ServiceAccountAdmission keeps the ServiceAccount admission plugin on, which envtest switches off:
	// a pod then needs its service account, which nobody makes here, and is given a token volume.
	ServiceAccountAdmission bool
	// Log takes what both servers print. When nil, only a failed start shows the last of it.
	Log io.Writer
	// Progress takes what Assets says while it builds. When nil: os.Stderr.
	Progress io.Writer
}

// ControlPlane is a running etcd with a kube-apiserver. No controllers, scheduler or kubelets run: pods
// stay as they were written, and nobody but the tests deletes anything.
type ControlPlane struct {
	servers *envtest.ControlPlane
	users   sync.Mutex // guards servers' certificate authority, which counts serial numbers
	admin   *rest.Config
	runtime *runtimeDir
}

// Start starts a control plane and returns when it serves. The caller stops it; should this process die
// before, the servers die with it. ctx ends the start, not what was started.
func Start(ctx context.Context, opts Options) (*ControlPlane, error) {
	progress := opts.Progress
	if progress == nil {
		progress = os.Stderr
	}
	assets, err := Assets(ctx, progress)
	if err != nil {
		return nil, fmt.Errorf("starting a control plane: %w", err)
	}
	var failed error
	for range attempts {
		started, err := start(ctx, assets, opts)
		if err == nil {
			return started, nil
		}
		failed = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("starting a control plane: %w", failed)
}

func start(ctx context.Context, assets string, opts Options) (_ *ControlPlane, err error) {
	dir, err := newRuntimeDir(assets)
	if err != nil {
		return nil, err
	}
	log := &tail{to: opts.Log}
	c := &ControlPlane{runtime: dir, servers: configure(dir, log, opts)}
	// envtest's start takes no context: without its lifeline a server ends, and so does the wait for it.
	release := context.AfterFunc(ctx, dir.cut)
	defer release()
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%w; the servers' last words:\n%s", err, log), context.Cause(ctx), c.Stop())
		}
	}()
	if err := c.servers.Start(); err != nil {
		return nil, err
	}
	if c.admin, err = c.User("admin", "system:masters"); err != nil {
		return nil, err
	}
	if err := waitForNamespaces(ctx, c.admin); err != nil {
		return nil, err
	}
	return c, nil
}

func configure(dir *runtimeDir, log io.Writer, opts Options) *envtest.ControlPlane {
	servers := &envtest.ControlPlane{
		Etcd: &envtest.Etcd{
			Path: dir.launcher("etcd"), DataDir: filepath.Join(dir.path, "etcd-data"),
			StartTimeout: serverTimeout, StopTimeout: serverTimeout, Out: log, Err: log,
		},
		APIServer: &envtest.APIServer{
			// With a folder of its own envtest would throw away the certificates when the server is stopped,
			// and no user would get in after a restart.
			Path: dir.launcher("kube-apiserver"), CertDir: filepath.Join(dir.path, "certificates"),
			StartTimeout: serverTimeout, StopTimeout: serverTimeout, Out: log, Err: log,
		},
	}
	// etcd's 2 GiB are written within minutes by a benchmark: what was changed or deleted stays until the API server compacts it.
	servers.Etcd.Configure().Set("quota-backend-bytes", strconv.Itoa(8<<30))
	flags := servers.APIServer.Configure()
	// Without it the server waits a minute for clients to end their watches before it stops.
	flags.Set("shutdown-watch-termination-grace-period", "1s")
	if opts.ServiceAccountAdmission {
		flags.Disable("disable-admission-plugins")
	}
	for name, values := range opts.APIServerFlags {
		flags.Append(name, values...)
	}
	return servers
}

// waitForNamespaces waits for the namespaces that the API server itself makes, a moment after it serves.
func waitForNamespaces(ctx context.Context, cfg *rest.Config) error {
	clients, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
		err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, serverTimeout, true, func(ctx context.Context) (bool, error) {
			_, err := clients.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
			return err == nil, nil // not there yet, or not served yet
		})
		if err != nil {
			return fmt.Errorf("waiting for namespace %s: %w", name, err)
		}
	}
	return nil
}

// StopAPIServer stops kube-apiserver alone, gracefully: an outage. What it stored stays in etcd.
func (c *ControlPlane) StopAPIServer() error {
	if err := c.servers.APIServer.Stop(); err != nil {
		return fmt.Errorf("stopping the API server: %w", err)
	}
	return nil
}

// StartAPIServer ends an outage: same address, same certificates, so every config stays good.
func (c *ControlPlane) StartAPIServer() error {
	if err := c.servers.APIServer.Start(); err != nil {
		return fmt.Errorf("starting the API server again: %w", err)
	}
	return nil
}

// Etcd is where etcd listens, by plain HTTP.
func (c *ControlPlane) Etcd() string { return c.servers.Etcd.URL.String() }

// Stop stops both servers and removes all that they wrote. To stop twice does no harm.
func (c *ControlPlane) Stop() error {
	if err := errors.Join(c.servers.Stop(), c.runtime.remove()); err != nil {
		return fmt.Errorf("stopping the control plane: %w", err)
	}
	return nil
}
