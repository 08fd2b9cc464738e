package manifests_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
)

// runCertManager runs cert-manager's programs for a namespace.
func (x *installed) runCertManager(t *testing.T) {
	t.Helper()
	content, err := servers.Kubeconfig(servers.Config())
	require.NoError(t, err)
	kubeconfig := programs.File(t, "kubeconfig", content)
	log := &programs.Log{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("cert-manager: %s", log)
		}
	})
	programs.Start(t, log, filepath.Join(certManager, "controller"), "--kubeconfig="+kubeconfig, "--namespace="+x.Namespace, "--leader-elect=false",
		"--metrics-listen-address=127.0.0.1:0", "--controllers=issuers,certificates-trigger,certificates-issuing,certificates-key-manager,"+
			"certificates-request-manager,certificates-readiness,certificates-revision-manager,certificaterequests-approver,"+
			"certificaterequests-issuer-ca,certificaterequests-issuer-selfsigned")
	programs.StartIn(t, log, append(os.Environ(), "KUBECONFIG="+kubeconfig), filepath.Join(certManager, "cainjector"),
		"--namespace="+x.Namespace, "--leader-elect=false")
}

// renew has a Certificate renewed as `cmctl renew` does, and returns the Secret with the new one.
func (x *installed) renew(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	client, err := dynamic.NewForConfig(servers.Config())
	require.NoError(t, err)
	certificates := client.Resource(certmanagerv1.SchemeGroupVersion.WithResource("certificates")).Namespace(x.Namespace)
	u, err := certificates.Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	certificate := decode[certmanagerv1.Certificate](t, u)
	before := x.secret(t, certificate.Spec.SecretName).Data[corev1.TLSCertKey]
	now := metav1.NewTime(time.Now())
	certificate.Status.Conditions = append(certificate.Status.Conditions, certmanagerv1.CertificateCondition{Type: certmanagerv1.CertificateConditionIssuing,
		Status: cmmeta.ConditionTrue, Reason: "ManuallyTriggered", Message: "by the test", LastTransitionTime: &now, ObservedGeneration: certificate.Generation})
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": u.GetResourceVersion()}, "status": map[string]any{"conditions": certificate.Status.Conditions}})
	require.NoError(t, err)
	_, err = certificates.Patch(t.Context(), name, types.MergePatchType, raw, metav1.PatchOptions{}, "status")
	require.NoError(t, err)
	var secret *corev1.Secret
	x.eventually(t, "a new certificate "+name, func() bool {
		secret = x.secret(t, certificate.Spec.SecretName)
		return !bytes.Equal(before, secret.Data[corev1.TLSCertKey])
	})
	return secret
}

// TestACertificateOfCertManagersIsRenewedUnderLoadWithoutDroppingAReview plays kube-proxy and the kubelet; all else is real.
func TestACertificateOfCertManagersIsRenewedUnderLoadWithoutDroppingAReview(t *testing.T) {
	t.Parallel()
	x := install(t, "default")
	x.runCertManager(t)
	const name = "airflow-requeue-webhook-tls"
	x.eventually(t, "the webhook's certificate", func() bool {
		secret, err := x.Client.CoreV1().Secrets(x.Namespace).Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && len(secret.Data[corev1.TLSCertKey]) > 0
	})
	x.eventually(t, "the caBundle", func() bool { return len(x.bundle(t)) > 0 })
	mounted := secrets(t, x.World)
	mounted[name] = texts(x.secret(t, name))
	c, address := x.webhook(t, mounted)
	dir := c.mountedAt(t, "--tls-cert-file")
	mount(t, dir, x.secret(t, name))
	c.start(t, built["webhook"])
	c.probe(t, c.spec.ReadinessProbe)
	x.service.set(address)
	x.untilHeld(t)
	first, err := shown(t.Context(), address, x.Namespace, x.bundle(t))
	require.NoError(t, err)

	load := x.load(t)
	load.goOn(t, 20)
	serves := func(secret *corev1.Secret) {
		mount(t, dir, secret)
		x.eventually(t, "the new certificate to be served", func() bool {
			got, err := shown(t.Context(), address, x.Namespace, x.bundle(t))
			require.NoError(t, err, "it is vouched for at any time")
			return string(pemOf(got)) == string(secret.Data[corev1.TLSCertKey])
		})
		load.goOn(t, 20)
	}
	serves(x.renew(t, "airflow-requeue-webhook"))
	x.renew(t, "airflow-requeue-ca") // it still vouches for what it signed
	load.goOn(t, 20)
	serves(x.renew(t, "airflow-requeue-webhook"))
	load.withoutFailure(t)

	last, err := shown(t.Context(), address, x.Namespace, x.bundle(t))
	require.NoError(t, err)
	assert.NotEqual(t, first.SerialNumber, last.SerialNumber)
	assert.NotContains(t, c.log(t), "not loaded")
	t.Run("without cert-manager the webhook takes the authority over", func(t *testing.T) { x.leaveCertManager(t) })
}

// leaveCertManager does what ../../manifests/README.md says of the way from cert-manager to a webhook that signs its certificate itself.
func (x *installed) leaveCertManager(t *testing.T) {
	t.Helper()
	client, err := dynamic.NewForConfig(servers.Config())
	require.NoError(t, err)
	for _, resource := range []string{"certificates", "issuers"} {
		require.NoError(t, client.Resource(certmanagerv1.SchemeGroupVersion.WithResource(resource)).Namespace(x.Namespace).DeleteCollection(t.Context(),
			metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=airflow-requeue"}))
	}
	before := x.secret(t, "airflow-requeue-ca").Data
	x.all = selfSigned(t, x.Namespace)
	x.service.leadHere(t, x.all)
	granted(t, x.Namespace, x.all.rights())
	applyAll(t, x.all)
	c, address := x.webhook(t, secrets(t, x.World))
	c.start(t, built["webhook"])
	c.probe(t, c.spec.ReadinessProbe)
	x.service.set(address)
	x.untilHeld(t)
	_, err = shown(t.Context(), address, x.Namespace, before[corev1.TLSCertKey])
	require.NoError(t, err)
	assert.Equal(t, before, x.secret(t, "airflow-requeue-ca").Data)
	assert.NotContains(t, c.log(t), "not signed")
}
