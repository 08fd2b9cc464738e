package manifests_test

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pemOf is a certificate as text.
func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// certificatesOf are those of a bundle.
func certificatesOf(bundle []byte) []*pem.Block {
	var all []*pem.Block
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		all = append(all, block)
	}
	return all
}

// TestAnAuthorityOfOurOwnIsReplacedUnderLoadWithoutDroppingAReview starts two replicas at once, which share an authority that none
// of them was given. Then it has that made anew, while for some time nobody may have it trusted.
func TestAnAuthorityOfOurOwnIsReplacedUnderLoadWithoutDroppingAReview(t *testing.T) {
	t.Parallel()
	const name = "airflow-requeue-ca"
	x := install(t, "self-signed")
	var replicas []*container
	var addresses []string
	for range 2 {
		c, address := x.webhook(t, secrets(t, x.World))
		c.start(t, built["webhook"])
		replicas, addresses = append(replicas, c), append(addresses, address)
	}
	for _, c := range replicas {
		c.probe(t, c.spec.ReadinessProbe)
	}
	x.service.set(addresses...)
	x.untilHeld(t)
	// served are the certificates of both replicas; each is vouched for at any time.
	served := func() (all []*x509.Certificate) {
		for _, address := range addresses {
			bundle := x.bundle(t)
			certificate, err := shown(t.Context(), address, x.Namespace, bundle)
			require.NoError(t, err, "%s, by %s", address, bundle)
			all = append(all, certificate)
		}
		return all
	}
	before := x.secret(t, name).Data[corev1.TLSCertKey]
	assert.Equal(t, string(before), string(x.bundle(t)), "both have settled on one authority")
	served()

	load := x.load(t)
	load.goOn(t, 20)
	x.eventually(t, "the caBundle", func() bool { return string(x.bundle(t)) == string(before) })
	x.mayPatch(t, false)
	authority := x.newAuthority(t)
	for _, c := range replicas {
		x.eventually(t, "a replica to fail to have the new authority trusted", func() bool { return strings.Contains(c.output.String(), notTrusted) })
	}
	for _, certificate := range served() {
		require.Error(t, certificate.CheckSignatureFrom(authority), "nobody trusts it yet")
	}
	load.goOn(t, 20)
	x.mayPatch(t, true)
	after := pemOf(authority)
	x.eventually(t, "both replicas to serve by the new authority", func() bool {
		all := served()
		return all[0].CheckSignatureFrom(authority) == nil && all[1].CheckSignatureFrom(authority) == nil
	})
	load.goOn(t, 20)
	load.withoutFailure(t)
	both := func() bool { return string(x.bundle(t)) == string(after)+string(before) }
	x.eventually(t, "both authorities: who is cut off may still serve by the old one", both)

	t.Run("to apply the manifests again changes neither authority nor caBundle", func(t *testing.T) {
		applyAll(t, x.all)
		assert.Equal(t, string(after), string(x.secret(t, name).Data[corev1.TLSCertKey]))
		assert.True(t, both())
	})
	t.Run("a caBundle that somebody takes away is put back", func(t *testing.T) {
		_, err := x.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), x.Namespace, types.JSONPatchType,
			[]byte(`[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]`), metav1.PatchOptions{})
		require.NoError(t, err)
		x.eventually(t, "the caBundle", func() bool { return string(x.bundle(t)) == string(after) })
		x.untilHeld(t)
	})
	for _, c := range replicas {
		log := c.log(t)
		assert.Equal(t, 1, strings.Count(log, notTrusted), "it is said once")
		assert.Equal(t, 1, strings.Count(log, "forbidden"))
		assert.NotContains(t, log, "not signed")
	}
}

// notTrusted is what a replica says that can't put its authority into the caBundle.
const notTrusted = "caBundle not kept right"

// mayPatch grants the webhook its right to change the caBundle, or takes it.
func (x *installed) mayPatch(t *testing.T, may bool) {
	t.Helper()
	all := selfSigned(t, x.Namespace)
	if !may {
		for _, r := range ofAuthority(t) {
			if r.verb == "patch" {
				r.take(t, all)
			}
		}
	}
	applyAll(t, all.of("ClusterRole"))
	x.eventually(t, "the right to patch", func() bool {
		return may == allowed(t, x.Namespace, "airflow-requeue-webhook", authorizationv1.ResourceAttributes{Verb: "patch",
			Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations", Name: x.Namespace})
	})
}

// newAuthority has the authority made anew, as it is when two thirds of its life are over.
func (x *installed) newAuthority(t *testing.T) *x509.Certificate {
	t.Helper()
	const name = "airflow-requeue-ca"
	before := x.secret(t, name).Data[corev1.TLSCertKey]
	_, err := x.Client.CoreV1().Secrets(x.Namespace).Patch(t.Context(), name, types.MergePatchType, []byte(`{"data":null}`), metav1.PatchOptions{})
	require.NoError(t, err)
	var after []byte
	x.eventually(t, "a new authority", func() bool {
		after = x.secret(t, name).Data[corev1.TLSCertKey]
		return len(after) > 0 && string(after) != string(before)
	})
	authority, err := x509.ParseCertificate(certificatesOf(after)[0].Bytes)
	require.NoError(t, err)
	return authority
}
