package manifests_test

import (
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
// of them was given; then it has that made anew.
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
	_, err := x.Client.CoreV1().Secrets(x.Namespace).Patch(t.Context(), name, types.MergePatchType, []byte(`{"data":null}`), metav1.PatchOptions{})
	require.NoError(t, err)
	x.eventually(t, "a new authority", func() bool {
		now := x.secret(t, name).Data[corev1.TLSCertKey]
		return len(now) > 0 && string(now) != string(before)
	})
	after := x.secret(t, name).Data[corev1.TLSCertKey]
	block, _ := pem.Decode(after)
	authority, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
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
		assert.NotContains(t, log, "forbidden")
		assert.NotContains(t, log, "not made")
		assert.NotContains(t, log, "not kept right")
	}
}
