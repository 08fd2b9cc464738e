package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/executor"
	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	namespace     = "airflow"
	schedulerUser = "system:serviceaccount:airflow:airflow-scheduler"
)

// airflowPod is a pod as Airflow's scheduler submits it.
func airflowPod() *corev1.Pod {
	task := executor.NewTask("etl", "load", "manual__1", time.Now())
	task.Namespace = namespace
	return executor.Pod(task)
}

// cluster is a real API server.
type cluster struct {
	*controlplane.ControlPlane
	admin *user
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	plane, err := controlplane.Start(t.Context(), controlplane.Options{Progress: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, plane.Stop()) })
	c := &cluster{ControlPlane: plane, admin: newUser(t, plane.Config())}
	_, err = c.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	require.NoError(t, err)
	return c
}

func (c *cluster) kubeconfig(t *testing.T) string {
	t.Helper()
	content, err := c.Kubeconfig(c.Config())
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

// register configures the webhook as it is installed, but for the failure policy: Fail shows every fault.
func (c *cluster) register(t *testing.T, name, url string, caBundle []byte) {
	t.Helper()
	config := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name:                    "hold.airflow-requeue.dev",
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: caBundle},
			AdmissionReviewVersions: []string{"v1"},
			FailurePolicy:           ptr.To(admissionregistrationv1.Fail),
			ReinvocationPolicy:      ptr.To(admissionregistrationv1.IfNeededReinvocationPolicy),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			TimeoutSeconds:          ptr.To(int32(30)), // and not 2: a slow machine is no fault
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{requeue.LabelKubernetesExecutor: "True"}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}
	_, err := c.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), config, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, c.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(context.Background(), name, metav1.DeleteOptions{}))
	})
}

func (c *cluster) as(t *testing.T, name string) *user {
	t.Helper()
	config, err := c.User(name, "system:masters")
	require.NoError(t, err)
	return newUser(t, config)
}

// user is a client that keeps the warnings it is given.
type user struct {
	kubernetes.Interface
	mu     sync.Mutex
	warned []string
}

func newUser(t *testing.T, config *rest.Config) *user {
	t.Helper()
	u := &user{}
	config.WarningHandler = u
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	u.Interface = client
	return u
}

// HandleWarningHeader makes a user a rest.WarningHandler.
func (u *user) HandleWarningHeader(_ int, _, text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.warned = append(u.warned, text)
}

func (u *user) warnings() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.warned
}

func (u *user) create(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := u.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	return created
}

// createUntil creates pods until one is as wanted.
func (u *user) createUntil(t *testing.T, as func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	require.Eventually(t, func() bool {
		pod = u.create(t, airflowPod())
		return as(pod)
	}, waitFor, tick)
	return pod
}

func (u *user) read(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := u.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return pod
}

// leader is a watcher that does no more than lead.
type leader struct {
	t       *testing.T
	admin   *user
	mu      sync.Mutex
	isReady bool
	cancel  context.CancelFunc
	over    sync.WaitGroup
}

const renewEvery = 300 * time.Millisecond

func (c *cluster) newLeader(t *testing.T) *leader {
	t.Helper()
	l := &leader{t: t, admin: c.admin, isReady: true, cancel: func() {}}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "airflow-requeue", Labels: map[string]string{requeue.LabelReady: "true"}}}
	_, err := l.admin.CoordinationV1().Leases(namespace).Create(t.Context(), lease, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(l.stop)
	return l
}

func (l *leader) ready(ready bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isReady = ready
}

func (l *leader) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.over.Go(func() {
		ticker := time.NewTicker(renewEvery)
		defer ticker.Stop()
		for {
			l.renew(ctx)
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
}

func (l *leader) renew(ctx context.Context) {
	l.mu.Lock()
	ready := l.isReady
	l.mu.Unlock()
	leases := l.admin.CoordinationV1().Leases(namespace)
	lease, err := leases.Get(ctx, "airflow-requeue", metav1.GetOptions{})
	if err == nil {
		lease.Labels[requeue.LabelReady] = strconv.FormatBool(ready)
		lease.Spec.HolderIdentity = ptr.To("watcher-1")
		lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if ctx.Err() == nil {
		assert.NoError(l.t, err)
	}
}

func (l *leader) stop() {
	l.cancel()
	l.over.Wait()
}

// authority issues certificates for 127.0.0.1.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(100), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

type certificateFiles struct{ cert, key string }

// issue writes a certificate with the serial number to the files in dir.
func (a *authority) issue(t *testing.T, dir string, serial int64) certificateFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	files := certificateFiles{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	require.NoError(t, os.WriteFile(files.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(files.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return files
}
